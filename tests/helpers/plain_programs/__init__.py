"""Pyro programs as Pyro's users write them, for one run at a time, with what is known of them.

None is written for an outer plate of draws: they index latents from the left, multiply matrices
by vectors, reduce, stack, loop, and look at shapes. Their data are a handful of numbers.
"""

from plain_programs import compositions, geometry, plates, regressions
from plain_programs.record import PlainProgram, float64

__all__ = ["PROGRAMS", "PlainProgram", "float64", "named"]

PROGRAMS = [
    *regressions.PROGRAMS,
    *compositions.PROGRAMS,
    *plates.PROGRAMS,
    *geometry.PROGRAMS,
]


def named(name: str) -> PlainProgram:
    """One of the programs.

    Args:
        name: Of it.
    """
    return next(program for program in PROGRAMS if program.name == name)
