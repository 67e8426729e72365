"""Seeds of the streams of random numbers that one seed stands for."""

import hashlib
import operator
import secrets

__all__ = ["fresh_if_none", "stream_seed"]


def fresh_if_none(seed: int | None) -> int:
    """The seed, or where none is given one that the operating system draws.

    It has 31 bits, so that every format and library can hold it.

    Raises:
        ValueError: If it is no whole number.

    Example:
        >>> fresh_if_none(3)
        3
        >>> fresh_if_none(None) == fresh_if_none(None)
        False
    """
    if seed is None:
        return secrets.randbits(31)
    try:
        return operator.index(seed)
    except TypeError:
        raise ValueError(f"seed: expected a whole number or None; got {seed!r}") from None


def stream_seed(seed: int, name: str) -> int:
    """Seed of the stream that a purpose draws from, so that no two purposes share their numbers.

    Sums such as ``seed + 1`` collide as soon as one function hands its seed to another; a name
    does not.

    Args:
        seed: Given by the user.
        name: Of the purpose.

    Returns:
        The first 63 bits of the SHA-256 digest of both.

    Raises:
        ValueError: If there is no seed.

    Example:
        >>> stream_seed(0, "hmc") == stream_seed(0, "ais")
        False
    """
    if seed is None:  # whose name would be a seed like any other
        raise ValueError("seed: expected a whole number; got None")
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
