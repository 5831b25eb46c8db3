"""The card: what a model is worth and what it costs, measured, on one page.

Letters: Q queries, K list.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recdistill.errors import DataError, UsageError, problem
from recdistill.evaluation.blocks import default_threads
from recdistill.evaluation.compare import Interval, bootstrap_interval
from recdistill.evaluation.latency import Latency

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.evaluation.evaluate import Evaluation
    from recdistill.evaluation.ranking import Ranker

__all__ = ["Agreement", "Card", "Environment", "Measured", "Training", "agreement", "bytes_on_disk", "environment"]

_AT_A_TIME = 8192  # users whose two lists are compared at once


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Measured(_Frozen):
    """One evaluation: which users, how ranked, and every metric with its interval."""

    split: str
    """"valid" or "test"."""
    protocol: str
    """"full" or "sampled(n)"."""
    cold: str
    """What users without an answer count."""
    users: int
    """How many the means run over."""
    unserved: int
    """How many users with a target got no answer."""
    fingerprint: str
    """Equal where two evaluations may be compared."""
    like: str | None = None
    """Whose convention of metrics; None for ours."""
    values: dict[str, Interval]
    """Metric -> mean, bounds of the 95 % interval, users."""

    @classmethod
    def of(cls, evaluation: Evaluation) -> Measured:
        """What a card keeps of an evaluation."""
        return cls(
            split=evaluation.name,
            protocol=evaluation.protocol,
            cold=evaluation.cold,
            users=len(evaluation.queries),
            unserved=evaluation.unserved,
            fingerprint=evaluation.fingerprint,
            like=evaluation.like,
            values=evaluation.metrics,
        )


class Agreement(_Frozen):
    """How alike the lists of student and teacher are."""

    k: int
    overlap: Interval
    """Share of the teacher's first k that is among the student's first k, averaged over users."""
    first: Interval
    """Share of users whose first item is the same."""


class Environment(_Frozen):
    """Where and with what it was measured."""

    recdistill: str
    python: str
    numpy: str
    torch: str | None = None
    """None where it is not installed or was not asked for."""
    cpu: str
    cpus: int
    """How many this process may use."""
    threads: int
    """How many a ranker uses when not told."""
    platform: str
    seed: int | None = None


class Training(_Frozen):
    """What it cost to make."""

    seconds: float | None = Field(default=None, ge=0)
    epochs: int | None = Field(default=None, ge=0)
    best_epoch: int | None = Field(default=None, ge=0)


class Card(_Frozen):
    """The measured result of one model."""

    name: str
    """What people call it: "student, de-rrd"."""
    model: str
    """"mf", "neumf", ..."""
    method: str | None = None
    """How it was distilled; None for a teacher."""
    metrics: tuple[Measured, ...] = ()
    parameters: int = Field(ge=0)
    """Numbers that are served."""
    bytes: int | None = Field(default=None, ge=0)
    """Of the bundle on disk."""
    latency: Latency | None = None
    agreement: Agreement | None = None
    """With the teacher; None for a teacher."""
    retention: dict[str, Interval] = Field(default_factory=dict)
    """Metric -> per cent of the teacher's value that is kept."""
    training: Training = Training()
    environment: Environment
    citations: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The card as JSON, two spaces deep."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read what `to_json` wrote.

        Raises:
            DataError: not a card; the message names the first field that is wrong.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            what = f"This is not a card: {where}: {first['msg'].lower()}"
            raise DataError(problem(what, remedy="Measure it again")) from None


def agreement(
    student: Ranker,
    teacher: Ranker,
    users: NDArray[np.int64],
    k: int = 10,
    *,
    exclude: Csr | None = None,
) -> Agreement:
    """How alike two rankers' lists are.

    Args:
        student: any ranker.
        teacher: a ranker over the same items.
        users: (Q,) user rows; those for whom the teacher has no list are left out.
        k: how long the lists are.
        exclude: what both leave out.

    Raises:
        UsageError: the catalogues differ, or the teacher has a list for nobody.
    """
    if student.n_items != teacher.n_items:
        sizes = (student.n_items, teacher.n_items)
        raise UsageError(problem("Student and teacher must have the same items to agree on", sizes))
    shared: list[NDArray[np.float64]] = []
    first: list[NDArray[np.float64]] = []
    for start in range(0, len(users), _AT_A_TIME):
        some = users[start : start + _AT_A_TIME]
        theirs = teacher.top_k(some, k, exclude)
        has = theirs[:, 0] >= 0
        theirs, ours = theirs[has], student.top_k(some[has], k, exclude)
        shared.append(_overlap(ours, theirs, teacher.n_items))
        first.append((ours[:, 0] == theirs[:, 0]).astype(np.float64))
    if not sum(map(len, shared)):
        raise UsageError(problem("The teacher has a list for none of these users", f"{len(users)} users"))
    return Agreement(
        k=k, overlap=bootstrap_interval(np.concatenate(shared)), first=bootstrap_interval(np.concatenate(first))
    )


def environment(*, seed: int | None = None) -> Environment:
    """What is known of this process and machine; imports nothing that is not imported yet."""
    return Environment(
        recdistill=_version("recdistill") or "unknown",
        python=platform.python_version(),
        numpy=np.__version__,
        torch=_version("torch"),
        cpu=_cpu(),
        cpus=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        threads=default_threads(),
        platform=platform.platform(),
        seed=seed,
    )


def bytes_on_disk(path: Path) -> int:
    """The sizes of a file, or of all files in a folder.

    Raises:
        DataError: there is nothing at `path`.
    """
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        raise DataError(problem("There is nothing to weigh", str(path), remedy="Save the bundle first"))
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


# helpers


def _overlap(ours: NDArray[np.int64], theirs: NDArray[np.int64], n_items: int) -> NDArray[np.float64]:
    """Two (Q, K) lists, -1 past the end -> (Q,) share of `theirs` that is in `ours`."""
    base = np.arange(len(theirs), dtype=np.int64)[:, None] * n_items
    found = np.isin(base + theirs, (base + ours)[ours >= 0]) & (theirs >= 0)  # (Q, K)
    return found.sum(axis=1) / np.maximum((theirs >= 0).sum(axis=1), 1)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"
