"""How far known pairs are above random ones, and that shortening vectors changes nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recdistill.continual import stages, teaching
from recdistill.continual.learning import Run
from recdistill.continual.margin import Margin, begun_within
from recdistill.continual.plain import base, finetune
from recdistill.continual.proxies import remembered
from recdistill.continual.settings import ModelSpec, over, settings_of
from recdistill.continual.snapshot import blank
from recdistill.continual.stages import Sources, update_student
from recdistill.continual.teaching import update_teacher
from recdistill.data.csr import Csr
from recdistill.errors import SettingsError


@pytest.fixture
def by_hand():
    """Two users, three items, one dimension: user 0 took items 0 and 2, user 1 item 1; item 2 was never trained."""
    train = Csr.from_pairs([0, 0, 1], [0, 2, 1], 2, 3)
    tables = {"user": np.array([[2.0], [1.0]], np.float32), "item": np.array([[4.0], [2.0], [9.0]], np.float32)}
    bare = replace(blank(ModelSpec(dim=1), train, seed=0), weights=tables)
    return replace(bare, met_users=np.array([True, True]), met_items=np.array([True, True, False])), train


def now(snapshot, train, on=None):
    """The margin of a snapshot, on what `on` was trained on before (itself)."""
    return Margin.on(on or snapshot, train, None).now(remembered(snapshot))


def test_the_margin_by_hand(by_hand):
    # a random trained item has 3: 2 (4 - 3) = 2 and 1 (2 - 3) = -1; the pair with item 2 is not known
    assert now(*by_hand) == pytest.approx(0.5)


def test_of_a_source_that_knows_fewer_its_own_pairs_count(by_hand):
    snapshot, train = by_hand
    margin = Margin.on(snapshot, train, 0.5)
    one_user = (np.array([[2.0]], np.float32), np.array([[4.0], [2.0]], np.float32))
    assert margin.now(one_user) == pytest.approx(2.0)
    user, item = margin.within(one_user)  # a quarter of the margin, half the length
    assert (user.tolist(), item.tolist()) == ([[1.0]], [[2.0], [1.0]])
    assert margin.within(None) is None


def test_without_a_known_pair_there_is_no_margin_and_nothing_to_shorten(by_hand):
    snapshot, train = by_hand
    new = replace(snapshot, met_users=np.array([False, False]))
    assert now(new, train) is None
    assert begun_within(new, train, 0.1)[1] == [new]
    assert now(snapshot, Csr.empty(2, 3)) is None
    nobody = (np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))
    assert Margin.on(snapshot, train, 0.1).within(nobody) is nobody


def test_vectors_are_shortened_and_never_stretched(by_hand):
    snapshot, train = by_hand
    for kept in (0.5, None):
        assert begun_within(snapshot, train, kept, snapshot)[1] == [snapshot, snapshot]
    beside = replace(snapshot, weights={name: 10 * table for name, table in snapshot.weights.items()})
    _, (short, other) = begun_within(snapshot, train, 0.125, beside)
    np.testing.assert_allclose(short.weights["user"], [[1.0], [0.5]])
    np.testing.assert_allclose(short.weights["item"], [[2.0], [1.0], [4.5]])
    np.testing.assert_allclose(other.weights["user"], [[10.0], [5.0]])  # as the first one, whatever its own margin


@pytest.mark.parametrize("name", ["mf", "lightgcn"])
def test_rankings_stay_as_they_are(stream, settings, name):
    c = over(settings, {"plain": {"epochs": 8, "lr": 0.05}})
    snapshot = base(stream[0], ModelSpec(name=name, dim=4, layers=2, init_std=0.3), c.plain, run=Run(1)).snapshot
    train = stream[0].train.csr()
    most = now(snapshot, train) / 7
    _, (short,) = begun_within(snapshot, train, most)
    assert now(short, train) == pytest.approx(most, rel=1e-4)
    users = np.arange(24)
    assert short.ranker().top_k(users, 10).tolist() == snapshot.ranker().top_k(users, 10).tolist()


@pytest.fixture
def long(stream, settings):
    """A model of block 0 whose vectors are long."""
    return base(stream[0], ModelSpec(dim=4, init_std=1.0), settings.plain, run=Run(1)).snapshot


def test_an_update_begins_within_its_margin(stream, settings, long):
    sources, graph, train = Sources(stability=long, student=long), stream[0].train.csr(), stream[1].train.csr()
    before = long.grown(train, seed=0)  # the update marks everybody as trained
    begins = {"training": {"epochs": 0}}

    def student(change):
        c = over(settings, {"update": begins | change}).update
        return now(update_student(stream[1], graph, long, sources, c, run=Run(4)).snapshot, train, before)

    def teacher(change):
        c = over(settings, {"teach": begins | change}).teach
        return now(update_teacher(stream[1], graph, long, sources, c, run=Run(4)).snapshot, train, before)

    def finetuned(margin):
        c = over(settings, {"update": begins}).update
        how = {"margin": margin, "run": Run(4)}
        return now(finetune(stream[1], long, c.training, c.initial, **how).snapshot, train, before)

    for each in (student({"margin": 0.01}), teacher({"margin": 0.01}), finetuned(0.01)):
        assert each == pytest.approx(0.01, rel=1e-3)
    for each in (student({}), teacher({}), finetuned(None)):
        assert each > 0.05


def test_who_is_replayed_has_the_margin_of_who_learns(stream, settings, long, monkeypatch):
    asked = []
    for module in (stages, teaching):
        real = module.replayed
        monkeypatch.setattr(
            module, "replayed", lambda model, of, c, real=real, **k: asked.append(of) or real(model, of, c, **k)
        )
    sources, graph, train = Sources(long, long, long), stream[0].train.csr(), stream[1].train.csr()
    c = over(settings, {"update": {"margin": 0.01}, "teach": {"margin": 0.02}})
    update_student(stream[1], graph, long, sources, c.update, run=Run(4))
    update_teacher(stream[1], graph, long, sources, c.teach, run=Run(4))
    on = Margin.on(long.grown(train, seed=0), train, None)
    margins = [[on.now(vectors) for vectors, _ in each] for each in asked]
    assert margins == [pytest.approx([0.01] * 2, rel=1e-3), pytest.approx([0.02] * 3, rel=1e-3)]


def test_a_teacher_remembers_itself_within_its_margin(stream, settings, long, monkeypatch):
    told = []
    real = teaching.contrasted
    monkeypatch.setattr(teaching, "contrasted", lambda old, *a, **k: told.append(old) or real(old, *a, **k))
    c = over(settings, {"teach": {"margin": 0.02}}).teach
    update_teacher(stream[1], stream[0].train.csr(), long, Sources(), c, run=Run(4))
    train = stream[1].train.csr()
    assert Margin.on(long.grown(train, seed=0), train, None).now(told[0]) == pytest.approx(0.02, rel=1e-3)


def test_a_mult_vae_has_no_margin(stream, settings, long):
    c = over(settings, {"base": {"epochs": 40, "lr": 0.02}})
    member = base(stream[0], ModelSpec(name="vae", dim=4), c.base, run=Run(1)).snapshot
    graph, sources = stream[0].train.csr(), Sources(long, long, long)
    assert now(member.grown(stream[1].train.csr(), seed=0), stream[1].train.csr()) > 0.1

    def taught(change):
        how = over(settings, {"teach": change}).teach
        return update_teacher(stream[1], graph, member, sources, how, run=Run(4)).snapshot.digest

    def updated(change):
        how = over(settings, {"update": change}).update
        return update_student(stream[1], graph, member, sources, how, run=Run(4)).snapshot.digest

    for each in (taught, updated):
        assert each({"margin": 0.01}) == each({})


def test_a_margin_is_above_zero():
    with pytest.raises(SettingsError, match=r"update\.margin"):
        settings_of(settings={"update": {"margin": 0}})


def test_results_without_a_margin_keep_their_names():
    assert not any("margin" in part.model_dump() for part in (settings_of().update, settings_of().teach))
    assert settings_of(settings={"update": {"margin": 1.5}}).update.model_dump()["margin"] == 1.5
