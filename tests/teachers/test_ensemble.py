"""Ensembles: by ranks and by scores, by hand; who does not know; one teacher for a student."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import recdistill as rd
from recdistill.data.synthetic import planted
from recdistill.errors import UsageError
from recdistill.knowledge.view import Kind, View
from recdistill.query import Query
from recdistill.recipes.teaching import served
from recdistill.recipes.train import TrainSettings, known
from recdistill.teachers.ensemble import Ensemble, worth_of_ranks
from recdistill.teachers.trajectory import Trajectory, courses


class Fixed:
    """Scores as given, (U, I), -inf = unknown item; a user whose row is all -inf is unknown."""

    def __init__(self, scores, provides=(Kind.RANKS, Kind.SCORES)):
        self.table = torch.tensor(scores)
        self.provides = frozenset(provides)
        self.fingerprint = str(scores)
        self.asked = 0

    def view(self, query):
        return _FixedView(self, query)


class _FixedView(View):
    def __init__(self, of, query):
        self.of, self.query = of, query
        self.table = of.table[query.row.clamp(min=0)]

    def known(self):
        return (self.query.row >= 0) & (self.table > -torch.inf).any(1)

    def select(self, index):
        return _FixedView(self.of, self.query[index])

    def ranked(self, k):
        self.of.asked += len(self.query)
        best = self.table.topk(min(k, self.table.shape[1]), 1)
        items = torch.where(best.values > -torch.inf, best.indices, -1)
        return torch.nn.functional.pad(items, (0, k - items.shape[1]), value=-1)

    def scores(self, items):
        there = items >= 0
        return torch.where(there, self.table.gather(1, items.clamp(min=0)), -torch.inf)


INF = float("inf")
ONE = [[9.0, 8.0, 7.0, 0.0], [1.0, 2.0, 3.0, 4.0]]
TWO = [[0.0, 10.0, 20.0, 30.0], [-INF] * 4]
USERS = Query(torch.tensor([0, 1]))


def test_ranks_are_worth_what_was_said():
    assert worth_of_ranks(2, worth="reciprocal", rate=60.0).tolist() == pytest.approx([1 / 61, 1 / 62])
    assert worth_of_ranks(2, worth="power", rate=0.5).tolist() == pytest.approx([1, 2**-0.5])
    assert worth_of_ranks(2, worth="exponential", rate=2.0).tolist() == pytest.approx([np.exp(-0.5), np.exp(-1)])


def test_ranks_by_hand():
    # depth 2, 1 / (1 + r): the first lists 0, 1, the second 3, 2 for user 0: halves of 1/2 and 1/3
    both = Ensemble([Fixed(ONE), Fixed(TWO)], n_users=2, worth="reciprocal", rate=1.0, depth=2)
    view = both.view(USERS)
    scores = view.scores(torch.tensor([[0, 1, 2, 3, -1], [3, 2, 1, 0, -1]]))
    assert scores[0].tolist() == pytest.approx([1 / 4, 1 / 6, 1 / 6, 1 / 4, -INF])
    # user 1: only the first knows it, and has the whole weight; it lists 3, 2
    assert scores[1].tolist() == pytest.approx([1 / 2, 1 / 3, 0, 0, -INF])
    assert view.ranked(2).tolist() == [[0, 3], [3, 2]]  # equal ones by item
    assert view.ranked(3).tolist() == [[0, 3, 1], [3, 2, 1]]  # beyond the depth as if it were so deep, but after
    assert view.known().tolist() == [True, True]


def test_weights_are_shared_among_those_who_know():
    both = Ensemble([Fixed(ONE), Fixed(TWO)], n_users=2, weights=[3, 1], worth="reciprocal", rate=1.0, depth=2)
    scores = both.view(USERS).scores(torch.tensor([[0, 3], [3, 0]]))
    assert scores.tolist() == [pytest.approx([3 / 8, 1 / 8]), pytest.approx([1 / 2, 0])]


@pytest.mark.parametrize(
    ("normalise", "want"),
    [
        ("none", [4.5, 9.0, 13.5, 15.0]),  # the means of 9, 8, 7, 0 and 0, 10, 20, 30
        ("minmax", [0.5, (8 / 9 + 1 / 3) / 2, (7 / 9 + 2 / 3) / 2, 0.5]),
        # means 6 and 15, deviations sqrt(12.5) and sqrt(125)
        ("zscore", [(3 / 12.5**0.5 - 15 / 125**0.5) / 2, (2 / 12.5**0.5 - 5 / 125**0.5) / 2,
                    (1 / 12.5**0.5 + 5 / 125**0.5) / 2, (-6 / 12.5**0.5 + 15 / 125**0.5) / 2]),
    ],
)  # fmt: skip
def test_scores_by_hand(normalise, want):
    both = Ensemble([Fixed(ONE), Fixed(TWO)], n_users=2, by="scores", normalise=normalise, depth=4)
    view = both.view(USERS)
    assert view.scores_among(torch.arange(4))[0].tolist() == pytest.approx(want, abs=1e-6)
    order = np.lexsort((np.arange(4), -np.array(want)))
    assert view.ranked(4)[0].tolist() == order.tolist()


def test_who_does_not_know_an_item_gives_it_the_least_it_gives_any():
    lacks = [[5.0, -INF, 3.0, 1.0], [1.0, 2.0, 3.0, 4.0]]
    both = Ensemble([Fixed(lacks), Fixed(ONE)], n_users=2, by="scores", normalise="none", depth=4)
    assert both.view(USERS).scores(torch.tensor([[1], [1]]))[0].tolist() == pytest.approx([(1 + 8) / 2])


def test_a_member_is_asked_for_a_users_list_once_in_a_run():
    member = Fixed(ONE)
    both = Ensemble([member], n_users=2, depth=3)
    for _ in range(3):
        view = both.view(Query(torch.tensor([1, 0, 1])))
        view.ranked(2)
        view.select(torch.tensor([1])).scores(torch.tensor([[0]]))
    assert member.asked <= 3


def test_scaling_a_members_scores_changes_nothing_where_they_are_normalised():
    scaled = [[5 + 2 * s for s in row] for row in ONE]
    for normalise in ("minmax", "zscore"):
        one, other = (
            Ensemble([Fixed(m), Fixed(TWO)], n_users=2, by="scores", normalise=normalise, depth=4)
            .view(USERS).scores_among(torch.arange(4))
            for m in (ONE, scaled)
        )  # fmt: skip
        torch.testing.assert_close(one, other)


def test_what_members_lack_is_said_of_all_at_once():
    lists = Fixed(ONE, provides=[Kind.RANKS])
    with pytest.raises(UsageError, match=r"asks ranks and scores of every member.*member 1 \(scores\), member 3"):
        Ensemble([lists, Fixed(ONE), Fixed(ONE, provides=[])], n_users=2, by="scores")


@pytest.mark.parametrize(
    ("change", "says"),
    [({"weights": [1.0]}, "needs as many weights"), ({"rate": 0.0}, "rate > 0"), ({"depth": 0}, "depth >= 1")],
)
def test_settings_out_of_range_are_refused(change, says):
    with pytest.raises(UsageError, match=says):
        rd.ensemble(Fixed(ONE), Fixed(TWO), **change)
    with pytest.raises(UsageError, match="at least one member"):
        rd.ensemble()


def test_trained_models_and_files_are_one_teacher():
    log = planted(users=40, items=30, interactions=400, dim=4, seed=3)
    training = TrainSettings(epochs=1, batch=64, device="cpu")
    members = [rd.fit("mf", log, dim=6, training=training, seed=s) for s in (1, 2)]
    several = rd.ensemble(*members, by="scores")
    student = rd.distill(several, "mf", log, method="rrd", dim=3, training=training)
    assert student.teacher is several
    one, other = (known(rd.ensemble(*members, by=by), log).fingerprint for by in ("scores", "ranks"))
    assert one != other


@pytest.mark.parametrize(
    ("method", "settings"),
    [("cd", {}), ("rce-kd", {}), ("sum", {"parts": {"rrd": {}, "cd": {}}})],
)
def test_methods_that_read_scores_as_logits_refuse_worths_of_ranks(method, settings):
    log = planted(users=40, items=120, interactions=400, dim=4, seed=3)
    training = TrainSettings(epochs=0, batch=64, device="cpu")
    member = rd.fit("mf", log, dim=6, training=training)
    said = f"'{method}' reads scores as logits, and an ensemble by ranks.*Combine by = \"scores\", or choose another"
    with pytest.raises(UsageError, match=said):
        rd.distill(rd.ensemble(member), "mf", log, method=method, settings=settings, dim=3, training=training)
    by_scores = rd.ensemble(member, by="scores")
    rd.distill(by_scores, "mf", log, method=method, settings=settings, dim=3, training=training)
    assert {"cd", "rce-kd"} <= set(served(known(by_scores, log)))
    assert not {"cd", "rce-kd"} & set(served(known(rd.ensemble(member), log)))


def test_a_trajectory_alone_is_its_last_step_and_an_ensemble_has_the_courses_of_its_members():
    steps = Trajectory([Fixed(TWO), Fixed(ONE)])
    assert steps.view(USERS).ranked(1).tolist() == [[0], [3]]
    both = Ensemble([steps, Fixed(ONE)], n_users=2)
    assert [len(course) for course in courses(both)] == [2, 1]
    assert [len(course) for course in courses(steps)] == [2]
    with pytest.raises(UsageError, match="at least one step"):
        rd.trajectory()
