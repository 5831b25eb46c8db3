"""A model between blocks: arrays, digests, growth of every model and of its optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.continual.learning import Run
from recdistill.continual.plain import base, finetune
from recdistill.continual.settings import Initial, ModelSpec, Training
from recdistill.continual.snapshot import Snapshot, blank
from recdistill.data.csr import Csr
from recdistill.errors import CheckpointError, UsageError
from recdistill.models.growth import SIDES

SPECS = [ModelSpec(name="mf", dim=3), ModelSpec(name="lightgcn", dim=3, layers=1), ModelSpec(name="vae", dim=3)]
QUICK = Training(epochs=2, batch=32, every=1, moments="carried")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("decay", ["all", "touched"])
def test_a_model_grows_and_so_does_its_optimiser(stream, spec, decay):
    training = QUICK.model_copy(update={"decay": decay})
    before = base(stream[0], spec, training, run=Run(1)).snapshot
    sides, sizes = SIDES[spec.name], {"user": stream[1].n_users, "item": stream[1].n_items}
    assert before.moments
    grown = before.grown(stream[1].train.csr(), seed=5)
    for name, value in grown.weights.items():
        old = before.weights[name]
        assert value[: len(old)].tobytes() == old.tobytes(), "old rows keep their numbers"
        assert len(value) == (sizes[sides[name]] if name in sides else len(old))
        for slot in ("exp_avg", "exp_avg_sq"):
            moment, past = grown.moments[f"{name}/{slot}"], before.moments[f"{name}/{slot}"]
            assert moment.shape == value.shape
            assert moment[: len(past)].tobytes() == past.tobytes()
            assert (moment[len(past) :] == 0).all(), "a new row has no past"
    assert not grown.met_users[before.n_users :].any()
    model = grown.model()
    assert (model.n_users, model.n_items) == (sizes["user"], sizes["item"])
    after = finetune(stream[1], before, training, Initial(), run=Run(2)).snapshot
    steps = [np.max(value) for slot, value in after.moments.items() if slot.endswith("/step")]
    first = [np.max(value) for slot, value in before.moments.items() if slot.endswith("/step")]
    assert min(steps) > max(first), "the optimiser went on"


def test_a_fresh_optimiser_is_not_carried(stream):
    before = base(stream[0], SPECS[0], QUICK.model_copy(update={"moments": "fresh"}), run=Run(1)).snapshot
    assert before.moments == {}


def test_who_was_ever_trained_is_known(stream):
    before = base(stream[0], SPECS[0], QUICK, run=Run(1)).snapshot
    assert before.met_users.all()
    grown = before.grown(stream[1].train.csr(), seed=0)
    assert grown.met_users.sum() == 24
    after = finetune(stream[1], before, QUICK, Initial(), run=Run(2)).snapshot
    assert after.met_users.all()
    assert after.met_users[3], "away in this block, trained before"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_is_written_is_read_and_has_the_same_digest(tmp_path, stream, spec):
    one = base(stream[0], spec, QUICK, run=Run(1)).snapshot
    one.save(tmp_path / "a.safetensors", about={"cycle": 3})
    two, about = Snapshot.load(tmp_path / "a.safetensors")
    assert about == {"cycle": 3}
    assert two.digest == one.digest
    users = np.arange(5)
    np.testing.assert_array_equal(two.ranker().top_k(users, 4), one.ranker().top_k(users, 4))
    three = Snapshot.from_arrays(spec, one.arrays())
    assert three.digest == one.digest
    assert blank(spec, stream[0].train.csr(), seed=1).digest != one.digest


@pytest.mark.parametrize("name", ["lightgcn", "vae"])
def test_who_is_silent_keeps_what_a_model_of_all_blocks_reads(stream, name):
    for reads in (None, "all"):
        spec = ModelSpec(name=name, dim=3, layers=1, reads=reads)
        before = base(stream[0], spec, QUICK, run=Run(1)).snapshot
        after = finetune(stream[1], before, QUICK, Initial(), run=Run(2)).snapshot
        now, then = stream[1].train.csr(), stream[0].train.csr()
        away = after.context.row(3)
        assert away.tolist() == (then.row(3).tolist() if reads else []), "away in this block"
        both = set(now.row(0)) | set(then.row(0)) if reads else set(now.row(0))
        assert set(after.context.row(0)) == both
        assert (after.context.n_rows, after.context.n_columns) == (now.n_rows, now.n_columns)
        fresh = blank(spec, now, past=before.context, seed=1)
        assert len(fresh.context) == len(after.context), "drawn anew, it reads the same"


def test_a_broken_file_and_a_table_that_shrinks_are_errors(tmp_path, stream):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Snapshot.load(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="A table of 32 users cannot shrink; got 24"):
        blank(SPECS[0], stream[1].train.csr(), seed=0).grown(stream[0].train.csr(), seed=0)


def test_silent_users_shrink_with_the_official_decay_alone(stream):
    """User 3 is away in block 1: coupled decay moves them by about a learning rate a step, however little it is."""
    before = base(stream[0], SPECS[0], Training(epochs=2, batch=32), run=Run(1)).snapshot
    length = {}
    for decay in ("all", "touched"):
        training = Training(epochs=5, batch=16, decay=decay, every=5)
        after = finetune(stream[1], before, training, Initial(hops="none"), run=Run(2)).snapshot
        length[decay] = np.abs(after.weights["user"][3] - before.weights["user"][3]).max()
    assert length["touched"] == 0
    assert length["all"] > 1e-3


@pytest.mark.parametrize("decays", [("touched", "all"), ("all", "touched")])
def test_carried_moments_go_over_to_the_other_optimiser(stream, decays):
    """By rows each row has its own count of steps, else the table has one."""
    one, other = (Training(epochs=2, batch=16, moments="carried", decay=decay) for decay in decays)
    before = base(stream[0], SPECS[0], one, run=Run(1)).snapshot
    after = finetune(stream[1], before, other, Initial(hops="none"), run=Run(2)).snapshot
    there, here = (each.moments["user/step"] for each in (before, after))
    assert {there.ndim, here.ndim} == {0, 1}
    assert here.max() > there.max()


def test_a_vae_serves_users_by_the_rows_it_stands_on():
    rows = Csr.from_pairs([0, 0, 1, 2], [0, 1, 2, 0], 4, 3)
    one = blank(ModelSpec(name="vae", dim=2, bias_std=0.0), rows, seed=3)
    other = one.standing_on(Csr.from_pairs([0, 3, 3], [2, 0, 1], 4, 3))
    user = one.model().arrays()["user"]
    assert np.allclose(other.model().arrays()["user"][3], user[0]), "the same row, the same vector"
    assert np.allclose(other.model().arrays()["user"][0], user[1])
    assert torch.is_tensor(one.model().posterior(torch.tensor([0, -1]))[0])
