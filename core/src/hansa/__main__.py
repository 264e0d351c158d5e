"""`python -m hansa` and the `hansa` script: the command line."""

import sys

from hansa.cli.application import main as run_command


def main() -> None:
    """Run the command that was typed, and leave with its exit status."""
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
