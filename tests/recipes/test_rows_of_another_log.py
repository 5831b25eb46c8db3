"""Rows mean nothing in another log: what was trained on other users or items is refused, whatever its shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recdistill as rd
from recdistill.data.synthetic import planted
from recdistill.recipes.search import search

ONCE = rd.TrainSettings(epochs=1, device="cpu")


def renamed(log, prefix: str = "Z"):
    """The same log under other ids: equal shape, equal rows."""
    users, items = (t.external(np.arange(len(t))) for t in (log.users, log.items))
    columns = {
        "user": [prefix + users[u] for u in log.user],
        "item": [prefix + items[i] for i in log.item],
        "timestamp": log.timestamp,
    }
    return rd.read(pl.DataFrame(columns), echo=None)


@pytest.fixture(scope="module")
def logs():
    log = planted(users=40, items=30, interactions=500, dim=3, seed=3)
    return rd.split(log), rd.split(renamed(log))


@pytest.fixture(scope="module")
def model(logs):
    return rd.fit("mf", logs[0].train, dim=4, training=ONCE)


def test_a_live_teacher_of_another_log_is_refused_with_an_id_of_each(logs, model):
    ours, other = logs
    first, theirs = ours.train.users.external([0])[0], other.train.users.external([0])[0]
    match = (
        rf"The teacher and the training data do not have the same users: .*'{first}' the other has '{theirs}'.*bundle="
    )
    with pytest.raises(rd.RecdistillError, match=match):
        rd.distill(model, "mf", other.train, method="de-rrd", dim=2, training=ONCE)
    with pytest.raises(rd.RecdistillError, match="do not have the same users"):
        search(model, other.train, valid=other.valid)


def test_validation_data_of_another_log_are_refused(logs):
    with pytest.raises(rd.RecdistillError, match="validation part and the training data do not have the same users"):
        rd.fit("mf", logs[0].train, dim=2, valid=logs[1].valid, training=ONCE)


def test_a_model_is_not_measured_on_another_log(logs, model):
    for measure in (lambda: rd.compare({"mine": model}, logs[1].test), lambda: rd.evaluate(model, logs[1].test)):
        with pytest.raises(rd.RecdistillError, match=r"do not have the same users: .*matched by ids"):
            measure()


def test_sizes_that_differ_are_told_in_ids_and_not_as_a_shape(logs, model):
    smaller = rd.split(planted(users=39, items=30, interactions=450, dim=3, seed=3))
    with pytest.raises(rd.RecdistillError, match=r"The teacher has 40 users, the training data 39.*other has nothing"):
        rd.distill(model, "mf", smaller.train, method="rrd", dim=2, training=ONCE)


def test_the_same_ids_read_twice_are_the_same_rows(logs):
    log = planted(users=40, items=30, interactions=500, dim=3, seed=3)
    first, second = rd.split(renamed(log)), rd.split(renamed(log))
    trained = rd.fit("mf", first.train, dim=2, valid=second.valid, training=ONCE)
    assert rd.evaluate(trained, second.test, "ndcg@10").fingerprint


def test_a_trained_model_is_evaluated_as_its_ranker_is_and_a_metric_may_stand_alone(logs, model):
    test = logs[0].test
    assert rd.evaluate(model, test, "ndcg@10").means == rd.evaluate(model.ranker(), test, ["ndcg@10"]).means


def test_training_data_are_nothing_to_measure_on(logs, model):
    for held in (logs[0].train, logs[0]):
        for measure in (lambda h=held: rd.compare({"a": model}, h), lambda h=held: rd.evaluate(model, h)):
            with pytest.raises(rd.RecdistillError, match=r"on the held-out part of a split; got.*split\(log\).test"):
                measure()


def test_a_path_is_no_teacher_and_says_how_to_make_it_one(logs):
    for path in ("top.parquet", Path("top.parquet")):
        with pytest.raises(rd.RecdistillError, match=r"A path alone is no teacher.*rd.teacher\(lists='top.parquet'\)"):
            rd.distill(path, "mf", logs[0].train, method="rrd", dim=2, training=ONCE)
    with pytest.raises(rd.RecdistillError, match="This is no teacher; got 'int'"):
        rd.distill(3, "mf", logs[0].train, method="rrd", dim=2, training=ONCE)


def test_a_log_with_its_own_split_is_not_trained_on_whole():
    log = planted(users=20, items=20, interactions=200, dim=3, seed=3)
    users, items = log.users.external(log.user), log.items.external(log.item)
    part = ["test" if n % 5 == 0 else "train" for n in range(len(log))]
    given = rd.read(pl.DataFrame({"user": list(users), "item": list(items), "split": part}), echo=None)
    with pytest.raises(rd.RecdistillError, match=r"own split, and 36 of its 180 rows.*rd.split\(log, 'given'\)"):
        rd.fit("mf", given, dim=2, training=ONCE)
    assert rd.fit("mf", rd.split(given, "given").train, dim=2, training=ONCE).name == "mf"
    assert any("is ignored" in note for note in rd.split(given, "leave-random-out").notes)
    assert not any("is ignored" in note for note in rd.split(given, "given").notes)
