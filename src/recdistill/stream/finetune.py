"""`finetune`: the plainest method that fills every stage. Matrix factorisation throughout.

Student and teachers are fine-tuned on the newest block by BPR; the ensemble is a table of lists; the student is
distilled from it by RRD; the proxies are moving averages of the distilled students' tables. No replay: the base that
others beat.

Letters: U users, I items, d dims, M members, L list, Q users of a chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from recdistill import rng
from recdistill.data.csr import Csr
from recdistill.evaluation.evaluate import evaluate
from recdistill.evaluation.ranking import ranker
from recdistill.ledger.objects import Personal
from recdistill.methods.base import Setting
from recdistill.methods.plain import BPR, Plain, plain
from recdistill.methods.rrd import RRD, rrd
from recdistill.models.mf import MF
from recdistill.runtime import Runtime
from recdistill.serve.foldin import initialised
from recdistill.settings import Settings
from recdistill.stream.collect import joined
from recdistill.stream.protocol import Output, Released, Stages, register
from recdistill.teachers.coverage import Coverage
from recdistill.teachers.kept import StoredLists
from recdistill.terms.base import FromInteractions
from recdistill.training.optim import optimiser
from recdistill.training.stop import Stop
from recdistill.training.trainer import Keep, fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.data.interactions import HeldOut, Interactions
    from recdistill.knowledge.view import Knows
    from recdistill.stream.measure import Lists
    from recdistill.stream.protocol import Arrays, BlockData, Job

__all__ = ["Finetune", "FinetuneSettings"]

_CHUNK = 1024  # users whose lists are joined at a time
_CODE = 1
_TABLES = Personal(rows=("user",))


class Training(Settings):
    """How one stage is trained."""

    epochs: int = Field(default=100, ge=1)
    """The most there can be."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam."""
    batch: int = Field(default=2048, ge=1)
    """Pairs a step."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Coupled L2."""
    every: int = Field(default=5, ge=1)
    """Epochs between validations by recall@20 on the block's validation pairs."""
    patience: int = Field(default=2, ge=1)
    """Validations in a row without improvement before it stops."""


class FinetuneSettings(Settings):
    """The sheet's values (section 13) where they apply."""

    name: str = "finetune"
    """Of the method."""
    dim: int = Field(default=16, ge=1)
    """d of the student."""
    teacher_dim: int = Field(default=64, ge=1)
    """d of the teachers."""
    members: int = Field(default=2, ge=1)
    """Teachers; they differ by their seeds."""
    depth: int = Field(default=100, ge=1)
    """L, the ensemble's list of each user."""
    base: Training = Training(lr=5e-3)
    """Of a student or teacher that starts from nothing."""
    update: Training = Training()
    """On a later block."""
    distil: Training = Training(lr=5e-3, batch=1024)
    """From the ensemble."""
    weight: float = Field(default=0.01, ge=0)
    """Of the distillation term."""
    slow: float = Field(default=0.9, ge=0, le=1)
    """How much of the slow proxy stays at a cycle."""
    fast: float = Field(default=0.0, ge=0, le=1)
    """How much of the fast one."""


class Finetune:
    """The stages."""

    fixed = ("name", "dim", "teacher_dim", "members")
    personal: ClassVar[Personal] = _TABLES

    def __init__(self, settings: FinetuneSettings) -> None:
        self.settings = settings

    @property
    def members(self) -> int:
        """How many teachers."""
        return self.settings.members

    def identity(self, stage: str) -> Mapping[str, Any]:
        """All settings: a change of any makes every later output another."""
        return {"stage": stage, "code": _CODE, **self.settings.model_dump(mode="json")}

    def student(
        self,
        job: Job,
        *,
        start: Arrays | None,
        distilled: Arrays | None,
        proxies: Arrays | None,
        ensemble: Arrays | None,
    ) -> Output:
        """Fine-tune on the newest block."""
        del distilled, proxies, ensemble
        return self._tuned(job, self.settings.dim, start)

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
        """Fine-tune on the blocks since the last time."""
        del member, student, proxies, ensemble
        return self._tuned(job, self.settings.teacher_dim, start)

    def ensemble(self, job: Job, *, teachers: Sequence[Arrays]) -> Output:
        """Each user's L best by the mean over members of `rank^-0.05`, from 0 where a member does not list the item."""
        size, depth = job.block.n_users, min(self.settings.depth, job.block.n_items)
        lists = np.full((size, depth), -1, np.int32)
        rankers = [ranker("vectors", dict(teacher)) for teacher in teachers]
        for begin in range(0, size, _CHUNK):
            users = np.arange(begin, min(begin + _CHUNK, size))
            found = np.concatenate([one.top_k(users, depth, None) for one in rankers], axis=1)  # (Q, M L)
            lists[users] = _voted(found, depth)
        return Output({"user_lists": lists}, Personal(rows=("user_lists",)))

    def distil(
        self, job: Job, *, ensemble: Arrays, student: Arrays | None, proxies: Arrays | None, before: Arrays | None
    ) -> Output:
        """A student from nothing by BPR and RRD."""
        del student, proxies, before
        data = joined(job.blocks)
        train = data.train
        lists = np.asarray(ensemble["user_lists"])
        known = lists >= 0
        indptr = np.zeros(len(lists) + 1, np.int64)
        np.cumsum(known.sum(1), out=indptr[1:])
        u, i = data.n_users, data.n_items
        coverage = Coverage("the ensemble", items=i, of_items=i, users=u, of_users=u, foreign_items=0, foreign_users=0)
        teacher = StoredLists(coverage, indptr, lists[known].astype(np.int32), None, train.csr())
        model = MF(data.n_users, data.n_items, dim=self.settings.dim, seed=rng.key(job.seed, "weights"))
        return _trained(
            model, train, data.valid, self.settings.distil, job, teacher=teacher, weight=self.settings.weight
        )

    def proxies(self, job: Job, *, distilled: Arrays, before: Arrays | None) -> Output:
        """`P = l P + (1 - l) S` over the ids that the proxy knows; the student's vectors for the others."""
        out: dict[str, NDArray[Any]] = {}
        for name, keep in (("slow", self.settings.slow), ("fast", self.settings.fast)):
            for side in ("user", "item"):
                new = np.array(distilled[side])
                if before is not None:
                    old = before[f"{side}_{name}"]
                    new[: len(old)] = np.float32(keep) * old + np.float32(1 - keep) * new[: len(old)]
                out[f"{side}_{name}"] = new
        return Output(out, Personal(rows=("user_slow", "user_fast")))

    def ranked(self, stage: str, arrays: Arrays, users: NDArray[np.int64], k: int, without: Csr) -> NDArray[np.int64]:
        """By vectors."""
        del stage
        model = ranker("vectors", dict(arrays))
        shape = model.n_users, model.n_items
        if (without.n_rows, without.n_columns) != shape:  # an output of an earlier block
            line = np.repeat(np.arange(without.n_rows), without.degrees)
            inside = (line < shape[0]) & (without.indices < shape[1])
            without = Csr.from_pairs(line[inside], without.indices[inside], *shape)
        return model.top_k(users, k, without)

    def joint(self, teachers: Sequence[Arrays]) -> Lists:
        """By the votes of the members' lists, each without what is left out."""
        rankers = [ranker("vectors", dict(teacher)) for teacher in teachers]

        def lists(users: NDArray[np.int64], k: int, without: Csr) -> NDArray[np.int64]:
            depth, out = max(self.settings.depth, k), np.full((len(users), k), -1, np.int64)
            for begin in range(0, len(users), _CHUNK):
                part = users[begin : begin + _CHUNK]
                found = np.concatenate([one.top_k(part, depth, without) for one in rankers], axis=1)  # (Q, M L)
                out[begin : begin + _CHUNK] = _voted(found, depth)[:, :k]
            return out

        return lists

    def released(self, student: Arrays) -> Released:
        """Two tables."""
        arrays = {name: np.asarray(student[name]) for name in ("user", "item")}
        return Released("vectors", arrays, "mf", self.settings.model_dump(mode="json"), [BPR.bibtex()])

    def _tuned(self, job: Job, dim: int, start: Arrays | None) -> Output:
        data = joined(job.blocks)
        how = self.settings.base if start is None else self.settings.update
        model = MF(data.n_users, data.n_items, dim=dim, seed=rng.key(job.seed, "weights"))
        if start is not None:
            _warm(model, start, data)
        return _trained(model, data.train, data.valid, how, job)


def _warm(model: MF, start: Arrays, data: BlockData) -> None:
    """The tables as they were, new rows by the initialisation of the sheet, section 4a."""
    seen = Csr.from_pairs(data.user, data.item, data.n_users, data.n_items)
    vectors = initialised(np.asarray(start["user"]), np.asarray(start["item"]), seen)
    with torch.no_grad():
        for side, value in zip(("user", "item"), vectors, strict=True):
            (model.user if side == "user" else model.item).copy_(torch.from_numpy(value))


def _trained(
    model: MF,
    train: Interactions,
    valid: HeldOut,
    how: Training,
    job: Job,
    *,
    teacher: Knows | None = None,
    weight: float = 0.0,
) -> Output:
    runtime = Runtime.of(job.device)
    batches = model.batches(train, size=how.batch, negatives=1, seed=job.seed, device=runtime.device)
    setting = Setting(model, batches, FromInteractions("bpr"), batches.taken, train.n_users, job.seed, teacher)
    passes = plain(Plain(), setting) if teacher is None else rrd(RRD(weight=weight, draw="top"), setting)
    metrics = ("recall@20",) if len(valid) else ()

    def validate() -> dict[str, float]:
        return evaluate(model.ranker(), valid, metrics).means

    stop = Stop(validate if metrics else None, metrics, patience=how.patience, every=how.every)
    report = fit(
        model,
        passes,
        epochs=how.epochs,
        optimise=lambda parameters: optimiser("adam", parameters, lr=how.lr, weight_decay=how.weight_decay),
        runtime=runtime,
        stop=stop,
        keep=_keep(job.checkpoint),
    )
    best = {name: {"epoch": b.epoch, "value": b.value} for name, b in report.best.items()}
    return Output(model.arrays(), _TABLES, {"epochs": len(report.history), "best": best, "replay_share": 0.0})


def _keep(path: Path) -> Keep:
    return Keep(path, path.parent.name)  # the folder is the key of the stage


def _voted(found: NDArray[np.int64], depth: int) -> NDArray[np.int32]:
    """(Q, M L) lists of the members side by side -> (Q, L) by the sum of their votes; ties to the smaller row."""
    members = found.shape[1] // depth
    vote = np.tile((np.arange(depth) + 1.0) ** -0.05, members)  # (M L,)
    order = np.argsort(found, axis=1, kind="stable")
    item = np.take_along_axis(found, order, 1)
    votes = np.where(item >= 0, vote[order], 0.0)
    first = np.c_[np.ones((len(item), 1), np.bool_), item[:, 1:] != item[:, :-1]]
    flat = np.flatnonzero(first)
    total = np.zeros(item.shape)
    total.reshape(-1)[flat] = np.add.reduceat(votes.reshape(-1), flat)
    total[item < 0] = 0.0
    best = np.argsort(-total, axis=1, kind="stable")[:, :depth]
    return np.where(np.take_along_axis(total, best, 1) > 0, np.take_along_axis(item, best, 1), -1).astype(np.int32)


@register("finetune", settings=FinetuneSettings)
def build(settings: FinetuneSettings) -> Stages:
    """The stages of these settings."""
    return Finetune(settings)
