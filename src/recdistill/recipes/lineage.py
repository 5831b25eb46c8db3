"""A stream run from block to block: what each stage takes from which, every output kept under what it was made from.

So rows of a table share what they have in common (the base teachers, the first student), and a killed run goes on with
the stage it was in. Lee et al., CCD, KDD 2024, arXiv:2405.19046; names as there: T_k teachers after block k, S^D_k the
student distilled from T_{k-1}, S_k that student updated on block k, SP_k and PP_k the proxies of cycle k.
"""

from __future__ import annotations

import hashlib
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from recdistill import rng
from recdistill.continual import plain, proxies
from recdistill.continual.ensemble import EnsembleRanker, Lists, lists_of
from recdistill.continual.entities import begun
from recdistill.continual.learning import Run
from recdistill.continual.reservoir import kept, update_spmf
from recdistill.continual.settings import Initial
from recdistill.continual.shallow import shallow_lists
from recdistill.continual.snapshot import Snapshot
from recdistill.continual.stages import Sources, believed, distil, update_student
from recdistill.continual.teaching import update_teacher
from recdistill.data.blocks import halves
from recdistill.recipes.cells import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recdistill.continual.learning import Learned
    from recdistill.continual.settings import CCDSettings, ModelSpec
    from recdistill.data.blocks import Block
    from recdistill.data.csr import Csr
    from recdistill.evaluation.ranking import Ranker
    from recdistill.recipes.kept import Kept

__all__ = ["HOWS", "PARTS", "Lineage"]

P = ParamSpec("P")
T = TypeVar("T")

HOWS = (
    "popularity",
    "popularity-now",
    "full-batch",
    "fine-tune",
    "replay",
    "spmf",
    "lwc-kd",
    "static",
    "distil-only",
    "ccd",
    "teacher",
)
"""What a row of a table can be."""

PARTS = ("distilled start", "teacher update")
"""What "ccd" can leave out: each update then begins from the one before, or teachers only grow."""


def _once(make: Callable[Concatenate[Lineage, P], T]) -> Callable[Concatenate[Lineage, P], T]:
    """Keep what a method returns: everything after block k asks several times for everything after block k - 1."""

    @wraps(make)
    def made(self: Lineage, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (make.__name__, args, *kwargs.items())
        if key not in self.made:
            self.made[key] = make(self, *args, **kwargs)
        return self.made[key]

    return made


class Lineage:
    """One row of a table for one seed."""

    def __init__(
        self,
        stream: Sequence[Block],
        how: str,
        settings: Callable[[int], CCDSettings],
        *,
        seed: int,
        keep: Kept,
        taught: bool = True,
        without: Sequence[str] = (),
    ) -> None:
        """Say what is run.

        Args:
            stream: the blocks.
            how: one of `HOWS`.
            settings: of each block's stages; a constant function is one fixed setting for all blocks.
            seed: of the student's side. The base teachers' seeds are their places, whatever this is.
            keep: where outputs are kept.
            taught: whether teachers learn from the student's side.
            without: some of `PARTS`.
        """
        self._stream, self._how, self._settings = stream, how, settings
        self._seed, self._keep, self._taught, self._without = seed, keep, taught, tuple(without)
        self._csr = [block.train.csr() for block in stream]
        self._blocks = [_digest(block) for block in stream]
        self._digests: dict[int, str] = {}
        self.made: dict[tuple[Any, ...], Any] = {}

    def after(self, k: int) -> Ranker:
        """What answers after block k was learned."""
        match self._how:
            case "popularity":
                return plain.popularity(self._stream[: k + 1])
            case "popularity-now":
                return plain.popularity(self._stream[k : k + 1])
            case "teacher":
                return self._ensemble(k)
            case _:
                return self.student(k).ranker()

    def student(self, k: int) -> Snapshot:
        """The model that answers after block k; of "ccd" the student distilled first at 0, then S_k."""
        match self._how:
            case "ccd":
                return self.distilled(1) if k == 0 else self.updated(k)
            case "distil-only":
                return self.distilled(k + 1)
            case "static":
                return self.distilled(1).grown(self._so_far(k), seed=rng.key(self._seed, "growth", k))
            case "full-batch":
                return self._full(k)
            case _:
                return self._chained(k)

    # the cycle

    @_once
    def members(self, k: int) -> list[Snapshot]:
        """T_k; several processes train members side by side."""
        found: dict[int, Snapshot] = {}
        finish(range(len(self._settings(0).teachers)), lambda m: self._member(m, k), found.__setitem__)
        return [each for _, each in sorted(found.items())]

    @_once
    def lists(self, k: int) -> Lists:
        """What T_k hands on: lists over block k."""
        c = self._settings(k)
        about = {"exponent": c.exponent, "k": c.distil.near, **self._about(k, *self.members(k))}
        if c.depth is None:
            return self._keep.lists("lists", about, lambda: lists_of(self._ensemble(k), self._csr[k], c.distil.near))
        depth, exponent = c.depth, c.exponent
        found = [each for each in map(proxies.remembered, self.members(k)) if each is not None]
        how = partial(shallow_lists, found, self._csr[k], c.distil.near, depth=depth, exponent=exponent)
        return self._keep.lists("lists", {**about, "depth": depth}, how)

    @_once
    def distilled(self, k: int) -> Snapshot:
        """S^D_k, on block k - 1."""
        d, c = k - 1, self._settings(k - 1)
        lists, cycle = self.lists(d), self._how in ("ccd", "teacher") and d > 0
        own = [self.proxy("stability", d), self.updated(d)] if cycle else []
        own += [self.proxy("plasticity", d)] if cycle and d > 1 else []
        # the first one has nothing to begin from, so that rows with a warm start share it
        how = c.distil if cycle else c.distil.model_copy(update={"start": "scratch"})
        about = {
            "settings": how.model_dump(mode="json"),
            "student": c.student.model_dump(mode="json"),
            "lists": _of_arrays(lists.items, lists.users),
            **self._about(d, *own),
        }
        if c.student.reads and not cycle:
            about["past"] = self._blocks[:d]  # of a cycle the students say it

        def make(run: Run) -> Learned:
            block, train, warm = self._stream[d], self._csr[d], self.updated(d) if cycle else None
            avoid = believed(train.n_rows, train.n_columns, lists=lists, models=own, k=c.distil.avoid, without=train)
            return distil(block, c.student, lists, how, avoid=avoid, warm=warm, past=self._so_far(d), run=run)

        return self._keep.snapshot("distil", about, self._seed, make)

    @_once
    def proxy(self, which: str, k: int) -> Snapshot:
        """SP_k or PP_k: an average over the students distilled so far, or over those of a chain."""
        c = self._settings(k).proxies
        keep = c.stability if which == "stability" else c.plasticity
        new = self.distilled(k) if self._how in ("ccd", "teacher") else self._chained(k - 1)
        before = self.proxy(which, k - 1) if k > 1 else None
        return proxies.averaged(before, new, keep, c)

    @_once
    def updated(self, k: int) -> Snapshot:
        """S_k."""
        start = self.updated(k - 1) if "distilled start" in self._without and k > 1 else self.distilled(k)
        return self._replayed(k, start, self.lists(k - 1))

    def _member(self, m: int, k: int) -> Snapshot | None:
        """None while another process is at it."""
        c = self._settings(k)
        spec = c.teachers[m]
        if k == 0:
            about = {"settings": c.base.model_dump(mode="json"), "spec": spec.model_dump(mode="json"), **self._about(0)}
            return self._keep.unheld(
                "teacher-base", about, m, lambda run: plain.base(self._stream[0], spec, c.base, run=run)
            )
        before = self.members(k - 1)[m]
        if "teacher update" in self._without:
            return begun(self._stream[k], self._csr[k], before, c.teach.initial, Run(rng.key(m, "frozen")))
        sources, lists = Sources(), self.lists(k - 1)
        if self._taught:
            plasticity = self.proxy("plasticity", k) if k > 1 or not c.teach.replay.stability else None
            sources = Sources(self.proxy("stability", k), plasticity, self.updated(k))
        about = {
            "settings": c.teach.model_dump(mode="json"),
            "lists": _of_arrays(lists.items),
            "graph": self._blocks[k - 1],
            **self._about(k, before, *sources.all()),
        }

        def make(run: Run) -> Learned:
            block = self._stream[k]
            avoid = believed(
                block.n_users,
                block.n_items,
                lists=lists,
                models=sources.all(),
                k=c.teach.avoid,
                without=self._csr[k],
                users=np.flatnonzero(self._csr[k].degrees),
            )
            return update_teacher(block, self._csr[k - 1], before, sources, c.teach, avoid=avoid, run=run)

        return self._keep.unheld("teacher", about, m, make)

    def _ensemble(self, k: int) -> EnsembleRanker:
        found = [proxies.remembered(each) for each in self.members(k)]
        return EnsembleRanker([each for each in found if each is not None], exponent=self._settings(k).exponent)

    def _replayed(self, k: int, start: Snapshot, lists: Lists | None) -> Snapshot:
        """A student on block k, in one update or in several, replaying what the proxies remember."""
        c = self._settings(k).update
        plasticity = self.proxy("plasticity", k) if k > 1 or not c.replay.stability else None
        sources = Sources(self.proxy("stability", k), plasticity, start)
        block, now = self._stream[k], start
        parts = halves(block, c.times, seed=self._seed)
        opinions = sources.all()
        for n, part in enumerate(parts):
            about = {
                "settings": c.model_dump(mode="json"),
                "part": n,
                "lists": None if lists is None else _of_arrays(lists.items),
                "graph": self._blocks[k - 1],
                **self._about(k, now, *opinions),
            }

            def make(run: Run, now: Snapshot = now, part: Any = part) -> Learned:  # noqa: ANN401
                avoid = believed(
                    block.n_users,
                    block.n_items,
                    lists=lists,
                    models=opinions,
                    k=c.avoid,
                    without=self._csr[k] if c.replay.masks == "alike" else None,
                    users=np.flatnonzero(self._csr[k].degrees),
                )
                one = part if len(parts) > 1 else None
                return update_student(block, self._csr[k - 1], now, sources, c, avoid=avoid, part=one, run=run)

            now = self._keep.snapshot("student", about, self._seed, make)
        return now

    @_once
    def _so_far(self, k: int) -> Csr:
        """U_k x I_k: what a student that reads all blocks reads after block k; of others that block."""
        own, reads = self._csr[k], self._settings(k).student.reads
        return own.union(self._so_far(k - 1).widened(own.n_rows, own.n_columns)) if k and reads else own

    # baselines

    def _full(self, k: int) -> Snapshot:
        c = self._settings(k)
        about = {"settings": c.plain.model_dump(mode="json"), **self._own(c.student), **self._about(k)}
        about["all"] = self._blocks[: k + 1]
        whole = self._stream[: k + 1]
        return self._keep.snapshot(
            "full-batch", about, self._seed, lambda run: plain.base(plain.together(whole), c.student, c.plain, run=run)
        )

    @_once
    def _chained(self, k: int) -> Snapshot:
        """A model that goes on from block to block, without a teacher."""
        c = self._settings(k)
        block, graph = self._stream[k], self._csr[max(k - 1, 0)]
        if k == 0:
            return self._full(0)
        before = self._chained(k - 1)
        if self._how == "replay":
            return self._replayed(k, before, None)
        training, initial = c.update.training, Initial(hops="none")
        margin = c.update.margin
        about: dict[str, Any] = {"training": training.model_dump(mode="json"), **self._about(k, before)}
        about |= {} if margin is None else {"margin": margin}
        if self._how == "spmf":
            sample = None
            for earlier in self._stream[:k]:
                sample = kept(sample, earlier, size=c.reservoir.size, seed=self._seed)
            about |= {"reservoir": c.reservoir.model_dump(mode="json"), "past": self._blocks[:k]}
            more = {"training": training, "initial": initial, "margin": margin}
            make = partial(update_spmf, block, before, sample, c.reservoir, **more)
        elif self._how == "lwc-kd":
            how = c.teach.model_copy(update={"training": training, "initial": initial, "margin": margin})
            about |= {"contrast": how.model_dump(mode="json"), "graph": self._blocks[k - 1]}
            make = partial(update_teacher, block, graph, before, Sources(), how)
        else:
            make = partial(plain.finetune, block, before, training, initial, margin=margin)
        return self._keep.snapshot(self._how, about, self._seed, lambda run: make(run=run))

    # what an output was made from

    def _about(self, k: int, *inputs: Snapshot) -> dict[str, Any]:
        return {"block": self._blocks[k], "inputs": [self._name(each) for each in inputs]}

    def _own(self, spec: ModelSpec) -> dict[str, Any]:
        return {"spec": spec.model_dump(mode="json")}

    def _name(self, snapshot: Snapshot) -> str:
        if id(snapshot) not in self._digests:  # all are held somewhere, so an id stays whose it is
            self._digests[id(snapshot)] = snapshot.digest
        return self._digests[id(snapshot)]


def _digest(block: Block) -> str:
    """Of all that a stage reads of a block."""
    sizes = np.array([block.index, block.n_users, block.n_items, block.old_users, block.old_items])
    valid = block.valid
    return _of_arrays(sizes, block.train.user, block.train.item, valid.targets.keys, valid.seen.keys)


def _of_arrays(*arrays: np.ndarray) -> str:
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(f" {array.dtype.str} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
