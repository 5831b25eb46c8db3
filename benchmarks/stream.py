"""A stream at size: seconds and peak memory of an ingest, of each stage of a step, and of forgetting a person.

    python benchmarks/stream.py [--users 1000000] [--items 200000] [--events 10000000] [--dim 16] [--all] [--threads 1]
                                [--method finetune | ccd]

Half of the events are the base block, half the next one. Every stage trains for one epoch; without `--all` it ends
before the teachers, whose ensemble ranks every item for every user (users x items x dim multiplications a member).
"ccd" reads members' lists 50 deep, replays for 20,000 users and distils the lists of 5,000 users and items; without
the terms of LWC-KD, whose softmax is over everybody, and with negatives that avoid training items alone.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter, process_time

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
"""

FINETUNE = """
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

CCD = """
[method]
name = "ccd"
depth = 50
student = {{ dim = {dim} }}
teachers = [{{ dim = {dim} }}]
base = {{ epochs = 1, every = 1, batch = 65536, negatives = 1 }}
plain = {{ epochs = 1, every = 1, batch = 65536 }}
proxies = {{ width = {dim} }}
[method.distil]
near = 20
passes = "epoch"
most = 5000
avoid = 0
start = "warm"
training = {{ epochs = 1, every = 1, batch = 65536, decay = "touched" }}
[method.update]
avoid = 0
training = {{ epochs = 1, every = 1, batch = 65536 }}
replay = {{ users = 20000, among = 1024, depth = 50 }}
[method.teach]
avoid = 0
training = {{ epochs = 1, every = 1, batch = 65536 }}
replay = {{ users = 20000, among = 1024, depth = 50, student = 0 }}
contrast = {{ weight = 0.0 }}
"""


class Enough(BaseException):
    """The stages that are measured are done."""


class Watch:
    """Prints a line for each stage."""

    def __init__(self, *, teachers: bool) -> None:
        self.teachers, self.began = teachers, now()

    def on_stage(self, cycle: int, stage: str, what: str, about: str) -> None:
        """Print what was made, and what it took."""
        del about
        if what == "begins":
            self.began = now()
            if stage.startswith("teacher") and not self.teachers:
                raise Enough
        elif what == "done":
            told(f"cycle {cycle}, {stage}", self.began)


def now() -> tuple[float, float]:
    """Seconds of the clock, and of the processor."""
    return perf_counter(), process_time()


def told(name: str, began: tuple[float, float]) -> None:
    """One line: what, seconds, processor seconds, peak memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    spent, worked = (end - begin for end, begin in zip(now(), began, strict=True))
    print(f"{name:24} {spent:8.1f} s {worked:8.1f} CPU s   peak {peak / 1e9:5.2f} GB", flush=True)


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
    parser.add_argument("--method", choices=["finetune", "ccd"], default="finetune")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        text = SETTINGS + {"finetune": FINETUNE, "ccd": CCD}[given.method]
        stream = Stream.create(Path(folder) / "s", text.format(half=given.events // 2, dim=given.dim))
        began = now()
        events = Events.of(random_log(given.users, given.items, given.events, seed=1))
        told("events, keys", began)
        for name in ("ingest", "ingest again"):
            began = now()
            stream.ledger.ingest(events)
            told(name, began)
        del events
        with suppress(Enough):
            stream.step(watch=Watch(teachers=given.all))
        (user,) = stream.ledger.ids("user", 1)
        began = now()
        stream.forget(user or "")
        told("forget a person", began)
        stream.close()


if __name__ == "__main__":
    main()
