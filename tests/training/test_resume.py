"""A run that is killed at any moment and started again ends as if it had never been killed, bit for bit."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors import SafetensorError

from recdistill.errors import CheckpointError, UsageError
from recdistill.knowledge.view import fingerprint_of
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.teachers.joined import joined
from recdistill.teachers.live import Live
from recdistill.training import checkpoint, trainer

FAST = TrainSettings(epochs=8, batch=64, metrics=("ndcg@5", "hr@5"), device="cpu")


@pytest.fixture(autouse=True)
def always_save(monkeypatch):
    monkeypatch.setattr(trainer.Keep.__init__, "__defaults__", (0.0,))


@pytest.fixture(scope="module")
def teacher(parts):
    return fit("mf", parts.train, dim=8, valid=parts.valid, training=FAST, seed=5)


class Interrupt(Exception):
    pass


class StopAt:
    def __init__(self, epoch):
        self.epoch = epoch

    def on_start(self, report):
        pass

    def on_epoch(self, record, report):
        if record.epoch == self.epoch:
            raise Interrupt

    def on_end(self, report):
        pass


CASES = [("mf", "plain"), ("mf", "de"), ("mf", "rrd"), ("mf", "de-rrd")]
CASES += [("sasrec", "rrd"), ("bert4rec", "plain"), ("gru4rec", "plain"), ("nextitnet", "plain")]


@pytest.mark.parametrize(("student", "method"), CASES)
def test_a_run_stopped_after_any_epoch_ends_as_the_whole_one(parts, teacher, student, method, tmp_path):
    settings = {"rrd": {"depth": 20, "reach": 20, "near": 5, "far": 5}}
    settings = {
        "rrd": settings["rrd"],
        "de-rrd": settings | {"de": {"experts": 3}},
        "de": {"experts": 3},
        "plain": {},
    }[method]
    common = {"method": method, "dim": 4, "valid": parts.valid, "settings": settings, "training": FAST, "seed": 2}
    if student == "bert4rec":
        common["model_settings"] = {"cloze": 2}  # one stop in each stage
    whole = distill(teacher, student, parts.train, **common)
    for stop in (0, 3):
        path = tmp_path / f"{stop}.safetensors"
        with pytest.raises(Interrupt):
            distill(teacher, student, parts.train, checkpoint=path, watch=[StopAt(stop)], **common)
        again = distill(teacher, student, parts.train, checkpoint=path, **common)
        for name, value in whole.model.arrays().items():
            np.testing.assert_array_equal(again.model.arrays()[name], value, strict=True)
        assert [r.losses for r in again.report.history] == [r.losses for r in whole.report.history]
        assert [r.metrics for r in again.report.history] == [r.metrics for r in whole.report.history]
        assert again.report.best == whole.report.best


def test_a_finished_run_is_read_and_not_repeated(parts, tmp_path):
    path = tmp_path / "run.safetensors"
    first = fit("mf", parts.train, dim=4, valid=parts.valid, training=FAST, checkpoint=path)
    written = path.stat().st_mtime_ns
    second = fit("mf", parts.train, dim=4, valid=parts.valid, training=FAST, checkpoint=path)
    assert path.stat().st_mtime_ns == written
    assert second.report.history == first.report.history
    np.testing.assert_array_equal(second.model.arrays()["user"], first.model.arrays()["user"])


def test_the_checkpoint_of_another_run_is_refused(parts, tmp_path):
    path = tmp_path / "run.safetensors"
    fit("mf", parts.train, dim=4, training=FAST, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"other settings or data.*Delete"):
        fit("mf", parts.train, dim=5, training=FAST, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"other settings or data"):
        fit("mf", parts.train, dim=4, training=FAST, checkpoint=path, seed=8)


def test_the_checkpoint_of_another_teacher_is_refused(parts, teacher, tmp_path):
    path = tmp_path / "run.safetensors"
    other = fit("mf", parts.train, dim=8, training=FAST, seed=6)
    common = {"method": "de", "dim": 4, "settings": {"experts": 3}, "training": FAST}
    seen = parts.train.csr()
    distill(joined(Live(teacher.model, seen=seen)), "mf", parts.train, checkpoint=path, **common)
    with pytest.raises(CheckpointError, match=r"other settings or data"):
        distill(joined(Live(other.model, seen=seen)), "mf", parts.train, checkpoint=path, **common)


def test_a_teacher_that_cannot_be_told_from_another_gets_no_checkpoint(parts, teacher, tmp_path):
    class Own:
        def __init__(self):
            self.provides, self.view = teacher.model.provides, teacher.model.view

    common = {"method": "de", "dim": 4, "settings": {"experts": 3}, "training": FAST}
    with pytest.raises(UsageError, match=r"Own has no `fingerprint`.*property"):
        distill(Own(), "mf", parts.train, checkpoint=tmp_path / "run.safetensors", **common)
    assert distill(Own(), "mf", parts.train, **common).report.history


def test_a_teacher_is_asked_once_who_it_is(teacher):
    class Own:
        provides, view = teacher.model.provides, teacher.model.view
        asked = 0

        @property
        def fingerprint(self):
            self.asked += 1
            return "own"

    own = Own()
    assert fingerprint_of(own) == "own"
    assert own.asked == 1  # of a sequential model it encodes every history


def test_a_broken_checkpoint_is_refused(parts, tmp_path):
    path = tmp_path / "run.safetensors"
    fit("mf", parts.train, dim=4, training=FAST, checkpoint=path)
    whole = path.read_bytes()
    for broken in (b"", whole[:100], whole[: len(whole) // 2], b"\x80\x04" + whole[2:]):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"cannot be read.*Delete"):
            fit("mf", parts.train, dim=4, training=FAST, checkpoint=path)


SCRIPT = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
import recdistill.training.trainer as trainer
trainer.Keep.__init__.__defaults__ = (0.02,)
from recdistill.data.interactions import Interactions
from recdistill.data.split import split
from recdistill.ids import IdTable
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.teachers.joined import joined
from recdistill.teachers.live import Live
from safetensors.numpy import load_file, save_file

draw = np.random.default_rng(0)
pairs = np.unique(draw.integers(0, 50, (600, 2)), axis=0)
log = Interactions(users=IdTable.from_ids(np.arange(50)), items=IdTable.from_ids(np.arange(50)),
    user=pairs[:, 0].astype(np.int32), item=pairs[:, 1].astype(np.int32), timestamp=None, weight=None, split=None)
parts = split(log, "leave-random-out", seed=1)
how = TrainSettings(epochs=6, batch=32, metrics=("ndcg@5",), patience=50, device="cpu")
small = {"de": {"experts": 3}, "rrd": {"near": 4, "far": 4, "reach": 10, "depth": 10}}

def work(out):
    out.mkdir(exist_ok=True)
    teacher = fit("mf", parts.train, dim=8, valid=parts.valid, training=how, checkpoint=out / "teacher.safetensors")
    student = distill(teacher, sys.argv[2], parts.train, dim=4, valid=parts.valid, training=how, settings=small,
        checkpoint=out / "student.safetensors")
    save_file({k: np.ascontiguousarray(v) for k, v in student.model.arrays().items()}, out / "end.safetensors")

def start(out):  # a fork: the same process, without the seconds that imports take
    child = os.fork()
    if child == 0:
        work(out)
        os._exit(0)
    return child

whole, killed = Path(sys.argv[1]) / "whole", Path(sys.argv[1]) / "killed"
began = time.monotonic()
assert os.waitpid(start(whole), 0)[1] == 0
seconds = time.monotonic() - began
kills = 0
while not (killed / "end.safetensors").exists():
    child = start(killed)
    if kills < 8:
        time.sleep(random.uniform(0.05, 0.4) * seconds)
        os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    if kills < 3 and (killed / "end.safetensors").exists():  # the machine was slow when the whole one was timed
        shutil.rmtree(killed)
        kills, seconds = 0, seconds / 2
one, other = load_file(whole / "end.safetensors"), load_file(killed / "end.safetensors")
assert one.keys() == other.keys()
for name in one:
    np.testing.assert_array_equal(one[name], other[name], strict=True)
print("killed", kills)
"""


@pytest.mark.parametrize("student", ["mf", "sasrec"])
def test_a_run_killed_at_random_moments_ends_bit_identical(student, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, tmp_path, student],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 3, "the run must have been killed for this test to say anything"


@pytest.fixture
def kept(parts, tmp_path):
    """A checkpoint of a finished run, and how to go on from it."""
    path = tmp_path / "run.safetensors"

    def go_on():
        training = TrainSettings(epochs=2, device="cpu")
        return fit("mf", parts.train, dim=2, valid=parts.valid, training=training, checkpoint=path)

    go_on()
    return path, go_on


@pytest.mark.parametrize("slot", ["model/user", "best/", "optimiser/"])
def test_a_checkpoint_with_a_changed_byte_is_refused(kept, slot):
    path, go_on = kept
    data = bytearray(path.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name.startswith(slot))
    data[8 + length + header[name]["data_offsets"][0]] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"does not match its own digest: it was damaged or changed\. Delete"):
        go_on()


@pytest.mark.parametrize(("old", "said"), [(b'\\"waited\\"', "digest"), (b'\\"version\\"', "is of another version")])
def test_a_checkpoint_whose_record_was_changed_is_refused(kept, old, said):
    path, go_on = kept
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, old[:3] + b"x" + old[4:]))
    with pytest.raises(CheckpointError, match=said):
        go_on()


def test_a_disk_that_takes_no_more_is_said_in_a_sentence(parts, tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"cannot be written; got .*No space left.* Make room"):
        fit("mf", parts.train, dim=4, training=FAST, checkpoint=tmp_path / "run.safetensors")
    assert list(tmp_path.iterdir()) == []
