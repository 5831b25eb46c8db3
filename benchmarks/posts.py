"""What an ingest of ten events costs in a stream that has taken many: milliseconds of processor time, window by window.

    python benchmarks/posts.py [--posts 4000] [--events 10] [--windows 4]

A stream is a folder in the temporary directory. In every window, the open block is posted to as a server does it: one
small batch at a time, all of the same block. Bar: the last window costs at most twice the first.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import process_time

import numpy as np
import polars as pl

from recdistill.ledger import Ledger
from recdistill.ledger.blocks import Rule
from recdistill.ledger.events import gathered


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("posts", 4000), ("events", 10), ("windows", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    chance = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.create(Path(folder) / "s", Rule(base=1 << 40, events=1 << 40))
        size, spent = asked.posts // asked.windows, 0.0
        for post in range(size * asked.windows):
            ids = {"user": chance.integers(0, 10_000, asked.events), "item": chance.integers(0, 5_000, asked.events)}
            frame = pl.DataFrame({**ids, "timestamp": np.full(asked.events, post)})
            batch = gathered(frame)
            began = process_time()
            ledger.ingest(batch)
            spent += process_time() - began
            if (post + 1) % size == 0:
                kept = ledger.counts()["segments"]
                print(f"posts {post + 1 - size:6} to {post + 1:6}: {1000 * spent / size:6.2f} ms each, {kept} segments")
                spent = 0.0
        ledger.close()


if __name__ == "__main__":
    main()
