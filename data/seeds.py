"""Seeds of the streams of random numbers that one seed stands for."""

import hashlib

__all__ = ["stream_seed"]


def stream_seed(seed: int, name: str) -> int:
    """Seed of the stream that a purpose draws from, so that no two purposes share their numbers.

    Sums such as ``seed + 1`` collide as soon as one function hands its seed to another; a name
    does not.

    Args:
        seed: Given by the user.
        name: Of the purpose.

    Returns:
        The first 63 bits of the SHA-256 digest of both.

    Example:
        >>> stream_seed(0, "hmc") == stream_seed(0, "ais")
        False
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
