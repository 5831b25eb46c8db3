"""BPR with the row-wise optimiser on gowalla_lightgcn: samples per second, beside implicit's BPR.

    python benchmarks/optimiser.py [--data ../shared/data] [--dim 64] [--batch 65536] [--threads 2] [--rounds 5]
                                   [--optimiser rowwise] [--scale] [--json FILE]
                                   [--peer-python PATH]   a Python that has `implicit`, of an environment of its own

A sample is one interaction with one negative. Ours is the whole loop as `fit` runs it: order, draws, batches, loss,
backward, update. The peer is lock-free SGD, a child process that takes its rounds in turn with ours; the best round of
each counts, and the ratio of CPU seconds is printed too, because other work on the machine disturbs it less. Target:
1/3 of the peer's samples per second. `--scale` adds steps on tables of 1 M x 1 M rows, which must cost
their rows alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from recdistill.clock import Clock
from recdistill.data.batches import InteractionBatches
from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.card import environment
from recdistill.models.mf import MF
from recdistill.objective import Objective, Pass
from recdistill.query import Batch, Query
from recdistill.runtime import Runtime
from recdistill.terms.base import FromInteractions
from recdistill.training.optim import OPTIMISERS, optimiser
from recdistill.training.trainer import fit

EPOCHS = 5

PEER = """
import json, sys, time
import numpy as np, scipy.sparse as sp, implicit
from implicit.bpr import BayesianPersonalizedRanking
path, dim, threads, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with np.load(path) as f:
    seen = sp.csr_matrix((np.ones(len(f["indices"]), np.float32), f["indices"], f["indptr"]))
BayesianPersonalizedRanking(factors=dim, iterations=1, num_threads=threads).fit(seen, show_progress=False)
for line in sys.stdin:
    model = BayesianPersonalizedRanking(factors=dim, iterations=epochs, num_threads=threads, random_state=0)
    begin, cpu = time.perf_counter(), time.process_time()
    model.fit(seen, show_progress=False)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"version": implicit.__version__, "seconds": seconds, "cpu": cpu}), flush=True)
"""


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=65536)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--optimiser", choices=OPTIMISERS, default="rowwise")
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    train = split(read(asked.data / "gowalla_lightgcn", echo=None), "given").train
    batches = InteractionBatches(train, size=asked.batch, seed=0, device=torch.device("cpu"))
    passes = [Pass("train", batches, Objective(base=(1.0, FromInteractions("bpr"))))]

    def ours() -> tuple[float, float]:
        """Wall and CPU seconds of an epoch, the first of a run left out."""
        model = MF(train.n_users, train.n_items, dim=asked.dim)
        cpu = process_time()
        report = fit(
            model,
            passes,
            epochs=EPOCHS,
            optimise=lambda p: optimiser(asked.optimiser, p, lr=1e-2, weight_decay=1e-3),
            runtime=Runtime.of("cpu"),
        )
        cpu = process_time() - cpu
        return min(record.seconds for record in report.history[1:]), cpu / EPOCHS

    n = len(train)
    found: dict[str, Any] = {"dim": asked.dim, "batch": asked.batch, "optimiser": asked.optimiser, "samples": n}
    with tempfile.TemporaryDirectory() as folder:
        peer = _peer(asked, train.csr(), Path(folder)) if asked.peer_python else None
        best = {"ours": [math.inf, math.inf], "peer": [math.inf, math.inf]}
        for _ in range(asked.rounds):
            best["ours"] = [min(pair) for pair in zip(best["ours"], ours(), strict=True)]
            if peer is not None:
                told = _ask(peer)
                took = (told["seconds"] / EPOCHS, told["cpu"] / EPOCHS)
                best["peer"] = [min(pair) for pair in zip(best["peer"], took, strict=True)]
                found["peer"] = f"implicit {told['version']}"
        if peer is not None:
            peer.communicate()
    found |= {"ours_samples_per_s": n / best["ours"][0], "ours_samples_per_cpu_s": n / best["ours"][1]}
    print(f"ours: {n / best['ours'][0] / 1e6:.2f} M samples/s ({n / best['ours'][1] / 1e6:.2f} M a CPU second)")
    if peer is not None:
        found |= {"peer_samples_per_s": n / best["peer"][0], "peer_samples_per_cpu_s": n / best["peer"][1]}
        found |= {"ratio": best["peer"][0] / best["ours"][0], "cpu_ratio": best["peer"][1] / best["ours"][1]}
        rates = f"{n / best['peer'][0] / 1e6:.2f} M samples/s ({n / best['peer'][1] / 1e6:.2f} M a CPU second)"
        print(f"{found['peer']}: {rates}; ratio {found['ratio']:.2f} (wanted: 0.33; by CPU {found['cpu_ratio']:.2f})")
    if asked.scale:
        found |= _scale(asked)
    where = environment(seed=0).model_dump()
    print(f"{asked.optimiser}, d = {asked.dim}, batches of {asked.batch:,}, {asked.threads} threads, {where['cpu']}")
    if asked.json:
        asked.json.write_text(json.dumps({**found, "threads": asked.threads, "environment": where}, indent=1) + "\n")


def _peer(asked: argparse.Namespace, seen: Any, folder: Path) -> subprocess.Popen[str]:  # noqa: ANN401
    path = folder / "log.npz"
    np.savez(path, indptr=seen.indptr, indices=seen.indices)
    command = [asked.peer_python, "-c", PEER, path, asked.dim, asked.threads, EPOCHS]
    quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, command)), stdin=pipe, stdout=pipe, text=True, env=quiet)


def _ask(peer: subprocess.Popen[str]) -> dict[str, Any]:
    assert peer.stdin is not None
    assert peer.stdout is not None
    peer.stdin.write("\n")
    peer.stdin.flush()
    return json.loads(peer.stdout.readline())


def _scale(asked: argparse.Namespace) -> dict[str, float]:
    """A step's seconds on tables of 1 M x 1 M rows, of batches that touch about 1,000 and all they can."""
    rows = 1_000_000
    model = MF(rows, rows, dim=asked.dim)
    optimise = optimiser(asked.optimiser, model.parameters(), lr=1e-2, weight_decay=1e-3)
    term, found = FromInteractions("bpr"), dict[str, float]()
    for size in (1000, asked.batch):
        times: list[float] = []
        for step in range(8):
            g = torch.Generator().manual_seed(step)
            user, items = torch.randint(rows, (size,), generator=g), torch.randint(rows, (size, 2), generator=g)
            batch = Batch(Query(user), items[:, 0], items[:, 1:])
            begin = perf_counter()
            value = term(model.view(batch.query), None, batch, Clock()).value.sum()
            optimise.zero_grad()
            value.backward()
            optimise.step()
            times.append(perf_counter() - begin)
        found[f"scale_step_s_of_{size}"] = min(times)
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    steps = ", ".join(f"{1e3 * s:.1f} ms" for name, s in found.items() if name.startswith("scale"))
    print(f"1 M x 1 M: steps of 1,000 and of {asked.batch:,} samples take {steps}; peak {found['peak_gb']:.1f} GB")
    return found


if __name__ == "__main__":
    main()
