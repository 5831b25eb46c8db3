"""`ccd`: continual collaborative distillation as the stages of a stream. Lee et al., KDD 2024, arXiv:2405.19046.

The method is in `recdistill.continual`, as functions of snapshots; here snapshots become named arrays and back. A
forgotten person's rows are emptied in all of them; the row counts as never trained from then on.

Letters: U users, I items, Q users asked, K list.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from recdistill.continual import plain
from recdistill.continual.ensemble import Lists
from recdistill.continual.learning import Run
from recdistill.continual.proxies import averaged, remembered
from recdistill.continual.settings import PRESETS, CCDSettings, ModelSpec, merged
from recdistill.continual.shallow import shallow_lists, shallow_top_k
from recdistill.continual.snapshot import Snapshot
from recdistill.continual.stages import Sources, believed, cut, distil, update_student
from recdistill.continual.teaching import update_teacher
from recdistill.data.blocks import Block, halves
from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut
from recdistill.ledger.objects import Personal
from recdistill.methods.base import Paper
from recdistill.runtime import Runtime
from recdistill.stream.collect import joined
from recdistill.stream.protocol import Output, Released, Stages, register

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from recdistill.continual.learning import Learned
    from recdistill.continual.replay import Vectors
    from recdistill.stream.measure import Lists as Ranked
    from recdistill.stream.protocol import Arrays, BlockData, Job

__all__ = ["CCD", "CCDStreamSettings"]

_CODE = 1
_LISTS = Personal(rows=("items",), values=("users",))
_PAPER = Paper(
    key="lee2024ccd",
    title="Continual Collaborative Distillation for Recommender System",
    authors="Lee, Gyuseok and Kang, SeongKu and Kweon, Wonbin and Yu, Hwanjo",
    venue="KDD",
    year=2024,
    url="https://arxiv.org/abs/2405.19046",
)


class CCDStreamSettings(CCDSettings):
    """The settings of the method; of its baselines', `plain` is the student's on the base block, others act nowhere."""

    name: str = "ccd"
    """Of the method."""
    preset: Literal["default", "compat", "quick"] = "default"
    """What the other settings lie over, key by key in tables too."""
    depth: int = Field(default=500, ge=1)  # pyright: ignore[reportIncompatibleVariableOverride]
    """How deep members' lists are read; all of a larger catalogue would cost hours where a stream has minutes."""


def filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over their preset, as `continual.settings.settings_of` lays them; an unknown preset is told later."""
    preset = PRESETS.get(str(given.get("preset", "default")), {})
    return merged(merged(CCDStreamSettings().model_dump(mode="json"), preset), given)


class CCD:
    """The stages.

    Args:
        settings: of the method. With `update.times` above 1 the pairs of a block are learned in so many parts, one
            after the other in time, each by an update of its own; what is measured and served is the last one. For
            updates that are served between, there are smaller blocks and `teacher.every`.
    """

    fixed = ("name", "student.name", "student.dim", "teachers", "proxies.mode")

    def __init__(self, settings: CCDStreamSettings) -> None:
        self.settings = settings

    @property
    def members(self) -> int:
        """How many teachers."""
        return len(self.settings.teachers)

    def identity(self, stage: str) -> Mapping[str, Any]:
        """All settings; the preset is in them."""
        return {"stage": stage, "code": _CODE, **self.settings.model_dump(mode="json", exclude={"preset"})}

    def student(
        self,
        job: Job,
        *,
        start: Arrays | None,
        distilled: Arrays | None,
        proxies: Arrays | None,
        ensemble: Arrays | None,
    ) -> Output:
        """Stage 2; on the base block a student trained alone, until one is distilled."""
        c, block, run = self.settings, _block(job.block), _run(job)
        if start is None:
            return _learned(plain.base(block, c.student, c.plain, run=run))
        sources = self._sources(proxies, distilled)
        without = block.train.csr() if c.update.replay.masks == "alike" else None
        avoid = _believed(block, ensemble, sources, c.update.avoid, without, whole=False)
        student = Snapshot.from_arrays(c.student, start)
        times = min(c.update.times, len(block.train))
        parts = halves(block, times, seed=job.seed) if times > 1 else (block.train,)
        done: list[Learned] = []
        for n, part in enumerate(parts):
            run = _run(job, "" if n == 0 else f"-{n}")
            own = part if len(parts) > 1 else None
            done.append(update_student(block, _before(job), student, sources, c.update, avoid=avoid, part=own, run=run))
            student = done[-1].snapshot
        return _learned(done[-1], replays=True, epochs=sum(len(each.report.history) for each in done))

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
        """Stage 3; from scratch by the base loss alone."""
        c, block, run = self.settings, _block(joined(job.blocks)), _run(job)
        spec = c.teachers[member]
        if start is None:
            return _learned(plain.base(block, spec, c.base, run=run))
        sources = self._sources(proxies, student)
        avoid = _believed(block, ensemble, sources, c.teach.avoid, block.train.csr(), whole=False)
        before = Snapshot.from_arrays(spec, start)
        learned = update_teacher(block, _before(job), before, sources, c.teach, avoid=avoid, run=run)
        return _learned(learned, replays=True)

    def ensemble(self, job: Job, *, teachers: Sequence[Arrays]) -> Output:
        """Lists of both sides, over the training pairs since the last time; of nobody who was forgotten."""
        c, block = self.settings, joined(job.blocks)
        members = self._vectors(teachers)
        met = np.any([arrays["met/user"] for arrays in teachers], axis=0)
        near, train = min(c.distil.near, block.n_items, block.n_users), block.train.csr()
        depth = min(c.depth, block.n_items)
        lists = shallow_lists(members, train, near, depth=depth, exponent=c.exponent, met=met)
        return Output(lists.arrays(), _LISTS)

    def distil(
        self, job: Job, *, ensemble: Arrays, student: Arrays | None, proxies: Arrays | None, before: Arrays | None
    ) -> Output:
        """Stage 1; in the first cycle only the ensemble is believed, for nobody distilled the student there is."""
        c, block = self.settings, _block(joined(job.blocks))
        lists = Lists.from_arrays(ensemble)
        sources = Sources() if before is None else self._sources(proxies, student)
        avoid = _believed(block, ensemble, sources, c.distil.avoid, block.train.csr())
        past = None if student is None else Snapshot.from_arrays(c.student, student).context
        warm = sources.student
        learned = distil(block, c.student, lists, c.distil, avoid=avoid, warm=warm, past=past, run=_run(job))
        return _learned(learned)

    def proxies(self, job: Job, *, distilled: Arrays, before: Arrays | None) -> Output:
        """SP and PP; in the first cycle they are one, and only SP is kept."""
        del job
        c, new = self.settings.proxies, Snapshot.from_arrays(self.settings.student, distilled)
        slow = averaged(self._proxy(before, "slow"), new, c.stability, c)
        out = {f"slow/{name}": value for name, value in slow.arrays().items()}
        if before is not None:
            fast = averaged(self._proxy(before, "fast") or self._proxy(before, "slow"), new, c.plasticity, c)
            out |= {f"fast/{name}": value for name, value in fast.arrays().items()}
        return Output(out, _personal(out))

    def ranked(self, stage: str, arrays: Arrays, users: NDArray[np.int64], k: int, without: Csr) -> NDArray[np.int64]:
        """By what is served."""
        del stage
        model = Snapshot.from_arrays(self.settings.student, arrays).ranker()
        return model.top_k(users, k, cut(without, model.n_users, model.n_items))

    def joint(self, teachers: Sequence[Arrays]) -> Ranked:
        """By the heads of the members' lists."""
        c = self.settings
        return partial(shallow_top_k, self._vectors(teachers), depth=c.depth, exponent=c.exponent)

    def released(self, student: Arrays) -> Released:
        """What the student serves."""
        spec = self.settings.student
        model = Snapshot.from_arrays(spec, student).model()
        return Released(model.kind, model.arrays(), spec.name, spec.model_dump(mode="json"), [_PAPER.bibtex()])

    def _vectors(self, teachers: Sequence[Arrays]) -> list[Vectors]:
        found = (
            remembered(Snapshot.from_arrays(spec, arrays))
            for spec, arrays in zip(self.settings.teachers, teachers, strict=True)
        )
        return [each for each in found if each is not None]

    def _sources(self, proxies: Arrays | None, student: Arrays | None) -> Sources:
        return Sources(
            self._proxy(proxies, "slow"),
            self._proxy(proxies, "fast"),
            None if student is None else Snapshot.from_arrays(self.settings.student, student),
        )

    def _proxy(self, arrays: Arrays | None, which: str) -> Snapshot | None:
        mine = {name.partition("/")[2]: value for name, value in (arrays or {}).items() if name.startswith(which + "/")}
        if not mine:
            return None
        spec = self.settings.student
        if self.settings.proxies.mode == "scores":  # served vectors, of any width
            spec = ModelSpec(name="mf", dim=mine["weights/user"].shape[1])
        return Snapshot.from_arrays(spec, mine)


def _believed(
    block: Block, ensemble: Arrays | None, sources: Sources, k: int, without: Csr | None, *, whole: bool = True
) -> Csr | None:
    """What negatives leave alone; of those who have training pairs in the block, or of everybody."""
    lists = None if ensemble is None else Lists.from_arrays(ensemble)
    users = None if whole else np.unique(block.train.user).astype(np.int64)
    size = (block.n_users, block.n_items)
    return believed(*size, lists=lists, models=sources.all(), k=k, without=without, users=users)


def _block(data: BlockData) -> Block:
    """A block without what the gates hold out: its test part is empty here."""
    train, valid = data.train, data.valid
    nothing = Csr.empty(data.n_users, data.n_items)
    test = HeldOut("test", train.users, train.items, nothing, train.csr())
    return Block(data.number, train, valid, test, data.old_users, data.old_items)


def _before(job: Job) -> Csr | None:
    return None if job.before is None else job.before.train.csr()


def _run(job: Job, part: str = "") -> Run:
    place = job.checkpoint.with_name(job.checkpoint.name + part)
    name = place.parent.name + part  # the folder is the key
    return Run(seed=job.seed, checkpoint=place, name=name, runtime=Runtime.of(job.device))


def _learned(learned: Learned, *, replays: bool = False, epochs: int | None = None) -> Output:
    arrays = learned.snapshot.arrays()
    best = {name: {"epoch": b.epoch, "value": b.value} for name, b in learned.report.best.items()}
    measured = {
        "epochs": len(learned.report.history) if epochs is None else epochs,
        "best": best,
        "replay_share": learned.replay_share if replays else 0.0,
    }
    return Output(arrays, _personal(arrays), measured)


def _personal(arrays: Arrays) -> Personal:
    """Rows of users in snapshots: vectors, Adam's state of them, who was met, what LightGCN and Mult-VAE read."""
    own = ("weights/user", "moments/user/", "met/user")
    rows = tuple(name for name, array in arrays.items() if array.ndim and any(part in name for part in own))
    begins = [name for name in arrays if name.endswith("context/indptr")]
    return Personal(rows=rows, sparse=tuple((name, name.removesuffix("indptr") + "indices") for name in begins))


@register("ccd", settings=CCDStreamSettings, filled=filled)
def build(settings: CCDStreamSettings) -> Stages:
    """The stages of these settings."""
    return CCD(settings)
