"""What a method gives the state machine: its stages as functions from typed inputs to named arrays.

The machine knows nothing of models: it hands each stage the arrays that earlier stages put out, keeps what comes back
under the hash of what it was made from, and asks for lists where something is measured or published. A stage must be a
function of its inputs: same inputs, same bytes. Nothing here needs torch.

Letters: U users and I items known at the end of the block, Q users asked, k list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut, Interactions
from recdistill.ids import IdTable
from recdistill.ledger.objects import Personal
from recdistill.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.settings import Settings
    from recdistill.stream.measure import Lists

    Arrays = Mapping[str, NDArray[Any]]

__all__ = ["STAGES", "BlockData", "Job", "Output", "Released", "Stages", "StagesEntry", "register"]


@dataclass(frozen=True, eq=False)
class BlockData:
    """What a stage may see of a block, in rows: its training pairs, and its validation pairs for early stopping.

    The test part is not here: it belongs to the gates and to the holdouts.
    """

    number: int
    n_users: int
    """U: users known at the end of the block; rows of the forgotten are among them, without interactions."""
    n_items: int
    """I"""
    old_users: int
    """Users known before it; rows from here on are new."""
    old_items: int
    user: NDArray[np.int32]
    """(n,) training pairs by time, each once."""
    item: NDArray[np.int32]
    timestamp: NDArray[np.int64] | None
    weight: NDArray[np.float32] | None
    valid_user: NDArray[np.int32]
    valid_item: NDArray[np.int32]

    @property
    def train(self) -> Interactions:
        """The training pairs as a log over U x I; its "external" ids are the rows."""
        users, items = _rows(self.n_users), _rows(self.n_items)
        return Interactions(users, items, self.user, self.item, self.timestamp, self.weight)

    @property
    def valid(self) -> HeldOut:
        """The validation pairs; ranked without the block's training pairs (sheet section 7)."""
        shape = (self.n_users, self.n_items)
        targets = Csr.from_pairs(self.valid_user, self.valid_item, *shape)
        seen = Csr.from_pairs(self.user, self.item, *shape)
        return HeldOut("valid", _rows(self.n_users), _rows(self.n_items), targets, seen)


@dataclass(frozen=True, eq=False)
class Output:
    """What a stage puts out."""

    arrays: Arrays
    """By name, of the types that safetensors holds."""
    personal: Personal
    """Where people stand in the arrays. A name left out here is a person who cannot be forgotten."""
    measured: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Finite numbers, text, lists and tables of them, the same at every run: no times. `replay_share`, the share of
    replay in the loss, is shown by `status`."""


@dataclass(frozen=True, eq=False)
class Job:
    """What every stage is told."""

    cycle: int
    seed: int
    """A function of the stream's seed, the stage and the cycle."""
    blocks: Sequence[BlockData]
    """The blocks to learn from, oldest first: one for the student; for the stages after it those since they last
    ran, or all that are kept when a retrain is due."""
    before: BlockData | None
    """The block before the first of `blocks`, where it is kept."""
    checkpoint: Path
    """A file that a long stage may write and read, so that a killed one goes on; gone when the stage is done."""
    device: str = "cpu"
    """Where it trains, as `Runtime.of` takes it."""

    @property
    def block(self) -> BlockData:
        """The newest block."""
        return self.blocks[-1]


@dataclass(frozen=True, eq=False)
class Released:
    """A student as it is served."""

    kind: str
    """How the arrays are ranked: "vectors", "neumf"."""
    arrays: Arrays
    """What a bundle stores; first axis U in names that begin with `user`, I in those that begin with `item`."""
    model: str
    settings: Mapping[str, Any]
    citations: Sequence[str]


class Stages(Protocol):
    """A method on a stream. Arrays that are handed in are mapped read-only."""

    @property
    def members(self) -> int:
        """How many teachers."""
        ...

    @property
    def fixed(self) -> Sequence[str]:
        """Dotted names of settings in `identity` that no edit may change: earlier outputs would not fit later ones."""
        ...

    def identity(self, stage: str) -> Mapping[str, Any]:
        """All settings that the stage's bytes depend on, and a version of its code, as plain values."""
        ...

    def student(
        self,
        job: Job,
        *,
        start: Arrays | None,
        distilled: Arrays | None,
        proxies: Arrays | None,
        ensemble: Arrays | None,
    ) -> Output:
        """Update the student on the newest block.

        Args:
            job: the block and the seed.
            start: the student to go on from: the one distilled last, or updated since. None at the base block.
            distilled: the student distilled last; the same as `start` where every block has a teacher update.
            proxies: the latest proxies; None before the first distillation.
            ensemble: the latest ensemble; None before the first.
        """
        ...

    def teacher(
        self,
        job: Job,
        member: int,
        *,
        start: Arrays | None,
        student: Arrays | None,
        proxies: Arrays | None,
        ensemble: Arrays | None,
    ) -> Output:
        """Update teacher `member` (from 0); from scratch where `start` is None (base block, or a retrain is due).

        In a retrain nothing that was learned before is handed in: student, proxies and ensemble are None too.
        """
        ...

    def ensemble(self, job: Job, *, teachers: Sequence[Arrays]) -> Output:
        """Join the teachers: lists, not scores of users x items."""
        ...

    def distil(
        self, job: Job, *, ensemble: Arrays, student: Arrays | None, proxies: Arrays | None, before: Arrays | None
    ) -> Output:
        """A fresh student from the ensemble.

        Args:
            job: the blocks and the seed.
            ensemble: the teacher.
            student: the student as updated on the newest block, or the one that goes on where the gate refused that;
                None in a retrain.
            proxies: the latest proxies, still those of the cycle before; None in a retrain.
            before: the student distilled last; None at the base block and in a retrain.
        """
        ...

    def proxies(self, job: Job, *, distilled: Arrays, before: Arrays | None) -> Output:
        """Average the new distilled student into the proxies; begin anew where `before` is None.

        Called with the same `before` however often the machine is killed, so nothing is averaged twice.
        """
        ...

    def ranked(self, stage: str, arrays: Arrays, users: NDArray[np.int64], k: int, without: Csr) -> NDArray[np.int64]:
        """The best k items by the output of a stage ("student", "distil").

        Args:
            stage: which one put the arrays out.
            arrays: its output.
            users: (Q,) user rows; one the output does not have gets an empty list.
            k: at least 1.
            without: rows by user, U x I, left out.

        Returns:
            (Q, k) item rows, best first, -1 past the end.
        """
        ...

    def joint(self, teachers: Sequence[Arrays]) -> Lists:
        """How the teachers rank together, as `ranked` does: of everything, like the students they are held against.

        What `ensemble` puts out will not do: its lists are as short as a student learns, without what is trained on.
        """
        ...

    def released(self, student: Arrays) -> Released:
        """The student as a bundle holds it."""
        ...


@dataclass(frozen=True, slots=True)
class StagesEntry:
    """A registered method on a stream."""

    name: str
    settings: type[Settings]
    build: Callable[[Any], Stages]
    filled: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """The table of settings as it was given -> with what a preset says; no check of either."""


STAGES: Registry[StagesEntry] = Registry("method on a stream")


def register(
    name: str, *, settings: type[Settings], filled: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
) -> Callable[[Callable[[Any], Stages]], Callable[[Any], Stages]]:
    """Register `build(settings) -> Stages` under `name`."""

    def add(build: Callable[[Any], Stages]) -> Callable[[Any], Stages]:
        STAGES.add(name, StagesEntry(name, settings, build, filled))
        return build

    return add


def _rows(n: int) -> IdTable:
    return IdTable.from_ids(np.arange(n))
