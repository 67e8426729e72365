"""The command line: one file a command, named by it."""

from aevb.cli.command_line import main

__all__ = ["main"]
