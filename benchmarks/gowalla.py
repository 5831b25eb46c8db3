"""MF-BPR and LightGCN on Gowalla in the published split, beside the published figures: Recall@20 and NDCG@20.

    python benchmarks/gowalla.py [--data ../shared/data] [--models mf lightgcn] [--seeds 1] [--device auto]
                                 [--work runs/gowalla] [--json FILE]

64 dims, LightGCN with 3 layers, batches of 2,048, Adam, one uniform negative an interaction, full ranking. Learning
rate and weight decay (`TRIALS`), and with them the number of epochs, are chosen by NDCG@20 on the validation part with
seed 1, in at most 1,000 epochs; the winner then learns from train and valid together, which are the published train
part, for so many epochs, and the test part is looked at once. Meant for a machine with an accelerator.

A training goes on from its checkpoint below `--work`. Bars: LightGCN's Recall@20 .1820 and NDCG@20 .1540, MF-BPR's
Recall@20 .1600; published are .1824 and .1547 (LightGCN-PyTorch), .1627 and .1378 (BARS, gowalla_m1).
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.evaluation.card import environment
from recdistill.evaluation.evaluate import evaluate
from recdistill.recipes.train import fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.data.interactions import HeldOut, Interactions
    from recdistill.recipes.trained import Trained

METRICS = ("recall@20", "ndcg@20")
CHOSEN_BY = "ndcg@20"
BATCH = 2048
BARS = {("lightgcn", "recall@20"): 0.1820, ("lightgcn", "ndcg@20"): 0.1540, ("mf", "recall@20"): 0.1600}
TRIALS = {
    "mf": [(lr, decay) for lr in (1e-3, 3e-3) for decay in (1e-6, 1e-5)],
    "lightgcn": [(1e-3, 0.0), (3e-3, 0.0), (3e-3, 1e-7)],
}
"""Learning rates, and Adam's weight decays beside the mean loss of a batch; ours sums, and has `BATCH` times that."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the trials of a model came to."""

    lr: float
    weight_decay: float
    epochs: int
    valid: float
    """Of `CHOSEN_BY`, at that epoch."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A log, and where its trainings are kept."""

    log: Interactions
    work: Path
    at: dict[str, Any]
    """What all trainings share."""
    most: int = 1000
    """Epochs of a trial."""

    def choose(self, model: str) -> Chosen:
        """The best setting and epoch on the validation part."""
        parts = split(self.log, "given")
        tried: list[Chosen] = []
        for lr, decay in TRIALS[model]:
            how = {"epochs": self.most, "every": 5, "patience": 10, "metrics": (CHOSEN_BY,)} | rates(lr, decay)
            report = self.trained(f"{model}-{lr:g}-{decay:g}", model, parts.train, how, valid=parts.valid).report
            best = report.best[CHOSEN_BY]
            tried.append(Chosen(lr, decay, best.epoch + 1, best.value))
            print(f"{model} lr {lr:g}, weight decay {decay:g}: validation {best.value:.4f}, epoch {best.epoch + 1}")
        return max(tried, key=lambda each: each.valid)

    def measure(self, model: str, chosen: Chosen, seeds: Sequence[int]) -> dict[str, list[float]]:
        """Metric -> its mean on the test part for each seed, of models of train and valid."""
        parts = split(whole(self.log), "given")
        how = {"epochs": chosen.epochs} | rates(chosen.lr, chosen.weight_decay)
        name = f"{model}-{chosen.lr:g}-{chosen.weight_decay:g}-whole-{chosen.epochs}"
        done = [self.trained(f"{name}-seed{seed}", model, parts.train, how, seed=seed) for seed in seeds]
        found = [evaluate(each.ranker(), parts.test, METRICS).means for each in done]
        return {metric: [each[metric] for each in found] for metric in METRICS}

    def trained(
        self,
        name: str,
        model: str,
        train: Interactions,
        how: dict[str, Any],
        *,
        valid: HeldOut | None = None,
        seed: int = 1,
    ) -> Trained:
        """A model of 64 dims; it goes on from its checkpoint."""
        self.work.mkdir(parents=True, exist_ok=True)
        return fit(
            model,
            train,
            dim=64,
            valid=valid,
            seed=seed,
            settings={"layers": 3} if model == "lightgcn" else {},
            training=self.at | how,
            checkpoint=self.work / f"{name}.safetensors",
            echo=None,
        )


def main() -> None:
    """Choose, train, measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--models", nargs="+", choices=tuple(TRIALS), default=tuple(TRIALS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=Path("runs/gowalla"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    at = {"device": asked.device, "batch": BATCH}
    bench = Bench(read(asked.data / "gowalla_lightgcn", echo=None), asked.work, at)
    rows: list[dict[str, Any]] = []
    for model in asked.models:
        chosen = bench.choose(model)
        test = bench.measure(model, chosen, range(1, asked.seeds + 1))
        rows.append({"model": model, "chosen": asdict(chosen), "test": test})
        print(row(rows[-1]), flush=True)
    where = environment(seed=0).model_dump()
    print(f"{asked.seeds} seeds, device {asked.device}, {where['cpu']}, torch {where['torch']}")
    if asked.json:
        asked.json.write_text(json.dumps({"rows": rows, "device": asked.device, "environment": where}, indent=1) + "\n")


def whole(log: Interactions) -> Interactions:
    """The log with its validation part in train."""
    assert log.split is not None
    return replace(log, split=np.where(log.split == 1, 0, log.split).astype(np.int8))


def rates(lr: float, decay: float) -> dict[str, float]:
    """As training is told them."""
    return {"lr": lr, "weight_decay": decay * BATCH}


def row(found: dict[str, Any]) -> str:
    """A line: the setting, and each metric with its range over seeds and its bar."""
    chosen, cells = found["chosen"], list[str]()
    for metric, values in found["test"].items():
        bar = BARS.get((found["model"], metric))
        said = f" (bar {bar:.4f}: {'reached' if np.mean(values) >= bar else 'MISSED'})" if bar else ""
        cells.append(f"{metric} {np.mean(values):.4f} [{min(values):.4f}-{max(values):.4f}]{said}")
    return f"{found['model']} lr {chosen['lr']:g}, {chosen['epochs']} epochs: {', '.join(cells)}"


if __name__ == "__main__":
    main()
