"""`recdistill reproduce adarec`: searched students beside their teacher, hand-made ones, and cells nobody searched.

What is trained is said in `scenes`. Letters: S seeds, m users with a target.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.errors import UnknownName
from recdistill.evaluation.compare import bootstrap_interval, paired_test, retention
from recdistill.recipes.cells import Cells, write_text
from recdistill.recipes.scenes import RANDOM, SCENES, Study, rows
from recdistill.recipes.sequences import Places, values
from recdistill.search.derive import Design
from recdistill.search.fidelity import kendall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recdistill.training.watch import Watch

__all__ = ["markdown", "reproduce"]

_WAIT = 10.0
_METRICS = ("HR@10", "NDCG@10", "NDCG@20")


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

    Arguments and errors as of `sequences.reproduce`; `only` names rows, of which "random" means all ten. A row "cell of
    <scene>" is computed once that scene has been searched, and is printed as missing before.
    """
    for name in tables:
        if name not in SCENES:
            raise UnknownName("table", name, SCENES)
        known = [*rows(name), "random"]
        for wanted in only:
            if wanted not in known:
                raise UnknownName("row", wanted, known)
    work.mkdir(parents=True, exist_ok=True)
    places = Places(Cells(out / "cells"), work, watch)
    for name in tables:
        parts = split(read(data / SCENES[name].folder, echo=None), SCENES[name].split)
        for seed in seeds:
            _finish(Study(SCENES[name], seed, parts, places), only, say)
    found = _collect(places)
    write_text(out.with_name(f"{out.name}.json"), json.dumps(found, indent=1) + "\n")
    write_text(out.with_name(f"{out.name}.md"), markdown(found))
    return found


def _finish(study: Study, only: Sequence[str], say: Callable[[str], object]) -> None:
    todo = [row for row in rows(study.scene.name) if not only or {row, row.partition(" ")[0]} & set(only)]
    while todo:
        left: list[str] = []
        for row in todo:
            result = study.row(row)
            if result is not None:
                said = f"{result['cost']:.4g} {result['unit']}" if row == "search" else _figures(result)
                say(f"{study.scene.name} {row} seed {study.seed}: {said}, {result['epochs']} epochs")
            elif not row.startswith("cell of "):  # another process is at it
                left.append(row)
        if left and len(left) == len(todo):
            time.sleep(_WAIT)
        todo = left


def _figures(result: dict[str, Any]) -> str:
    return "test " + ", ".join(f"{key} {result['test'][key]:.4f}" for key in ("HR@10", "NDCG@10"))


def _collect(places: Places, seeds: Sequence[int] = range(1, 101)) -> dict[str, Any]:
    """Every finished row under its scene; what is not there is left out."""
    scenes: dict[str, Any] = {}
    for scene in SCENES.values():
        studies = {seed: Study(scene, seed, _NOWHERE, places) for seed in seeds}
        done = {row: {s: r for s, each in studies.items() if (r := each.found(row))} for row in rows(scene.name)}
        searches = done.pop("search")
        scenes[scene.name] = {
            "title": scene.title,
            "rows": {row: _summary(found, done["teacher"]) for row, found in done.items()},
            "searches": {str(seed): _searched(found) for seed, found in searches.items()},
            "against random": _against_random(done, searches),
        }
    return {
        "protocol": "leave-one-out, all items ranked, training stopped by validation NDCG@10",
        "command": "recdistill reproduce adarec",
        "scenes": scenes,
    }


_NOWHERE: Any = None
"""The data of a study that only reads finished rows."""


def _summary(done: dict[int, dict[str, Any]], teacher: dict[int, dict[str, Any]]) -> dict[str, Any]:
    kept = ("valid", "test", "epochs", "seconds")
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
    both = sorted(set(done) & set(teacher))
    if both:
        kept_of = retention(*(values({s: of[s] for s in both}, "NDCG@10") for of in (done, teacher)))
        out["retention"] = [kept_of.mean, kept_of.low, kept_of.high]
    return out


def _searched(found: dict[str, Any]) -> dict[str, Any]:
    design = Design.model_validate(found["designs"]["searched"])
    last = found["history"][-1]["metrics"] if found["history"] else {}
    about = {key: found[key] for key in ("cost", "unit", "epochs", "seconds")}
    return about | {"operators": [list(row) for row in dict.fromkeys(design.operators)], "entropy": last.get("entropy")}


def _against_random(done: dict[str, Any], searches: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Searched less the mean of the random cells, the spread of these, and the supernet's rank correlation, by seed."""
    out: dict[str, Any] = {}
    for seed, search_of in searches.items():
        random = [done[f"random {at}"].get(seed) for at in range(RANDOM)]
        searched = done["searched"].get(seed)
        here = [each for each in random if each is not None]
        if searched is None or len(here) < 2:  # there is no spread
            continue
        theirs = np.array([each["test"]["NDCG@10"] for each in here])
        judged = [name for name in search_of["inherited"] if seed in done[name]]
        by_user = np.mean([values({seed: each}, "NDCG@10")[0] for each in here], axis=0)  # (m,)
        test = paired_test(values({seed: searched}, "NDCG@10")[0], by_user)
        out[str(seed)] = {
            "cells": len(here),
            "difference": float(searched["test"]["NDCG@10"] - theirs.mean()),
            "spread": float(theirs.std(ddof=1)),
            "p": test.p_permutation,
            "kendall": kendall(
                [search_of["inherited"][name] for name in judged],
                [done[name][seed]["valid"]["NDCG@10"] for name in judged],
            ),
        }
    return out


def markdown(found: dict[str, Any]) -> str:
    """The tables as a page."""
    lines = [
        "# AdaRec: searched students, their teachers, and what nobody searched",
        "",
        f"{found['protocol'][:1].upper()}{found['protocol'][1:]}; the teacher is NextItNet 256. Every student is "
        "distilled by the same terms, those called alone excepted. Intervals: 95 % bootstrap over users and seeds. "
        "Kept: share of the teacher's NDCG@10. Body: parameters without embeddings and output. This page and "
        f"`adarec.json` are printed by `{found['command']}`.",
        "",
    ]
    for scene in found["scenes"].values():
        lines += [f"## {scene['title']}", "", *_table(scene["rows"]), "", *_beside(scene), ""]
    return "\n".join(lines)


def _table(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| row | seeds | HR@10 | NDCG@10 (95 %) | NDCG@20 | kept (95 %) | parameters | body |",
        "|" + "---|" * 8,
    ]
    for name, row in rows.items():
        if not row["seeds"]:
            lines.append(f"| {name} | missing |" + " |" * 6)
            continue
        mean, (low, high) = row["mean"], row["interval"]["NDCG@10"]
        kept = "{:.1f} % ({:.1f}-{:.1f})".format(*row["retention"]) if "retention" in row else ""
        cells = [
            name,
            str(len(row["seeds"])),
            f"{mean['HR@10']:.4f}",
            f"**{mean['NDCG@10']:.4f}** ({low:.4f}-{high:.4f})",
            f"{mean['NDCG@20']:.4f}",
            kept,
            f"{row['parameters']:,}",
            f"{row['body']:,}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _beside(scene: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for seed, each in scene["searches"].items():
        cells = "; ".join(", ".join(row) for row in each["operators"])
        lines.append(f"- Seed {seed} found: {cells} ({each['cost']:.4g} {each['unit']}, {each['epochs']} epochs).")
    for seed, each in scene["against random"].items():
        lines.append(
            f"- Seed {seed}: searched less the mean of {each['cells']} random cells {each['difference']:+.4f} NDCG@10 "
            f"(p {each['p']:.3f}), their spread {each['spread']:.4f}; Kendall's tau of the supernet "
            f"{each['kendall']:.2f}."
        )
    return lines
