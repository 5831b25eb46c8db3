"""CCD's student update on a block of Yelp: its parts, beside the published form of them, full retraining, and at scale.

    python benchmarks/continual.py update [--data ../shared/data] [--block 1] [--users 2000] [--rounds 3] [--json FILE]
    python benchmarks/continual.py retrain ...
    python benchmarks/continual.py scale  [--many 1000000] [--items 200000] [--events 10000000]

`update`: CPU seconds of candidates, one draw, one validation and whole updates, beside what an update costs besides its
steps in the form that the published code has (dense scores, an argsort and a Python loop over users for ranks, tuples
and `random.sample` for pairs, a list searched for each negative, a loop over users in evaluation), written here after
its description, run for `--users` users and scaled up. It is orientation, for machines without the official code;
`ccd_peer.py` runs that beside ours, and the bar is asked there. `retrain`: student updates against full-batch training
at the same block, to their end and until they validate as well as the retrained model, `--rounds` times in turn; bar
1/5. `scale`: a step on made-up events, a student update and a teacher's with LWC-KD, two epochs each, replay for
20,000 users; bar 16 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recdistill.continual.learning import METRIC, Run
from recdistill.continual.plain import base, together
from recdistill.continual.proxies import remembered
from recdistill.continual.replay import Remembered, memories
from recdistill.continual.settings import over, settings_of
from recdistill.continual.snapshot import blank
from recdistill.continual.stages import Sources, cut, update_student
from recdistill.continual.teaching import update_teacher
from recdistill.data.blocks import Block, official, widened
from recdistill.data.interactions import HeldOut
from recdistill.data.synthetic import random_log
from recdistill.evaluation.card import environment
from recdistill.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recdistill.continual.learning import Learned
    from recdistill.training.watch import EpochRecord, Report


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["update", "retrain", "scale"])
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--block", type=int, default=1)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    measures: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "update": update,
        "retrain": retrain,
        "scale": scale,
    }
    result = {"environment": environment().model_dump(), **measures[asked.what](asked)}
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps(result, indent=1))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def best(rounds: int, work: Callable[[], object]) -> float:
    """CPU seconds of the quickest of several rounds."""
    out = []
    for _ in range(rounds):
        began = process_time()
        work()
        out.append(process_time() - began)
    return min(out)


def update(asked: argparse.Namespace) -> dict[str, Any]:
    """The parts of a student update, ours and in the published form."""
    stream = official(asked.data / "ccd_yelp")
    block, before = stream[asked.block], stream[asked.block - 1]
    graph = before.train.csr()
    student = blank(settings_of().student.model_copy(update={"init_std": 1.0}), graph, seed=1)
    without = block.train.csr()
    vectors = remembered(student)
    assert vectors is not None
    masked = cut(without, student.n_users, student.n_items)
    proxies = Sources(stability=student, plasticity=student, student=student)
    replay = settings_of().update.replay

    def whole(preset: str, epochs: int | None) -> float:
        changes = {} if epochs is None else {"update": {"training": {"epochs": epochs, "patience": 100}}}
        how = over(settings_of(preset), changes).update
        return best(asked.rounds, lambda: update_student(block, graph, student, proxies, how, run=Run(1)))

    best(1, lambda: whole("quick", 1))  # what is imported at the first step is not an update's
    sources = memories([(vectors, 3), (vectors, 5)], depth=replay.depth, without=masked)
    pairs = Remembered(sources, lambda: vectors, replay, n_items=student.n_items, without=masked, seed=0)
    ours = {
        "candidates of two proxies": best(
            asked.rounds, lambda: memories([(vectors, 3), (vectors, 5)], depth=replay.depth, without=masked)
        ),
        "first draw": best(asked.rounds, lambda: pairs.draw(0)),
        "validation": best(asked.rounds, lambda: evaluate(student.ranker(), before.valid, (METRIC,))),
        f"whole update of {asked.epochs} epochs": whole("default", asked.epochs),
        f"whole update of {asked.epochs} epochs, ranks among 1024 and large steps": whole("quick", asked.epochs),
        "whole quick update": whole("quick", None),
    }
    theirs = published(block, vectors, asked.users)
    share = block.old_users / asked.users
    scaled = {name: seconds * share for name, seconds in theirs.items()}
    epochs, draws = asked.epochs, asked.epochs // 5
    other = draws * (2 * scaled["ranks"] + scaled["pairs"] + 2 * scaled["evaluation"]) + epochs * scaled["negatives"]
    return {
        "block": asked.block,
        "ours_cpu_s": ours,
        "published_form_cpu_s": scaled,
        f"published_form_of_{epochs}_epochs_without_its_steps": other,
        "ratio": {name: round(other / seconds, 1) for name, seconds in ours.items() if name.startswith("whole")},
    }


def published(block: Block, vectors: tuple[np.ndarray, np.ndarray], users: int) -> dict[str, float]:
    """The published form of four parts, for the first `users` users."""
    user, item = vectors[0][:users], vectors[1]
    chance = random.Random(0)  # noqa: S311 - as published

    def ranks() -> np.ndarray:
        scores = user @ item.T
        order = np.argsort(-scores, axis=1)
        out = np.zeros(order.shape, np.int64)
        for u in range(len(order)):
            out[u][order[u]] = np.arange(order.shape[1])
        return out

    table = ranks()

    def pairs() -> list[tuple[int, int, float]]:
        out: list[tuple[int, int, float]] = []
        for u in range(len(table)):
            near = np.flatnonzero(table[u] < 100)
            weight = np.exp(1e-4 * (table[u][near] - table[u][near]))
            for i in np.random.choice(near, 8, replace=False, p=weight / weight.sum()):
                out.append((u, int(i), float(user[u] @ item[i])))
        return chance.sample(out, len(out))

    train = block.train.csr()

    def negatives() -> None:
        for u in range(users):
            taken = [*train.row(u).tolist(), *range(160)]
            for _ in train.row(u):
                while chance.randrange(len(item)) in taken:
                    pass

    def evaluation() -> float:
        lists = np.argsort(-(user @ item.T), axis=1)[:, :1000]
        total = 0.0
        for k in (20, 50, 100):
            for u in range(users):
                seen, wanted = set(train.row(u).tolist()), set(block.test.targets.row(u).tolist())
                top = [i for i in lists[u].tolist() if i not in seen][:k]
                total += len(wanted & set(top)) / max(len(wanted), 1)
        return total

    return {
        name: best(1, work)
        for name, work in (("ranks", ranks), ("pairs", pairs), ("negatives", negatives), ("evaluation", evaluation))
    }


class Clock:
    """CPU seconds at which validation first reached a level."""

    def __init__(self, level: float) -> None:
        self.level, self.began, self.seconds = level, process_time(), None

    def on_start(self, report: Report) -> None:
        """Nothing."""

    def on_epoch(self, record: EpochRecord, report: Report) -> None:
        """Look at the epoch's validation."""
        if self.seconds is None and record.metrics.get(METRIC, 0.0) >= self.level:
            self.seconds = process_time() - self.began

    def on_end(self, report: Report) -> None:
        """Nothing."""


def retrain(asked: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds and recall of training on everything so far, and of student updates until they are as good.

    "as good": the first validation that is not below the best of the retrained model. An update is what comes after a
    teacher cycle, so it begins from a model of the block before.
    """
    stream = official(asked.data / "ccd_yelp")
    c = settings_of()
    first = base(stream[0], c.student, c.plain, run=Run(1)).snapshot
    block = stream[1]
    sources, before = Sources(stability=first, student=first), stream[0].train.csr()
    ways = {
        "update": c.update,
        "update, ranks among 1024 items": over(c, {"update": {"replay": {"among": 1024}}}).update,
        "quick update": settings_of("quick").update,
    }
    found: list[dict[str, Any]] = []
    for _ in range(asked.rounds):
        began = process_time()
        whole = base(together(stream[:2]), c.student, c.plain, run=Run(1))
        spent = process_time() - began
        one = {"retrain": _told(stream, whole, spent, spent)}
        for name, how in ways.items():
            clock = Clock(whole.report.best[METRIC].value)
            learned = update_student(block, before, first, sources, how, run=Run(1, watch=(clock,)))
            one[name] = _told(stream, learned, process_time() - clock.began, spent)
            as_good = None if clock.seconds is None else clock.seconds / spent
            one[name]["ratio when the new block validates as well"] = as_good
        found.append(one)
        print(json.dumps(one), flush=True)
    return {"rounds": found}


def _told(stream: Sequence[Block], learned: Learned, seconds: float, spent: float) -> dict[str, Any]:
    """What a model cost, and what it is worth on the tests of both blocks."""
    tables = (stream[1].train.users, stream[1].train.items)
    recall = [evaluate(learned.snapshot.ranker(), widened(one.test, *tables), (METRIC,)) for one in stream[:2]]
    a, b = (each.means[METRIC] for each in recall)
    return {
        "cpu_s": seconds,
        "ratio": seconds / spent,
        "epochs": len(learned.report.history),
        "recall@20 on D0, on D1, H": [round(value, 4) for value in (a, b, 2 * a * b / (a + b))],
    }


def scale(asked: argparse.Namespace) -> dict[str, Any]:
    """A step over made-up events, a student update and one of a teacher: seconds and peak memory of each."""
    log = random_log(asked.many, asked.items, asked.events, seed=1)
    part = np.arange(len(log)) % 10
    train = log.take(np.flatnonzero(part < 9))
    few = log.take(np.flatnonzero((part == 9) & (log.user < min(asked.many, 5_000))))
    held = HeldOut("valid", log.users, log.items, few.csr(), train.csr())
    old = (asked.many * 9 // 10, asked.items * 9 // 10)
    block = Block(1, train, held, held, *old)
    short = {"training": {"epochs": 2, "every": 2, "batch": 65_536}, "replay": {"users": 20_000}}
    c = over(settings_of(), {"update": short, "teach": short})
    graph = cut(train.csr(), *old)
    student, member = (blank(spec, graph, seed=seed) for seed, spec in enumerate((c.student, c.teachers[0]), 1))
    proxies = Sources(stability=student, plasticity=student, student=student)
    result: dict[str, Any] = {"users": asked.many, "items": asked.items, "events": len(train)}

    def told(name: str, work: Callable[[], Learned]) -> Learned:
        began = process_time()
        done = work()
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
        result[name] = {
            "cpu_s": process_time() - began,
            "epochs": len(done.report.history),
            "terms": sorted(done.report.history[-1].losses),
            "peak_gb_so_far": peak,
        }
        print(json.dumps({name: result[name]}), flush=True)
        return done

    updated = told("student", lambda: update_student(block, graph, student, proxies, c.update, run=Run(1)))
    memory = Sources(stability=student, plasticity=student, student=updated.snapshot)
    told("teacher", lambda: update_teacher(block, graph, member, memory, c.teach, run=Run(1)))
    return {**result, "cpu_s": result["student"]["cpu_s"] + result["teacher"]["cpu_s"]}


if __name__ == "__main__":
    main()
