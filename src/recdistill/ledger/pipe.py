"""Events from a pipe that may never end: read by a thread, taken in parts, each line known by its number.

A signal that ends the process (SIGINT, SIGTERM) ends the pipe first: what has been read is taken in, then the signal
has its usual way; a second one has it at once.
"""

from __future__ import annotations

import signal
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import BadRows, DataError, UsageError, problem
from recdistill.ledger.events import gathered
from recdistill.ledger.spool import spooled

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path
    from typing import TextIO

    from recdistill.data.formats.table import OnBadRows
    from recdistill.ledger.events import Events

__all__ = ["Part", "batches", "chunks"]

NAME = "standard input"


@dataclass
class Part:
    """Lines of a pipe, in a file as long as somebody reads them."""

    path: Path
    lines: dict[int, str]
    """Number -> line; the first line of the pipe is 1."""

    def keep(self, lines: dict[int, str]) -> None:
        """Write the file, with these lines."""
        self.lines = lines
        self.path.write_text("".join(f"{line}\n" for line in lines.values()), encoding="utf-8", newline="\n")


def chunks(lines: TextIO, folder: Path, *, size: int, seconds: float = 5.0) -> Generator[Part]:
    """JSON lines from a pipe in parts; the file of each is removed once it has been read.

    Args:
        lines: the pipe; it may never end.
        folder: where the pipe gets a folder of its own for them, see `spool`.
        size: the most lines of a part.
        seconds: the most that a line waits for others.

    Raises:
        DataError: the pipe breaks; what came before has been given.
    """
    waiting, room, failed = SimpleQueue[tuple[int, str] | None](), Semaphore(size), list[Exception]()

    def read_on() -> None:
        try:
            for number, line in enumerate(_bytes_of(lines), 1):
                text = _text(line)
                if text.strip():
                    room.acquire()
                    waiting.put((number, text))
        except (OSError, ValueError) as error:  # ValueError: a pipe that was closed here
            failed.append(error)
        waiting.put(None)

    with _ending(lambda: waiting.put(None)), spooled(folder) as own:
        Thread(target=read_on, daemon=True).start()
        more = True
        while more:
            found, more = _gather(waiting, room, size, seconds)
            if not found:
                continue
            part = Part(own / "lines.jsonl", {})
            part.keep(found)
            try:
                yield part
            finally:
                part.path.unlink(missing_ok=True)
    if failed:
        what = f"{NAME} cannot be read on ({failed[0]})"
        raise DataError(problem(what, remedy="What came before is in the ledger; send the lines again"))


def batches(
    lines: TextIO,
    folder: Path,
    *,
    size: int,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: OnBadRows = "error",
    echo: Callable[[str], object] | None = None,
) -> Generator[Events]:
    """The events of a pipe, part by part.

    Args:
        lines: the pipe; it may never end.
        folder: as in `chunks`.
        size: the most lines of a part.
        columns: role -> column; beside the roles of `read`, `event`.
        on_bad_rows: "error" ends at the first bad line, after what came before it; "skip" leaves bad lines out.
        echo: told of what was left out.

    Raises:
        BadRows: a bad line.
        DataError, UsageError: as in `gathered`.
    """
    if on_bad_rows not in ("error", "skip"):
        raise UsageError(problem("on_bad_rows must say what to do with them", on_bad_rows, allowed=["error", "skip"]))
    skipping = None if on_bad_rows == "error" else echo or str
    some = False
    with closing(chunks(lines, folder, size=size)) as parts:
        for part in parts:
            try:
                for events in _readable(part, columns, skipping):
                    some = True
                    yield events
            except DataError as error:
                if skipping is None or not some:  # the first lines tell whether the columns are those
                    raise
                skipping(f"{NAME}: skipped {len(part.lines):,} lines: {error}")


def _readable(
    part: Part, columns: Mapping[str, str] | None, skipping: Callable[[str], object] | None
) -> Iterator[Events]:
    """The events of a part, once or not at all.

    Of the lines before the first bad one, and then the error; where bad lines are skipped of all the others.
    """
    failed: BadRows | None = None
    while part.lines:
        numbers = np.array(list(part.lines), np.int64)
        try:
            # what a pipe delivers twice counts once
            events = gathered(part.path, columns=columns, repeats=False, called=NAME, numbers=numbers)
        except BadRows as error:
            bad = set(error.lines)
            if not bad:
                raise
            if skipping is None:
                failed, last = failed or error, min(bad)
                part.keep({n: line for n, line in part.lines.items() if n < last})
            else:
                skipping(f"{NAME}: {error.told[0].lower()}{error.told[1:]}")
                part.keep({n: line for n, line in part.lines.items() if n not in bad})
            continue
        part.path.unlink()
        yield events
        break
    if failed is not None:
        raise failed


@contextmanager
def _ending(end: Callable[[], object]) -> Generator[None]:
    """The first SIGINT or SIGTERM calls `end`; it has its usual way when the block is left, and so has every other."""
    if current_thread() is not main_thread():
        yield
        return
    usual = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    came: list[int] = []

    def restore() -> None:
        for one, handler in usual.items():
            signal.signal(one, handler)

    def ended(number: int, _frame: object) -> None:
        came.append(number)
        restore()
        end()

    for one, handler in usual.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, ended)
    try:
        yield
    finally:
        restore()
    for number in came:
        signal.raise_signal(number)


def _gather(
    waiting: SimpleQueue[tuple[int, str] | None], room: Semaphore, size: int, seconds: float
) -> tuple[dict[int, str], bool]:
    """The lines that come within `seconds` of the first, and whether there may be more after them."""
    found: dict[int, str] = {}
    until = float("inf")
    while len(found) < size:
        try:
            line = waiting.get(timeout=max(until - time.monotonic(), 0.0)) if found else waiting.get()
        except Empty:
            break
        if line is None:
            return found, False
        room.release()
        if not found:
            until = time.monotonic() + seconds
        found[line[0]] = line[1]
    return found, True


def _bytes_of(lines: TextIO) -> Any:  # noqa: ANN401 - a stream of bytes, or of text where there is nothing below it
    """What is under a text.

    A pipe gets a reader of its own: the interpreter cannot end while a thread waits in that of standard input.
    """
    try:
        return open(lines.fileno(), "rb", closefd=False)  # for as long as its thread
    except OSError:
        return getattr(lines, "buffer", lines)


def _text(line: bytes | str) -> str:
    """A line without its end; one that is no text is put so that it can be no JSON either, and is told as a bad row."""
    raw = line if isinstance(line, bytes) else line.encode(errors="surrogatepass")
    try:
        text = raw.decode().rstrip("\r\n").removeprefix("\ufeff")
    except UnicodeDecodeError:
        return f"not UTF-8: {raw.decode(errors='backslashreplace').strip()}"
    return f"zero bytes: {text}".replace("\0", "\\0") if "\0" in text else text
