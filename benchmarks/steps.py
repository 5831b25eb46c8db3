"""Processor seconds of a few steps of every method on CiteULike, as ratios to the plain steps measured beside each.

    python benchmarks/steps.py [--data ../shared/data] [--steps 6]

Processor time, one thread: what else the machine does hardly matters. Draws that are made once an epoch, and lists that
are asked for once in a run, are there already; `benchmarks/epochs.py` times whole epochs with their draws. Ratios are
printed as they come. The teacher, of 200 dims, is not trained, since no time depends on how good it is.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from epochs import VARIANTS, Contender
from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.models.mf import MF
from recdistill.teachers.live import Live


def seconds(contender: Contender) -> float:
    """Processor time of an epoch's steps, the second time they are run."""
    contender.seconds()
    begin = time.process_time()
    contender.seconds()
    return time.process_time() - begin


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--steps", type=int, default=6)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    parts = split(read(asked.data / "citeulike_derrd", echo=None), "given")
    train = parts.train
    teacher = Live(MF(train.n_users, train.n_items, dim=200, init_std=0.3, seed=1), seen=train.csr())
    plain = Contender(parts, teacher, "plain", {}, steps=asked.steps)
    for method, variants in {"rrd": {"": {}}, **VARIANTS}.items():
        for name, settings in variants.items():
            found = seconds(Contender(parts, teacher, method, settings, steps=asked.steps))
            print(f"{method + ' ' + name:24} {found / seconds(plain):6.1f} x plain", flush=True)


if __name__ == "__main__":
    main()
