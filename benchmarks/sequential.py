"""A sequential model on ordered histories, leave-one-out, full ranking over all items; beside published figures.

    python benchmarks/sequential.py [--data amazon_toys] [--model sasrec] [--loss cross-entropy] [--epochs 200]
                                    [--dim 64] [--seeds 1] [--threads 1] [--device auto] [--set dropout=0.5 ...]
                                    [--train lr=0.002 ...] [--work DIR] [--json FILE]

Settings are chosen on validation data: training stops by validation NDCG@10, and the test is asked once. The history of
a test query holds the validation item. `--work` keeps checkpoints, so that a long run that is killed goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import recdistill as rd
from recdistill.evaluation.card import environment

if TYPE_CHECKING:
    from recdistill.training.watch import EpochRecord, Report

DATA = Path(os.environ.get("RECDISTILL_DATA", Path(__file__).parents[2] / "shared" / "data"))
S3_REC = "Zhou et al., S3-Rec, CIKM 2020, all-item table of the official repository"


@dataclass(frozen=True)
class Bar:
    """What SASRec reaches elsewhere on the same file."""

    hr: float
    ndcg: float
    source: str


BARS = {"amazon_toys": Bar(0.0675, 0.0374, S3_REC), "amazon_beauty": Bar(0.0605, 0.0318, S3_REC)}
LENGTH = {"ml_1m": 200}
"""How much of a history is read where it is not 50."""


class Lines:
    """A line an epoch."""

    def on_start(self, report: Report) -> None:
        """Say where a resumed run stands."""
        if report.history:
            print(f"goes on after epoch {len(report.history)}", flush=True)

    def on_epoch(self, record: EpochRecord, report: Report) -> None:
        """Loss, validation, seconds."""
        found = "  ".join(f"{name} {value:.4f}" for name, value in record.metrics.items())
        loss = record.losses["base"]
        print(f"{record.epoch + 1:4}  loss {loss:10.2f}  {found}  {record.seconds:6.1f} s", flush=True)

    def on_end(self, report: Report) -> None:
        """Why it ended."""
        print(report.stopped, flush=True)


def values(pairs: list[str]) -> dict[str, Any]:
    """`dropout=0.5` as TOML reads it; what is no TOML is text."""
    out: dict[str, Any] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        try:
            out[key] = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            out[key] = text
    return out


def main() -> None:
    """Train and measure once a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon_toys")
    parser.add_argument("--model", default="sasrec")
    parser.add_argument("--loss", default="cross-entropy")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--train", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    log = rd.read(DATA / asked.data / "interactions.parquet", echo=None)
    parts = rd.split(log, "given")
    print(log.describe(), flush=True)
    common = {"batch": 256, "negatives": 1 if asked.loss in {"bpr", "bce"} else 0, "weight_decay": 0.0, "patience": 10}
    training = rd.TrainSettings.model_validate(
        {**common, "epochs": asked.epochs, "loss": asked.loss, "device": asked.device, **values(asked.train)}
    )
    settings = {"length": LENGTH.get(asked.data, 50), **values(asked.set)}
    rows: list[dict[str, float]] = []
    for seed in range(1, asked.seeds + 1):
        keep = None if asked.work is None else asked.work / f"{asked.data}-{asked.model}-{seed}.safetensors"
        trained = rd.fit(
            asked.model,
            parts.train,
            dim=asked.dim,
            valid=parts.valid,
            seed=seed,
            settings=settings,
            training=training,
            checkpoint=keep,
            watch=[Lines()],
        )
        found = rd.evaluate(trained.ranker(), parts.test, ("hr@10", "ndcg@10"))
        report = trained.report
        rows.append({"seed": seed, **found.means, "seconds": report.seconds, "epochs": len(report.history)})
        print(f"seed {seed}: test " + ", ".join(f"{name} {found[name]}" for name in found.per_user), flush=True)
        print(f"{trained.model.n_parameters:,} parameters, {report.seconds:.0f} s", flush=True)
    hr, ndcg = (float(np.mean([row[name] for row in rows])) for name in ("hr@10", "ndcg@10"))
    bar = BARS.get(asked.data) if asked.model == "sasrec" else None
    beside = "" if bar is None else f"; bars {bar.hr:.4f}, {bar.ndcg:.4f} ({bar.source})"
    print(f"{asked.data} {asked.model}: HR@10 {hr:.4f}, NDCG@10 {ndcg:.4f}, mean of {asked.seeds} seed(s){beside}")
    if asked.json:
        where = environment(seed=1).model_dump()
        asked.json.write_text(json.dumps({"rows": rows, "settings": dict(trained.settings), "environment": where}))


if __name__ == "__main__":
    main()
