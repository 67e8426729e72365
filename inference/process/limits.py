"""Numbers that a caller may give."""

__all__ = ["refuse_below", "refuse_improper_share"]


def refuse_below(least: int, **numbers: int | None) -> None:
    """Refuse numbers that are too small, by name; None is none.

    Raises:
        ValueError: Names the first.

    Example:
        >>> refuse_below(1, num_chains=4, chain_batch_size=None)
    """
    for name, value in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"{name}: must be at least {least}; got {value}")


def refuse_improper_share(**shares: float) -> None:
    """Refuse what does not lie between 0 and 1, by name.

    Raises:
        ValueError: Names the first.

    Example:
        >>> refuse_improper_share(target_acceptance=0.8)
    """
    for name, value in shares.items():
        if not 0 < value < 1:
            raise ValueError(f"{name}: must lie between 0 and 1; got {value}")
