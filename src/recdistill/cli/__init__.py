"""The commands. Nothing heavy is imported before a command needs it, so that `--help` is quick."""

from __future__ import annotations

import errno
import io
import os
import sys

__all__ = ["main"]

_OF_THE_PLACE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
"""What a file system says of a path that the user chose: not allowed, full, not there, no folder."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a file says, often without its name, when there is no room left for it."""


def main() -> None:
    """Run the command line. What the user can mend is one message and exit 2; anything else shows its traceback."""
    from recdistill.cli.app import app
    from recdistill.errors import RecdistillError

    for stream in (sys.stdout, sys.stderr):  # what the terminal's encoding lacks is escaped, not refused
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="recdistill")
    except RecdistillError as error:
        from recdistill.cli.screen import show_error

        show_error(str(error))
        sys.exit(2)
    except OSError as error:
        if error.errno not in _OF_THE_PLACE or (error.filename is None and error.errno not in _FULL):
            raise
        from recdistill.cli.screen import show_error
        from recdistill.errors import problem

        where = "What is written here" if error.filename is None else repr(str(error.filename))
        what = f"{where} cannot be used: {(error.strerror or '').lower()}"
        show_error(problem(what, remedy="Give another place, or mend this one"))
        _close_output()
        sys.exit(2)


def _close_output() -> None:
    """Let what could not be written go: python would try again at its end, and complain once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
