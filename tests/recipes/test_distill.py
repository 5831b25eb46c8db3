"""The main job: resumable, each stage once, a teacher trained here or from files."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest

import recdistill.recipes.distill as distill_module
import recdistill.recipes.lessons as lessons_module
from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.errors import DataError, UsageError
from recdistill.recipes.comparing import compare_methods
from recdistill.recipes.distill import _at_limit as at_limit
from recdistill.recipes.distill import distill
from recdistill.recipes.runfile import RunSettings
from recdistill.recipes.train import TrainSettings
from recdistill.report.page import Curve
from recdistill.settings import overlay, parse


@pytest.fixture(scope="module")
def log_file(tmp_path_factory):
    log = planted(users=60, items=80, interactions=1200, dim=4, seed=1)
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    columns = {"user_id": log.users.external(log.user), "item_id": log.items.external(log.item)}
    pl.DataFrame({name: list(column) for name, column in columns.items()} | {"timestamp": log.timestamp}).write_parquet(
        path
    )
    return path


@pytest.fixture
def run(log_file, tmp_path):
    def settings(*assign: str) -> RunSettings:
        table = {
            "data": {"path": str(log_file)},
            "teacher": {"model": "mf", "dim": 8},
            "student": {"model": "mf", "dim": 3},
            "method": {"name": "rrd", "near": 10, "far": 10, "reach": 20, "depth": 30},
            "train": {"epochs": 3, "lr": 0.01, "device": "cpu"},
            "evaluate": {"latency": False},
            "output": {"dir": str(tmp_path / "out")},
        }
        return parse(RunSettings, overlay(table, assign))

    return settings


class Heard:
    def __init__(self):
        self.stages: list[str] = []
        self.said: list[str] = []

    def say(self, text):
        self.said.append(text)

    def begin(self, stage):
        self.stages.append(stage)

    def watch(self, run):
        del run
        return ()

    @property
    def trained(self):
        return [stage.removeprefix("Training ") for stage in self.stages if stage.startswith("Training")]


def test_a_run_without_a_teacher_ends_with_one_card_a_bundle_and_a_page(run):
    alone = run("method={name='plain'}", "teacher={}")
    heard = Heard()
    outcome = distill(alone, listener=heard)
    assert heard.trained == ["plain"]
    assert list(outcome.comparison.cards) == ["plain"]
    assert outcome.comparison.cards["plain"].retention == {}
    assert (outcome.bundle / "manifest.json").exists()
    page = outcome.page.read_text(encoding="utf-8")
    assert "mf, 3 dims" in page
    assert "teacher \u2192" not in page
    with pytest.raises(UsageError, match=r"The method 'rrd' needs a teacher\. Give the run file a"):
        compare_methods(alone, methods=["plain", "rrd"])


def test_a_run_ends_with_cards_a_bundle_a_page_and_paired_tests(run):
    heard = Heard()
    outcome = distill(run(), listener=heard)
    assert heard.trained == ["teacher", "plain", "rrd"]
    cards = outcome.comparison.cards
    assert list(cards) == ["teacher", "plain", "rrd"]
    assert cards["teacher"].agreement is None
    assert set(cards["rrd"].retention) == {"recall@10", "ndcg@10"}
    assert cards["rrd"].parameters == (60 + 80) * 3
    assert [m.split for m in cards["rrd"].metrics] == ["valid", "test"]
    assert cards["rrd"].bytes == sum(f.stat().st_size for f in outcome.bundle.iterdir())
    assert set(outcome.comparison.tests["ndcg@10"]) == {"rrd"}
    assert "rrd" in outcome.page.read_text(encoding="utf-8")


def test_the_page_shows_the_paired_tests_and_what_stopped_at_the_epoch_limit(run):
    outcome = distill(run("teacher.train.epochs=40", "teacher.train.patience=1", "teacher.train.lr=0.05"))
    html, card = outcome.page.read_text(encoding="utf-8"), outcome.comparison.cards["teacher"]
    test, p = outcome.comparison.tests["ndcg@10"]["rrd"], outcome.comparison.corrected["ndcg@10"]["rrd"]
    assert f"<td>{test.wins}</td><td>{test.losses}</td><td>{p:.4f}</td>" in html
    assert ("not significant here" in html) == (p > 0.05)
    assert card.training.epochs is not None
    assert card.training.epochs < 40
    assert html.count("3 epochs; stopped at the epoch limit") == html.count("epoch limit") == 2  # both students


def test_waiting_in_vain_up_to_the_last_epoch_is_no_limit():
    curve = Curve([1, 2, 3, 4], [1, 2, 3, 4], {}, [2, 4], {}, {"ndcg@10": 2})
    assert at_limit(curve, TrainSettings(epochs=4, patience=2))
    assert not at_limit(curve, TrainSettings(epochs=4, patience=1))
    assert not at_limit(curve, TrainSettings(epochs=5, patience=2))
    assert not at_limit(None, TrainSettings(epochs=4))


def test_a_finished_run_is_not_repeated(run):
    first = distill(run())
    before = first.page.read_bytes()
    heard = Heard()
    again = distill(run(), listener=heard)
    assert heard.trained == []
    assert again.page.read_bytes() == before


def test_a_changed_setting_repeats_only_what_depends_on_it(run):
    distill(run())
    heard = Heard()
    distill(run("method.weight=0.1"), overwrite=True, listener=heard)
    assert "plain" not in heard.trained
    assert "rrd" in heard.trained


def test_a_run_killed_between_stages_goes_on_and_ends_the_same(run, monkeypatch, tmp_path):
    whole = distill(run(f"output.dir='{tmp_path / 'whole'}'"))
    real = lessons_module.distill

    def killed(teacher, *words, **more):
        if teacher is not None:
            raise KeyboardInterrupt
        return real(teacher, *words, **more)

    monkeypatch.setattr(lessons_module, "distill", killed)
    with pytest.raises(KeyboardInterrupt):
        distill(run())
    monkeypatch.undo()
    heard = Heard()
    resumed = distill(run(), listener=heard)
    assert "plain" not in heard.trained
    for name, found in whole.comparison.evaluations.items():
        assert resumed.comparison.evaluations[name].to_json() == found.to_json()


def test_the_baseline_can_be_switched_off(run):
    outcome = distill(run("student.baseline=false"))
    assert list(outcome.comparison.cards) == ["teacher", "rrd"]
    assert outcome.comparison.tests == {}


def test_a_teacher_from_lists(run, tmp_path):
    first = distill(run())
    from recdistill.serve.service import Service

    lists = tmp_path / "lists.parquet"
    Service.from_bundle(first.bundle.with_name("teacher")).recommend_all(lists, 100, filter_seen=False)
    heard = Heard()
    settings = run(f"output.dir='{tmp_path / 'lists'}'")
    table = settings.model_dump(mode="json", exclude_none=True)
    table["teacher"] = {"lists": str(lists)}
    outcome = distill(parse(RunSettings, table), listener=heard)
    assert heard.trained == ["plain", "rrd"]
    # its lists leave out the training items, as the live teacher's do, so at the first ten places the two agree
    live, filed = (o.comparison.evaluations["teacher"].means["ndcg@10"] for o in (first, outcome))
    assert filed == pytest.approx(live, abs=1e-9)
    assert any("knows" in said for said in heard.said)


def test_a_teacher_of_several_members_is_trained_once_and_measured(run, tmp_path):
    first = distill(run())
    table = run().model_dump(mode="json", exclude_none=True)
    table["output"] = {"dir": str(tmp_path / "several")}
    members = [{"model": "mf", "dim": 8}, {"bundle": str(first.bundle.with_name("teacher")), "weight": 2.0}]
    table["teacher"] = {"members": members, "combine": {"by": "scores"}}
    heard = Heard()
    outcome = distill(parse(RunSettings, table), listener=heard)
    assert heard.trained == ["teacher-1", "plain", "rrd"]
    assert outcome.comparison.cards["teacher"].model == "mf + bundle"
    assert any(said.startswith("Member 2 of the teacher: ") for said in heard.said)
    again = Heard()
    assert distill(parse(RunSettings, table), listener=again).comparison.to_json() == outcome.comparison.to_json()
    assert "plain" not in again.trained


@pytest.mark.parametrize(
    ("assign", "said"),
    [
        (["method={name='adarec'}"], "cannot give states"),
        (["method.near=500"], "RRD needs 1 <= near <= reach <= depth; got 'near=500, reach=20, depth=30'"),
        (["method={name='sum', parts={rrd={}, bd={}}}"], "bd"),
        (["student={model='lightgcn', dim=3}", "method={name='fitnet', layer=9}"], "no such layer of vectors; got 9"),
        (["method={name='fitnet', layer=5}"], "The matrix factorisation has no such layer of vectors; got 5"),
        (["method={name='fitnet', teacher_layer=1}"], "The matrix factorisation has no such layer of vectors; got 1"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_the_teacher_is_trained(run, assign, said):
    heard = Heard()
    with pytest.raises(UsageError) as caught:
        distill(run(*assign), listener=heard)
    assert said in str(caught.value)
    assert heard.trained == []
    assert not (run().output.dir / "work" / "settings.json").exists(), "the folder is taken by what was refused"


def test_a_training_that_cannot_be_is_refused_before_the_teacher_is_trained(run):
    heard = Heard()
    table = run("method={name='adarec'}").model_dump(mode="json", exclude_none=True)
    table["train"]["precision"], table["teacher"]["train"] = "bfloat16", {"precision": "float32"}
    with pytest.raises(UsageError, match="A 'mf' is not trained in that precision"):
        distill(parse(RunSettings, table), listener=heard)
    assert heard.trained == []


def test_members_that_cannot_be_combined_are_refused_before_one_of_them_is_trained(run, tmp_path):
    lists, heard = tmp_path / "lists.parquet", Heard()
    pl.DataFrame({"user_id": ["u0"], "item_id": ["i0"], "rank": [1]}).write_parquet(lists)
    table = run().model_dump(mode="json", exclude_none=True)
    table["teacher"] = {"members": [{"model": "mf"}, {"lists": str(lists)}], "combine": {"by": "scores"}}
    with pytest.raises(UsageError, match=r"asks ranks and scores of every member.*member 2 \(scores\)"):
        distill(parse(RunSettings, table), listener=heard)
    assert heard.trained == []


def test_a_finished_run_is_not_rehearsed(run, monkeypatch):
    distill(run())
    monkeypatch.setattr(distill_module, "stand_in", lambda _: pytest.fail("rehearsed"))
    distill(run())


def test_a_teacher_from_a_bundle_measures_as_the_live_one(run, tmp_path):
    first = distill(run())
    table = run(f"output.dir='{tmp_path / 'filed'}'").model_dump(mode="json", exclude_none=True)
    table["teacher"] = {"bundle": str(first.bundle.with_name("teacher"))}
    heard = Heard()
    outcome = distill(parse(RunSettings, table), listener=heard)
    live, filed = (o.comparison.evaluations["teacher"].means for o in (first, outcome))
    assert filed == pytest.approx(live)
    assert not any("Warning" in said for said in heard.said)


def test_a_teacher_bundle_of_another_split_that_knows_test_items_is_told_of(run, tmp_path):
    first = distill(run("train.epochs=1"))
    table = run("train.epochs=1", f"output.dir='{tmp_path / 'other'}'").model_dump(mode="json", exclude_none=True)
    table["teacher"] = {"bundle": str(first.bundle.with_name("teacher"))}
    table["data"] |= {"split": "leave-random-out", "seed": 3}
    heard = Heard()
    distill(parse(RunSettings, table), listener=heard)
    (told,) = [said for said in heard.said if said.startswith("Warning")]
    found = re.match(r"Warning: the teacher's bundle was trained on (\d+) of the 60 test targets", told)
    assert found is not None
    log = read(table["data"]["path"], echo=None)
    old, new = split(log, "leave-last-out"), split(log, "leave-random-out", seed=3)
    theirs, ours, targets = (pairs(part) for part in (old.train.csr(), new.train.csr(), new.test.targets))
    assert int(found[1]) == len(targets & theirs - ours)


def pairs(rows):
    return {(u, int(i)) for u in range(rows.n_rows) for i in rows.indices[rows.indptr[u] : rows.indptr[u + 1]]}


def test_filters_that_leave_nothing_are_an_error(run):
    with pytest.raises(DataError, match="Nothing is left of the log after the filter: k-core"):
        distill(run("data.k_core=1000"))


def test_a_sampled_protocol_is_drawn_once_and_kept(run, tmp_path):
    outcome = distill(run("evaluate.protocol=sampled(20)", "train.protocol=sampled(20)"))
    assert outcome.comparison.evaluations["rrd"].protocol == "sampled(20)"
    assert len(list((tmp_path / "out/work").glob("candidates-20-*.npz"))) == 1


def test_results_are_json_without_nan(run):
    distill(run())
    outcome = distill(run())
    content = json.loads((outcome.page.parent / "results.json").read_text(encoding="utf-8"))
    assert content["baseline"] == "plain"
    assert content["tests"]["ndcg@10"]["rrd"]["p_corrected"] <= 1


def test_a_shipped_bundle_leaves_out_all_its_users_have_and_its_folder_stays_its_own(run):
    from recdistill import bundle
    from recdistill.recipes.evaluate import evaluate_bundle
    from recdistill.recipes.listener import Silent
    from recdistill.recipes.study import load_log

    settings = run("method={name='plain'}", "teacher={}")
    outcome = distill(settings)
    log = load_log(settings.data, Silent())
    opened = bundle.open(outcome.bundle, verify="full")
    assert np.array_equal(opened.seen.keys, log.csr().keys)
    assert len(opened.trained) < len(opened.seen)
    heard = Heard()
    evaluate_bundle(outcome.bundle, settings.data.path, latency=False, listener=heard)  # and yet no false alarm
    assert not [said for said in heard.said if said.startswith("Warning")]
    again = run("method={name='plain'}", "teacher={}", "train.epochs=1")
    with pytest.raises(UsageError, match="holds a run with other settings"):
        distill(again)
    assert distill(again, overwrite=True).bundle == outcome.bundle
