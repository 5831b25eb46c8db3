"""The search on ML-100K: the cost of its steps, whether prices order real cells, whether the supernet's order holds.

    python benchmarks/search.py steps      [--data ../shared/data] [--threads 1] [--rounds 7] [--json FILE]
                                           [--batch 64] [--repo PATH]
    python benchmarks/search.py whole      [--trained 37] ...
    python benchmarks/search.py latency    [--cells 24] ...
    python benchmarks/search.py fidelity   [--cells 10] [--epochs 20] ...
    python benchmarks/search.py precision  [--rounds 7] [--batch 64] ...

`steps`: milliseconds of one step, in turns, of a search that asks two operators an edge, of one that asks all ten, of a
step of weights alone, of training a derived student, and, with a checkout of `Anonymous-2611/AdaRec` at PATH, of the
official search (`adarec_side.py`, a process beside this one) on the same histories: the same batch, length, items,
width, cells and nodes. The teacher is NextItNet 256 as in AdaRec, untrained, for only its cost matters; here it is
asked in every step, though a search asks it once (`AdaRec.memory`). Target: two operators at most half of the official
step. `whole`: CPU seconds of a search and of training its student, both as `recdistill reproduce adarec` has them,
from a few epochs of each kind and a few designs of the refinement; the training's epochs, which an early stop decides,
are given (37 on ML-100K with seed 1). Target: a search takes at most twice the training.
`latency`: Kendall's tau between predicted and measured milliseconds of random cells.
`fidelity`: a search, then its scores of random cells and controls beside those of the same cells trained alone.
`precision`: a training step of NextItNet, 256 and 64 wide, with products in float32 and in bfloat16, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from recdistill.clock import Clock, constant
from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.card import environment
from recdistill.methods.adarec import AdaRec, distillation
from recdistill.models import MODELS
from recdistill.models.nextitnet import ADAREC
from recdistill.objective import Objective
from recdistill.recipes.cells import Cells as Kept
from recdistill.recipes.scenes import SCENES, Study
from recdistill.recipes.search import fidelity, search
from recdistill.recipes.sequences import Places
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.runtime import Runtime
from recdistill.search.batches import PartBatches
from recdistill.search.controls import controls
from recdistill.search.cost import Shape
from recdistill.search.derive import named
from recdistill.search.latency import agreement, measured
from recdistill.search.model import Cells, Frame, Supernet, of_design
from recdistill.search.sampling import Architecture
from recdistill.search.space import SPACES
from recdistill.settings import parse
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from recdistill.data.interactions import Interactions
    from recdistill.data.split import Split
    from recdistill.query import Batch
    from recdistill.training.watch import EpochRecord, Report

SPACE = SPACES["causal"]


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "whole", "latency", "fidelity", "precision"])
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trained", type=int, default=37, help="epochs of the student's training, for `whole`")
    parser.add_argument("--repo", type=Path, help="of the official code, for `steps`")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    parts = split(read(asked.data / "ml_100k", echo=None), "leave-last-out")
    measures: dict[str, Callable[..., dict[str, Any]]] = {
        "steps": steps,
        "whole": whole,
        "latency": latency,
        "fidelity": order,
        "precision": precision,
    }
    result = {"environment": environment().model_dump(), **measures[asked.what](asked, parts)}
    print(json.dumps(result, indent=1))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def steps(asked: argparse.Namespace, parts: Split) -> dict[str, Any]:
    """Milliseconds of steps, medians of rounds in turns."""
    train, frame = parts.train, Frame(dim=64, length=50, every=True)
    teacher = untrained(train)
    batches = PartBatches(train, length=50, size=asked.batch, every=True, seed=0, device=torch.device("cpu"))
    batch, runtime = next(batches.epoch(0)), Runtime.of("cpu")

    def stepping(paths: int | None) -> Callable[[], None]:
        architecture = Architecture(SPACE, cells=4, temperature=constant(1.0))
        net = Supernet(train.histories(), train.n_items, architecture, frame)
        if paths is None:
            net = Cells(train.histories(), train.n_items, named("all-cau_cnn_3_d2", SPACE, width=64).build(), frame)
        terms = distillation(AdaRec(), student=net, teacher=teacher, how="mean", seed=0)
        objective = Objective(base=(0.5, FromInteractions("cross-entropy", how="mean")), **terms)
        optimiser = torch.optim.AdamW([*net.parameters(), *objective.parameters()], lr=1e-4)
        net.train()
        count = iter(range(1 << 30))

        def step() -> None:
            clock = Clock(0, next(count))
            if isinstance(net, Supernet):
                net.sample(clock, paths=paths or 1)
            total, _ = objective(net.view(batch.query), teacher.view(batch.query), batch, clock, runtime)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()

        return step

    works = {
        "two operators": stepping(2),
        "all ten": stepping(10),
        "weights alone": stepping(1),
        "derived": stepping(None),
    }
    with ExitStack() as stack:
        if asked.repo is not None:
            works["official"] = stack.enter_context(official(asked.repo, batch, train.n_items, threads=asked.threads))
        ms = in_turns(works, asked.rounds)
    pairs = [(name, base) for base in ("official", "all ten", "derived") for name in ("two operators", "weights alone")]
    ratios = {f"{name} / {base}": ms[name] / ms[base] for name, base in pairs if base in ms}
    assert batch.query.history is not None
    shape = {"batch": asked.batch, "length": batch.query.history.shape[1], "items": train.n_items}
    return {**shape, "ms": ms, "ratios": ratios}


@contextmanager
def official(repo: Path, batch: Batch, n_items: int, *, threads: int) -> Generator[Callable[[], None], None, None]:
    """A step of the official search on the histories of a batch, in a process of its own that waits between them."""
    query = batch.query
    assert query.history is not None
    assert query.at is not None
    label = torch.full_like(query.history, -1)
    label[query.at[:, 0], query.at[:, 1]] = batch.positive
    side, pipe = Path(__file__).with_name("adarec_side.py"), subprocess.PIPE
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "batch.npz"
        np.savez(rows, history=query.history.numpy(), label=label.numpy(), n_items=n_items)
        command = [sys.executable, str(side), str(repo), "--batch", str(rows), "--threads", str(threads)]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            asking, answers = process.stdin, process.stdout
            assert asking is not None
            assert answers is not None

            def step() -> None:
                print(file=asking, flush=True)
                if not answers.readline():
                    msg = "The official code ended before its step did; what it said stands above"
                    raise SystemExit(msg)

            yield step  # and what it reads from is closed, which ends it


def whole(asked: argparse.Namespace, parts: Split) -> dict[str, Any]:
    """CPU seconds of a search and of its student's training: what is once; epochs and designs times their number."""
    study = Study(SCENES["ml-100k"], 1, parts, Places(Kept(Path()), Path(), lambda _: ()))
    train, valid, c, some = parts.train, parts.valid, study.settings, 8
    few = {"epochs": 4, "warm_up": 2, "device": "cpu", "refine": c.refine.model_copy(update={"designs": some})}
    settings = c.model_copy(update=few).model_dump()
    of_search = Times()
    found = search(untrained(train), train, valid=valid, settings=settings, seed=1, watch=[of_search])
    warm, late = statistics.mean(of_search.epochs[:2]), statistics.mean(of_search.epochs[2:])
    design = (process_time() - of_search.last) / some
    of_training = Times()
    distill(
        untrained(train),
        "cells",
        train,
        valid=valid,
        method="adarec",
        seed=1,
        settings=c.distillation.model_dump(mode="json"),
        model_settings=of_design(found.design, c.frame).model_dump(mode="json"),
        training=study.students.model_copy(update={"epochs": 3, "device": "cpu"}),
        watch=[of_training],
        echo=None,
    )
    epoch = statistics.mean(of_training.epochs)
    search_of = of_search.once + c.warm_up * warm + (c.epochs - c.warm_up) * late + c.refine.designs * design
    training = of_training.once + asked.trained * epoch
    return {
        "search": {"once": of_search.once, "warm epoch": warm, "epoch": late, "design": design, "whole": search_of},
        "training": {"once": of_training.once, "epoch": epoch, "whole": training},
        "ratio": search_of / training,
    }


class Times:
    """CPU seconds of a training, which other processes do not add to: before its first epoch, and of each."""

    def __init__(self) -> None:
        """Begin to count."""
        self.once, self.epochs, self.last = 0.0, list[float](), process_time()

    def on_start(self, report: Report) -> None:
        """What comes before any epoch is done."""
        del report
        self.once = self._since()

    def on_epoch(self, record: EpochRecord, report: Report) -> None:
        """An epoch is done, its validation too."""
        del record, report
        self.epochs.append(self._since())

    def on_end(self, report: Report) -> None:
        """The best epoch is there again."""
        del report
        self.once += self._since()

    def _since(self) -> float:
        before, self.last = self.last, process_time()
        return self.last - before


def untrained(train: Interactions) -> Live:
    """NextItNet 256 as AdaRec has it."""
    entry = MODELS["nextitnet"]
    settings = parse(entry.settings, {**ADAREC, "dilations": list(ADAREC["dilations"])})
    return Live(entry.build(settings, train.n_users, train.n_items, 0, train), seen=train.csr())


def in_turns(works: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, one after the other, again and again."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for at in range(rounds + 1):
        for name, work in works.items():
            begin = perf_counter()
            work()
            if at:  # the first round warms up
                taken[name].append(1e3 * (perf_counter() - begin))
    return {name: statistics.median(each) for name, each in taken.items()}


def precision(asked: argparse.Namespace, parts: Split) -> dict[str, Any]:
    """Milliseconds of training steps, medians of rounds in turns."""
    train, entry = parts.train, MODELS["nextitnet"]
    batches = PartBatches(train, length=50, size=asked.batch, every=True, seed=0, device=torch.device("cpu"))
    batch, runtime = next(batches.epoch(0)), Runtime.of("cpu")

    def stepping(dim: int, precision: Literal["float32", "bfloat16"]) -> Callable[[], None]:
        settings = parse(entry.settings, {**ADAREC, "dilations": list(ADAREC["dilations"]), "dim": dim})
        net = entry.build(settings, train.n_users, train.n_items, 0, train).train()
        net.precision = precision
        objective = Objective(base=(1.0, FromInteractions("cross-entropy", how="mean")))
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4)

        def step() -> None:
            total, _ = objective(net.view(batch.query), None, batch, Clock(0, 0), runtime)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()

        return step

    each: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    ms = in_turns({f"{dim} {low}": stepping(dim, low) for dim in (256, 64) for low in each}, asked.rounds)
    ratios = {f"{dim} bfloat16 / float32": ms[f"{dim} bfloat16"] / ms[f"{dim} float32"] for dim in (256, 64)}
    return {"batch": asked.batch, "ms": ms, "ratios": ratios}


def latency(asked: argparse.Namespace, parts: Split) -> dict[str, Any]:
    """Whether a sum over edges orders whole cells as they are."""
    shape = Shape(64, 50, items=parts.train.n_items)
    costs = measured(SPACE, shape)
    designs = [named(f"random-{seed}", SPACE, width=64) for seed in range(asked.cells)]
    ms = dict(zip(SPACE.names, costs.operators, strict=True))
    tau = agreement(SPACE, shape, costs, designs)
    return {"ms an edge": ms, "ms a cell": costs.cell, "ms around": costs.fixed, "cells": asked.cells, "kendall": tau}


def order(asked: argparse.Namespace, parts: Split) -> dict[str, Any]:
    """Kendall's tau and Spearman's rho between the supernet and training alone."""
    how = TrainSettings(
        epochs=60, batch=128, weight_decay=0, loss="cross-entropy", metrics=("ndcg@10",), patience=6, device="cpu"
    )
    teacher = fit("sasrec", parts.train, dim=64, settings={"every": True}, valid=parts.valid, training=how)
    settings = {"epochs": asked.epochs, "frame": {"dim": 32, "every": True}, "every": 2, "device": "cpu"}
    found = search(teacher, parts.train, valid=parts.valid, settings=settings)
    designs = {"searched": found.design, **controls(SPACE, width=32, depth=4, random=asked.cells - 4)}
    alone = how.model_copy(update={"epochs": 30, "lr": 3e-3})
    both = fidelity(found, teacher, parts.train, designs=designs, valid=parts.valid, training=alone)
    scores = {name: pair for name, *pair in zip(both.names, both.inherited, both.retrained, strict=True)}
    return {"ndcg@10 inherited, retrained": scores, "kendall": both.kendall, "spearman": both.spearman}


if __name__ == "__main__":
    main()
