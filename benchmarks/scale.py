"""A million users by a million items: a stored teacher, steps of RRD, the ranking of 1,000 users; time and memory.

    python benchmarks/scale.py [--users 1000000] [--items 1000000] [--interactions 20000000] [--steps 3]
                               [--asked 1000] [--dim 16] [--method rrd] [--optimiser rowwise] [--threads 2]
                               [--json FILE]

The log is made up, the teacher is random vectors of 64 dims in an .npz, matched by external ids as any other file. Its
lists are computed for the users of the steps alone. Peak memory is printed after every stage; the bar is 12 GB. A dense
object of users x items would take 125 GB even at one bit a pair.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np
import torch

from recdistill import rng
from recdistill.data.batches import InteractionBatches
from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut
from recdistill.data.synthetic import random_log
from recdistill.evaluation.card import environment
from recdistill.evaluation.evaluate import evaluate
from recdistill.methods import METHODS, Setting
from recdistill.models.mf import MF
from recdistill.runtime import Runtime
from recdistill.settings import parse
from recdistill.teachers.stored import stored
from recdistill.terms.base import FromInteractions
from recdistill.training.optim import OPTIMISERS, optimiser
from recdistill.training.trainer import fit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recdistill.query import Batch

LIMIT = 12.0


class Few:
    """The first batches of an epoch."""

    def __init__(self, batches: InteractionBatches, steps: int) -> None:
        self._batches, self._steps = batches, steps

    def __len__(self) -> int:
        return min(self._steps, len(self._batches))

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Those of one epoch."""
        running = self._batches.epoch(epoch, start=start)
        for _ in range(len(self) - start):
            yield next(running)


class Stages:
    """Seconds and peak memory of what was done so far."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float | str]] = []
        self._mark()

    def done(self, name: str) -> None:
        """Print what the stage that ends here took."""
        row: dict[str, float | str] = {"stage": name, "seconds": perf_counter() - self._begin}
        row |= {"cpu_seconds": process_time() - self._spent, "peak_gb": peak()}
        self.rows.append(row)
        print(f"{name:52} {row['seconds']:8.1f} s {row['cpu_seconds']:8.1f} CPU s {row['peak_gb']:6.2f} GB", flush=True)
        self._mark()

    def _mark(self) -> None:
        self._begin, self._spent = perf_counter(), process_time()


def peak() -> float:
    """GB resident at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def vectors(rows: int, dim: int, purpose: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(rows, dim) of unit variance, made in blocks."""
    out = np.empty((rows, dim), np.float32)
    key = rng.key(0, purpose)
    for start in range(0, rows, 1 << 16):
        some = np.arange(start, min(start + (1 << 16), rows), dtype=np.int64)
        out[some] = (rng.uniform(key, some, dim) - np.float32(0.5)) * np.float32(12**0.5)
    return out


def main() -> None:
    """Run the stages and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=20_000_000)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--asked", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--method", default="rrd", choices=["rrd", "de", "de-rrd"])
    parser.add_argument("--optimiser", default="rowwise", choices=OPTIMISERS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    stages = Stages()
    stages.done("imports")
    log = random_log(asked.users, asked.items, asked.interactions, seed=1)
    seen = log.csr()
    stages.done(f"{len(log):,} interactions and their sorted rows")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.npz"
        np.savez(
            path,
            users=np.arange(asked.users),
            items=np.arange(asked.items),
            user_vectors=vectors(asked.users, 64, "teacher users"),
            item_vectors=vectors(asked.items, 64, "teacher items"),
        )
        stages.done("a teacher's file of 64 dims written")
        teacher = stored(vectors=path, users=log.users, items=log.items, seen=seen)
    stages.done("the teacher read and matched")
    device = torch.device("cpu")
    batches = InteractionBatches(log, size=1024, seed=1, device=device)
    student = MF(asked.users, asked.items, dim=asked.dim, seed=1)
    setting = Setting(student, batches, FromInteractions(), batches.taken, asked.users, 1, teacher)
    entry = METHODS[asked.method]
    passes = entry.build(parse(entry.settings, {}), setting)
    passes = [replace(each, batches=Few(batches, asked.steps)) for each in passes]
    stages.done("batches, student, terms")
    for _ in batches.epoch(0):
        break
    stages.done("order and negatives of a whole epoch, to its first batch")
    report = fit(
        student,
        passes,
        epochs=1,
        optimise=lambda parameters: optimiser(asked.optimiser, parameters, lr=1e-3, weight_decay=1e-3),
        runtime=Runtime(device),
    )
    losses = ", ".join(f"{name} {value:.1f}" for name, value in report.history[0].losses.items())
    stages.done(f"{asked.steps} steps of {asked.method}, lists for their users")
    users = np.unique(log.user[: 4 * asked.asked])[: asked.asked].astype(np.int64)
    targets = Csr.from_pairs(users, rng.integers(7, users, 1, asked.items)[:, 0], asked.users, asked.items)
    held = HeldOut("test", log.users, log.items, targets, seen)
    found = evaluate(student.ranker(), held, ("recall@10", "ndcg@10"))
    stages.done(f"{len(found.queries):,} users ranked over all items")
    print(f"losses of the steps: {losses}; {found!r}")
    where = environment(seed=1).model_dump()
    print(f"peak {peak():.2f} GB (bar {LIMIT:g}); {asked.threads} threads, {where['cpu']}, torch {where['torch']}")
    if asked.json:
        asked.json.write_text(json.dumps({"stages": stages.rows, "environment": where}, indent=2))


if __name__ == "__main__":
    main()
