"""How far known pairs are above random ones, and that shortening vectors changes nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recdistill.continual.learning import Run
from recdistill.continual.margin import margin_of, within
from recdistill.continual.plain import base
from recdistill.continual.settings import ModelSpec, over, settings_of
from recdistill.continual.snapshot import blank
from recdistill.continual.stages import Sources, update_student
from recdistill.data.csr import Csr
from recdistill.errors import SettingsError


@pytest.fixture
def by_hand():
    """Two users, three items, one dimension: user 0 took items 0 and 2, user 1 item 1; item 2 was never trained."""
    train = Csr.from_pairs([0, 0, 1], [0, 2, 1], 2, 3)
    tables = {"user": np.array([[2.0], [1.0]], np.float32), "item": np.array([[4.0], [2.0], [9.0]], np.float32)}
    bare = replace(blank(ModelSpec(dim=1), train, seed=0), weights=tables)
    return replace(bare, met_users=np.array([True, True]), met_items=np.array([True, True, False])), train


def test_the_margin_by_hand(by_hand):
    # a random trained item has 3: 2 (4 - 3) = 2 and 1 (2 - 3) = -1; the pair with item 2 is not known
    assert margin_of(*by_hand) == pytest.approx(0.5)


def test_without_a_known_pair_there_is_no_margin_and_nothing_to_shorten(by_hand):
    snapshot, train = by_hand
    new = replace(snapshot, met_users=np.array([False, False]))
    assert margin_of(new, train) is None
    assert within(new, train, 0.1) is new
    assert margin_of(snapshot, Csr.empty(2, 3)) is None


def test_vectors_are_shortened_and_never_stretched(by_hand):
    snapshot, train = by_hand
    assert within(snapshot, train, 0.5) is snapshot
    short = within(snapshot, train, 0.125)
    np.testing.assert_allclose(short.weights["user"], [[1.0], [0.5]])
    np.testing.assert_allclose(short.weights["item"], [[2.0], [1.0], [4.5]])


@pytest.mark.parametrize("name", ["mf", "lightgcn"])
def test_rankings_stay_as_they_are(stream, settings, name):
    c = over(settings, {"plain": {"epochs": 8, "lr": 0.05}})
    snapshot = base(stream[0], ModelSpec(name=name, dim=4, layers=2, init_std=0.3), c.plain, run=Run(1)).snapshot
    train = stream[0].train.csr()
    now = margin_of(snapshot, train)
    short = within(snapshot, train, now / 7)
    assert margin_of(short, train) == pytest.approx(now / 7, rel=1e-4)
    users = np.arange(24)
    assert short.ranker().top_k(users, 10).tolist() == snapshot.ranker().top_k(users, 10).tolist()


def test_an_update_begins_within_its_margin(stream, settings):
    student = base(stream[0], ModelSpec(dim=4, init_std=1.0), settings.plain, run=Run(1)).snapshot
    sources = Sources(stability=student, student=student)
    graph, train = stream[0].train.csr(), stream[1].train.csr()

    def margin(change):  # over who was known before: the update marks everybody as trained
        c = over(settings, {"update": {"training": {"epochs": 0}, **change}}).update
        out = update_student(stream[1], graph, student, sources, c, run=Run(4)).snapshot
        before = student.grown(train, seed=0)
        return margin_of(replace(out, met_users=before.met_users, met_items=before.met_items), train)

    assert margin({"margin": 0.01}) == pytest.approx(0.01, rel=1e-4)
    assert margin({}) > 0.05


def test_a_student_without_two_tables_has_no_margin():
    with pytest.raises(SettingsError, match="two tables: 'mf' or 'lightgcn', not 'vae'"):
        settings_of(settings={"student": {"name": "vae"}, "update": {"margin": 1.0}})
    with pytest.raises(SettingsError, match="margin"):
        settings_of(settings={"update": {"margin": 0}})


def test_results_without_a_margin_keep_their_names():
    assert "margin" not in settings_of().update.model_dump()
    assert settings_of(settings={"update": {"margin": 1.5}}).update.model_dump()["margin"] == 1.5
