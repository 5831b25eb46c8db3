"""Seconds of an epoch on CiteULike: plain, every method, DE at several temperatures; and of the validation.

    python benchmarks/epochs.py [--data ../shared/data] [--threads 2] [--repeat 3] [--json FILE]
                                [--taus 1 .3 .1 .03] [--steps 12] [--official COMMAND]

A student of 20 dims learns from a teacher of 200 as in `recdistill reproduce de-rrd`; the teacher is trained for a few
epochs only, since no time depends on how good it is. The temperature of DE decides how many experts carry weight and so
its time: `--taus` holds it still. All epochs run in turns in one process, the least of the repeats counts, and every
figure is also given as a ratio to the plain epoch of the same run. RRD's first epoch, in which the teacher is asked for
everybody's list, is told apart.

Official code runs outside of this repository: `--official` names a command whose last line of output is JSON,
{"plain": s, "de": s, "rrd": s, "eval": s}; what is there is put beside ours.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from recdistill.data.batches import InteractionBatches
from recdistill.data.candidates import draw
from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.card import environment
from recdistill.evaluation.evaluate import evaluate_parts
from recdistill.methods import METHODS, Setting
from recdistill.models.mf import MF
from recdistill.recipes.train import TrainSettings, fit
from recdistill.runtime import Runtime
from recdistill.settings import parse
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions
from recdistill.training.optim import optimiser
from recdistill.training.trainer import fit as loop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recdistill.data.interactions import Split
    from recdistill.objective import Batches
    from recdistill.query import Batch

WANTED = {"rrd": "at most 2 plain epochs", "plain": "official 0.46 to 0.61 s", "de tau=1 float32": "official 34.3 s"}

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "de": {"": {}},
    "de-rrd": {"": {}},
    "sum": {"": {}},
    "rd": {"": {"start": 0}},
    "cd": {"": {}},
    "ir-rrd": {"": {}, "items=positives": {"items": "positives"}, "most=2000": {"most": 2000}},
    "dcd": {"": {}, "users alone": {"item_weight": 0.0}},
    "fitnet": {"": {}},
    "ftd": {"": {}},
    "htd": {"": {}},
    "unkd": {"": {}},
    "bd": {"": {}},
    "hetcomp": {"": {"base": 1.0}, "rest=sampled": {"base": 1.0, "rest": "sampled"}},
    "rce-kd": {"": {}, "period=5": {"period": 5}},
    "pckd": {"": {}},
    "freqd": {"": {}},
}
"""Settings of the other methods, each with its defaults and with what makes it cheaper."""


class Part:
    """The first steps of every epoch."""

    def __init__(self, whole: Batches, steps: int) -> None:
        self.whole, self.steps = whole, steps

    def __len__(self) -> int:
        return min(self.steps, len(self.whole))

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """As the whole's, but shorter."""
        return islice(self.whole.epoch(epoch, start=start), len(self) - start)


class Contender:
    """A method under way, one epoch at a time."""

    def __init__(self, parts: Split, teacher: Live, method: str, settings: dict[str, Any], *, steps: int = 0) -> None:
        train = parts.train
        device = torch.device("cpu")
        self.student = MF(train.n_users, train.n_items, dim=20, seed=1)
        batches = InteractionBatches(train, size=1024, seed=1, device=device)
        some = Part(batches, steps) if steps else batches
        setting = Setting(self.student, some, FromInteractions(), batches.taken, train.n_users, 1, teacher)
        entry = METHODS[method]
        self.passes = entry.build(parse(entry.settings, settings), setting)
        self.runtime = Runtime(device)

    def seconds(self, epochs: int = 1) -> float:
        """Of `epochs` epochs; draws are those of the first ones each time, weights go on."""
        report = loop(
            self.student,
            self.passes,
            epochs=epochs,
            optimise=lambda parameters: optimiser("adam", parameters, lr=1e-3, weight_decay=1e-3),
            runtime=self.runtime,
        )
        return report.history[-1].seconds


def contenders(taus: list[float]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> method and settings."""
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("plain", {}),
        "rrd": ("rrd", {}),
        "rrd top": ("rrd", {"draw": "top"}),
    }
    for tau in taus:
        still = {"tau_start": tau, "tau_end": tau}
        for precision in ("float32", "bfloat16"):
            found[f"de tau={tau:g} {precision}"] = ("de", {**still, "precision": precision})
    still = {"tau_start": taus[0], "tau_end": taus[0], "precision": "bfloat16"}
    found[f"de-rrd tau={taus[0]:g} bfloat16"] = ("de-rrd", {"de": still})
    for method, variants in VARIANTS.items():
        found |= {f"{method} {name}".rstrip(): (method, settings) for name, settings in variants.items()}
    return found


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--taus", type=float, nargs="+", default=[1.0, 0.3, 0.1, 0.03])
    parser.add_argument("--warm", type=int, default=20, help="epochs the teacher, and each student, is trained before")
    parser.add_argument(
        "--steps", type=int, default=0, help="time so many steps of an epoch, where a whole is too long"
    )
    parser.add_argument("--only", nargs="+", help="contenders whose name begins so")
    parser.add_argument("--official")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    parts = split(read(asked.data / "citeulike_derrd", echo=None), "given")
    trained = fit("mf", parts.train, dim=200, training=TrainSettings(epochs=asked.warm, device="cpu"))
    teacher = Live(trained.model, seen=parts.train.csr())
    chosen = {
        name: Contender(parts, teacher, *how, steps=asked.steps)
        for name, how in contenders(asked.taus).items()
        if not asked.only or name == "plain" or name.startswith(tuple(asked.only))
    }
    first = {name: each.seconds() for name, each in chosen.items()}
    best = dict.fromkeys(chosen, math.inf)
    for _ in range(asked.repeat):
        for name, each in chosen.items():
            best[name] = min(best[name], each.seconds(2))  # the second of two: lists are there, draws are new
    candidates = draw(parts, 499, seed=0)
    spent = math.inf
    for _ in range(asked.repeat):
        begin = perf_counter()
        evaluate_parts(
            chosen["plain"].student.ranker(),
            (parts.valid, parts.test),
            ("hr@5", "hr@10", "hr@20"),
            protocol="sampled(499)",
            candidates=candidates,
        )
        spent = min(spent, perf_counter() - begin)
    best["eval"], first["eval"] = spent, spent
    official: dict[str, float] = {}
    if asked.official:
        done = subprocess.run(shlex.split(asked.official), check=True, capture_output=True, text=True)
        official = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{'epoch':28} {'seconds':>8} {'x plain':>8} {'first':>8}" + (f" {'official':>9} {'ratio':>7}" * bool(official))
    )
    for name, seconds in best.items():
        line = f"{name:28} {seconds:8.3f} {seconds / best['plain']:8.2f} {first[name]:8.3f}"
        theirs = official.get(name.split(" ")[0])
        line += f" {theirs:9.3f} {theirs / seconds:7.1f}" if theirs else ""
        print(line + (f"   ({WANTED[name]})" if name in WANTED else ""))
    where = environment(seed=0).model_dump()
    print(
        f"{len(parts.train):,} interactions, batch 1,024, {asked.threads} threads, "
        f"{where['cpu']}, torch {where['torch']}"
    )
    if asked.json:
        told = {"seconds": best, "first": first, "official": official, "environment": where}
        asked.json.write_text(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
