"""Nothing of size users x items exists: a whole run at a size where even a bit for each pair would not fit.

200,000 x 200,000 pairs are 40 G: 5 GB as bits, 40 GB as bytes, 160 GB as floats. The run stays under 1.5 GB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

N = 200_000
LIMIT = 1.5e9

RUN = """
import json, resource, sys
import numpy as np, torch
from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut
from recdistill.data.synthetic import random_log
from recdistill.evaluation.evaluate import evaluate
from recdistill.recipes.train import TrainSettings, distill
from recdistill.teachers.coverage import Coverage
from recdistill.teachers.kept import StoredVectors

n, method = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
log = random_log(n, n, 30_000, seed=1)
chance = np.random.default_rng(0)
user, item = (chance.normal(size=(n, 8)).astype(np.float32) for _ in range(2))
there = np.ones(n, bool)
coverage = Coverage("the teacher", items=n, of_items=n, users=n, of_users=n, foreign_items=0, foreign_users=0)
teacher = StoredVectors(coverage, user, item, users_known=there, items_known=there, seen=log.csr())
part = log.take(np.flatnonzero(log.user < 64 * n // 30_000))  # about 64 interactions: two steps
training = TrainSettings(epochs=1, batch=32, device="cpu")
student = distill(teacher, "mf", part, method=method, dim=4, training=training)
asked = np.unique(log.user)[:50].astype(np.int64)
targets = Csr.from_pairs(asked, np.arange(50) * 7, n, n)
held = HeldOut("test", log.users, log.items, targets, log.csr())
found = evaluate(student.ranker(), held, ("recall@10",))
assert len(found.queries) == 50
assert all(np.isfinite(v) for v in student.report.history[0].losses.values())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"peak": peak, "steps": -(-len(part) // 32), "terms": sorted(student.report.history[0].losses)}))
"""


@pytest.mark.parametrize("method", ["de-rrd"])
def test_training_and_ranking_200_thousand_users_by_200_thousand_items_stay_small(method):
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(N), method], check=False, capture_output=True, text=True, env=quiet
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["steps"] > 1
    assert ("rrd" in told["terms"]) == ("rrd" in method)
    assert told["peak"] < LIMIT, f"{told['peak'] / 1e9:.2f} GB"


ENTROPY = """
import json, resource, sys
import torch
from recdistill.losses.cross_entropy import cross_entropy

torch.set_num_threads(1)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
vectors, items = (torch.randn(n, 8).requires_grad_() for n in (1_500, 200_000))
target = torch.arange(1_500)
cross_entropy(vectors[:2], items[:500], target[:2]).sum().backward()
vectors.grad = items.grad = None
before = peak()
value = cross_entropy(vectors, items, target)
value.sum().backward()
told = {"before": before, "peak": peak(), "loss": float(value.mean()), "moved": float(items.grad.abs().sum())}
print(json.dumps(told))
"""


def test_cross_entropy_over_a_large_catalogue_holds_a_chunk_of_scores_and_the_gradients():
    """1,500 rows x 200,000 items are 1.2 GB of scores, and as much again of their gradient."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", ENTROPY], check=False, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["loss"] > 0
    assert told["moved"] > 0
    assert told["peak"] - told["before"] < 0.15e9, f"{(told['peak'] - told['before']) / 1e9:.2f} GB"


CONTINUAL = """
import json, resource, sys
import numpy as np, torch
from recdistill.continual.ensemble import EnsembleRanker
from recdistill.continual.learning import Run
from recdistill.continual.proxies import remembered
from recdistill.continual.settings import settings_of
from recdistill.continual.shallow import shallow_lists
from recdistill.continual.snapshot import blank
from recdistill.continual.stages import Sources, believed, cut, update_student
from recdistill.continual.teaching import update_teacher
from recdistill.data.blocks import Block
from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut
from recdistill.data.synthetic import random_log

n = int(sys.argv[1])
torch.set_num_threads(1)
log = random_log(n, n, 640, seed=1)
who = np.unique(log.user)[:50].astype(np.int64)
held = HeldOut("valid", log.users, log.items, Csr.from_pairs(who, np.arange(50) * 7, n, n), log.csr())
block = Block(1, log, held, held, n * 9 // 10, n * 9 // 10)
before = cut(log.csr(), block.old_users, block.old_items)
short = {"training": {"epochs": 1, "every": 1, "batch": 64}, "replay": {"users": 100}}
c = settings_of(settings={"student": {"dim": 4}, "teachers": [{"dim": 4}], "update": short, "teach": short})
student, member = (blank(spec, before, seed=seed) for seed, spec in enumerate((c.student, c.teachers[0])))
met = np.zeros(n, bool)
met[who] = True
vectors = remembered(member)
heads = shallow_lists([vectors, vectors], before, 40, depth=100, met=met)
ensemble = EnsembleRanker([vectors, vectors]).top_k(who[who < block.old_users], 20, before)
memory = Sources(stability=student, plasticity=student, student=student)
avoid = believed(n, n, lists=heads, models=memory.all(), k=40, users=np.unique(log.user).astype(np.int64))
updated = update_student(block, before, student, memory, c.update, avoid=avoid, run=Run(1))
memory = Sources(stability=student, plasticity=student, student=updated.snapshot)
taught = update_teacher(block, before, member, memory, c.teach, avoid=avoid, run=Run(1))
assert (ensemble >= 0).all()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({
    "peak": peak, "student": updated.report.history[0].losses, "teacher": taught.report.history[0].losses
}))
"""


def test_a_student_and_a_teacher_learn_a_block_of_200_thousand_users_and_items_in_little_memory():
    """With proxies, replay, LWC-KD and an ensemble's lists; hardly any of them was trained before."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CONTINUAL, str(N)], check=False, capture_output=True, text=True, env=quiet
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["student"].keys() >= {"train.base", "replay.replay"}
    assert told["teacher"].keys() >= {"train.base", "train.user_item", "train.item_item", "replay.replay"}
    assert all(value > 0 for side in ("student", "teacher") for value in told[side].values())
    assert told["peak"] < LIMIT, f"{told['peak'] / 1e9:.2f} GB"
