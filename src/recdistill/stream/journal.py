"""Which stages are done: each output once, under the hash of what it was made from.

A stage that is killed leaves nothing that counts: its folder appears by renaming, and is found by its key when the
stage is asked for again. Only then the journal is told, and later stages read what the journal says.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from recdistill.errors import BundleError, DataError
from recdistill.ledger.objects import Objects, Stored, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from recdistill.ledger import Index
    from recdistill.stream.protocol import Output

__all__ = ["Journal", "Told", "Watcher"]

_FORMAT = 1


class Watcher(Protocol):
    """Told of every stage; what it is told changes nothing."""

    def on_stage(self, cycle: int, stage: str, what: str, about: str) -> None:
        """Something happened.

        Args:
            cycle: which cycle.
            stage: which stage, "teacher[1]" of several teachers.
            what: "begins"; "made", when its output is in place; "done", when the journal says so.
            about: more in words, or nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """One line of the journal."""

    cycle: int
    stage: str
    object: str
    """The key of its output; of a version, its name; "" where nothing was put out."""
    measured: dict[str, Any]
    seconds: float
    at: float


class Journal:
    """The finished stages of a stream.

    Args:
        index: the stream's index.
        objects: where outputs are kept.
        work: a folder for checkpoints.
        seed: of the stream; part of every key.
        watch: who is told.
    """

    def __init__(self, index: Index, objects: Objects, work: Path, *, seed: int, watch: Watcher | None = None) -> None:
        self.index, self.objects, self.work, self.seed, self._watch = index, objects, work, seed, watch

    def find(self, cycle: int, stage: str) -> Told | None:
        """The line of a stage, if it is done."""
        row = self.index.row(
            "SELECT cycle, stage, object, measured, seconds, at FROM stage WHERE cycle = ? AND stage = ?", cycle, stage
        )
        return None if row is None else _told(row)

    def latest(self, stage: str, before: int) -> Told | None:
        """The line of the last cycle below `before` that has the stage with an output."""
        row = self.index.row(
            "SELECT cycle, stage, object, measured, seconds, at FROM stage "
            "WHERE stage = ? AND cycle < ? AND object != '' ORDER BY cycle DESC LIMIT 1",
            stage,
            before,
        )
        return None if row is None else _told(row)

    def newest(self) -> int | None:
        """The last cycle that has begun."""
        return self.index.value("SELECT max(cycle) FROM stage")

    def lines(self) -> list[Told]:
        """All of them, in the order they were done."""
        query = "SELECT cycle, stage, object, measured, seconds, at FROM stage ORDER BY cycle, at"
        return [_told(row) for row in self.index.rows(query)]

    def stored(self, told: Told | None) -> Stored | None:
        """The output of a line."""
        return None if told is None or not told.object else self.objects.get(told.object)

    def run(
        self,
        cycle: int,
        stage: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], Output],
        *,
        identity: Mapping[str, Any],
        also: Callable[[], None] | None = None,
    ) -> Stored:
        """The output of a stage: the one that is there, or a new one.

        Args:
            cycle: which cycle.
            stage: which stage.
            inputs: the keys of what it is made from, by name.
            make: makes it; is given a place for a checkpoint.
            identity: all settings that its bytes depend on.
            also: changes of the index that become true with the line of the stage.
        """
        told = self.find(cycle, stage)
        if told is not None and self.objects.has(told.object):
            return self.objects.get(told.object)
        made = {
            "format": _FORMAT,
            "cycle": cycle,
            "stage": stage,
            "inputs": dict(inputs),
            "identity": dict(identity),
            "seed": self.seed,
            "forgotten": self.index.value("SELECT count(*) FROM forgotten"),  # outputs from before it lack nobody
        }
        key = key_of(**made)
        began = time.perf_counter()
        self.tell(cycle, stage, "begins")
        stored = self._left_by_a_killed_run(key)
        if stored is None:
            place = self.work / key
            place.mkdir(parents=True, exist_ok=True)
            out = make(place / "checkpoint.safetensors")
            stored = self.objects.put(key, out.arrays, personal=out.personal, measured=out.measured, made=made)
        self.tell(cycle, stage, "made")
        self.record(cycle, stage, key, stored.measured, time.perf_counter() - began, also=also)
        shutil.rmtree(self.work / key, ignore_errors=True)
        return stored

    def record(
        self,
        cycle: int,
        stage: str,
        key: str,
        measured: Mapping[str, Any],
        seconds: float,
        *,
        also: Callable[[], None] | None = None,
    ) -> None:
        """Write a line: the stage is done; `also` in the same transaction."""
        with self.index.change():
            text = json.dumps(measured, sort_keys=True)
            values = (cycle, stage, key, text, seconds, time.time())
            self.index.run("INSERT OR REPLACE INTO stage VALUES (?, ?, ?, ?, ?, ?)", *values)
            if also is not None:
                also()
        self.tell(cycle, stage, "done")

    def tell(self, cycle: int, stage: str, what: str, about: str = "") -> None:
        """Tell who watches."""
        if self._watch is not None:
            self._watch.on_stage(cycle, stage, what, about)

    def _left_by_a_killed_run(self, key: str) -> Stored | None:
        if not self.objects.has(key):
            return None
        try:
            return self.objects.get(key, full=True)
        except (BundleError, DataError):
            self.objects.remove(key)
            return None


def _told(row: tuple[Any, ...]) -> Told:
    cycle, stage, key, measured, seconds, at = row
    return Told(cycle, stage, key, json.loads(measured), seconds, at)
