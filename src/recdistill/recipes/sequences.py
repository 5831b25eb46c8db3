"""`recdistill reproduce sequential`: sequential models beside published figures, leave-one-out, every item ranked.

The protocol is that of S3-Rec's official code (RUCAIBox/CIKM2020-S3Rec): the last item of a history is the test, the
last but one validation, the history of a test query holds the validation item, what a user had is left out of the
ranking. Training stops by validation NDCG@10, and the test is asked once. Widths, depths, dropout and batches are
those of public code that states its figures, so nothing is tuned on the test part.

Letters: S seeds, m users with a target.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.compare import bootstrap_interval
from recdistill.evaluation.evaluate import evaluate
from recdistill.models.sequential import Sequential
from recdistill.recipes.cells import Cells, among, finish, publish
from recdistill.recipes.derrd import pack, unpack
from recdistill.recipes.published import SEQUENTIAL
from recdistill.recipes.train import TrainSettings, fit
from recdistill.training.watch import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.data.interactions import Split
    from recdistill.recipes.trained import Trained
    from recdistill.training.watch import Watch

__all__ = ["SCENES", "Places", "Row", "Scene", "markdown", "measured", "reproduce", "values"]

_DEPTH = 50
"""Ranks are kept down to here."""
_METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")
_TRAINING: dict[str, Any] = {
    "epochs": 200,
    "batch": 256,
    "loss": "cross-entropy",
    "negatives": 0,
    "weight_decay": 0.0,
    "patience": 10,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One model, with everything that was set."""

    name: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    """What its training does otherwise than its scene's."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A log, and the models that are trained on it."""

    name: str
    title: str
    folder: str
    """Of the data, with its `interactions.parquet`."""
    rows: tuple[Row, ...]
    training: dict[str, Any] = field(default_factory=dict[str, Any])


def _rows(common: dict[str, Any], *, heads: int) -> tuple[Row, ...]:
    attention = {**common, "layers": 2, "heads": heads}
    return (
        Row("sasrec", "sasrec", attention),
        Row("sasrec-bce", "sasrec", attention, {"loss": "bce", "negatives": 1, "epochs": 1000, "patience": 40}),
        Row("gru4rec", "gru4rec", common),
        Row("nextitnet", "nextitnet", common),
        # the patience outlasts what the change of stages costs
        Row("bert4rec", "bert4rec", {**attention, "cloze": 100}, {"epochs": 300, "patience": 40}),
    )


_S3_REC: dict[str, Any] = {"dim": 64, "length": 50, "dropout": 0.5}
"""Of SASRec in S3-Rec's code, with two blocks of two heads, batches of 256 and Adam at 1e-3."""
_GSASREC: dict[str, Any] = {"dim": 128, "length": 200, "dropout": 0.5}
"""Of SASRec in the code of gSASRec for ML-1M, with two blocks of one head and batches of 128."""

SCENES: dict[str, Scene] = {
    scene.name: scene
    for scene in (
        Scene("toys", "Amazon Toys", "amazon_toys", _rows(_S3_REC, heads=2)),
        Scene("beauty", "Amazon Beauty", "amazon_beauty", _rows(_S3_REC, heads=2)),
        Scene("ml-1m", "MovieLens 1M", "ml_1m", _rows(_GSASREC, heads=1), {"batch": 128}),
    )
}

Found = dict[str, dict[int, dict[str, Any]]]


def reproduce(
    *,
    data: Path,
    out: Path,
    work: Path,
    seeds: Sequence[int] = (1, 2, 3),
    tables: Sequence[str] = ("toys",),
    only: Sequence[str] = (),
    watch: Callable[[str], Sequence[Watch]] = lambda _: (),
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Finish the cells that are missing, then write `<out>.json` and `<out>.md` beside the directory `out`.

    Args:
        data: the folder that holds the scenes' folders.
        out: where finished cells are kept: small, worth committing. Several processes may work on one directory.
        work: checkpoints and logs; a killed run goes on from them.
        seeds: of weights, order and draws.
        tables: which of `SCENES`.
        only: rows to compute; all of them when empty.
        watch: watches for a cell, given its label.
        say: told of every finished cell.

    Raises:
        UnknownName: no such scene or row.
        DataError: the data is not there.
    """
    among("table", tables, SCENES)
    for name in tables:
        among("row", only, [row.name for row in SCENES[name].rows])
    work.mkdir(parents=True, exist_ok=True)
    places = Places(Cells(out / "cells"), work, watch)
    for name in tables:
        scene = SCENES[name]
        parts = split(read(data / scene.folder, echo=None), "given")
        finish(
            [(row, seed) for seed in seeds for row in scene.rows if not only or row.name in only],
            lambda at, parts=parts, scene=scene: _cell(places, parts, scene, at[0], seed=at[1]),
            lambda at, result, name=name: say(f"{name} {at[0].name} seed {at[1]}: {_figures(result)}"),
        )
    return publish(out, _collect(places.cells), markdown)


def _figures(result: dict[str, Any]) -> str:
    figures = ", ".join(f"{key} {result['test'][key]:.4f}" for key in ("HR@10", "NDCG@10"))
    return f"test {figures}, {result['epochs']} epochs"


def _label(scene: Scene, row: Row, seed: int) -> str:
    return f"{scene.name}-{row.name}-seed{seed}"


def _training(scene: Scene, row: Row) -> dict[str, Any]:
    return {**_TRAINING, **scene.training, **row.training}


def _about(scene: Scene, row: Row, seed: int) -> dict[str, Any]:
    """Everything the result of a cell depends on; the device is not among it."""
    named = {key: value for key, value in asdict(row).items() if key != "training"}
    return {"data": scene.folder, "row": named, "training": _training(scene, row), "seed": seed}


@dataclass(frozen=True, slots=True)
class Places:
    """Where a reproduction keeps what it does."""

    cells: Cells
    """The results."""
    work: Path
    """Checkpoints and logs."""
    watch: Callable[[str], Sequence[Watch]]


def _cell(places: Places, parts: Split, scene: Scene, row: Row, *, seed: int) -> dict[str, Any] | None:
    """Computed, gone on with, or read; None when another process is at it."""
    about, label, cells = _about(scene, row, seed), _label(scene, row, seed), places.cells
    if (done := cells.get(label, about)) is not None:
        return done
    with cells.claim(label, about) as mine:
        if not mine:
            return None
        if (done := cells.get(label, about)) is not None:
            return done
        checkpoint = places.work / cells.path(label, about, ".safetensors").name
        trained = fit(
            row.model,
            parts.train,
            valid=parts.valid,
            seed=seed,
            settings=row.settings,
            training=TrainSettings.model_validate(_training(scene, row)),
            checkpoint=checkpoint,
            watch=[*places.watch(label), JsonLines(places.work / f"{label}.jsonl")],
        )
        result = {"about": about, **measured(trained, parts)}
        cells.put(label, about, result)
        checkpoint.unlink(missing_ok=True)
        return result


def measured(trained: Trained, parts: Split) -> dict[str, Any]:
    """Metrics of both held-out parts, test ranks by user, and how the training went."""
    names = [metric.lower() for metric in _METRICS]
    ranker, report, model = trained.ranker(), trained.report, trained.model
    result: dict[str, Any] = {}
    for held in (parts.valid, parts.test):
        found = evaluate(ranker, held, [*names, f"mrr@{_DEPTH}"])
        result[held.name] = {metric: found.means[metric.lower()] for metric in _METRICS}
        if held is parts.test:
            reciprocal = found.per_user[f"mrr@{_DEPTH}"]  # (m,) 0 = further down
            result["ranks"] = pack(np.divide(1, reciprocal, out=np.zeros_like(reciprocal), where=reciprocal > 0))
    assert isinstance(model, Sequential)  # noqa: S101 - all rows are
    return result | {
        "best_epoch": report.best["ndcg@10"].epoch,
        "epochs": len(report.history),
        "seconds": round(report.seconds, 1),
        "parameters": model.n_parameters,
        "body": model.n_body,
        "stopped": report.stopped,
    }


def _collect(cells: Cells, seeds: Sequence[int] = range(1, 101)) -> dict[str, Any]:
    """Every finished cell under its scene and row: per seed, means, intervals. What is not there is left out."""
    scenes: dict[str, Any] = {}
    for scene in SCENES.values():
        rows: dict[str, Any] = {}
        for row in scene.rows:
            done = {s: cells.get(_label(scene, row, s), _about(scene, row, s)) for s in seeds}
            rows[row.name] = _summary({s: each for s, each in done.items() if each is not None})
        scenes[scene.name] = {"title": scene.title, "rows": rows}
    return {
        "protocol": "leave-one-out, all items ranked, training stopped by validation NDCG@10",
        "command": "recdistill reproduce sequential",
        "scenes": scenes,
    }


def _summary(done: dict[int, dict[str, Any]]) -> dict[str, Any]:
    kept = ("valid", "test", "best_epoch", "epochs", "seconds")
    out: dict[str, Any] = {"seeds": {str(s): {key: each[key] for key in kept} for s, each in done.items()}}
    if not done:
        return out
    first = next(iter(done.values()))
    out |= {"parameters": first["parameters"], "body": first["body"], "mean": {}, "interval": {}}
    for metric in _METRICS:
        found = values(done, metric)
        interval = bootstrap_interval(found)
        out["mean"][metric] = float(found.mean())
        out["interval"][metric] = [interval.low, interval.high]
    return out


def values(done: dict[int, dict[str, Any]], metric: str) -> NDArray[np.float64]:
    """(S, m) each seed's value for each user."""
    kind, _, cut = metric.partition("@")
    ranks = np.stack([unpack(each["ranks"]) for _, each in sorted(done.items())])  # (S, m) 0 = further down
    inside = ((ranks > 0) & (ranks <= int(cut))).astype(np.float64)
    return inside if kind == "HR" else inside / np.log2(ranks + 1, where=ranks > 0, out=np.ones_like(ranks))


def markdown(found: dict[str, Any]) -> str:
    """The tables as a page."""
    lines = [
        "# Sequential models, beside published figures",
        "",
        f"{found['protocol'][:1].upper()}{found['protocol'][1:]}; the history of a test query holds the validation "
        "item. Intervals: 95 % bootstrap over users and seeds. Body: parameters without embeddings and output. This "
        f"page and `sequential.json` are printed by `{found['command']}`.",
        "",
    ]
    for name, scene in found["scenes"].items():
        lines += [f"## {scene['title']}", "", *_table(name, scene["rows"]), ""]
    lines += ["Published figures:", ""]
    sources = {each.source: each.key for rows in SEQUENTIAL.values() for each in rows.values()}
    lines += [f"- {key}: {source}" for source, key in sources.items()]
    return "\n".join([*lines, ""])


def _table(scene: str, rows: dict[str, Any]) -> list[str]:
    lines = [
        "| row | seeds | HR@5 | NDCG@5 | HR@10 (95 %) | NDCG@10 (95 %) | parameters | body "
        "| published HR@10, NDCG@10 |",
        "|" + "---|" * 9,
    ]
    for name, row in rows.items():
        theirs = SEQUENTIAL.get(scene, {}).get(name)
        published = "" if theirs is None else f"{theirs.hr:.4f}, {theirs.ndcg:.4f} ({theirs.key})"
        if not row["seeds"]:
            lines.append(f"| {name} | missing |" + " |" * 6 + f" {published} |")
            continue
        mean, spread = row["mean"], row["interval"]
        cells = [
            name,
            str(len(row["seeds"])),
            *(f"{mean[metric]:.4f}" for metric in _METRICS[:2]),
            *(f"**{mean[m]:.4f}** ({spread[m][0]:.4f}-{spread[m][1]:.4f})" for m in _METRICS[2:]),
            f"{row['parameters']:,}",
            f"{row['body']:,}",
            published,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
