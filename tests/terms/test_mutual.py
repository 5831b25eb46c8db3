"""BD: what is drawn, what it costs, and the two passes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.data.synthetic import planted
from recdistill.errors import MissingKnowledge, UsageError
from recdistill.recipes import train as recipe
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.teachers.live import Peer
from recdistill.terms.mutual import MutualLabels
from recdistill.training.trainer import Keep


def make(world, **changes):
    settings = {"form": "tanh", "steep": 0.05, "candidates": 90, "drawn": 6, "temperature": 5.0, "seed": 1}
    return MutualLabels(world.taken, **(settings | changes))


def views(world, users):
    batch = world.batch(users)
    return batch, world.student.view(batch.query), Peer(world.teacher.model).view(batch.query)


def test_the_value_is_the_cross_entropy_with_the_others_softened_scores(world):
    term = make(world)
    batch, mine, theirs = views(world, [3, 9, 3])
    rows = term(mine, theirs, batch, Clock())
    users = torch.tensor([3, 9])
    items, labels, there = term.draw(*(v.select(batch.users.first) for v in (mine, theirs)), users, Clock())
    assert there.all()
    q = torch.sigmoid((world.teacher.model.user[users, None] * world.teacher.model.item[items]).sum(2) / 5)
    p = torch.sigmoid((world.student.user[users, None] * world.student.item[items]).sum(2))
    torch.testing.assert_close(labels, q)
    assert rows.of == "users"
    torch.testing.assert_close(rows.value, -(q * p.log() + (1 - q) * (1 - p).log()).sum(1))


def test_only_what_the_student_ranks_above_the_teacher_is_drawn_for_it(world):
    _, mine, theirs = views(world, [5])
    items, _, there = make(world).draw(mine, theirs, torch.tensor([5]), Clock())
    left = np.setdiff1d(np.arange(world.items), world.taken.row(5).numpy())
    own, other = (v.scores(torch.from_numpy(left)[None])[0].detach().numpy() for v in (mine, theirs))
    rank = {i: (np.sum(own > own[at]), np.sum(other > other[at])) for at, i in enumerate(left)}
    for item in items[0][there[0]].tolist():
        assert rank[item][0] < rank[item][1]


def test_two_that_agree_have_nothing_to_say_in_the_form_of_a_teacher(world):
    batch, _, theirs = views(world, [5, 6])
    assert make(world)(theirs, theirs, batch, Clock()).value.tolist() == [0, 0]
    assert (make(world, form="exp")(theirs, theirs, batch, Clock()).value > 0).all()


def test_all_zero_scores_cost_log_two_an_item(world):
    with torch.no_grad():
        world.student.user.zero_()
        world.teacher.model.user.zero_()
    batch, mine, theirs = views(world, [5])
    assert make(world, form="exp")(mine, theirs, batch, Clock()).value.item() == pytest.approx(6 * math.log(2))


def test_settings_out_of_range_are_refused(world):
    with pytest.raises(UsageError, match="BD needs 1 <= drawn <= candidates"):
        make(world, drawn=91)
    with pytest.raises(UsageError, match="BD needs its steepness and temperature > 0"):
        make(world, steep=0.0)


TRAIN = TrainSettings(epochs=2, batch=64, device="cpu")


@pytest.fixture(scope="module")
def log():
    return planted(users=40, items=30, interactions=400, dim=4, seed=3)


def test_the_teacher_given_stays_as_it_was_and_the_student_depends_on_a_copy_that_learns(log):
    teacher = fit("mf", log, dim=8, training=TRAIN)
    before = {name: value.copy() for name, value in teacher.model.arrays().items()}
    run = {"method": "bd", "dim": 4, "training": TRAIN}
    one = distill(teacher, "mf", log, settings={"teacher_weight": 5.0}, **run)
    other = distill(teacher, "mf", log, settings={"teacher_weight": 0.0}, **run)
    for name, value in teacher.model.arrays().items():
        assert np.array_equal(value, before[name])
    assert not np.array_equal(one.model.arrays()["user"], other.model.arrays()["user"])
    assert set(one.report.history[0].losses) == {"student.base", "student.bd", "teacher.base", "teacher.bd"}


def test_a_run_of_two_learners_that_is_killed_goes_on_bit_for_bit(log, tmp_path, monkeypatch):
    teacher = fit("mf", log, dim=8, training=TRAIN)
    run = {"method": "bd", "dim": 4, "training": TrainSettings(epochs=4, batch=64, device="cpu")}
    whole = distill(teacher, "mf", log, **run)

    class Kill:
        def on_start(self, report):
            pass

        def on_end(self, report):
            pass

        def on_epoch(self, record, report):
            if record.epoch == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "Keep", partial(Keep, seconds=-1.0))  # every step is written
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        distill(teacher, "mf", log, checkpoint=path, watch=[Kill()], **run)
    again = distill(teacher, "mf", log, checkpoint=path, **run)
    for name, value in whole.model.arrays().items():
        assert np.array_equal(again.model.arrays()[name], value)


def test_files_cannot_learn_and_are_refused(log):
    class Files:
        provides = frozenset({"ranks", "scores"})

        def view(self, query):
            raise AssertionError

    with pytest.raises(MissingKnowledge, match="cannot give weights"):
        distill(Files(), "mf", log, method="bd", dim=4, training=TRAIN)
