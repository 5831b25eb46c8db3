"""A stream on a directory: `init`, `ingest`, `step`, `rollback`, `forget`. Nothing here imports torch before `step`.

stream.toml      settings
ledger/          events: an index and segments
objects/         what stages put out
versions/        published bundles; `serving` links to one of them
work/            checkpoints of a stage under way
"""

from __future__ import annotations

import shutil
import time
from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Self

from recdistill.errors import SettingsError, UsageError, problem
from recdistill.ledger import Ledger, Objects, Versions
from recdistill.ledger.events import gathered
from recdistill.ledger.locks import held
from recdistill.ledger.pipe import batches
from recdistill.settings import parse
from recdistill.stream import disk, settings
from recdistill.stream.chain import unfinished, unserved
from recdistill.stream.cycle import Cycle
from recdistill.stream.forget import finish, forget
from recdistill.stream.journal import Journal
from recdistill.stream.protocol import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path
    from typing import TextIO

    from recdistill.data.formats.table import OnBadRows
    from recdistill.ledger import Ingested
    from recdistill.stream.journal import Watcher
    from recdistill.stream.protocol import Stages
    from recdistill.stream.settings import StreamSettings

__all__ = ["METHODS", "Stream"]

METHODS = {"ccd": "recdistill.stream.ccd", "finetune": "recdistill.stream.finetune"}
"""Methods on a stream -> the module that registers them; it is imported when a step needs it."""

_SETTINGS = "stream.toml"
_LINES = 100_000
_WAIT = 10.0


class Stream:
    """An open stream; a context manager that closes it.

    Args:
        folder: as `create` made it.
        assignments: settings for this process, as given to `--set`.

    Raises:
        UsageError: there is no stream.
        SettingsError: its settings cannot be read.
    """

    def __init__(self, folder: Path, *, assignments: Sequence[str] = ()) -> None:
        if not (folder / _SETTINGS).is_file():
            remedy = f"Begin one with `recdistill stream init {folder}`"
            raise UsageError(problem(f"There is no stream at {folder}", remedy=remedy))
        self.folder = folder
        self.settings: StreamSettings = settings.read(folder / _SETTINGS, assignments)
        self.ledger = Ledger(folder, self.settings.rule)
        self.objects, self.versions = Objects(folder / "objects"), Versions(folder)

    @classmethod
    def create(cls, folder: Path, text: str) -> Self:
        """A new stream.

        Args:
            folder: which must not be there, or be empty.
            text: its settings, as TOML.

        Raises:
            UsageError: something is in the folder.
            SettingsError: the settings cannot be used; nothing is made then.
        """
        place = folder / f".{_SETTINGS}"  # its name is what tells a folder that a killed process has begun
        if folder.is_dir() and place.exists() and not (folder / _SETTINGS).exists():
            shutil.rmtree(folder / "ledger", ignore_errors=True)
            place.unlink()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(problem(f"{folder} is there, and not empty", remedy="Give a new folder"))
        folder.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        try:
            found = settings.read(place)
            method_of(found)
        except BaseException:
            place.unlink()
            raise
        Ledger.create(folder, found.rule).close()
        place.replace(folder / _SETTINGS)
        return cls(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self.ledger.close()

    def journal(self, watch: Watcher | None = None) -> Journal:
        """Which stages are done."""
        return Journal(self.ledger.index, self.objects, self.folder / "work", seed=self.settings.seed, watch=watch)

    def ingest(
        self,
        source: object,
        *,
        columns: Mapping[str, str] | None = None,
        on_bad_rows: OnBadRows = "error",
        echo: Callable[[str], object] | None = None,
        now: float | None = None,
    ) -> Ingested:
        """Append what is new of a log; never waits for a step.

        Args:
            source: all that `recdistill.read` takes. A column `event_id` names events; without it an event is known by
                what it says, and by its place among equal ones of this batch.
            columns: role -> column; beside the roles of `read`, `event`.
            on_bad_rows: "error" takes in nothing of a batch with bad rows; "skip" leaves them out.
            echo: told what was inferred.
            now: Unix seconds of arrival; None reads the clock.
        """
        return self.ledger.ingest(gathered(source, columns=columns, on_bad_rows=on_bad_rows, echo=echo), now=now)

    def ingest_lines(
        self,
        lines: TextIO,
        *,
        columns: Mapping[str, str] | None = None,
        on_bad_rows: OnBadRows = "error",
        size: int = _LINES,
        echo: Callable[[str], object] | None = None,
        told: Callable[[Ingested], object] | None = None,
        now: float | None = None,
    ) -> Ingested | None:
        """Append JSON lines from a pipe, at most `size` at a time and every few seconds.

        What a pipe delivers twice counts once: equal lines without ids are one event here. None where nothing came.
        SIGINT and SIGTERM end the pipe first: what has been read is appended, then they have their usual way.

        Args:
            lines: the pipe; it may never end.
            columns: as in `ingest`.
            on_bad_rows: "error" ends at the first bad line, after what came before it; "skip" leaves bad lines out.
            size: the most lines at a time.
            echo: told of the lines that were left out.
            told: told of what became of each batch.
            now: Unix seconds of arrival; None reads the clock.
        """
        done: Ingested | None = None
        place = self.ledger.spool()
        with closing(batches(lines, place, size=size, columns=columns, on_bad_rows=on_bad_rows, echo=echo)) as found:
            for batch in found:
                one = self.ledger.ingest(batch, now=now)
                done = one if done is None else done + one
                if told is not None:
                    told(one)
        return done

    def step(
        self,
        *,
        stages: Stages | None = None,
        blocks: int | None = None,
        close: bool = False,
        watch: Watcher | None = None,
        now: float | None = None,
    ) -> list[int]:
        """Do everything that is due: unfinished cycles, in order, then upkeep. Safe to kill, and to repeat.

        Args:
            stages: the method; None takes the one that the settings name.
            blocks: finish at most so many cycles; None takes all.
            close: close the open block first, however young.
            watch: told of every stage.
            now: Unix seconds; None reads the clock.

        Returns:
            The cycles that were finished.

        Raises:
            UsageError: another process steps this stream.
            SettingsError: the device is not there; the method is of another shape than what the stream has made.
        """
        done: list[int] = []
        with self._stepping():
            journal = self.journal(watch)
            finish(self)
            self.ledger.close_open(now=now, asked=close)
            due = unfinished(journal, self.ledger.blocks(), self.settings.teacher.every)
            for block in due[:blocks]:
                stages = _trainable(self.settings) if stages is None else stages
                cycle = Cycle(
                    block,
                    settings=self.settings,
                    stages=stages,
                    ledger=self.ledger,
                    journal=journal,
                    versions=self.versions,
                )
                cycle.run()
                done.append(block.number)
                disk.upkeep(self)
            if not done:
                disk.upkeep(self)
        return done

    def rollback(self, to: str | None = None, *, now: float | None = None) -> str:
        """Serve an earlier version; it is a pointer, and takes no time. The next version that passes replaces it.

        Args:
            to: the version; None takes the one published before the serving one.
            now: Unix seconds; None reads the clock.

        Returns:
            The version that is served now.

        Raises:
            UsageError: no such version, or none before.
        """
        with self.pointer():
            serving, names = self.versions.serving(), self.versions.names()
            if serving is None:
                raise unserved(self.journal())
            if to is None:
                older = [name for name in names if name < serving]
                if not older:
                    raise UsageError(problem("There is no version before the serving one", serving, allowed=names))
                to = older[-1]
            self.versions.serve(to)
            with self.ledger.index.change():
                at = time.time() if now is None else now
                self.ledger.index.run("INSERT INTO rollback VALUES (?, ?, ?)", at, serving, to)
        return to

    def forget(self, *users: str, now: float | None = None) -> dict[str, int]:
        """Remove people, and schedule what deletion cannot remove; as `stream.forget.forget`."""
        with self._stepping():
            return forget(self, users, now=time.time() if now is None else now)

    @contextmanager
    def pointer(self) -> Generator[None]:
        """The lock of those that move `serving`."""
        with held(self.folder / "serving.lock", "changes what is served", wait=_WAIT):
            yield

    @contextmanager
    def _stepping(self) -> Generator[None]:
        with held(self.folder / "step.lock", "steps it"):
            self.objects.tidy()
            self.versions.tidy()
            yield
            shutil.rmtree(self.folder / "work", ignore_errors=True)


def _trainable(settings: StreamSettings) -> Stages:
    """The method, on a device that is there."""
    from recdistill.runtime import Runtime  # noqa: PLC0415

    try:
        Runtime.of(settings.device)
    except UsageError as error:
        raise SettingsError(f"The setting 'device' of stream.toml: {error}") from None
    return method_of(settings)


def method_of(found: StreamSettings) -> Stages:
    """The method that settings name, built with its part of them.

    Raises:
        UnknownName: no such method.
        SettingsError: unknown or unusable settings of it.
    """
    name = found.method_name
    if name in METHODS:
        import_module(METHODS[name])
    entry = STAGES[name]
    return entry.build(parse(entry.settings, entry.filled({"name": name, **found.method}), at="method"))
