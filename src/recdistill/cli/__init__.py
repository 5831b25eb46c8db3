"""The commands. Nothing heavy is imported before a command needs it, so that `--help` is quick."""

from __future__ import annotations

import errno
import sys

__all__ = ["main"]

_OF_THE_PLACE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
"""What a file system says of a path that the user chose: not allowed, full, not there, no folder."""


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
    except OSError as error:
        if error.filename is None or error.errno not in _OF_THE_PLACE:
            raise
        from recdistill.cli.screen import show_error
        from recdistill.errors import problem

        what = f"{str(error.filename)!r} cannot be used: {(error.strerror or '').lower()}"
        show_error(problem(what, remedy="Give another place, or mend this one"))
        sys.exit(2)
