"""A stream at size: seconds and peak memory of an ingest, of each stage of a step, and of forgetting a person.

    python benchmarks/stream.py [--users 1000000] [--items 200000] [--events 10000000] [--dim 16] [--all] [--threads 1]

Half of the events are the base block, half the next one. Every stage trains for one epoch; without `--all` it ends
before the teachers, whose ensemble ranks every item for every user (users x items x dim multiplications a member).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import torch

from recdistill.data.synthetic import random_log
from recdistill.ledger.events import Events
from recdistill.stream.stream import Stream

SETTINGS = """
[blocks]
base = {half}
events = {half}
[gates]
worse = 1.0
forgetting = 1.0
new_users = false
overlap = [0.0, 1.0]
coverage = [0.0, 1000.0]
[method]
name = "finetune"
dim = {dim}
teacher_dim = {dim}
members = 1
depth = 20
base = {{ epochs = 1, batch = 65536, lr = 5e-3 }}
update = {{ epochs = 1, batch = 65536 }}
distil = {{ epochs = 1, batch = 65536, lr = 5e-3 }}
"""


class Enough(BaseException):
    """The stages that are measured are done."""


class Watch:
    """Prints a line for each stage."""

    def __init__(self, *, teachers: bool) -> None:
        self.teachers, self.began = teachers, perf_counter()

    def on_stage(self, cycle: int, stage: str, what: str, about: str) -> None:
        """Print what was made, and what it took."""
        del about
        if what == "begins":
            self.began = perf_counter()
            if stage.startswith("teacher") and not self.teachers:
                raise Enough
        elif what == "done":
            told(f"cycle {cycle}, {stage}", self.began)


def told(name: str, began: float) -> None:
    """One line: what, seconds, peak memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{name:24} {perf_counter() - began:8.1f} s   peak {peak / 1e9:5.2f} GB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("users", 1_000_000),
        ("items", 200_000),
        ("events", 10_000_000),
        ("dim", 16),
        ("threads", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--all", action="store_true", help="the teachers too")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        stream = Stream.create(Path(folder) / "s", SETTINGS.format(half=given.events // 2, dim=given.dim))
        began = perf_counter()
        events = Events.of(random_log(given.users, given.items, given.events, seed=1))
        told("events, keys", began)
        for name in ("ingest", "ingest again"):
            began = perf_counter()
            stream.ledger.ingest(events)
            told(name, began)
        del events
        with suppress(Enough):
            stream.step(watch=Watch(teachers=given.all))
        (user,) = stream.ledger.ids("user", 1)
        began = perf_counter()
        stream.forget(user or "")
        told("forget a person", began)
        stream.close()


if __name__ == "__main__":
    main()
