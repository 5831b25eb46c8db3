"""What a search costs in serving: a student of 20 dimensions beside its teacher of 200, exact, compact and approximate.

    python benchmarks/serving_index.py [--items 100000 1000000] [--rounds 15] [--ann 100000] [--threads 1] [--json FILE]

Vectors are drawn around 200 centres with lengths of a gamma law, as trained ones have; time of exact search does not
depend on them. Milliseconds a list of 10, medians of rounds in turns, for micro-batches of 1, 8 and 64 users:

- `search`: the ranker alone, in float32 (student and teacher), float16 and int8 (student); bars: the student 3 times as
  fast as the teacher at 100 k items, 5 times at 1 M;
- `approximate`: the index of a bundle, its recall, and what building it takes (minutes at 1 M);
- `service`: `Service.recommend`, external ids in and out, what was seen left out: requests a second; bar 2,000;
- `opening`: a bundle of 1 M items x 20 and 100 k users with text ids: seconds until it is open, and what the process
  has grown by after the first answer, as a share of the bundle's bytes; bars 0.3 s and 1.2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.evaluation.card import environment
from recdistill.evaluation.tables import quantised
from recdistill.evaluation.vectors import VectorRanker
from recdistill.export.ann import index
from recdistill.ids import IdTable
from recdistill.serve.index import ApproximateRanker
from recdistill.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]

BATCHES = (1, 8, 64)
USERS = 100_000
PROBE = """
import sys, time
import numpy as np
from recdistill.serve.service import Service
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
np.ones((64, 64), "f") @ np.ones((64, 64), "f")
before, began = resident(), time.perf_counter()
service = Service.from_bundle(sys.argv[1], threads=1)
opened = time.perf_counter() - began
after_open = resident() - before
began = time.perf_counter()
told = service.recommend(["user-12345"], k=10)
first = time.perf_counter() - began
assert told.source_of("user-12345") == "model"
print(opened, after_open, first, resident() - before)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--ann", type=int, nargs="*", default=[100_000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    result: dict[str, Any] = {"environment": environment().model_dump(), "threads": asked.threads}
    for n in asked.items:
        result[f"search, {n:,} items, ms a list"] = searches(n, asked)
    for n in asked.ann:
        result[f"approximate, {n:,} items"] = approximate(n, asked)
    result["service, 100,000 items x 20, exact"] = service(asked)
    result["opening, 1,000,000 items x 20"] = opening()
    print(json.dumps(result, indent=1))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def drawn(n: int, d: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(2000, d) users and (n, d) items, float32."""
    chance = np.random.default_rng(seed)
    centre = chance.normal(size=(200, d)).astype(np.float32)

    def near(m: int) -> np.ndarray[Any, Any]:
        out = chance.normal(size=(m, d)).astype(np.float32)
        out *= 0.6
        out += centre[chance.integers(0, len(centre), m)]
        return out

    items = near(n)
    items *= chance.gamma(2, 0.5, size=(n, 1)).astype(np.float32)
    return near(2000), items


def searches(n: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Student and teacher, in turns."""
    user, item = drawn(n, 20)
    small, scale = quantised(item)
    rankers = {
        "student 20, float32": VectorRanker(user, item, threads=asked.threads),
        "student 20, float16": VectorRanker(user, item.astype(np.float16), threads=asked.threads),
        "student 20, int8": VectorRanker(user, small, item_scale=scale, threads=asked.threads),
        "teacher 200, float32": VectorRanker(*drawn(n, 200), threads=asked.threads),
    }
    out: dict[str, Any] = {}
    for size in BATCHES:
        rows = np.arange(size)
        jobs = {name: (lambda one=one, rows=rows: one.top_k(rows, 10)) for name, one in rankers.items()}
        times = in_turns(jobs, asked.rounds)
        line = {name: round(ms / size, 4) for name, ms in times.items()}
        line["teacher / student"] = round(times["teacher 200, float32"] / times["student 20, float32"], 2)
        out[f"{size} together"] = line
    return out


def approximate(n: int, asked: argparse.Namespace) -> dict[str, Any]:
    """The index a bundle would hold, beside exact search."""
    user, item = drawn(n, 20)
    exact = VectorRanker(user, item, threads=asked.threads)
    part = index(exact, np.arange(1000), "0" * 64)
    found = ApproximateRanker.over(exact, part)
    rankers = {"exact": exact, "approximate": found}
    out: dict[str, Any] = {"recall@10": part.entry.recall, "ef": part.entry.effort, **part.entry.measured}
    for size in BATCHES:
        rows = np.arange(size)
        jobs = {name: (lambda one=one, rows=rows: one.top_k(rows, 10)) for name, one in rankers.items()}
        out[f"{size} together"] = {k: round(ms / size, 4) for k, ms in in_turns(jobs, asked.rounds).items()}
    return out


def service(asked: argparse.Namespace) -> dict[str, Any]:
    """Requests a second through `Service.recommend`, text ids, 20 items seen each."""
    user, item = drawn(100_000, 20)
    chance = np.random.default_rng(1)
    seen = Csr.from_pairs(np.repeat(np.arange(2000), 20), chance.integers(0, 100_000, 40_000), 2000, 100_000)
    ids = [IdTable.from_ids([f"{what}-{i}" for i in range(n)]) for what, n in (("user", 2000), ("item", 100_000))]
    made = Service(VectorRanker(user, item, threads=asked.threads), *ids, seen, np.arange(100))
    out: dict[str, Any] = {}
    for size in BATCHES:
        users = [f"user-{i}" for i in range(size)]
        ms = in_turns({"recommend": lambda: made.recommend(users, k=10)}, 4 * asked.rounds)["recommend"]  # noqa: B023
        out[f"{size} together, users a second"] = round(size / ms * 1000)
    return out


def opening() -> dict[str, Any]:
    """In a process of its own."""
    chance = np.random.default_rng(0)
    items = 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        manifest = bundle.save(
            path,
            kind="vectors",
            arrays={
                "user": chance.normal(size=(USERS, 20)).astype(np.float32),
                "item": chance.normal(size=(items, 20)).astype(np.float32),
            },
            users=IdTable.from_ids([f"user-{i}" for i in range(USERS)]),
            items=IdTable.from_ids([f"item-{i}" for i in range(items)]),
            seen=Csr.from_pairs(
                chance.integers(0, USERS, 2_000_000), chance.integers(0, items, 2_000_000), USERS, items
            ),
            popular=np.arange(1000),
            model="mf",
            settings={},
            lineage={},
            metrics={},
            citations=[],
        )
        runs = [
            [float(word) for word in subprocess.check_output([sys.executable, "-c", PROBE, str(path)]).split()]
            for _ in range(5)
        ]
    opened, after_open, first, grown = (statistics.median(each) for each in zip(*runs, strict=True))
    return {
        "bundle MB": round(manifest.total_bytes / 1e6, 1),
        "seconds to open": round(opened, 4),
        "seconds of the first answer": round(first, 4),
        "grown by, MB, open": round(after_open / 1e6, 1),
        "grown by, MB, first answer": round(grown / 1e6, 1),
        "share of the bundle": round(grown / manifest.total_bytes, 3),
    }


def in_turns(jobs: dict[str, Work], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, interleaved, after one call to warm up."""
    times: dict[str, list[int]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in jobs.items():
            began = perf_counter_ns()
            job()
            if turn:
                times[name].append(perf_counter_ns() - began)
    return {name: statistics.median(each) / 1e6 for name, each in times.items()}


if __name__ == "__main__":
    main()
