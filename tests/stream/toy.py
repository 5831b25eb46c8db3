"""A method of plain numpy for the tests of the machine, and a program that is killed while it steps.

    python toy.py FOLDER boundaries|random|forget [USER]

`boundaries` kills a stepping process at every event of every stage, one after the other, then steps to the end.
`random` kills at random moments until a process gets through; `forget` does that to a forgetting.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from recdistill import rng
from recdistill.data.csr import Csr
from recdistill.evaluation.ranking import ranker
from recdistill.ledger.objects import Personal
from recdistill.serve.foldin import initialised
from recdistill.stream.chain import stage_names
from recdistill.stream.collect import joined
from recdistill.stream.protocol import Output, Released
from recdistill.stream.stream import Stream

DIM = 4
TABLES = Personal(rows=("user",))


class Toy:
    """Students that move towards what was clicked, and what is popular; nothing is trained."""

    members = 2
    fixed = ()

    def __init__(self):
        self.calls = []

    def identity(self, stage):
        return {"toy": 1, "stage": stage}

    def _moved(self, job, start):
        data = joined(job.blocks)
        if start is None:
            n = data.n_users + data.n_items
            drawn = rng.gumbel(job.seed, np.arange(n), DIM).astype(np.float32)
            user, item = drawn[: data.n_users], drawn[data.n_users :]
        else:
            seen = Csr.from_pairs(data.user, data.item, data.n_users, data.n_items)
            user, item = initialised(start["user"], start["item"], seen)
        user, item = user.copy(), item.copy()
        np.add.at(user, data.user, np.float32(0.1) * item[data.item])
        user[:, 0] = 5.0
        item[:, 0] = np.log1p(np.bincount(data.item, minlength=data.n_items))  # popular items come first
        return Output({"user": user, "item": item}, TABLES, {"replay_share": 0.25})

    def student(self, job, *, start, distilled, proxies, ensemble):
        self.calls.append(("student", job.cycle, start is None, proxies is None, ensemble is None))
        return self._moved(job, start)

    def teacher(self, job, member, *, start, student, proxies, ensemble):
        blocks = [block.number for block in job.blocks]
        self.calls.append(("teacher", job.cycle, member, start is None, blocks))
        return self._moved(job, start)

    def ensemble(self, job, *, teachers):
        mean = {side: np.mean([t[side] for t in teachers], axis=0) for side in ("user", "item")}
        lists = ranker("vectors", mean).top_k(np.arange(len(mean["user"])), 30, None).astype(np.int32)
        return Output({"user_lists": lists}, Personal(rows=("user_lists",)))

    def distil(self, job, *, ensemble, student, proxies, before):
        item = np.ones((job.block.n_items, DIM), np.float32)
        if student is not None:  # it may be of an earlier block
            item[: len(student["item"])] = student["item"]
        lists = ensemble["user_lists"]  # (U, L)
        known = (lists >= 0)[..., None]
        user = (item[np.maximum(lists, 0)] * known).sum(1) / np.maximum(known.sum(1), 1)
        return Output({"user": user.astype(np.float32), "item": item}, TABLES)

    def proxies(self, job, *, distilled, before):
        self.calls.append(("proxies", job.cycle, before is None))
        user = np.array(distilled["user"])
        if before is not None:
            old = before["user"]
            user[: len(old)] = np.float32(0.9) * old + np.float32(0.1) * user[: len(old)]
        return Output({"user": user}, TABLES)

    def ranked(self, stage, arrays, users, k, without):
        return ranker("vectors", dict(arrays)).top_k(users, k, without)

    def joint(self, teachers):
        return ranker(
            "vectors", {side: np.mean([t[side] for t in teachers], axis=0) for side in ("user", "item")}
        ).top_k

    def released(self, student):
        return Released("vectors", {side: np.asarray(student[side]) for side in ("user", "item")}, "mf", {}, [])


class Killer:
    """Kills its own process, as `kill -9` does, at one event of one stage."""

    def __init__(self, cycle, stage, what):
        self.at = (cycle, stage, what)

    def on_stage(self, cycle, stage, what, about):
        if (cycle, stage, what) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(work):
    """A child that does `work`; this process never touches polars, whose threads do not survive a fork."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the parent asserts on the code, a person reads this
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def killed_after(work, seconds):
    """Whether a child that does `work` was killed before it was through."""
    child = forked(work)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def step(folder, watch=None):
    with Stream(folder) as stream:
        stream.step(stages=Toy(), watch=watch)


def forget(folder, user):
    with Stream(folder) as stream:
        if stream.ledger.row_of(user) is None:
            stream.step(stages=Toy(), blocks=0)
        else:
            stream.forget(user)


def main(folder, how, *words):
    if how == "boundaries":
        names = stage_names(members=2, teachers=True)
        whats = {0: ("made",), 1: ("begins", "made", "done")}
        for cycle, stage, what in [(c, s, w) for c in whats for s in names for w in whats[c]]:
            child = forked(lambda at=(cycle, stage, what): step(folder, Killer(*at)))
            status = os.waitpid(child, 0)[1]
            assert os.WIFSIGNALED(status), (cycle, stage, what, status)
        assert os.waitpid(forked(lambda: step(folder)), 0)[1] == 0
    else:
        chance = random.Random(int(words[-1]))  # noqa: S311
        work = {"random": lambda: step(folder), "forget": lambda: forget(folder, words[0])}[how]
        longest, kills = 0.1, 0  # which no machine gets through in
        while killed_after(work, chance.uniform(0.02, longest)):
            kills += 1
            longest *= 1.4  # so that the slowest machine gets through
        print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
