"""The commands. Nothing heavy is imported before a command needs it, so that `--help` is quick."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. What the user can mend is one message and exit 2; anything else shows its traceback."""
    from recdistill.cli.app import app
    from recdistill.errors import RecdistillError

    try:
        app(prog_name="recdistill")
    except RecdistillError as error:
        from recdistill.cli.screen import show_error

        show_error(str(error))
        sys.exit(2)
