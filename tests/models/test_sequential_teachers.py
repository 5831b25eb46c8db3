"""Sequential models as teachers and students of each other, position by position."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import recdistill as rd
from recdistill.clock import Clock
from recdistill.data.histories import Histories
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import ClozeBatches, SequenceBatches
from recdistill.errors import MissingKnowledge, UsageError
from recdistill.ids import IdTable
from recdistill.knowledge.vectors import VectorView
from recdistill.knowledge.view import Kind
from recdistill.losses.kl import kl
from recdistill.methods import METHODS
from recdistill.methods.base import MethodEntry
from recdistill.models import MODELS
from recdistill.objective import Objective, Pass, Term
from recdistill.query import Batch, Query, Rows
from recdistill.registry import Registry
from recdistill.settings import Settings, parse
from recdistill.teachers.live import Live
from recdistill.terms import logit_match
from recdistill.terms.logit_match import LogitMatch

NAMES = ["sasrec", "nextitnet", "bert4rec", "gru4rec"]
LAYERS = {"sasrec": 2, "nextitnet": 2, "bert4rec": 2, "gru4rec": 1}
ITEMS, LENGTH = 30, 12
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def log():
    """40 users who walk round 30 items; histories of 1 to 25."""
    draw = np.random.default_rng(5)
    item = [(draw.integers(ITEMS) + np.arange(1 + u % 25)) % ITEMS for u in range(40)]
    return Interactions(
        users=IdTable.from_ids(np.arange(40)),
        items=IdTable.from_ids(np.arange(ITEMS)),
        user=np.repeat(np.arange(40), [len(each) for each in item]).astype(np.int32),
        item=np.concatenate(item).astype(np.int32),
    )


def built(name, log, *, dim=6, seed=1, **settings):
    """A model far from its small initial values; BERT4Rec in its second stage unless told otherwise."""
    both = {"length": LENGTH, "dim": dim} | ({"cloze": 0} if name == "bert4rec" else {}) | settings
    entry = MODELS[name]
    net = entry.build(parse(entry.settings, both), log.n_users, log.n_items, seed, log)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
    return net


def first_batch(log, kind=SequenceBatches) -> Batch:
    return next(kind(log, length=LENGTH, size=9, seed=3, device=CPU).epoch(0))


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_answers_at_every_position_without_a_graph(name, log):
    batch = first_batch(log)
    q, t, p = *batch.query.history.shape, len(batch.query.at)
    view = Live(built(name, log), seen=log.csr()).view(batch.query)
    assert view.known().shape == (p,)
    scores, among = view.scores(batch.positive[:, None]), view.scores_among(torch.arange(ITEMS))
    assert (scores.shape, among.shape) == ((p, 1), (p, ITEMS))
    torch.testing.assert_close(among.gather(1, batch.positive[:, None]), scores)
    nothing = batch.positive.new_empty(p, 0)
    torch.testing.assert_close(view.log_partition(nothing, chunk=7), among.logsumexp(1))
    states = view.states()
    assert states.shape == (1 + LAYERS[name], q, t, 6)
    assert (states[:, batch.query.history == -1] == 0).all()
    assert view.entities("item", torch.arange(ITEMS)).shape[0] == ITEMS
    assert not any(each.requires_grad for each in (scores, among, states, view.entities("item", torch.arange(3))))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [0, 4, 9])
def test_what_a_teacher_says_at_a_position_does_not_depend_on_what_came_after(name, at, log):
    """The label at a position is the next item of the history: a teacher that saw it would teach the answer."""
    generator = torch.Generator().manual_seed(at)
    history = torch.randint(ITEMS, (3, 11), generator=generator)
    other = history.clone()
    other[:, at + 1 :] = (other[:, at + 1 :] + 1 + torch.randint(ITEMS - 1, (3, 10 - at), generator=generator)) % ITEMS
    positions = torch.cartesian_prod(torch.arange(3), torch.arange(at + 1))
    teacher = Live(built(name, log), seen=log.csr())
    one, two = (teacher.view(Query(torch.arange(3), history=each, at=positions)) for each in (history, other))
    everything = torch.arange(ITEMS)
    torch.testing.assert_close(one.scores_among(everything), two.scores_among(everything))
    torch.testing.assert_close(one.states()[:, :, : at + 1], two.states()[:, :, : at + 1])
    assert not torch.allclose(one.states()[:, :, at + 1 :], two.states()[:, :, at + 1 :]), "there is something to see"


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_matched_over_a_large_catalogue_in_parts(name, direction, log, monkeypatch):
    """Value and gradient are those of whole rows; nothing of size positions x items is asked for."""
    batch = first_batch(log)
    teacher = Live(built(name, log), seen=log.csr())
    student = built("gru4rec", log, dim=4, seed=2)
    term = LogitMatch(ITEMS, direction=direction, temperature=1.7)
    widths: list[int] = []
    real = VectorView.scores_among
    monkeypatch.setattr(
        VectorView, "scores_among", lambda self, items: (widths.append(len(items)), real(self, items))[1]
    )

    def matched():
        student.zero_grad()
        value = term(student.view(batch.query), teacher.view(batch.query), batch, Clock(0)).value
        value.sum().backward()
        return value.detach(), [p.grad.clone() for p in student.parameters()]

    from_vectors = matched()
    assert not widths, "no scores are asked for"
    monkeypatch.setattr(VectorView, "linear", lambda _: None)
    whole, gradients = matched()
    assert max(widths) == ITEMS
    torch.testing.assert_close(from_vectors, (whole, gradients), rtol=1e-4, atol=1e-5)
    widths.clear()
    monkeypatch.setattr(logit_match, "_ROOM", 7 * len(batch.positive))
    parts, others = matched()
    assert max(widths) == 7
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-5)


def test_logits_of_a_teacher_that_knows_more_items_are_matched_over_the_students(log):
    batch = first_batch(log)
    wider = replace(log, items=IdTable.from_ids(np.arange(ITEMS + 2)))
    teacher = Live(built("sasrec", wider), seen=wider.csr())
    student = built("gru4rec", log, dim=4, seed=2)
    found = LogitMatch(ITEMS)(student.view(batch.query), teacher.view(batch.query), batch, Clock(0)).value
    items = torch.arange(ITEMS)
    scores = [model.view(batch.query).scores_among(items) for model in (student, teacher)]
    torch.testing.assert_close(found, kl(*scores))


def test_logits_of_a_teacher_that_knows_fewer_items_are_refused(log):
    batch = first_batch(log)
    student = built("gru4rec", log, dim=4, seed=2)
    narrow = VectorView(torch.ones(log.n_users, 3), torch.ones(ITEMS - 2, 3), batch.query)
    with pytest.raises(UsageError, match=rf"teacher knows too few items.*{ITEMS - 2}.*{ITEMS}.*matched by ids"):
        LogitMatch(ITEMS)(student.view(batch.query), narrow, batch, Clock(0))


def test_a_teacher_that_only_fills_gaps_is_refused_position_by_position(log):
    teacher = Live(built("bert4rec", log, cloze=5), seen=log.csr())
    batch = first_batch(log)
    view = teacher.view(batch.query)
    said = r"BERT4Rec model cannot give what follows each position of a history. It ended in its first stage: "
    for ask in (view.states, lambda: view.scores(batch.positive[:, None])):
        with pytest.raises(MissingKnowledge, match=said + "train its second one, see `cloze`"):
            ask()
    assert view.select(torch.tensor([0])).ranked(3).shape == (1, 3), "its lists are honest"
    gaps = first_batch(log, ClozeBatches)
    assert teacher.view(gaps.query).scores(gaps.positive[:, None]).shape == (len(gaps.positive), 1)


@pytest.mark.parametrize("name", NAMES)
def test_hidden_items_are_asked_of_nobody_who_reads_one_way(name, log):
    gaps = first_batch(log, ClozeBatches)
    view = Live(built(name, log), seen=log.csr()).view(gaps.query)
    with pytest.raises(MissingKnowledge, match="cannot give the hidden items of a text"):
        view.states()
    assert view.select(torch.tensor([1, 0])).ranked(3).shape == (2, 3)


class SameStates(Term):
    """Squared distance of the last layers at every asked position."""

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.STATES})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.STATES})
    how = "mean"

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__()
        self.up = torch.nn.Linear(ours, theirs)
        self.seen: list[int] = []

    def forward(self, student, teacher, batch, clock):
        del clock
        row, place = batch.query.at.unbind(1)
        mine, its = (view.states()[-1][row, place] for view in (student, teacher))
        assert not its.requires_grad
        self.seen.append(len(row))
        return Rows((self.up(mine) - its).square().mean(1), of="queries")


@pytest.mark.parametrize("teacher", NAMES)
@pytest.mark.parametrize("student", ["sasrec", "gru4rec"])
def test_hidden_layers_can_be_matched_by_a_method(teacher, student, log, monkeypatch):
    terms: list[SameStates] = []

    class Nothing(Settings):
        pass

    def method(_, s):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            terms.append(SameStates(4, 6))
        return [Pass("distil", s.batches, Objective(base=(0.0, s.base), states=(1.0, terms[-1])), s.teacher)]

    registry = Registry("method")
    for name in METHODS:
        registry.add(name, METHODS[name])
    registry.add(
        "states", MethodEntry("states", Nothing, METHODS["plain"].paper, method, "", lambda _: frozenset({Kind.STATES}))
    )
    monkeypatch.setattr("recdistill.recipes.train.METHODS", registry)
    training = rd.TrainSettings(epochs=25, batch=10, lr=0.03, weight_decay=0, loss="cross-entropy", device="cpu")
    knows = Live(built(teacher, log), seen=log.csr())
    before = {key: value.clone() for key, value in knows.model.state_dict().items()}
    settings = {"length": LENGTH, "dropout": 0.0}
    trained = rd.distill(knows, student, log, method="states", dim=4, model_settings=settings, training=training)
    history = [record.losses["states"] for record in trained.report.history]
    assert history[-1] < 0.6 * history[0]
    learned = np.minimum(np.maximum(Histories.of(log).lengths, 1), LENGTH + 1) - 1
    assert sum(terms[0].seen) == 25 * learned.sum(), "every position of every history, every epoch"
    assert all(torch.equal(value, before[key]) for key, value in knows.model.state_dict().items())
