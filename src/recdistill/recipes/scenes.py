"""The cells of `recdistill reproduce adarec`: searched students, their teacher, and what nobody searched.

Chen et al., AdaRec, arXiv:2107.07173. Data and protocol are those of `recdistill reproduce sequential`: leave-one-out,
every item ranked, training stopped by validation NDCG@10, the test asked once. The teacher of record is NextItNet of
width 256, whose body has 6,316,048 parameters. Every student of a scene learns from the same teacher by the same terms
with the same training, unless its name says "alone" or, after a colon, what else is not the same. Random cells cost
what the searched one does, hand-made models "as fast" are timed beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recdistill.evaluation.card import environment
from recdistill.models import bert4rec, nextitnet, sasrec
from recdistill.recipes.as_fast import CANDIDATES, as_fast, built
from recdistill.recipes.onnx_times import onnx_times
from recdistill.recipes.search import search, settings_of
from recdistill.recipes.sequences import Places, measured
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.search.controls import always, random_of_price
from recdistill.search.derive import Design, named
from recdistill.search.model import of_design
from recdistill.search.space import SPACES
from recdistill.training.watch import JsonLines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recdistill.data.interactions import Split
    from recdistill.methods.adarec import AdaRec
    from recdistill.recipes.trained import Trained
    from recdistill.search.settings import SearchSettings
    from recdistill.training.watch import Watch

__all__ = ["RANDOM", "SCENES", "TEACHERS", "Scene", "Study", "extras", "rows"]

_NO_STUDENTS = ("teacher", "search", "searched alone", "sizes", "latency")
RANDOM = 10
"""Random cells of the searched one's price."""
FIXED = (*always(SPACES["attentive"]), "all-cau_cnn_3_d2")
"""Cells that nobody searched; the last is a convolution on every edge, the dearest of them."""
_SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "small nextitnet": ("nextitnet", {"dim": 64, "groups": 4, "tied": True}),
    "small sasrec": ("sasrec", {"dim": 64, "layers": 4, "heads": 2}),
}
"""Hand-made students, of the same width and as many layers: AdaRec's presets for distilled models of one type."""
_AS_FAST = {f"{model} as fast": model for model in CANDIDATES}
"""Hand-made students whose bodies take no longer than the searched one's; "sizes" chooses them."""
_OTHERWISE: dict[str, dict[str, Any]] = {
    **{f"searched: mapping {way}": {"mapping": way} for way in ("left", "right", "left-jump", "right-jump")},
    "searched: no hidden": {"hidden": 0.0},
}
"""The searched cells with other settings of the distillation: layers one to one as published, or none of them."""
_DERIVED = "searched: as alpha has it"
"""The cells before their refinement."""
TEACHERS: dict[str, dict[str, Any]] = {"sasrec": sasrec.ADAREC, "bert4rec": {**bert4rec.ADAREC, "cloze": 20}}
"""AdaRec's other teachers; each has a search of its own."""
_PATIENCE = {"bert4rec": 40}
"""Of those whose training must not end in a first stage, which teaches no positions."""
_TRAINING: dict[str, Any] = {
    "epochs": 200,
    "batch": 128,
    "loss": "cross-entropy",
    "negatives": 0,
    "weight_decay": 0.0,
    "patience": 10,
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A log with its teacher, its search, and how its students are trained."""

    name: str
    title: str
    folder: str
    """Of the data, with its `interactions.parquet`."""
    split: str
    teacher: dict[str, Any]
    """Settings of NextItNet, over AdaRec's."""
    search: dict[str, Any] = field(default_factory=dict[str, Any])
    """Over those of all scenes, themselves over the defaults of `SearchSettings`."""
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of everybody, over that of all scenes."""
    students: dict[str, Any] = field(default_factory=lambda: {"batch": 32})
    """Of the students, over `training`: by default four times the steps an epoch, which they need more than a wide
    teacher does."""
    made: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Settings of hand-made students by their model, over those of all scenes."""


_SEARCH: dict[str, Any] = {
    "space": "attentive",
    "frame": {"dim": 64, "length": 50, "every": True, "dropout": 0.2},
    "epochs": 16,
    "warm_up": 6,
}

_SPARSE: dict[str, Any] = {
    "teacher": {"tied": True, "bias": False, "norm": True, "dropout": 0.5, "head_dropout": 0.5},
    "search": {"frame": {**_SEARCH["frame"], "dropout": 0.35}},
    "training": {"batch": 256},
    "students": {"lr": 3e-3},
    "made": {
        "nextitnet": {"dropout": 0.35, "head_dropout": 0.35, "norm": True},
        "sasrec": {"dropout": 0.35},
    },
}
"""Of logs with few interactions an item: by validation data of Amazon Toys."""

SCENES: dict[str, Scene] = {
    scene.name: scene
    for scene in (
        # so few histories that steps of 128 would be too few to train twelve operators an edge
        Scene("ml-100k", "MovieLens 100K", "ml_100k", "leave-last-out", {"dropout": 0.5}, {"batch": 32}),
        Scene("toys", "Amazon Toys", "amazon_toys", "given", **_SPARSE),
        Scene("beauty", "Amazon Beauty", "amazon_beauty", "given", **_SPARSE),
        Scene("ml-1m", "MovieLens 1M", "ml_1m", "given", {"dropout": 0.3}),
    )
}


@dataclass(frozen=True)
class Study:
    """One scene and seed: cells are computed, gone on with, or read."""

    scene: Scene
    seed: int
    parts: Split
    places: Places
    by: str = "nextitnet"
    """Who teaches."""

    # what results depend on; devices are not among it

    @property
    def _training(self) -> dict[str, Any]:
        return {**_TRAINING, **self.scene.training}

    @property
    def students(self) -> TrainSettings:
        """How every student is trained."""
        return TrainSettings.model_validate(self._training | self.scene.students)

    @property
    def settings(self) -> SearchSettings:
        """Of the search."""
        return settings_of("default", _SEARCH | self.scene.search)

    def about(self, row: str) -> dict[str, Any]:
        """Of one row."""
        if (other := self._other(row)) is not None:
            return other[0].about(other[1])
        scene = self.scene
        training: dict[str, Any] = {**self._training, "precision": "bfloat16"}
        if self.by == "nextitnet":
            of = {"model": {**nextitnet.ADAREC, "length": 50, "every": True, **scene.teacher}}
        else:
            of = {"name": self.by, "model": {**TEACHERS[self.by], "length": 50, "every": True}}
            training["patience"] = _PATIENCE.get(self.by, training["patience"])
        teacher = {**of, "training": training}
        common = {"data": scene.folder, "split": scene.split, "seed": self.seed, "teacher": teacher}
        if row == "teacher":
            return common
        if row != "search":
            common["students"] = scene.students
        common["distillation"] = self._distillation(row).model_dump(mode="json", exclude={"memory"})
        if row in _SMALL:
            return common | {"student": self._made(*_SMALL[row])}
        common["frame"] = self.settings.frame.model_dump(mode="json")
        if row in FIXED:
            return common | {"cell": row, "cells": self.settings.cells}
        about = common | {"search": self.settings.model_dump(mode="json", exclude={"device", "distillation"})}
        if row.startswith("cell of "):
            about["from"] = Study(SCENES[row.removeprefix("cell of ")], self.seed, self.parts, self.places).about(
                "search"
            )
        if row in _OTHERWISE:
            about["from"] = self.about("search")  # which distils as the others do
        if row in {"sizes", "latency", *_AS_FAST}:
            about["candidates"] = self._candidates
        if row == "latency":
            about["beside"] = {"hand-made": {row: self._made(*_SMALL[row]) for row in _SMALL}, "fixed": list(FIXED)}
        if row in _AS_FAST and (sizes := self.found("sizes")) is not None:
            about["student"] = sizes[_AS_FAST[row]]["student"]
        return about | {"row": row}

    def label(self, row: str) -> str:
        """What the files of a row are called."""
        if (other := self._other(row)) is not None:
            return other[0].label(other[1])
        of = self.scene.name if self.by == "nextitnet" else f"{self.scene.name}-{self.by}"
        words = re.sub(r"[^\w-]+", "-", row)
        return f"{of}-{words}-seed{self.seed}"

    def found(self, row: str) -> dict[str, Any] | None:
        """A finished row, or None."""
        return self.places.cells.get(self.label(row), self.about(row))

    def ready(self, row: str) -> bool:
        """Whether a row can be computed now: the cell of another scene needs that scene's search."""
        other = row.removeprefix("cell of ")
        return other == row or Study(SCENES[other], self.seed, self.parts, self.places).found("search") is not None

    def _other(self, row: str) -> tuple[Study, str] | None:
        """Of a row such as "sasrec: searched": the study with that teacher, and the row there."""
        by, colon, rest = row.partition(": ")
        return (replace(self, by=by), rest) if colon and by in TEACHERS else None

    def _distillation(self, row: str) -> AdaRec:
        return self.settings.distillation.model_copy(update=_OTHERWISE.get(row, {}))

    def _made(self, model: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A hand-made student as this scene has it."""
        return model, settings | self.scene.made.get(model, {})

    @property
    def _candidates(self) -> dict[str, list[dict[str, Any]]]:
        return {model: [self._made(model, each)[1] for each in sizes] for model, sizes in CANDIDATES.items()}

    # how they come to be

    def row(self, row: str) -> dict[str, Any] | None:
        """The result of a row; None when another process is at it, or what it needs is not there yet."""
        if (done := self.found(row)) is not None:
            return done
        if (other := self._other(row)) is not None:
            return other[0].row(other[1])
        searched = row not in {"teacher", "search", *_SMALL, *FIXED}  # "latency" too: it times what was found
        needed = {"teacher": row != "teacher", "search": searched, "sizes": row in _AS_FAST or row == "latency"}
        if any(self.row(each) is None for each, is_needed in needed.items() if is_needed):
            return None
        about, label, cells = self.about(row), self.label(row), self.places.cells
        with cells.claim(label, about) as mine:
            if not mine:
                return None
            if (done := cells.get(label, about)) is not None:
                return done
            compute = {"search": self._search, "latency": self._times, "sizes": self._sizes}.get(row, self._trained)
            checkpoint = self.places.work / cells.path(label, about, ".safetensors").name
            watch = [*self.places.watch(label), JsonLines(self.places.work / f"{label}.jsonl")]
            found = compute(row, checkpoint, watch)
            if found is not None:
                cells.put(label, about, {"about": about, **found})
                if row != "teacher":
                    checkpoint.unlink(missing_ok=True)
            return found

    def _trained(self, row: str, checkpoint: Path, watch: Sequence[Watch]) -> dict[str, Any] | None:
        if row == "teacher":
            return measured(self._teacher, self.parts)
        if (built := self._student(row)) is None:
            return None
        found = self._same(row, built) or self._student_trained(row, built, checkpoint, watch)
        return found | ({"student": built[1]} if row in _AS_FAST else {})

    def _student_trained(
        self, row: str, built: tuple[str, dict[str, Any]], checkpoint: Path, watch: Sequence[Watch]
    ) -> dict[str, Any]:
        model, settings = built
        alone = row.endswith("alone")
        trained = distill(
            None if alone else self._teacher,
            model,
            self.parts.train,
            method="plain" if alone else "adarec",
            valid=self.parts.valid,
            seed=self.seed,
            settings={} if alone else self._distillation(row).model_dump(mode="json"),
            model_settings=settings,
            training=self.students,
            checkpoint=checkpoint,
            watch=watch,
        )
        return measured(trained, self.parts)

    def _same(self, row: str, built: tuple[str, dict[str, Any]]) -> dict[str, Any] | None:
        """What another row of the table came to whose student is this one: training it again would give the same."""
        table = [each for each in rows(self.scene.name) if each not in _NO_STUDENTS]  # these are trained alike
        for other in table if row in table else ():
            if other != row and self._student(other) == built and (done := self.found(other)) is not None:
                return {key: done[key] for key in done if key not in {"about", "student"}} | {"same as": other}
        return None

    def _student(self, row: str) -> tuple[str, dict[str, Any]] | None:
        """The model of a row with its settings; None where its cell has not been found yet."""
        if row in _SMALL:
            model, settings = self._made(*_SMALL[row])
            return model, {**settings, "length": 50, "every": True}
        if row in _AS_FAST:
            model, sizes = _AS_FAST[row], self.found("sizes")
            return None if sizes is None else (model, {**sizes[model]["student"], "length": 50, "every": True})
        design = self._design(row)
        return None if design is None else ("cells", of_design(design, self.settings.frame).model_dump(mode="json"))

    def _times(self, row: str, checkpoint: Path, watch: Sequence[Watch]) -> dict[str, Any]:
        """Milliseconds in onnxruntime of all models of the scene, in turns; weights do not matter."""
        del row, checkpoint, watch
        train = self.parts.train
        known = {row: self._student(row) for row in rows(self.scene.name) if row not in _NO_STUDENTS}
        shapes = {row: built for row, built in known.items() if built is not None and not row.startswith("cell of ")}
        asked = {"teacher": ("nextitnet", self.about("teacher")["teacher"]["model"]), **shapes}
        models = {each: built(one, train) for each, one in asked.items()}
        return {"environment": environment().model_dump(mode="json"), "ms": onnx_times(models, train)}

    def _sizes(self, row: str, checkpoint: Path, watch: Sequence[Watch]) -> dict[str, Any] | None:
        """Hand-made students as fast as the searched one, chosen once: by another timing it might be another."""
        del row, checkpoint, watch
        searched = self._student("searched")
        if searched is None:
            return None
        chosen = as_fast(searched, self.parts.train, candidates=self._candidates)
        return {"environment": environment().model_dump(mode="json"), **chosen}

    @cached_property
    def _teacher(self) -> Trained:
        about = self.about("teacher")
        label = self.label("teacher")
        return fit(
            self.by,
            self.parts.train,
            valid=self.parts.valid,
            seed=self.seed,
            settings=about["teacher"]["model"],
            training=TrainSettings.model_validate(about["teacher"]["training"]),
            checkpoint=self.places.work / self.places.cells.path(label, about, ".safetensors").name,
            watch=[*self.places.watch(label), JsonLines(self.places.work / f"{label}.jsonl")],
        )

    def _search(self, row: str, checkpoint: Path, watch: Sequence[Watch]) -> dict[str, Any]:
        """The design, random ones of its price, and what the supernet thinks of them all."""
        del row
        c = self.settings
        found = search(
            self._teacher,
            self.parts.train,
            valid=self.parts.valid,
            settings=c.model_dump(mode="json"),
            seed=self.seed,
            checkpoint=checkpoint,
            watch=watch,
        )
        space, design = SPACES[c.space], found.design
        random = random_of_price(space, found.costs, design, n=RANDOM)
        beside = {"searched": design, **{f"random {at}": each for at, each in enumerate(random.values())}}
        fixed = {name: named(name, space, width=c.frame.dim, depth=c.cells) for name in FIXED}
        return {
            "designs": {name: each.model_dump(mode="json") for name, each in beside.items()},
            "inherited": {name: found.score(each)["ndcg@10"] for name, each in (beside | fixed).items()},
            "derived": {"inherited": found.score(found.derived)["ndcg@10"], "cells": found.derived.operators[0]},
            "tried": len(found.tried),
            "cost": found.cost,
            "unit": found.costs.unit,
            "history": [{"losses": each.losses, "metrics": each.metrics} for each in found.report.history],
            "epochs": len(found.report.history),
            "seconds": round(found.report.seconds, 1),
            "refine_seconds": round(found.refine_seconds, 1),
        }

    def _design(self, row: str) -> Design | None:
        c = self.settings
        if row in FIXED:
            return named(row, SPACES[c.space], width=c.frame.dim, depth=c.cells)
        of, name = self, row.removesuffix(" alone")
        if row.startswith("cell of "):
            of = Study(SCENES[row.removeprefix("cell of ")], self.seed, self.parts, self.places)
            name = "searched"
        if (result := of.found("search")) is None:
            return None
        if row == _DERIVED:
            return Design.of(SPACES[c.space], [result["derived"]["cells"]], width=c.frame.dim, depth=c.cells)
        return Design.model_validate(result["designs"]["searched" if row in _OTHERWISE else name])


def rows(scene: str) -> tuple[str, ...]:
    """Of a scene's table, its search, and what its models cost to serve."""
    others = tuple(f"cell of {other}" for other in SCENES if other != scene)
    random = tuple(f"random {at}" for at in range(RANDOM))
    made = (*_SMALL, "sizes", *_AS_FAST)
    return ("teacher", "search", "searched", "searched alone", *FIXED, *made, *random, *others, "latency")


def extras() -> tuple[str, ...]:
    """Rows that are computed when they are asked for by name."""
    by = tuple(f"{teacher}: {row}" for teacher in TEACHERS for row in ("teacher", "search", "searched"))
    return (_DERIVED, *_OTHERWISE, *by)
