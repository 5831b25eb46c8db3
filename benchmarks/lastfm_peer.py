"""MF-BPR and LightGCN on lastfm_lightgcn, beside RecBole's: Recall@20 and NDCG@20 of the same test users.

    python benchmarks/lastfm_peer.py --peer-python PATH [--data ../shared/data] [--seeds 3] [--json FILE]
                                     [--work runs/lastfm-peer] [--only ours recbole] [--models mf lightgcn]

PATH is a Python that has RecBole, of an environment of its own (`tests/golden/peers/make_recbole.py` says of which
packages). The log's own test part; a tenth of its training part, the same for both sides, is cut for validation. Both
have 64 dims, 3 layers, batches of 2,048, Adam, one uniform negative an interaction, at most 300 epochs, a validation
every 2 of them, and stop after 10 in a row without a better NDCG@20 in four decimals (RecBole takes a tie for better).
Learning rate and weight decay are chosen by validation NDCG@20 with seed 1 from one small grid (`TRIALS`), placed where
ours was seen to be best; the winner is trained with every seed. RecBole's LightGCN keeps its default penalty on a
batch's vectors (`reg_weight`) beside. Each side trains by its own trainer (RecBole's in `recbole_side.py`) and hands
over vectors; one evaluator, ours, measures both: full ranking, what was trained or validated on left out, users with a
test item. Differences are paired by user, means over seeds; the interval is over users.

Finished trainings are kept in `--work`, so a killed run goes on. Target: no worse than the peer by the interval.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.card import environment
from recdistill.evaluation.compare import PairedTest, paired_test
from recdistill.evaluation.evaluate import evaluate
from recdistill.evaluation.ranking import VectorRanker
from recdistill.recipes.method_tables import with_validation
from recdistill.recipes.train import fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.data.interactions import HeldOut, Split

SIDES = ("ours", "recbole")
MODELS = {"mf": "MF-BPR", "lightgcn": "LightGCN"}
METRICS = ("recall@20", "ndcg@20")
CHOSEN_BY = "ndcg@20"
SHAPE: dict[str, Any] = {"dim": 64, "layers": 3, "batch": 2048, "epochs": 300, "every": 2, "patience": 10}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tuned."""

    lr: float
    weight_decay: float = 0.0
    """Adam's coupled L2 beside the *mean* loss of a batch; ours sums, and is given it times the batch."""
    reg_weight: float = 0.0
    """Of RecBole's LightGCN alone: the norm of the batch's raw vectors, over the batch."""

    def __str__(self) -> str:
        """As the table says it."""
        parts = {"weight decay": self.weight_decay, "reg_weight": self.reg_weight}
        return ", ".join(f"{name} {value:g}" for name, value in parts.items() if value) or "none"


_GRID = {
    "mf": [(lr, decay) for lr in (2e-3, 5e-3, 1e-2) for decay in (1e-5, 2e-5)],
    "lightgcn": [(5e-3, 0.0), (5e-3, 1e-6), (1e-2, 1e-6)],
}
"""Learning rates and weight decays."""
_OWN = {("recbole", "lightgcn"): 1e-5}
"""Its own penalty stays at its default."""
TRIALS = {
    (side, model): [Setting(lr, decay, _OWN.get((side, model), 0.0)) for lr, decay in grid]
    for model, grid in _GRID.items()
    for side in SIDES
}


@dataclass(frozen=True, slots=True)
class Run:
    """One training, and where it is kept."""

    side: str
    model: str
    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """A file's, of all it depends on but the split, which names the folder, and the code."""
        about = json.dumps({**asdict(self), **SHAPE}, sort_keys=True)
        return f"{self.side}-{self.model}-seed{self.seed}-{hashlib.sha256(about.encode()).hexdigest()[:8]}"


def main() -> None:
    """Train what is missing, measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--work", type=Path, default=Path("runs/lastfm-peer"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SIDES, default=SIDES, help="train these sides alone; no tables")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=tuple(MODELS))
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.seeds < 1:
        parser.error("--seeds must be at least 1")
    parts = split(with_validation(read(asked.data / "lastfm_lightgcn", echo=None)), "given")
    bench = Bench(parts, asked.work.resolve(), asked.peer_python)
    found = {(side, m): bench.tuned(side, m, asked.seeds) for m in asked.models for side in SIDES if side in asked.only}
    for runs, _ in found.values():
        for run in runs:
            bench.run(run)
    bench.close()
    if set(asked.only) != set(SIDES):
        return
    per_user = {at: _measured([bench.run(run)[0] for run in runs], parts.test) for at, (runs, _) in found.items()}
    rows: list[dict[str, Any]] = []
    for (side, model), (runs, valid) in found.items():
        told = [bench.run(run)[1] for run in runs]
        means = {m: per_user[side, model][m].mean(axis=1).tolist() for m in METRICS}
        about = {"side": side, "model": model, "setting": asdict(runs[0].setting), "penalty": str(runs[0].setting)}
        rows.append({**about, "valid": valid, "test": means, "runs": told})
    tests = {(m, metric): _compared(per_user, m, metric) for m in asked.models for metric in METRICS}
    where = environment(seed=0).model_dump()
    users = len(parts.test.queries)
    page = f"{results(rows)}\n\n{differences(tests)}"
    print(page)
    sizes = " + ".join(f"{len(part):,}" for part in (parts.train, parts.valid, parts.test))
    print(f"\n{users:,} test users, {parts.train.n_items:,} items, {sizes} interactions (train + valid + test)")
    print(f"{asked.seeds} seeds, one thread, {where['cpu']}")
    if asked.json:
        kept = [{"model": m, "metric": metric, **asdict(test)} for (m, metric), test in tests.items()]
        whole = {"shape": SHAPE, "users": users, "rows": rows, "differences": kept, "environment": where}
        asked.json.write_text(json.dumps(whole, indent=1) + "\n")


class Bench:
    """One split, and the trainings on it that are done."""

    def __init__(self, parts: Split, work: Path, peer_python: Path | None) -> None:
        """Write the split for the peer; the peer starts when it is first needed."""
        found = {"train": parts.train.csr(), "valid": parts.valid.targets, "test": parts.test.targets}
        rows = {name: pairs(of) for name, of in found.items()}
        split = hashlib.sha256(b"".join(part.tobytes() for part in rows.values())).hexdigest()[:8]
        self._parts, self._work, self._python = parts, work / split, peer_python
        self._work.mkdir(parents=True, exist_ok=True)
        self._peer: subprocess.Popen[str] | None = None
        np.savez(self._work / "split.npz", **rows)

    def tuned(self, side: str, model: str, seeds: int) -> tuple[list[Run], float]:
        """The winner of the trials with every seed, and its validation value with seed 1."""
        trials = [Run(side, model, setting, 1) for setting in TRIALS[side, model]]
        values = [self._valid(run) for run in trials]
        best = values.index(max(values))
        return [Run(side, model, trials[best].setting, seed) for seed in range(1, seeds + 1)], values[best]

    def run(self, run: Run) -> tuple[VectorRanker, dict[str, Any]]:
        """Trained, or read."""
        vectors, note = (self._work / f"{run.name}.{end}" for end in ("npz", "json"))
        if not note.exists():
            new = self._work / f"{run.name}.new.npz"
            told = self._ours(run, new) if run.side == "ours" else self._theirs(run, new)
            new.replace(vectors)
            part = note.with_suffix(".new")
            part.write_text(json.dumps({**asdict(run), **told}, indent=1) + "\n")
            part.replace(note)
        with np.load(vectors) as arrays:
            return VectorRanker(arrays["user"], arrays["item"]), json.loads(note.read_text())

    def close(self) -> None:
        """End the peer."""
        if self._peer is not None:
            self._peer.communicate()

    def _valid(self, run: Run) -> float:
        ranker, told = self.run(run)
        value = evaluate(ranker, self._parts.valid, (CHOSEN_BY,)).means[CHOSEN_BY]
        print(
            f"{run.side} {run.model} lr {run.setting.lr:g}, {run.setting}: validation {value:.4f}, "
            f"{told['epochs']} epochs, {told['seconds']:.0f} s",
            flush=True,
        )
        return value

    def _ours(self, run: Run, out: Path) -> dict[str, Any]:
        began = time.perf_counter()
        training = {key: SHAPE[key] for key in ("batch", "epochs", "every", "patience")} | {
            "lr": run.setting.lr,
            "weight_decay": run.setting.weight_decay * SHAPE["batch"],
            "metrics": (CHOSEN_BY,),
            "device": "cpu",
        }
        shape = {"layers": SHAPE["layers"]} if run.model == "lightgcn" else {}
        train, valid, dim = self._parts.train, self._parts.valid, SHAPE["dim"]
        done = fit(run.model, train, dim=dim, valid=valid, seed=run.seed, settings=shape, training=training, echo=None)
        np.savez(out, **done.model.arrays())
        return {"epochs": len(done.report.history), "seconds": time.perf_counter() - began}

    def _theirs(self, run: Run, out: Path) -> dict[str, Any]:
        if self._peer is None:
            if self._python is None:
                msg = "--peer-python: a Python that has RecBole is needed for its side"
                raise SystemExit(msg)
            command = [str(self._python), str(Path(__file__).with_name("recbole_side.py"))]
            pipe = subprocess.PIPE
            quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
            quiet.pop("PYTHONPATH", None)
            self._peer = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=quiet)
        assert self._peer.stdin is not None
        assert self._peer.stdout is not None
        job = {"split": str(self._work / "split.npz"), "out": str(out), "metric": CHOSEN_BY, **SHAPE}
        job |= {"model": run.model, "seed": run.seed, **asdict(run.setting)}
        self._peer.stdin.write(json.dumps(job) + "\n")
        self._peer.stdin.flush()
        answer = self._peer.stdout.readline()
        if not answer:
            msg = f"RecBole's side ended while it trained {run.name}; what it said stands above"
            raise SystemExit(msg)
        return json.loads(answer)


def pairs(matrix: Csr) -> NDArray[np.int64]:
    """(n, 2) rows of users and items."""
    users = np.repeat(np.arange(matrix.n_rows), matrix.degrees)
    return np.stack([users, matrix.indices], axis=1).astype(np.int64)


def results(rows: Sequence[dict[str, Any]]) -> str:
    """A table: what was chosen, and the mean of each metric with its range over seeds."""
    lines = [
        "| model | side | learning rate | regularisation | NDCG@20 in validation | Recall@20 | NDCG@20 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: list(MODELS).index(r["model"])):
        cells = [MODELS[row["model"]], row["side"], f"{row['setting']['lr']:g}", row["penalty"], f"{row['valid']:.4f}"]
        for metric in METRICS:
            values = row["test"][metric]
            cells.append(f"{np.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(tests: dict[tuple[str, str], PairedTest]) -> str:
    """A table: ours minus the peer's, with its interval, and what it means against the bar."""
    lines = [
        "| model | metric | ours - RecBole [95 %] | p | users better, worse | no worse? |",
        "|---|---|---|---|---|---|",
    ]
    for (model, metric), test in tests.items():
        d = test.difference
        cells = [MODELS[model], metric.replace("ndcg", "NDCG").replace("recall", "Recall")]
        cells += [f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]", f"{test.p_permutation:.4f}"]
        cells += [f"{test.wins:,}, {test.losses:,}", "**no**" if d.high < 0 else "yes"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(rankers: Sequence[VectorRanker], held: HeldOut) -> dict[str, NDArray[np.float64]]:
    """(S, n) of each metric: seeds by users."""
    found = [evaluate(ranker, held, METRICS).per_user for ranker in rankers]
    return {metric: np.stack([each[metric] for each in found]) for metric in METRICS}


def _compared(per_user: dict[tuple[str, str], dict[str, NDArray[np.float64]]], model: str, metric: str) -> PairedTest:
    return paired_test(per_user["ours", model][metric], per_user["recbole", model][metric])


if __name__ == "__main__":
    main()
