"""`recdistill reproduce ccd`: continual distillation on the published blocks, beside baselines and published gains.

A cell is one row for one seed along the whole stream: recall and NDCG at 20 on every block so far after every block,
with new and old users of the newest apart. Stages are kept in the working folder, so rows share base teachers and first
students, and a killed run goes on inside a stage. Lee et al., CCD, KDD 2024, arXiv:2405.19046.

Letters: K blocks after the base block, S seeds.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.continual.settings import TUNED, over, settings_of
from recdistill.data.blocks import official, widened
from recdistill.evaluation.continual import continual
from recdistill.evaluation.evaluate import evaluate
from recdistill.recipes.ccd_figure import figures
from recdistill.recipes.ccd_page import markdown
from recdistill.recipes.ccd_rows import MAIN, ROWS, SCENES, Row, Scene
from recdistill.recipes.cells import Cells, among, digest, finish, publish, write_text
from recdistill.recipes.kept import Kept
from recdistill.recipes.lineage import Lineage
from recdistill.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.continual.settings import CCDSettings
    from recdistill.data.blocks import Block
    from recdistill.evaluation.ranking import Ranker
    from recdistill.training.watch import Watch

__all__ = ["ROWS", "SCENES", "Row", "Scene", "collect", "markdown", "measured", "reproduce"]

_METRICS = ("recall@20", "ndcg@20")


def reproduce(
    *,
    data: Path,
    out: Path,
    work: Path,
    seeds: Sequence[int] = (1, 2, 3),
    tables: Sequence[str] = ("yelp-mf-small",),
    only: Sequence[str] = (),
    watch: Callable[[str], Sequence[Watch]] = lambda _: (),
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Finish the cells that are missing, then write `<out>.json` and `<out>.md` beside `out`, and figures into it.

    Args:
        data: the folder that holds the scenes' folders.
        out: where finished cells are kept: small, worth committing. Several processes may work on one directory.
        work: outputs of stages and their checkpoints; a killed run goes on from them.
        seeds: of the student's side.
        tables: which of `SCENES`.
        only: rows to compute; the baselines and CCD itself when empty. One that is the same as an earlier one with a
            scene's settings stands for that one.
        watch: watches for a stage, given its name.
        say: told of every finished cell, and of rows that are the same as others.

    Raises:
        UnknownName: no such scene or row.
        DataError: the data is not there.
    """
    among("table", tables, SCENES)
    among("row", only, ROWS)
    cells = Cells(out / "cells")
    keep = Kept.at(work, watch, runtime=Runtime.of())
    for name in tables:
        scene = SCENES[name]
        stream = official(data / scene.folder, clean=scene.clean)
        first = _firsts(scene)
        for row in only or MAIN:
            if first[row] != row:
                say(f"{name} {row}: the same as {first[row]} here")
        finish(
            [(ROWS[row], seed) for seed in seeds for row in dict.fromkeys(first[row] for row in only or MAIN)],
            lambda at, stream=stream, scene=scene: _cell(cells, keep, stream, (scene, at[0]), seed=at[1]),
            lambda at, result, name=name: say(f"{name} {at[0].name} seed {at[1]}: {_figures(result)}"),
        )
    found = publish(out, collect(cells), markdown)
    for name, drawn in figures(found).items():
        write_text(out / f"{name}.svg", drawn)
    return found


def _figures(result: dict[str, Any]) -> str:
    whole = continual(np.array(result["recall@20"], np.float64), decimals=4)[-1]
    return f"LA {whole.la:.4f}, RA {whole.ra:.4f}, H {whole.h:.4f}"


def _settings(scene: Scene, row: Row, k: int) -> CCDSettings:
    """What a row sets for block k."""
    preset = row.settings.get("preset", "default")
    changes = {key: value for key, value in row.settings.items() if key != "preset"}
    out = over(settings_of(preset, scene.settings), changes)
    return over(out, TUNED.get(k, {})) if row.tuned else out


def _about(scene: Scene, row: Row, seed: int, blocks: int = 6) -> dict[str, Any]:
    """Everything the result of a cell depends on, but for the device that it names."""
    each = [_settings(scene, row, k).model_dump(mode="json") for k in range(blocks)]
    settings = each if row.tuned else each[0]
    return {
        "data": scene.folder,
        "clean": scene.clean,
        "how": row.how,
        "taught": row.taught,
        "settings": settings,
        "seed": seed,
        **({"without": list(row.without)} if row.without else {}),
    }


def _firsts(scene: Scene) -> dict[str, str]:
    """Each row -> the first of those that are the same in a scene, mostly itself: a scene may set what a row is for."""
    names: dict[str, str] = {}
    return {name: names.setdefault(digest(_about(scene, row, 0)), name) for name, row in ROWS.items()}


def _label(scene: Scene, row: Row, seed: int) -> str:
    return f"{scene.name}-{row.name.replace(':', '').replace(' ', '-')}-seed{seed}"


def _cell(
    cells: Cells, keep: Kept, stream: Sequence[Block], of: tuple[Scene, Row], *, seed: int
) -> dict[str, Any] | None:
    """Computed, gone on with, or read; None when another process is at it."""
    scene, row = of
    about, label = _about(scene, row, seed), _label(scene, row, seed)
    if (done := cells.get(label, about)) is not None:
        return done
    with cells.claim(label, about) as mine:
        if not mine:
            return None
        if (done := cells.get(label, about)) is not None:
            return done
        began = time.perf_counter()
        fixed = {k: _settings(scene, row, k) for k in range(len(stream))}
        how = (row.how, fixed.__getitem__)
        line = Lineage(stream, *how, seed=seed, keep=keep, taught=row.taught, without=row.without)
        told = partial(cells.put, _so_far(label), about)
        result: dict[str, Any] = {"about": about, **measured(stream, line.after, told=told)}
        result["seconds"] = round(time.perf_counter() - began, 1)
        result["device"] = keep.runtime.device.type
        cells.put(label, about, result)
        cells.path(_so_far(label), about).unlink(missing_ok=True)
        return result


def _so_far(label: str) -> str:
    return f"{label}-so-far"


def measured(
    stream: Sequence[Block],
    after: Callable[[int], Ranker],
    *,
    told: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """What answers after every block, on every block so far.

    Args:
        stream: the blocks.
        after: the ranker after block k.
        told: of what is known so far, after each block but the last.

    Returns:
        Metric -> (K + 1) lists of (K + 1) figures, None where a block is yet to come; "error" -> the standard errors of
        recall@20 over users, in the same places; "new" and "old" -> recall@20 of those users on the newest block, after
        it was learned; "dormant" -> of users who were away between the first increment and the last one.
    """
    size = len(stream)
    tables: dict[str, list[list[float | None]]] = {
        m: [[None] * size for _ in range(size)] for m in (*_METRICS, "error")
    }
    new: list[float | None] = []
    old: list[float | None] = []
    dormant = None
    away = _dormant(stream)
    for k, block in enumerate(stream):
        ranker = after(k)
        for j in range(k + 1):
            held = widened(stream[j].test, block.train.users, block.train.items)
            found = evaluate(ranker, held, _METRICS)
            for metric in _METRICS:
                tables[metric][k][j] = float(found.per_user[metric].mean())
            tables["error"][k][j] = _error(found.per_user["recall@20"])
            if j == k:
                values, came = found.per_user["recall@20"], found.queries >= block.old_users
                new.append(_mean(values[came]) if k else None)
                old.append(_mean(values[~came]) if k else None)
                if k == size - 1:
                    dormant = _mean(values[np.isin(found.queries, away)])
        if k < size - 1:
            told({**tables, "new": new, "old": old, "dormant": None, "seconds": None})
    return {**tables, "new": new, "old": old, "dormant": dormant}


def _dormant(stream: Sequence[Block]) -> NDArray[np.int64]:
    """(m,) rows of users in the first increment and in the last, and in none between; nobody in a short stream."""
    if len(stream) < 4:
        return np.zeros(0, np.int64)
    there = np.zeros((len(stream), stream[-1].n_users), np.bool_)
    for k, block in enumerate(stream):
        for csr in (block.train.csr(), block.valid.targets, block.test.targets):
            there[k, : block.n_users] |= csr.degrees > 0
    return np.flatnonzero(there[1] & there[-1] & ~there[2:-1].any(0))


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _error(values: NDArray[np.float64]) -> float:
    """The standard error of a mean over users."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _spread(errors: Sequence[Sequence[float | None]], *, base: bool) -> list[float]:
    """Standard errors of LA and RA after the last block that was learned; blocks are asked of other users each."""
    e = np.array(errors, np.float64)
    blocks = int(np.isfinite(e[:, 0]).sum())
    first = 0 if base else 1
    parts = (np.diag(e)[first:blocks], e[blocks - 1, first:blocks])
    return [float(np.sqrt(np.square(part).sum()) / max(len(part), 1)) for part in parts]


def collect(cells: Cells, seeds: Sequence[int] = range(101)) -> dict[str, Any]:
    """Every finished cell under its scene and row: per seed, means, curves. What is not there is left out.

    Of a row without a finished cell, what is known of an unfinished one is told, with the number of its blocks.
    """
    scenes: dict[str, Any] = {}
    for scene in SCENES.values():
        rows: dict[str, Any] = {}
        for row in ROWS.values():
            about = _about(scene, row, 0)
            done = {s: cells.get(_label(scene, row, s), {**about, "seed": s}) for s in seeds}
            there = {s: each for s, each in done.items() if each is not None}
            for s in () if there else seeds:
                begun = cells.get(_so_far(_label(scene, row, s)), {**about, "seed": s})
                if begun is not None:
                    there = {s: begun}
                    break
            if there:
                rows[row.name] = {"student": row.student, **_summary(there)}
        scenes[scene.name] = {"title": scene.title, "published": scene.published, "rows": rows}
    return {
        "paper": "CCD, KDD 2024, arXiv:2405.19046",
        "protocol": "official blocks, full ranking, recall@20; the epoch is chosen by each block's validation part",
        "command": "recdistill reproduce ccd",
        "scenes": scenes,
    }


def _summary(done: dict[int, dict[str, Any]]) -> dict[str, Any]:
    seeds: dict[str, Any] = {}
    for s, each in done.items():
        one: dict[str, Any] = {name: each[name] for name in (*_METRICS, "error", "new", "old", "dormant", "seconds")}
        for metric in _METRICS:
            for name, base in (("with base", True), ("without base", False)):
                a = np.array(each[metric], np.float64)
                blocks = int(np.isfinite(a[:, 0]).sum())  # those that were learned
                curve = continual(a[:blocks, :blocks], base=base, decimals=4)[0 if base else 1 :]
                one[f"{metric} {name}"] = [[c.la, c.ra, c.h] for c in curve]
        seeds[str(s)] = one
    keys = [f"{metric} {name}" for metric in _METRICS for name in ("with base", "without base")]
    mean = {key: np.mean([one[key] for one in seeds.values()], axis=0).tolist() for key in keys}
    spread = {key: float(np.std([one[key][-1][2] for one in seeds.values()])) if mean[key] else 0.0 for key in keys}
    sizes = [[len(one["recall@20"]), len(one["recall@20 with base"])] for one in seeds.values()]
    devices = sorted({each.get("device") or "cpu" for each in done.values()})  # earlier cells are all of a CPU
    errors = np.mean([_spread(one["error"], base=True) for one in seeds.values()], axis=0).tolist()
    return {
        "seeds": seeds,
        "mean": mean,
        "spread of H": spread,
        "errors": errors,
        "devices": devices,
        "blocks": sizes[0][1],
        "of": sizes[0][0],
    }
