"""``python -m aevb`` and the ``aevb`` command."""

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from aevb.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
