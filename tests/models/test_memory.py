"""What a frozen model remembers of histories is what it computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.data.sequences import SequenceBatches
from recdistill.ids import IdTable
from recdistill.methods.adarec import remember
from recdistill.models import MODELS
from recdistill.models.memory import Memory
from recdistill.models.sequence_view import Encoding
from recdistill.models.sequential import Sequential
from recdistill.query import Query
from recdistill.recipes.train import TrainSettings, distill
from recdistill.settings import parse
from recdistill.teachers.live import Live

CPU = torch.device("cpu")
SMALL = {"dim": 8, "length": 6}
NAMES = ["sasrec", "nextitnet", "gru4rec", "cells"]


@pytest.fixture(scope="module")
def log():
    """30 users x 15 items, 2 to 12 items a user, in the order of the log."""
    draw = np.random.default_rng(0)
    user = np.repeat(np.arange(30), draw.integers(2, 13, 30))
    return Interactions(
        IdTable.from_ids([f"u{n}" for n in range(30)]),
        IdTable.from_ids([f"i{n}" for n in range(15)]),
        user.astype(np.int32),
        draw.integers(0, 15, len(user)).astype(np.int32),
        timestamp=np.arange(len(user), dtype=np.int64),
    )


def build(name, log, **settings):
    entry = MODELS[name]
    model = entry.build(parse(entry.settings, SMALL | settings), log.n_users, log.n_items, 1, log)
    assert isinstance(model, Sequential)
    return model.eval()


def batches(log, **changes):
    return SequenceBatches(log, **({"length": 6, "size": 7, "every": True, "seed": 0, "device": CPU} | changes))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_recalled_is_what_is_computed_in_every_batch(log, name):
    model, made = build(name, log), batches(log)
    memory = Memory(model, made.shown())
    for batch in made.epoch(3):
        recalled = memory.recall(batch.query.history)
        fresh = Encoding(model, batch.query.history)
        torch.testing.assert_close(recalled.states, fresh.states, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(recalled.final, fresh.final, rtol=1e-5, atol=1e-6)


def test_every_item_that_is_read_is_counted(log):
    made = batches(log)
    assert made.n_shown == sum(int((each != -1).sum()) for each in made.shown())
    assert made.n_shown == sum(len(batch.positive) for batch in made.epoch(0))


def test_padding_does_not_make_another_history(log):
    model = build("nextitnet", log)
    memory = Memory(model, [torch.tensor([[3, 1, 4]])])
    wide = torch.tensor([[-1, -1, 3, 1, 4]])
    torch.testing.assert_close(memory.recall(wide).final, Encoding(model, wide).final)


@pytest.mark.parametrize("other", [[[3, 1, 5]], [[1, 3, 4]], [[-1, 1, 4]], [[3, 1, 4], [1, 1, 1]]])
def test_a_history_that_was_not_shown_is_not_recalled(log, other):
    memory = Memory(build("nextitnet", log), [torch.tensor([[3, 1, 4]])])
    assert memory.recall(torch.tensor(other)) is None


def test_histories_of_one_digest_are_told_apart(log):
    memory = Memory(build("nextitnet", log), [torch.tensor([[3, 1, 4]])])
    memory._words[:] = 1  # every history of a length has one digest now
    memory._known[:] = memory._digest(torch.tensor([[3, 1, 4]]))
    assert memory.recall(torch.tensor([[3, 1, 4]])) is not None
    assert memory.recall(torch.tensor([[3, 1, 5]])) is None


def test_a_model_that_has_learned_since_recalls_nothing(log):
    model = build("nextitnet", log)
    memory = Memory(model, [torch.tensor([[3, 1, 4]])])
    with torch.no_grad():
        model.item[0, 0] += 1
    assert memory.recall(torch.tensor([[3, 1, 4]])) is None


def test_a_teacher_remembers_what_fits_and_only_once(log):
    model, made = build("nextitnet", log), batches(log)
    teacher = Live(model, seen=log.csr())
    bytes_needed = Memory.bytes_of(model, made.n_shown)
    assert bytes_needed == made.n_shown * 8 * (1 + 2 + 1) * 4  # embedding, two layers, what is read; float32
    remember(teacher, made, most=(bytes_needed - 1) / 2**30)
    assert model.memory is None
    remember(teacher, made, most=bytes_needed / 2**30)
    first = model.memory
    assert first is not None
    remember(teacher, batches(log, seed=5), most=1.0)
    assert model.memory is first
    model.requires_grad_(requires_grad=True)
    with torch.no_grad():
        model.item.mul_(2)
    remember(teacher, made, most=1.0)
    assert model.memory is not first


def test_evaluation_and_histories_of_users_are_computed_as_ever(log):
    model = build("nextitnet", log)
    before = model.view(Query(torch.arange(5))).vectors()
    remember(Live(model, seen=log.csr()), batches(log), most=1.0)
    assert torch.equal(model.view(Query(torch.arange(5))).vectors(), before)


def test_a_student_learns_the_same_from_what_is_recalled(log):
    teacher = Live(build("nextitnet", log), seen=log.csr())
    how = TrainSettings(epochs=3, batch=8, lr=1e-2, loss="cross-entropy", weight_decay=0, device="cpu")
    run = {"method": "adarec", "model_settings": SMALL, "training": how}
    asked = distill(teacher, "gru4rec", log, settings={"memory": 0.0}, **run)
    assert teacher.model.memory is None
    recalled = distill(teacher, "gru4rec", log, settings={}, **run)
    assert teacher.model.memory is not None
    for one, other in zip(asked.report.history, recalled.report.history, strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-3)


@pytest.mark.parametrize("settings", [{}, {"bias": True, "tied": True}])
def test_the_best_items_are_remembered_too(log, settings):
    model, made = build("nextitnet", log, **settings), batches(log)
    batch = next(made.epoch(0))
    items, scores = model.view(batch.query).best(4)
    model.memory = Memory(model, made.shown())
    for k in (4, 2, 6):  # what is kept is cut, and asked again where it is too short
        again, recalled = model.view(batch.query).best(k)
        assert torch.equal(again[:, : min(k, 4)], items[:, :k])
        torch.testing.assert_close(recalled[:, : min(k, 4)], scores[:, :k])
