"""`recdistill reproduce de-rrd`: a paper's table beside ours, on the paper's split, cell by cell.

The protocol is that of DE-RRD's official code: CiteULike as its authors split it, one validation and one test item a
user, 499 negatives a user drawn once with a recorded seed and used for both. Seed s trains its own teacher and its
own students. The settings are those of the code, so nothing is tuned on the test part.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recdistill.data.candidates import Candidates, draw
from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.evaluate import evaluate
from recdistill.recipes.cells import Cells, among
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.training.watch import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.data.interactions import Split
    from recdistill.recipes.trained import Trained
    from recdistill.training.watch import Watch

__all__ = ["CUTS", "TABLES", "Cell", "Experiment", "Table", "cells_of", "pack", "run_cell", "unpack"]

CUTS = (5, 10, 20)
_SHORT = {"hr": "H", "mrr": "M", "ndcg": "N"}
_CANDIDATES_SEED = 0
_FAST: dict[str, Any] = {"precision": "bfloat16", "dropped": 1e-2}
"""Of the experts' products: what five seeds of DE can be run with on two cores. Both are DE's settings."""
_PAIR: dict[str, Any] = {"weight": 1e-4, "layer": 0, "teacher_layer": 0} | _FAST
"""DE of NeuMF matches the tables of its product alone, as public code of the paper's method does."""
_TRAINING = {"metrics": ("hr@5", "hr@10", "hr@20"), "protocol": "sampled(499)", "device": "cpu"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a teacher or a student, with everything that was set."""

    name: str
    """The row: "teacher", "plain", "de", "rrd", "rrd-top", ..."""
    base: str
    """ "bpr" or "neumf"."""
    dim: int
    method: str = "plain"
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    """What its training does otherwise than its table's."""


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of one table: a base model at one size ratio."""

    name: str
    title: str
    model: str
    training: dict[str, Any]
    teacher: Cell
    students: tuple[Cell, ...]
    judged_on: Literal["test", "valid"] = "test"
    """ "valid": a search for settings, one seed, whose test figures nobody looks at."""

    def label(self, cell: Cell, seed: int) -> str:
        """What the files of a cell are called. Tables of one base model share their teachers."""
        return f"{cell.base if cell.name == 'teacher' else self.name}-{cell.name}-seed{seed}"


def _students(base: str, dim: int, e: dict[str, Any], r: dict[str, Any]) -> tuple[Cell, ...]:
    top = r | {"draw": "top"}
    return (
        Cell("plain", base, dim),
        Cell("de", base, dim, "de", e),
        Cell("rrd", base, dim, "rrd", r),
        Cell("rrd-top", base, dim, "rrd", top),
        Cell("de-rrd", base, dim, "de-rrd", {"de": e, "rrd": r}),
        Cell("de-rrd-top", base, dim, "de-rrd", {"de": e, "rrd": top}),
    )


_IR_RRD = Cell("ir-rrd", "bpr", 20, "ir-rrd", {"weight": 1e-3, "item_weight": 5e-4})
"""IR-RRD as its authors' log has it."""


def _wide(near: int, far: int, *, weight: float = 1e-3, depth: int = 500) -> dict[str, Any]:
    """RRD with more of the list; the sharpness grows with it, so that the head stays likely."""
    reach = min(3 * near, depth)
    return {"weight": weight, "near": near, "far": far, "sharpness": 0.3 * near, "reach": reach, "depth": depth}


_TRIALS: dict[str, Cell] = {
    name: Cell(name, "bpr", 20, method, settings, training)
    for name, method, settings, training in (
        ("de-float32", "de", {"weight": 1e-2}, {}),  # is it `_FAST` that costs quality?
        ("rrd-3e-3", "rrd", {"weight": 3e-3}, {}),
        ("rrd-1e-2", "rrd", {"weight": 1e-2}, {}),
        ("rrd-decay-1e-4", "rrd", {"weight": 1e-3}, {"weight_decay": 1e-4}),
        ("rrd-100", "rrd", {"weight": 1e-3, "near": 100, "far": 100, "sharpness": 30.0, "reach": 300}, {}),
        ("rrd-200", "rrd", {"weight": 1e-3, "near": 200, "far": 200, "sharpness": 60.0, "reach": 500}, {}),
        ("rrd-400", "rrd", _wide(400, 400), {}),
        ("rrd-400-of-1000", "rrd", _wide(400, 400, depth=1000), {}),
        ("ir-rrd-400", "ir-rrd", _wide(400, 400) | {"items": "positives"}, {}),
        ("ir-rrd-400-1e-2", "ir-rrd", _wide(400, 400) | {"items": "positives", "item_weight": 1e-2}, {}),
        ("de-rrd-200", "de-rrd", {"de": {"weight": 1e-2} | _FAST, "rrd": _wide(200, 200)}, {}),
    )
}

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "bpr",
            "CiteULike, BPR 200 -> 20",
            "mf",
            {},
            Cell("teacher", "bpr", 200),
            (*_students("bpr", 20, {"weight": 1e-2} | _FAST, {"weight": 1e-3}), _IR_RRD),
        ),
        Table(
            "neumf",
            "CiteULike, NeuMF 250 -> 25",
            "neumf",
            {"loss": "bce"},
            Cell("teacher", "neumf", 250),
            (
                *_students("neumf", 25, _PAIR, {"weight": 1e-1}),
                # 1e-1 is the published best of Foursquare; here it drowns the base loss
                Cell("rrd-1e-2", "neumf", 25, "rrd", {"weight": 1e-2}),
                Cell("rrd-1e-3", "neumf", 25, "rrd", {"weight": 1e-3}),
                Cell("de-rrd-1e-3", "neumf", 25, "de-rrd", {"de": _PAIR, "rrd": {"weight": 1e-3}}),
            ),
        ),
        Table(
            "bpr-half",
            "CiteULike, BPR 200 -> 100 (phi = 0.5)",
            "mf",
            {},
            Cell("teacher", "bpr", 200),
            _students("bpr", 100, {"weight": 1e-2} | _FAST, {"weight": 1e-3}),
        ),
        Table(
            "trials",
            "Settings tried for the best student of this teacher, CiteULike, BPR 200 -> 20",
            "mf",
            {},
            Cell("teacher", "bpr", 200),
            tuple(_TRIALS.values()),
            judged_on="valid",
        ),
        Table(
            "best",
            "The best student of this teacher by those trials, CiteULike, BPR 200 -> 20",
            "mf",
            {},
            Cell("teacher", "bpr", 200),
            (replace(_TRIALS["rrd-400"], name="best"),),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Experiment:
    """The data and the places of a reproduction."""

    split: Split
    candidates: Candidates
    cells: Cells
    """The results."""
    work: Path
    """Checkpoints and logs: nothing that is needed once all cells are there."""

    @classmethod
    def open(cls, data: Path, out: Path, work: Path) -> Experiment:
        """Read the split, draw the candidates or read those of an earlier call."""
        parts = split(read(data, echo=None), "given")
        path = work / "candidates.npz"
        if path.exists():
            candidates = Candidates.load(path)
        else:
            work.mkdir(parents=True, exist_ok=True)
            candidates = draw(parts, 499, seed=_CANDIDATES_SEED)
            candidates.save(path)
        return cls(parts, candidates, Cells(out / "cells"), work)

    def about(self, table: Table, cell: Cell, seed: int) -> dict[str, Any]:
        """Everything the result of a cell depends on."""
        about = {
            "cell": {name: value for name, value in asdict(cell).items() if name != "training"},
            "training": {**_TRAINING, **table.training, **cell.training},
            "model": table.model,
            "seed": seed,
            "candidates": self.candidates.digest,
            "interactions": len(self.split.train),
        }
        return about if cell.method == "plain" else about | {"teacher": self.about(table, table.teacher, seed)}


def cells_of(
    tables: Sequence[str], seeds: Sequence[int], only: Sequence[str] = ()
) -> Iterator[tuple[Table, Cell, int]]:
    """The cells of a reproduction, seed by seed, the teacher before its students."""
    among("table", tables, TABLES)
    for name in tables:
        among("row", only, [cell.name for cell in (TABLES[name].teacher, *TABLES[name].students)])
    for seed in seeds:
        for name in tables:
            table = TABLES[name]
            for cell in (table.teacher, *table.students):
                if not only or cell.name in only:
                    yield table, cell, seed


def run_cell(
    experiment: Experiment,
    table: Table,
    cell: Cell,
    seed: int,
    *,
    watch: Callable[[str], Sequence[Watch]] = lambda _: (),
) -> dict[str, Any] | None:
    """The result of one cell: computed, gone on with, or read; None when another process is at it.

    The result holds, for validation and test, each cut-off at its own best epoch (`own`, as published) and all at the
    best epoch of validation H@5 (`one`), and the test ranks of every user at the latter.
    """
    about = experiment.about(table, cell, seed)
    label = table.label(cell, seed)
    if (done := experiment.cells.get(label, about)) is not None:
        return done
    if cell.method != "plain" and run_cell(experiment, table, table.teacher, seed, watch=watch) is None:
        return None
    with experiment.cells.claim(label, about) as mine:
        if not mine:
            return None
        if (done := experiment.cells.get(label, about)) is not None:
            return done
        trained = _train(experiment, table, cell, seed, [*watch(label), JsonLines(experiment.work / f"{label}.jsonl")])
        result = {"about": about, **_measure(experiment, trained)}
        experiment.cells.put(label, about, result)
        if cell.name != "teacher":
            _checkpoint(experiment, label, about).unlink(missing_ok=True)
        return result


def _checkpoint(experiment: Experiment, label: str, about: object) -> Path:
    return experiment.work / experiment.cells.path(label, about, ".safetensors").name


def _train(experiment: Experiment, table: Table, cell: Cell, seed: int, watch: Sequence[Watch]) -> Trained:
    common: dict[str, Any] = {
        "dim": cell.dim,
        "valid": experiment.split.valid,
        "candidates": experiment.candidates,
        "seed": seed,
        "training": TrainSettings.model_validate({**_TRAINING, **table.training, **cell.training}),
        "checkpoint": _checkpoint(experiment, table.label(cell, seed), experiment.about(table, cell, seed)),
        "watch": watch,
    }
    if cell.name == "teacher":
        return fit(table.model, experiment.split.train, **common)
    teacher = _train(experiment, table, table.teacher, seed, ()) if cell.method != "plain" else None
    return distill(teacher, table.model, experiment.split.train, method=cell.method, settings=cell.settings, **common)


def _measure(experiment: Experiment, trained: Trained) -> dict[str, Any]:
    own: dict[str, float] = {}
    one: dict[str, float] = {}
    ranks: dict[str, str] = {}
    named = [f"{metric}@{k}" for metric in _SHORT for k in CUTS]
    last = f"mrr@{experiment.candidates.n + 1}"  # 1 / rank of every user: nobody ranks lower
    for cut in CUTS:
        ranker = trained.at_best(f"hr@{cut}")
        for part, held in (("valid", experiment.split.valid), ("test", experiment.split.test)):
            protocol = trained.settings["train"]["protocol"]
            found = evaluate(ranker, held, [*named, last], protocol=protocol, candidates=experiment.candidates)
            own |= {f"{part}.{short}@{cut}": found.means[f"{name}@{cut}"] for name, short in _SHORT.items()}
            if cut == CUTS[0]:
                one |= {f"{part}.{s}@{k}": found.means[f"{name}@{k}"] for name, s in _SHORT.items() for k in CUTS}
            if part == "test":
                ranks[str(cut)] = pack(1 / found.per_user[last])
    return {
        "own": own,
        "one": one,
        "ranks": ranks,
        "best_epochs": {metric: best.epoch for metric, best in trained.report.best.items()},
        "epochs": len(trained.report.history),
        "seconds": round(trained.report.seconds, 1),
        "parameters": trained.model.n_parameters,
        "stopped": trained.report.stopped,
    }


def pack(ranks: NDArray[np.float64]) -> str:
    """(m,) ranks, halves allowed, as text: twice the rank in int16, deflated, base64."""
    return base64.b64encode(zlib.compress(np.rint(2 * ranks).astype("<i2").tobytes(), 9)).decode()


def unpack(text: str) -> NDArray[np.float64]:
    """What `pack` packed."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i2") / 2
