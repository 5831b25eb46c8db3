"""CCD's student update on the first increment of Yelp, beside the official code's: CPU seconds and peak memory.

    python benchmarks/ccd_peer.py --repo CLONE [--data ../shared/data] [--work runs/ccd-peer] [--epochs 10] [--rounds 1]
                                  [--peer-python PATH] [--json FILE]

CLONE is a checkout of Gyu-Seok0/CCD_KDD24 (47a00b1 was run), outside of this repository. It has no licence: nothing
of it stands here, and it is not changed. `ccd_side.py` runs its script by the first line of its run.sh, with an MF
student of 8 dims, and times its functions. What it lacks is written into `--work` (1 GB): how many users and items each
block knows, the blocks, a student as distilled (ours, trained on the base block), and a teacher's scores (that
student's). PATH is the Python that runs it, by default ours.

Every update has a process of its own and one thread; sides run in turns, the least of the rounds counts. Ours: the
preset "compat" with what run.sh sets, which is the same work; the default for as many epochs and until it stops by
itself; "quick". For an epoch count that was not run, the official time is put together from its parts (marked ~): so
many epochs, and a validation and a draw every five.

Two things are left out of the official side where it says "alone", and the bars are asked of that: adjacency matrices
(made for MF too, which does not read them), and reports on all blocks before and after. Bars: 20 times the time, 10
times the memory. Validations are what each side calls so: theirs are of two blocks, valid and test, and of new users.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recdistill.continual.learning import Run
from recdistill.continual.plain import base
from recdistill.continual.settings import settings_of
from recdistill.data.blocks import OFFICIAL, official
from recdistill.errors import problem
from recdistill.evaluation.card import environment
from recdistill.evaluation.vectors import VectorRanker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.data.blocks import Block

BARS = (20, 10)
"""Times the CPU seconds, times the memory."""
BESIDE = ("adjacency", "reports")
"""Parts of the official update that ours has no counterpart of."""
EVERY = 5
"""Epochs between its validations, and between its draws."""


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--work", type=Path, default=Path("runs/ccd-peer"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    repo, work = checkout(asked.repo), asked.work.resolve()
    torch.set_num_threads(1)
    fill(work, official(asked.data / "ccd_yelp"))
    theirs = {"repo": str(repo), "work": str(work), "epochs": asked.epochs}
    ours = {"side": "ours", "work": str(work), "data": str(asked.data.resolve())}
    same = {"preset": "default", "tuned": False, "epochs": asked.epochs}
    jobs = {
        "the same work": ours | same | {"preset": "compat", "tuned": True},
        "default": ours | same,
        "default, until it stops": ours | same | {"epochs": None},
        "quick": ours | same | {"preset": "quick", "epochs": None},
    }
    side(asked.peer_python, theirs | {"side": "prepare"})
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(asked.rounds):
        found["official"].append(side(asked.peer_python, theirs | {"side": "official"}))
        for name, job in jobs.items():
            found[name].append(side(Path(sys.executable), job))
    best = {name: min(runs, key=lambda run: run["cpu_s"]) for name, runs in found.items()}
    peer = best.pop("official")
    print(f"{parts(peer)}\n\n{ratios(best, peer)}")
    if asked.json:
        whole = {"environment": environment().model_dump(), "rounds": found}
        asked.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def checkout(repo: Path) -> Path:
    """The official code's folder, if it is one."""
    if not (repo / "Run" / "S_update.py").is_file():
        remedy = "Clone https://github.com/Gyu-Seok0/CCD_KDD24 outside of this repository, and give that folder"
        raise SystemExit(problem("--repo has no Run/S_update.py", str(repo), remedy=remedy))
    return repo.resolve()


def fill(work: Path, stream: Sequence[Block]) -> None:
    """Write what both sides begin from."""
    held, c = work / "dataset" / "Yelp", settings_of()
    held.mkdir(parents=True, exist_ok=True)
    student = base(stream[0], c.student, c.plain, run=Run(1)).snapshot
    student.save(work / "student.safetensors")
    vectors = student.model().arrays()
    np.savez(work / "student.npz", **vectors)
    best = VectorRanker(vectors["user"], vectors["item"]).top_k(
        np.arange(student.n_users), c.update.avoid, stream[0].train.csr()
    )
    np.savez(work / "lists.npz", items=best.astype(np.int32), users=np.zeros((student.n_items, 0), np.int32))
    for block in stream:
        (held / f"TASK_{block.index}.pickle").write_bytes(pickle.dumps(task(block)))
    sizes = zip(*OFFICIAL["ccd_yelp"], strict=True)
    known = [SimpleNamespace(user=np.array([u - 1]), item=np.array([i - 1])) for u, i in sizes]
    (held / "total_blocks_timestamp.pickle").write_bytes(pickle.dumps(known))


def task(block: Block) -> dict[str, Any]:
    """A block as the official files have it: items by user, of everybody who occurs in it."""
    train, parts = block.train.csr(), {"valid": block.valid.targets, "test": block.test.targets}
    here = np.flatnonzero(train.degrees + parts["valid"].degrees + parts["test"].degrees).tolist()
    of_parts = {
        f"{name}_dict": {u: csr.row(u).tolist() for u in np.flatnonzero(csr.degrees).tolist()}
        for name, csr in parts.items()
    }
    whole = {u: train.row(u).tolist() for u in here}
    return {"train_dict": whole, **of_parts, "item_list": np.unique(train.indices).tolist()}


def side(python: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What a process of its own answers."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    if job["side"] != "ours":
        alone.pop("PYTHONPATH", None)
    command = [str(python), "-W", "ignore", str(Path(__file__).with_name("ccd_side.py"))]
    done = subprocess.run(command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, env=alone, check=False)
    if done.returncode:
        raise SystemExit(f"The side {job['side']!r} ended with {done.returncode}; what it said stands above")
    return json.loads(done.stdout)


def alone(told: dict[str, Any]) -> tuple[float, float]:
    """CPU seconds and peak GB of an update without what stands beside it."""
    beside = sum(end - begin for name, begin, end in told["parts"] if name.startswith(BESIDE))
    return told["cpu_s"] - beside, max(gb for name, gb in told["peak_gb"].items() if not name.startswith(BESIDE))


def stretched(told: dict[str, Any], epochs: int) -> float:
    """CPU seconds that so many epochs add to the official update, or save.

    Its training is from its first negatives to the reports after; what is neither draw nor validation there is epochs'.
    """
    begins = [begin for name, begin, _ in told["parts"] if name == "negatives"]
    first, last = begins[0], max(begin for name, begin, _ in told["parts"] if name.startswith("reports"))
    spent: dict[str, float] = defaultdict(float)
    for name, begin, end in told["parts"]:
        if first <= begin < last:
            spent[name.partition(":")[0]] += end - begin
    ran, drawn = len(begins), sum(name == "draw" for name, _, _ in told["parts"])
    draw = sum(end - begin for name, begin, end in told["parts"] if name == "draw") / drawn
    epoch = (last - first - spent["draw"] - spent["validation"]) / ran
    checks = -(-epochs // EVERY) + ran // -EVERY
    return (epochs - ran) * epoch + checks * (draw + spent["validation"] / -(-ran // EVERY))


def parts(told: dict[str, Any]) -> str:
    """A table of the official update's parts."""
    spent: dict[str, list[float]] = defaultdict(list)
    for name, begin, end in told["parts"]:
        spent[name].append(end - begin)
    spent["the rest"] = [told["cpu_s"] - sum(map(sum, spent.values()))]
    lines = ["| official | times | CPU s each | peak GB |", "|---|---|---|---|"]
    for name, each in spent.items():
        lines.append(f"| {name} | {len(each)} | {sum(each) / len(each):.2f} | {told['peak_gb'][name]:.2f} |")
    return "\n".join(lines)


def ratios(ours: dict[str, dict[str, Any]], peer: dict[str, Any]) -> str:
    """A table: each of our updates beside the official one of as many epochs."""
    ran = sum(name == "negatives" for name, _, _ in peer["parts"])
    lines = [
        "| ours | epochs | CPU s | GB | official, CPU s | GB | alone | GB | ratio alone | of memory | bars reached? |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    (own_s, own_gb), whole_gb = alone(peer), max(peer["peak_gb"].values())
    for name, told in ours.items():
        about, more = "" if told["epochs"] == ran else "~", stretched(peer, told["epochs"])
        gb = max(told["peak_gb"].values())
        found = ((own_s + more) / told["cpu_s"], own_gb / gb)
        cells = [name, str(told["epochs"]), f"{told['cpu_s']:.1f}", f"{gb:.2f}"]
        cells += [
            f"{about}{peer['cpu_s'] + more:.0f}",
            f"{whole_gb:.1f}",
            f"{about}{own_s + more:.0f}",
            f"{own_gb:.1f}",
        ]
        cells += [f"{about}{found[0]:.1f}", f"{found[1]:.1f}"]
        cells += ["yes" if all(f >= bar for f, bar in zip(found, BARS, strict=True)) else "**no**"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
