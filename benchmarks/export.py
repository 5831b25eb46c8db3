"""What a sequential model costs to serve, in onnxruntime: body, head and end to end, of a student beside its teacher.

    python benchmarks/export.py [--teacher BUNDLE] [--student BUNDLE ...] [--data ../shared/data] [--threads 1]
        [--batches 1 256] [--length 50] [--rounds 31] [--json FILE]

Bundles are those of trained models, with encoders. Without them models of AdaRec's shapes are exported untrained, over
the items of ML-100K: the teacher NextItNet 256, and as students a NextItNet of width 64, SASRec of width 64, the
hand-made cell and a random one; time does not depend on the weights. The first student is also measured in int8.

Milliseconds, medians of rounds in turns, of a batch of histories of `--length` items: `body` is the encoder with the
rows of its table gathered, `head` the scores of all items and the best ten, `end to end` is `Service.recommend_after`,
external ids in and out, what was seen left out. Target: the student's body at least 5 times as fast as NextItNet's.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recdistill import bundle
from recdistill.evaluation.card import environment
from recdistill.recipes.onnx_times import times_of_bundles

_COMPARED = ("body", "end to end")


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--student", type=Path, nargs="+", default=[])
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 256])
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = {str(path): path for path in asked.student}
        if asked.teacher is not None:
            paths = {"teacher": asked.teacher, **paths}
        else:
            paths = {**exported(asked, Path(folder)), **paths}
        opened = {name: bundle.open(path) for name, path in paths.items()}
        table = measured(asked, paths)
    about = {
        name: {
            "model": one.manifest.model,
            "precision": one.encoder.entry.precision,
            "body parameters": one.encoder.entry.parameters,
            "encoder bytes": len(one.encoder.graph),
            "items": one.manifest.n_items,
        }
        for name, one in opened.items()
        if one.encoder is not None
    }
    result = {"environment": environment().model_dump(), "threads": asked.threads, "models": about, "batches": table}
    print(json.dumps(result, indent=1))
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measured(asked: argparse.Namespace, paths: dict[str, Path]) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds by batch size; the first model is the one that others are compared with."""
    times = times_of_bundles(
        paths, batches=asked.batches, length=asked.length, rounds=asked.rounds, threads=asked.threads
    )
    first = times[next(iter(times))]
    table: dict[str, dict[str, dict[str, float]]] = {}
    for size in map(str, asked.batches):
        for name, each in times.items():
            ratios = {f"{what}, times as fast": round(first[size][what] / each[size][what], 2) for what in _COMPARED}
            table.setdefault(size, {})[name] = {**each[size], **ratios}
    return table


def exported(asked: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Bundles of untrained models of AdaRec's shapes."""
    from recdistill.data.sources import read
    from recdistill.data.split import split
    from recdistill.models import MODELS, nextitnet
    from recdistill.recipes.encoder import encoder
    from recdistill.search import model as _  # registers cells
    from recdistill.settings import parse

    del _
    parts = split(read(asked.data / "ml_100k", echo=None), "leave-last-out")
    train = parts.train
    shapes: dict[str, tuple[str, dict[str, Any]]] = {
        "NextItNet 256": ("nextitnet", nextitnet.ADAREC),
        "cells 64, hand-made": ("cells", {"dim": 64}),
        "cells 64, random": ("cells", {"dim": 64, "cell": "random-1"}),
        "SASRec 64": ("sasrec", {"dim": 64}),
        "NextItNet 64": ("nextitnet", {"dim": 64}),
    }
    out: dict[str, Path] = {}
    for name, (kind, settings) in shapes.items():
        entry = MODELS[kind]
        chosen = parse(entry.settings, {**settings, "length": asked.length})
        net = entry.build(chosen, train.n_users, train.n_items, 0, train).eval()
        for precision in ("float32", "int8") if name == "cells 64, hand-made" else ("float32",):
            label = name if precision == "float32" else f"{name}, int8"
            out[label] = folder / str(len(out))
            bundle.save(
                out[label],
                kind="vectors",
                arrays=net.arrays(),
                users=train.users,
                items=train.items,
                seen=train.csr(),
                popular=np.arange(10),
                model=kind,
                settings={},
                lineage={},
                metrics={},
                citations=[],
                encoder=encoder(net, precision, valid=parts.valid),
            )
    return out


if __name__ == "__main__":
    main()
