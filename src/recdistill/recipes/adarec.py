"""`recdistill reproduce adarec`: searched students beside their teacher, hand-made ones, and cells nobody searched.

What is trained is said in `scenes`. Letters: S seeds, m users with a target.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.compare import bootstrap_interval, holm, paired_test, retention
from recdistill.recipes.adarec_page import markdown
from recdistill.recipes.cells import Cells, among, finish, publish
from recdistill.recipes.scenes import RANDOM, SCENES, TEACHERS, Study, extras, rows
from recdistill.recipes.sequences import Places, values
from recdistill.search.derive import Design
from recdistill.search.fidelity import kendall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recdistill.training.watch import Watch

__all__ = ["reproduce"]

_METRICS = ("HR@10", "NDCG@10", "NDCG@20")
_TESTED = ("NDCG@10", "NDCG@20")
"""Of differences."""


def reproduce(
    *,
    data: Path,
    out: Path,
    work: Path,
    seeds: Sequence[int] = (1, 2, 3),
    tables: Sequence[str] = ("ml-100k",),
    only: Sequence[str] = (),
    watch: Callable[[str], Sequence[Watch]] = lambda _: (),
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Finish the rows that are missing, then write `<out>.json` and `<out>.md` beside the directory `out`.

    Arguments and errors as of `sequences.reproduce`; `only` names rows, of which "random" means all ten; those of
    `scenes.extras` are computed for nobody who does not name them. A row "cell of <scene>" is computed once that scene
    has been searched, and is printed as missing before.
    """
    among("table", tables, SCENES)
    for name in tables:
        among("row", only, [*rows(name), *extras(), "random"])
    work.mkdir(parents=True, exist_ok=True)
    places = Places(Cells(out / "cells"), work, watch)
    for name in tables:
        parts = split(read(data / SCENES[name].folder, echo=None), SCENES[name].split)
        for seed in seeds:
            study = Study(SCENES[name], seed, parts, places)
            finish(
                [row for row in _asked(name, only) if study.ready(row)],
                study.row,
                lambda row, result, seed=seed, name=name: say(f"{name} {row} seed {seed}: {_figures(row, result)}"),
            )
    return publish(out, _collect(places), markdown)


def _asked(scene: str, only: Sequence[str]) -> list[str]:
    if not only:
        return list(rows(scene))
    return [row for row in (*rows(scene), *extras()) if row in only or ("random" in only and row.startswith("random "))]


def _figures(row: str, result: dict[str, Any]) -> str:
    if row == "latency":
        return ", ".join(f"{name} {ms['1']['body']:.3g} ms" for name, ms in result["ms"].items())
    if row == "sizes":
        return ", ".join(f"{model} {result[model]['student']}" for model in _CHOSEN[1:])
    if row.endswith("search"):
        return f"{result['cost']:.4g} {result['unit']}, {result['epochs']} epochs"
    figures = ", ".join(f"{key} {result['test'][key]:.4f}" for key in ("HR@10", "NDCG@10"))
    return f"test {figures}, {result['epochs']} epochs"


def _collect(places: Places, seeds: Sequence[int] = range(1, 101)) -> dict[str, Any]:
    """Every finished row under its scene; what is not there is left out."""
    scenes: dict[str, Any] = {}
    for scene in SCENES.values():
        studies = {seed: Study(scene, seed, _NOWHERE, places) for seed in seeds}
        known = (*rows(scene.name), *extras())
        done = {row: {s: r for s, each in studies.items() if (r := each.found(row))} for row in known}
        searches, times, sizes = done.pop("search"), done.pop("latency"), done.pop("sizes")
        for row in extras():
            if row.endswith(": search") or not done[row]:
                del done[row]
        scenes[scene.name] = {
            "title": scene.title,
            "rows": {row: _summary(found, done.get(_teacher_of(row), {})) for row, found in done.items()},
            "searches": {str(seed): _searched(found) for seed, found in searches.items()},
            "against random": _against_random(done, searches),
            "against others": _against_others(done),
            "ms": {str(seed): found["ms"] for seed, found in times.items()},
            "as fast": {
                str(seed): {key: found[key] for key in found if key in _CHOSEN} for seed, found in sizes.items()
            },
            "timed on": next((found["environment"]["cpu"] for found in times.values()), None),
        }
    return {
        "protocol": "leave-one-out, all items ranked, training stopped by validation NDCG@10",
        "command": "recdistill reproduce adarec",
        "scenes": scenes,
    }


def _teacher_of(row: str) -> str:
    """The row of the teacher that a row's share is of."""
    by, colon, _ = row.partition(": ")
    return f"{by}: teacher" if colon and by in TEACHERS else "teacher"


_CHOSEN = ("ms", "nextitnet", "sasrec")
"""Of what "sizes" came to: the searched body's milliseconds, and what was chosen of each model."""
_NOWHERE: Any = None
"""The data of a study that only reads finished rows."""


def _summary(done: dict[int, dict[str, Any]], teacher: dict[int, dict[str, Any]]) -> dict[str, Any]:
    kept = ("valid", "test", "epochs", "seconds")
    out: dict[str, Any] = {"seeds": {str(s): {key: each[key] for key in kept} for s, each in done.items()}}
    if not done:
        return out
    for what in ("parameters", "body"):  # the cells of a row differ by seed
        sizes = [each[what] for each in done.values()]
        out[what] = [min(sizes), max(sizes)]
    out |= {"mean": {}, "interval": {}}
    for metric in _METRICS:
        found = values(done, metric)
        interval = bootstrap_interval(found)
        out["mean"][metric] = float(found.mean())
        out["interval"][metric] = [interval.low, interval.high]
    both = sorted(set(done) & set(teacher))
    if both:
        kept_of = retention(*(values({s: of[s] for s in both}, "NDCG@10") for of in (done, teacher)))
        out["retention"] = [kept_of.mean, kept_of.low, kept_of.high]
    return out


def _searched(found: dict[str, Any]) -> dict[str, Any]:
    design = Design.model_validate(found["designs"]["searched"])
    last = found["history"][-1]["metrics"] if found["history"] else {}
    keys = ("cost", "unit", "epochs", "seconds", "refine_seconds", "derived", "inherited")
    about = {key: found[key] for key in keys if key in found}  # earlier searches did not time their refinement
    return about | {"operators": [list(row) for row in dict.fromkeys(design.operators)], "entropy": last.get("entropy")}


def _against_others(done: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """Searched less each other row of its teacher over the seeds that both have.

    The p-values of the table's own rows are corrected together (Holm), and those of rows that were asked for apart.
    """
    out: dict[str, Any] = {}
    for row, theirs in done.items():
        both = sorted(set(done["searched"]) & set(theirs))
        if not both or row == "searched" or row.startswith("random ") or _teacher_of(row) != "teacher":
            continue
        out[row] = {"seeds": len(both)}
        for metric in _TESTED:
            ours, other = (values({seed: of[seed] for seed in both}, metric) for of in (done["searched"], theirs))
            test = paired_test(ours, other)
            gap = test.difference
            out[row][metric] = {"difference": [gap.mean, gap.low, gap.high], "p": test.p_permutation}
    asked = [row for row in out if row in extras()]
    for family, metric in product(([row for row in out if row not in asked], asked), _TESTED):
        corrected = holm([out[row][metric]["p"] for row in family]).tolist() if family else []
        for row, p in zip(family, corrected, strict=True):
            out[row][metric]["corrected"] = p
    return out


def _against_random(done: dict[str, Any], searches: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Searched less the mean of the random cells, the spread of these, and how the supernet ranks designs, by seed."""
    out: dict[str, Any] = {}
    for seed, search_of in searches.items():
        random = [done[f"random {at}"].get(seed) for at in range(RANDOM)]
        searched = done["searched"].get(seed)
        here = [each for each in random if each is not None]
        if searched is None or len(here) < 2:  # there is no spread
            continue
        theirs = np.array([each["test"]["NDCG@10"] for each in here])
        trained = {name: done[name][seed] for name in search_of["inherited"] if seed in done[name]}
        by_user = np.mean([values({seed: each}, "NDCG@10")[0] for each in here], axis=0)  # (m,)
        test = paired_test(values({seed: searched}, "NDCG@10")[0], by_user)
        out[str(seed)] = {
            "cells": len(here),
            "difference": float(searched["test"]["NDCG@10"] - theirs.mean()),
            "spread": float(theirs.std(ddof=1)),
            "p": test.p_permutation,
            "kendall": _rank_correlations(search_of["inherited"], trained),
        }
    return out


def _rank_correlations(inherited: dict[str, float], trained: dict[str, Any]) -> dict[str, Any]:
    """Kendall's tau of NDCG@10 with the supernet's weights and after training: of all designs, of random ones alone.

    "after" is tau of validation and test, both after training: what the validation data themselves tell of the test.
    Cells without operators come last in any order, so the designs that nobody chose say more.
    """
    random = [name for name in trained if name.startswith("random ")]
    out: dict[str, Any] = {}
    for of, names in (("all", list(trained)), ("random", random)):
        valid, test = ([trained[name][part]["NDCG@10"] for name in names] for part in ("valid", "test"))
        before = [inherited[name] for name in names]
        out[of] = {"designs": len(names), "valid": kendall(before, valid), "test": kendall(before, test)}
        out[of]["after"] = kendall(valid, test)
    return out
