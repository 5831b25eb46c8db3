"""One cycle: COLLECT -> STUDENT -> GATE -> PUBLISH -> TEACHER(m) -> ENSEMBLE -> DISTIL -> GATE -> PUBLISH -> PROXIES.

Every block goes through the first half; every `teacher.every`-th also through the second. Each arrow is a line of the
journal, each name before it an object; killed anywhere, the same call goes on and ends in the same bytes.

Letters: U users, I items.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import rng
from recdistill.data.csr import Csr
from recdistill.ledger.objects import Personal, Stored
from recdistill.stream import chain, holdouts
from recdistill.stream.attempt import NOTHING, attempted, failed
from recdistill.stream.collect import block_data, collected, frozen, relearned
from recdistill.stream.gates import judge, untrained
from recdistill.stream.measure import most_popular, recalls
from recdistill.stream.protocol import BlockData, Job, Output
from recdistill.stream.publish import publish, served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.ledger import Block, Ledger, Versions
    from recdistill.stream.journal import Journal, Told
    from recdistill.stream.measure import Lists
    from recdistill.stream.protocol import Arrays, Stages
    from recdistill.stream.settings import StreamSettings

__all__ = ["Cycle"]


@dataclass(frozen=True, slots=True)
class _Made:
    """A stage's arrays and where they are kept; nothing before the first."""

    key: str | None = None
    arrays: Arrays | None = None

    @classmethod
    def of(cls, stored: Stored | None) -> _Made:
        return cls() if stored is None else cls(stored.key, stored.arrays)


class Cycle:
    """The cycle of one closed block.

    Args:
        block: the block.
        settings: of the stream.
        stages: the method.
        ledger: where events are.
        journal: which stages are done.
        versions: what is published.
    """

    def __init__(
        self,
        block: Block,
        *,
        settings: StreamSettings,
        stages: Stages,
        ledger: Ledger,
        journal: Journal,
        versions: Versions,
    ) -> None:
        self.block, self.settings, self.stages = block, settings, stages
        self.ledger, self.journal, self.versions = ledger, journal, versions
        self.k = block.number
        self.before = ledger.block(self.k - 1) if self.k else None

    def run(self) -> None:
        """Do what is not yet done of it."""
        chain.refuse_other_shape(self.journal, self.stages, self.k)
        block = self._collect()
        self._stage("holdout", {"block": block.key}, lambda _: frozen(block), {})
        student, start = self._student(block)
        verdict = self._gate(block, student)
        self._publish(block, student, passed=verdict.measured["passed"])
        if not self._teaches:
            return
        # a student that must not be served teaches nobody either, if there is one to go back to
        first = start.arrays is None and "failed" not in student.measured
        why = self._teachers(block, _Made.of(student) if verdict.measured["passed"] or first else start)
        if why is not None:  # the next teacher update goes on from the last one, with the blocks since
            self.journal.record(self.k, "proxies", "", {"failed": why}, 0.0)

    # the student's clock

    def _collect(self) -> Stored:
        told = self.journal.find(self.k, "collect")
        done = told is not None and self.journal.objects.has(told.object)
        first, last = self.block.first, self.block.last
        given = None if done else (self.ledger.rows(first, last), self._pairs(first), self._held(self.k))
        inputs: dict[str, Any] = {}
        if given is not None:
            rows, known, held = given
            columns = (rows.user, rows.item, rows.timestamp, rows.weight)
            inputs = {"events": _digest(*columns), "known": _digest(known.keys), "held": _digest(held.keys)}
        identity = {name: getattr(self.settings.blocks, name) for name in ("held_out", "holdout_users")}
        teaches = self._teaches  # on record from here on: an edit of `teacher.every` counts from the next cycle

        def make(_: Path) -> Output:
            assert given is not None  # noqa: S101 - it is to be made
            (rows, known, held), how = given, self.settings.blocks
            out = collected(self.block, self.before, rows, how, known=known, held=held, seed=self.settings.seed)
            return replace(out, measured={**out.measured, "teachers": teaches})

        return self._stage("collect", inputs, make, {**identity, "teachers": teaches})

    def _student(self, block: Stored) -> tuple[Stored, _Made]:
        start, last = self._made(chain.start(self.journal, self.k)), self._distilled()
        proxies, ensemble = self._latest("proxies"), self._latest("ensemble")

        def make(checkpoint: Path) -> Output:
            if not len(block.arrays["train_user"]):
                return failed(NOTHING)
            job = self._job("student", checkpoint, [block_data(block)])
            return attempted(
                lambda: self.stages.student(
                    job,
                    start=start.arrays,
                    distilled=last.arrays,
                    proxies=proxies.arrays,
                    ensemble=ensemble.arrays,
                ),
                first=start.arrays is None,
            )

        inputs = {
            "block": block.key,
            "start": start.key,
            "distilled": last.key,
            "proxies": proxies.key,
            "ensemble": ensemble.key,
        }
        return self._stage("student", inputs, make, self.stages.identity("student")), start

    def _gate(self, block: Stored, student: Stored, what: str = "student") -> Stored:
        name = self.versions.serving()
        settings = self.settings.gates

        def make(_: Path) -> Output:
            if "failed" in student.measured:
                return Output({}, Personal(), untrained(student.measured["failed"]).plain())
            seen = self._seen
            verdict = judge(
                self._lists(what, student.arrays),
                None if name is None else served(self.versions.open(name), self.ledger, seen),
                self._holdouts(),
                popular_items=most_popular(block.arrays["train_item"], seen.n_columns),
                best=chain.best(self.journal, self.k, settings.k),
                seen=seen,
                settings=settings,
                seed=self.settings.seed,
            )
            return Output({}, Personal(), verdict.plain())

        inputs = {
            "student": student.key,
            "serving": name,
            "holdouts": [h.object for h in holdouts.told(self.journal, self.k)],
        }
        return self._stage(chain.of("gate", what), inputs, make, settings.model_dump(mode="json"))

    def _publish(self, block: Stored, student: Stored, what: str = "student", *, passed: bool) -> None:
        stage = chain.of("publish", what)
        if self.journal.find(self.k, stage) is not None:
            return
        began = time.perf_counter()
        self.journal.tell(self.k, stage, "begins")
        name = ""
        if passed:
            name = publish(
                self.stages.released(student.arrays),
                self.versions,
                self.ledger,
                block=block,
                student=student,
                seen=self._seen,
                seed=self.settings.seed,
                distilled=what == "distil",
            )
            self.journal.tell(self.k, stage, "made")
            # killed before the journal knew: somebody may have gone back since from this version, or from a later one
            if not self.ledger.index.value("SELECT count(*) FROM rollback WHERE version >= ?", name):
                self.versions.serve(name)
        self.journal.record(self.k, stage, name, {"passed": passed}, time.perf_counter() - began)

    # the teachers' clock

    def _teachers(self, block: Stored, student: _Made) -> str | None:
        """The second half; why it is put off, where it is."""
        last = self.journal.latest("proxies", self.k)
        retrain, rebuild = self._is_due("retrain"), self._is_due("proxies")
        proxies, before, ensemble = self._made(last), self._distilled(), self._latest("ensemble")
        parts = self._blocks(block, -1 if last is None else last.cycle)
        blocks: dict[str, Any] = {"blocks": [key for key, _ in parts], "history": self.block.last if retrain else None}
        if student.arrays is None or not any(len(data.user) for _, data in parts):
            return NOTHING
        teaching = student
        if retrain:  # as a base cycle on all that is kept: whatever was learned before holds what is to be forgotten
            proxies = before = ensemble = teaching = _Made()

        def learned() -> list[BlockData]:
            return self._history() if retrain else [data for _, data in parts]

        teachers: list[Stored] = []
        for m in range(self.stages.members):
            start = _Made() if retrain or last is None else self._made(self.journal.find(last.cycle, f"teacher[{m}]"))

            def make(checkpoint: Path, m: int = m, start: _Made = start) -> Output:
                job = self._job(f"teacher[{m}]", checkpoint, learned())
                return attempted(
                    lambda: self.stages.teacher(
                        job,
                        m,
                        start=start.arrays,
                        student=teaching.arrays,
                        proxies=proxies.arrays,
                        ensemble=ensemble.arrays,
                    ),
                    first=last is None,
                )

            inputs = {
                **blocks,
                "start": start.key,
                "student": teaching.key,
                "proxies": proxies.key,
                "ensemble": ensemble.key,
            }
            teachers.append(self._stage(f"teacher[{m}]", inputs, make, self.stages.identity("teacher")))
            if "failed" in teachers[-1].measured:
                return f"teacher {m}: {teachers[-1].measured['failed']}"

        def join(checkpoint: Path) -> Output:
            job = self._job("ensemble", checkpoint, learned())
            arrays = [teacher.arrays for teacher in teachers]
            return self._measured(self.stages.joint(arrays), self.stages.ensemble(job, teachers=arrays))

        inputs = {**blocks, "teachers": [t.key for t in teachers]}
        new_ensemble = self._stage("ensemble", inputs, join, self.stages.identity("ensemble"))

        def distil(checkpoint: Path) -> Output:
            job = self._job("distil", checkpoint, learned())
            out = attempted(
                lambda: self.stages.distil(
                    job,
                    ensemble=new_ensemble.arrays,
                    student=teaching.arrays,
                    proxies=proxies.arrays,
                    before=before.arrays,
                ),
                first=False,  # the updated student goes on
            )
            return out if "failed" in out.measured else self._measured(self._lists("distil", out.arrays), out)

        inputs = {
            **blocks,
            "ensemble": new_ensemble.key,
            "student": teaching.key,
            "proxies": proxies.key,
            "before": before.key,
        }
        distilled = self._stage("distil", inputs, distil, self.stages.identity("distil"))
        verdict = self._gate(block, distilled, "distil")
        passed = verdict.measured["passed"]
        self._publish(block, distilled, "distil", passed=passed)
        # what must not be served is not remembered either: the student that goes on in its place is
        new = _Made.of(distilled) if passed else student
        old = _Made() if retrain or rebuild or self._too_old(last) else proxies

        def average(checkpoint: Path) -> Output:
            job = self._job("proxies", checkpoint, [data for _, data in parts])
            assert new.arrays is not None  # noqa: S101 - one of the two is there
            out = self.stages.proxies(job, distilled=new.arrays, before=old.arrays)
            age = 0 if old.key is None or last is None else last.measured["age"] + 1
            return replace(out, measured={**out.measured, "age": age})

        inputs = {"distilled": new.key, "before": old.key}

        def settled() -> None:
            # where the new student was refused an old one goes on, and with it what a retrain is to end
            done = "UPDATE due SET done = 1 WHERE cycle <= ? AND (what != 'retrain' OR ?)"
            self.ledger.index.run(done, self.k, passed)

        # with the line that ends the cycle: nobody would come back to it
        self._stage("proxies", inputs, average, self.stages.identity("proxies"), also=settled)
        return None

    # what stages are given

    def _stage(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], Output],
        identity: Mapping[str, Any],
        *,
        also: Callable[[], None] | None = None,
    ) -> Stored:
        return self.journal.run(self.k, stage, inputs, make, identity=identity, also=also)

    def _job(self, stage: str, checkpoint: Path, blocks: list[BlockData]) -> Job:
        number = blocks[0].number - 1
        told = self.journal.find(number, "collect") if number >= 0 else None
        kept = told is not None and self.journal.objects.has(told.object)
        before = block_data(self.journal.objects.get(told.object)) if told is not None and kept else None
        seed = rng.key(self.settings.seed, stage, self.k)
        return Job(self.k, seed, blocks, before, checkpoint, self.settings.device)

    def _blocks(self, block: Stored, last: int) -> list[tuple[str, BlockData]]:
        """The collected blocks after cycle `last`, up to this one."""
        told = [self.journal.find(number, "collect") for number in range(last + 1, self.k)]
        older = [self.journal.objects.get(t.object) for t in told if t is not None]
        return [(stored.key, block_data(stored)) for stored in (*older, block)]

    def _history(self) -> list[BlockData]:
        """All that is kept, without the holdouts, for a retrain from scratch; the newest block with its validation."""
        out, held = list[BlockData](), self._held(self.k + 1)
        for number in range(self.k):
            block, before = self.ledger.block(number), self.ledger.block(number - 1) if number else None
            rows = self.ledger.rows(block.first, block.last)
            if len(rows):
                out.append(relearned(block, before, rows, held))
        newest = self.journal.stored(self.journal.find(self.k, "collect"))
        assert newest is not None  # noqa: S101 - it was collected
        return [*out, block_data(newest)]

    @property
    def _teaches(self) -> bool:
        return chain.teaches(self.journal, self.k, self.settings.teacher.every)

    @cached_property
    def _seen(self) -> Csr:
        """U x I: all that is kept of what anyone did, up to the end of the block."""
        return self._pairs(self.block.last)

    def _pairs(self, last: int) -> Csr:
        """U x I: all that is kept of what anyone did before event `last`."""
        return Csr.from_pairs(*self.ledger.pairs(last), self.block.users, self.block.items)

    def _held(self, before: int) -> Csr:
        return holdouts.held(self.journal, self.block, before=before)

    def _distilled(self) -> _Made:
        return self._made(chain.distilled(self.journal, self.k))

    def _latest(self, stage: str) -> _Made:
        return self._made(self.journal.latest(stage, self.k))

    def _made(self, told: Told | None) -> _Made:
        return _Made.of(self.journal.stored(told))

    def _holdouts(self) -> list[Stored]:
        return holdouts.measured(self.journal, self.k, self.settings.gates.holdouts)

    def _lists(self, stage: str, arrays: Arrays) -> Lists:
        return lambda users, k, without: self.stages.ranked(stage, arrays, users, k, without)

    def _measured(self, lists: Lists, out: Output) -> Output:
        shape = {"n_users": self.block.users, "n_items": self.block.items}
        found = recalls(lists, self._holdouts(), self.settings.gates.k, **shape)
        return replace(out, measured={**out.measured, "recall": {str(block): value for block, value in found.items()}})

    def _is_due(self, what: str) -> bool:
        return bool(
            self.ledger.index.value("SELECT count(*) FROM due WHERE what = ? AND cycle <= ? AND NOT done", what, self.k)
        )

    def _too_old(self, last: Told | None) -> bool:
        most = self.settings.proxies.rebuild
        return last is not None and most is not None and last.measured["age"] + 1 >= most


def _digest(*columns: NDArray[Any] | None) -> str:
    digest = hashlib.sha256()
    for column in columns:
        digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
