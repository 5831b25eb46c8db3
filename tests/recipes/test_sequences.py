"""Sequential models beside published figures: cells computed once, gone on with, printed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.errors import UnknownName
from recdistill.evaluation.evaluate import evaluate
from recdistill.models import MODELS
from recdistill.recipes import sequences
from recdistill.recipes.papers import REPRODUCTIONS
from recdistill.recipes.published import SEQUENTIAL
from recdistill.recipes.sequences import SCENES, Row, Scene, reproduce
from recdistill.recipes.train import TrainSettings, fit
from recdistill.settings import parse
from recdistill.training import trainer


@pytest.fixture
def data(tmp_path):
    """60 users who walk round 30 items: the last item is the test, the last but one valid."""
    rows = []
    for user in range(60):
        items = [(user * 7 + step) % 30 for step in range(6 + user % 5)]
        parts = ["train"] * (len(items) - 2) + ["valid", "test"]
        rows += [(user, item, part) for item, part in zip(items, parts, strict=True)]
    folder = tmp_path / "data" / "walks"
    folder.mkdir(parents=True)
    pl.DataFrame(rows, schema=["user_id", "item_id", "split"], orient="row").write_parquet(
        folder / "interactions.parquet"
    )
    return folder.parent


@pytest.fixture
def small(monkeypatch):
    settings = {"dim": 8, "length": 10}
    rows = (Row("sasrec", "sasrec", settings), Row("gru4rec", "gru4rec", settings, {"epochs": 1}))
    scene = Scene("toys", "Walks", "walks", rows, {"epochs": 3, "batch": 20, "lr": 0.01, "device": "cpu"})
    monkeypatch.setattr(sequences, "SCENES", {"toys": scene, "beauty": SCENES["beauty"]})
    return scene


def test_the_tables_are_written_and_a_second_call_repeats_nothing(data, small, tmp_path):
    where = {"data": data, "out": tmp_path / "results" / "sequential", "work": tmp_path / "work", "seeds": [1, 2]}
    said: list[str] = []
    found = reproduce(say=said.append, **where)
    assert [line.partition(":")[0] for line in said] == [
        f"toys {row} seed {seed}" for seed in (1, 2) for row in ("sasrec", "gru4rec")
    ]
    row = found["scenes"]["toys"]["rows"]["sasrec"]
    assert set(row["seeds"]) == {"1", "2"}
    assert row["seeds"]["1"]["epochs"] == 3
    assert found["scenes"]["toys"]["rows"]["gru4rec"]["seeds"]["1"]["epochs"] == 1
    for metric in ("HR@5", "NDCG@10"):
        assert row["mean"][metric] == pytest.approx(np.mean([each["test"][metric] for each in row["seeds"].values()]))
        low, high = row["interval"][metric]
        assert low <= row["mean"][metric] <= high
    assert json.loads((tmp_path / "results" / "sequential.json").read_text()) == json.loads(json.dumps(found))
    page = (tmp_path / "results" / "sequential.md").read_text()
    assert "0.0675, 0.0374 (S3-Rec)" in page
    assert "| sasrec-bce | missing |" in page, "of the scene that was not run"
    assert not list((tmp_path / "work").glob("*.safetensors"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "results" / "sequential").rglob("*.json")}
    assert len(before) == 4
    assert reproduce(say=said.append, **where) == found
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_the_figures_are_those_of_the_model_after_the_validation_item(data, small, tmp_path):
    where = {"data": data, "out": tmp_path / "o", "work": tmp_path / "w", "seeds": [4], "only": ["sasrec"]}
    found = reproduce(say=str, **where)["scenes"]["toys"]["rows"]["sasrec"]
    parts = split(read(data / "walks", echo=None), "given")
    training = TrainSettings.model_validate(sequences._training(small, small.rows[0]))
    trained = fit(
        "sasrec", parts.train, valid=parts.valid, seed=4, settings={"dim": 8, "length": 10}, training=training
    )
    test = evaluate(trained.ranker(), parts.test, ("hr@10", "ndcg@10"))
    assert found["mean"]["NDCG@10"] == pytest.approx(test.means["ndcg@10"])
    assert found["mean"]["HR@10"] == pytest.approx(test.means["hr@10"])
    assert 0 < test.means["ndcg@10"] < test.means["hr@10"] <= 1
    assert (found["parameters"], found["body"]) == (trained.model.n_parameters, trained.model.n_body)


class StopAfterFirst:
    def on_start(self, report):
        pass

    def on_epoch(self, record, report):
        if record.epoch == 1:
            raise KeyboardInterrupt

    def on_end(self, report):
        pass


def test_a_cell_that_was_stopped_goes_on_and_ends_the_same(data, small, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Keep.__init__, "__defaults__", (0.0,))
    whole = {"data": data, "out": tmp_path / "a", "work": tmp_path / "wa", "seeds": [1], "only": ["sasrec"]}
    parts = {**whole, "out": tmp_path / "b", "work": tmp_path / "wb"}
    want = reproduce(say=str, **whole)
    with pytest.raises(KeyboardInterrupt):
        reproduce(say=str, watch=lambda _: [StopAfterFirst()], **parts)
    assert len(list((tmp_path / "wb").glob("*.safetensors"))) == 1
    found = reproduce(say=str, **parts)
    one, other = (each["scenes"]["toys"]["rows"]["sasrec"] for each in (want, found))
    assert one["interval"] == other["interval"]
    assert one["seeds"]["1"]["valid"] == other["seeds"]["1"]["valid"]


def test_unknown_scenes_and_rows_get_their_neighbours(data, tmp_path):
    where = {"data": data, "out": tmp_path / "o", "work": tmp_path / "w", "say": str}
    with pytest.raises(UnknownName, match=r"Unknown table 'toy'. Did you mean 'toys'"):
        reproduce(tables=["toy"], **where)
    with pytest.raises(UnknownName, match=r"Unknown row 'sasrek'. Did you mean 'sasrec'"):
        reproduce(only=["sasrek"], **where)


def test_every_row_can_be_built_and_what_is_published_stands_beside_one():
    for scene in SCENES.values():
        for row in scene.rows:
            parse(MODELS[row.model].settings, row.settings)
            training = TrainSettings.model_validate(sequences._training(scene, row))
            assert training.metrics == ("ndcg@10",)
            assert training.protocol == "full"
            if row.model == "bert4rec":
                assert row.settings["cloze"] < training.epochs, "it ends in the stage that can teach"
        assert SEQUENTIAL[scene.name].keys() <= {row.name for row in scene.rows}


def test_a_cell_depends_on_all_its_settings():
    scene = SCENES["toys"]
    row = scene.rows[0]
    others = [
        (scene, row, 2),
        (scene, dataclasses.replace(row, settings={**row.settings, "dropout": 0.1}), 1),
        (scene, dataclasses.replace(row, training={"lr": 0.1}), 1),
        (dataclasses.replace(scene, training={"batch": 3}), row, 1),
        (SCENES["beauty"], row, 1),
    ]
    abouts = [json.dumps(sequences._about(*each)) for each in [(scene, row, 1), *others]]
    assert len(set(abouts)) == len(abouts)


@pytest.mark.data
def test_the_scenes_are_those_of_the_published_figures(data_dir):
    sizes = {"toys": (19_412, 11_924), "beauty": (22_363, 12_101), "ml-1m": (6_040, 3_706)}
    for name, scene in SCENES.items():
        parts = split(read(data_dir(scene.folder), echo=None), "given")
        assert (parts.train.n_users, parts.train.n_items) == sizes[name]
        last = parts.test.histories.lengths - parts.train.histories().lengths
        assert (last == 1).all(), "the test is asked after the validation item"


def test_every_reproduction_names_its_tables():
    assert list(REPRODUCTIONS) == ["adarec", "ccd", "de-rrd", "methods", "sequential"]
    assert REPRODUCTIONS["sequential"].tables in SCENES
