"""Full ranking of all users of gowalla_lightgcn, top-20, seen items left out: ours beside implicit's `recommend`.

    python benchmarks/ranking.py [--data ../shared/data] [--dims 20] [--threads 2] [--repeat 5] [--json FILE]
                                 [--peer-python PATH]   a Python that has `implicit`, e.g. of an environment of its own

The peer runs as a child process on the same vectors, with its BLAS in one thread as it advises, in one call for all
users and in calls of 1,000, the better of which counts. Its lists must equal ours (but for ties). Target: 2.5 times
its users per second; the ratio of CPU seconds is printed too, because other work on the machine disturbs it less.
Without `--peer-python` only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.card import environment
from recdistill.evaluation.ranking import VectorRanker

K = 20

PEER = """
import json, sys, time
import numpy as np, scipy.sparse as sp, implicit
from implicit.cpu.als import AlternatingLeastSquares
path, threads, repeat, k = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with np.load(path) as f:
    user, item, indptr, indices = f["user"], f["item"], f["indptr"], f["indices"]
seen = sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(user), len(item)))
model = AlternatingLeastSquares(factors=user.shape[1], num_threads=threads)
model.user_factors, model.item_factors = user, item
def run(step):
    found = []
    for a in range(0, len(user), step):
        ids = np.arange(a, min(a + step, len(user)))
        found.append(model.recommend(ids, seen[ids], N=k, filter_already_liked_items=True)[0])
    return np.concatenate(found)
times = {}
for step in (len(user), 1000):
    times[step] = []
    for _ in range(repeat):
        begin, cpu = time.perf_counter(), time.process_time()
        ids = run(step)
        times[step].append((time.perf_counter() - begin, time.process_time() - cpu))
np.save(path + ".ids.npy", ids)
print(json.dumps({"version": implicit.__version__, "seconds": min(t for ts in times.values() for t, _ in ts),
    "cpu": min(c for ts in times.values() for _, c in ts)}))
"""


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--dims", type=int, nargs="+", default=[20])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    train = split(read(asked.data / "gowalla_lightgcn", echo=None), "given").train
    seen = train.csr()
    users = np.arange(train.n_users)
    rows: list[dict[str, float | str]] = []
    for d in asked.dims:
        rng = np.random.default_rng(d)
        user = rng.normal(size=(train.n_users, d)).astype(np.float32)
        item = rng.normal(size=(train.n_items, d)).astype(np.float32)
        ranker = VectorRanker(user, item, threads=asked.threads)
        lists = ranker.top_k(users, K, seen)
        fast = cpu = math.inf
        for _ in range(asked.repeat):
            begin, spent = perf_counter(), process_time()
            lists = ranker.top_k(users, K, seen)
            fast, cpu = min(fast, perf_counter() - begin), min(cpu, process_time() - spent)
        row: dict[str, float | str] = {"d": d, "ours_s": fast, "ours_cpu_s": cpu, "ours_users_per_s": len(users) / fast}
        line = f"d = {d}: ours {fast:.2f} s, {len(users) / fast:,.0f} users/s"
        if asked.peer_python:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "vectors.npz"
                np.savez(path, user=user, item=item, indptr=seen.indptr, indices=seen.indices)
                command = [asked.peer_python, "-c", PEER, path, str(asked.threads), str(asked.repeat), str(K)]
                quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
                done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, env=quiet)
                peer = json.loads(done.stdout.splitlines()[-1])
                same = float((np.load(f"{path}.ids.npy") == lists).mean())
            assert same > 0.999, f"only {same:.2%} of the places hold the same item"
            ratio = peer["seconds"] / fast
            row |= {"peer": f"implicit {peer['version']}", "peer_users_per_s": len(users) / peer["seconds"]}
            row |= {"ratio": ratio, "peer_cpu_s": peer["cpu"], "cpu_ratio": peer["cpu"] / cpu, "same_places": same}
            line += f"; implicit {peer['version']} {len(users) / peer['seconds']:,.0f} users/s; ratio {ratio:.2f}"
            line += (
                f" (wanted: 2.5; by CPU seconds {peer['cpu'] / cpu:.2f}); {same:.4%} of the places hold the same item"
            )
        rows.append(row)
        print(line)
    where = environment(seed=0).model_dump()
    shape = f"{train.n_users:,} users x {train.n_items:,} items, top-{K}"
    print(f"{shape}, {asked.threads} threads, {where['cpu']}, numpy {where['numpy']}")
    if asked.json:
        asked.json.write_text(json.dumps({"rows": rows, "threads": asked.threads, "environment": where}, indent=2))


if __name__ == "__main__":
    main()
