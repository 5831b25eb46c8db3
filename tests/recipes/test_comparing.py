"""A whole comparison: alone, with helpers, killed and gone on with, and a changed method alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import polars as pl
import pytest

import recdistill.recipes.contest as contest_module
import recdistill.recipes.lessons as lessons_module
import recdistill.recipes.workers as workers_module
from recdistill.cli.train import compare as command
from recdistill.data.synthetic import planted
from recdistill.errors import SettingsError, TrainingError, UnknownName, UsageError
from recdistill.methods import METHODS
from recdistill.methods.source import code_of
from recdistill.recipes.comparing import compare_methods
from recdistill.recipes.runfile import RunSettings
from recdistill.settings import overlay, parse


@pytest.fixture(scope="module")
def log_file(tmp_path_factory):
    log = planted(users=60, items=80, interactions=1200, dim=4, seed=1)
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    columns = {"user_id": log.users.external(log.user), "item_id": log.items.external(log.item)}
    rows = {name: list(column) for name, column in columns.items()} | {"timestamp": log.timestamp}
    pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.fixture
def run(log_file, tmp_path):
    def settings(folder="out", *assign):
        table = {
            "data": {"path": str(log_file)},
            "teacher": {"model": "mf", "dim": 8},
            "student": {"model": "mf", "dim": 3},
            "method": {"name": "rrd", "near": 10, "far": 10, "reach": 20, "depth": 30},
            "train": {"epochs": 2, "lr": 0.01, "device": "cpu"},
            "output": {"dir": str(tmp_path / folder)},
        }
        return parse(RunSettings, overlay(table, assign))

    return settings


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(contest_module, "_TIMED", 0.01)


class Heard:
    def __init__(self):
        self.said, self.stages = [], []

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


def figures(path):
    """What a comparison found, without seconds and milliseconds."""
    found = json.loads((path / "compare.json").read_text(encoding="utf-8"))
    trials = [[(t["values"], t["metric"]) for t in search["trials"]] for search in found["tuned"]]
    return found["rows"], found["segments"], found["best"], trials


def test_methods_sizes_and_seeds_in_one_table_tuned_alike(run, tmp_path):
    heard = Heard()
    found = compare_methods(
        run(), methods=["plain", "rrd"], seeds=2, sizes=[3, 5], trials=2, text="# the run file", listener=heard
    )
    assert list(found.rows["ndcg@10"]) == ["teacher", "plain 3", "rrd 3", "plain 5", "rrd 5"]
    assert found.baselines["rrd 5"] == "plain 5"
    assert [len(search["trials"]) for search in found.tuned] == [2, 2]
    assert {search["student"]["dim"] for search in found.tuned} == {3}
    assert sum("trial" in name for name in heard.trained) == 4, (
        "the winner of the first size and seed is used elsewhere"
    )
    assert sum(name == "teacher" for name in heard.trained) == 2
    assert "used for every other size and seed" in found.notes[0]
    assert set(found.segments) == {"cold users", "warm users", "head items", "tail items"}
    assert found.segments["cold users"].users + found.segments["warm users"].users == found.users
    assert found.costs["rrd 5"].parameters == (60 + 80) * 5
    assert found.costs["rrd 5"].latency.p50_ms > 0
    assert found.notes.count("The teacher was not tuned: it is trained as the run file says.") == 1
    assert 0 < found.costs["rrd 3"].overlap < 1
    assert found.costs["rrd 3"].tuning > 0
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    for said in ("rrd 5", "Every trial", "train.weight_decay", "cold users", "# the run file", "@inproceedings"):
        assert said in page
    assert "http" not in page.split("<main>")[1].split("Cite the methods")[0], "it loads nothing from anywhere"
    assert "| rrd 5 |" in (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")


def test_every_size_and_seed_is_tuned_for_itself_when_asked(run):
    found = compare_methods(run(), methods=["plain"], seeds=2, sizes=[3, 5], trials=1, tune_each=True)
    assert [(s["student"]["dim"], s["seed"]) for s in found.tuned] == [(3, 7), (5, 7), (3, 8), (5, 8)]


def test_what_is_compared_by_default_is_what_the_page_says():
    default = signature(command).parameters["methods"].default
    page = Path(__file__).parents[2] / "docs" / "compare.md"
    assert f"| `--methods` | `{default}` |" in page.read_text(encoding="utf-8")
    assert default.split(",")[0] == "plain"
    assert set(default.split(",")) <= set(METHODS)


def test_latency_that_is_not_asked_for_is_not_measured_and_has_no_column(run, tmp_path, monkeypatch):
    monkeypatch.setattr(contest_module, "measure", lambda *_, **__: pytest.fail("measured"))
    found = compare_methods(run("out", "evaluate.latency=false"), methods=["plain", "rrd"], trials=0)
    assert {cost.latency for cost in found.costs.values()} == {None}
    assert "p50" not in (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")


def test_a_plain_student_above_an_untaught_teacher_is_warned_of(run, tmp_path):
    found = compare_methods(run("out", "teacher.train.epochs=0", "train.epochs=6"), methods=["plain", "rrd"], trials=0)
    (said,) = [note for note in found.notes if note.startswith("Warning: plain (0.")]
    assert "in ndcg@10: what is kept of so weak a teacher says little. Tune it first" in said
    assert said in (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")


def test_members_that_cannot_be_combined_are_refused_before_one_of_them_is_trained(run, tmp_path):
    lists, heard = tmp_path / "lists.parquet", Heard()
    pl.DataFrame({"user_id": ["u0"], "item_id": ["i0"], "rank": [1]}).write_parquet(lists)
    table = run().model_dump(mode="json", exclude_none=True)
    table["teacher"] = {"members": [{"model": "mf"}, {"lists": str(lists)}], "combine": {"by": "scores"}}
    with pytest.raises(UsageError, match=r"asks ranks and scores of every member.*member 2 \(scores\)"):
        compare_methods(parse(RunSettings, table), methods=["plain", "rrd"], listener=heard)
    assert heard.trained == []


def test_nothing_is_tuned_without_trials(run):
    found = compare_methods(run(), methods=["plain", "rrd"], trials=0)
    assert found.tuned == ()
    assert found.notes[0].startswith("Nothing was tuned: rrd has the settings of the run file")
    assert list(found.rows["ndcg@10"]) == ["teacher", "plain", "rrd"]


def test_what_is_finished_is_read_and_a_changed_method_is_done_again_alone(run, tmp_path, monkeypatch):
    asked = {"methods": ["plain", "fitnet"], "trials": 1}
    compare_methods(run(), **asked)
    before, heard = figures(tmp_path / "out"), Heard()
    compare_methods(run(), **asked, listener=heard)
    assert heard.trained == []
    assert "5 pieces of work, 5 of them finished before" in heard.said
    assert figures(tmp_path / "out") == before

    def changed(*names):
        return "changed" if "fitnet" in names else code_of(*names)

    monkeypatch.setattr("recdistill.recipes.contest.code_of", changed)
    monkeypatch.setattr("recdistill.recipes.trials.code_of", changed)
    heard = Heard()
    compare_methods(run(), **asked, listener=heard)
    assert heard.trained == ["teacher", "fitnet-mf3-trial0", "fitnet-mf3-tuned"], "the teacher from its checkpoint"


def test_a_student_that_fails_is_said_and_the_others_are_compared(run, monkeypatch):
    real = lessons_module.distill

    def diverging(teacher, model, *words, **more):
        if more["method"] == "fitnet":
            raise TrainingError("The loss 'fit' is not finite")
        return real(teacher, model, *words, **more)

    monkeypatch.setattr(lessons_module, "distill", diverging)
    found = compare_methods(run(), methods=["plain", "fitnet"], trials=1)
    assert found.failed == {"fitnet": "seed 7: The loss 'fit' is not finite"}
    assert list(found.rows["ndcg@10"]) == ["teacher", "plain"]
    with pytest.raises(UsageError, match="No student could be trained: fitnet"):
        compare_methods(run(), methods=["fitnet"], trials=1)


def test_helpers_come_to_the_same_and_one_that_is_killed_loses_nothing(run, tmp_path, monkeypatch):
    asked = {"methods": ["plain", "fitnet"], "trials": 2}
    compare_methods(run("alone"), **asked)
    real, helpers = workers_module.Crew._start, []

    def start(self, *words):
        helpers.append(real(self, *words))
        if len(helpers) == 1:
            os.kill(helpers[0].pid, signal.SIGKILL)
        return helpers[-1]

    monkeypatch.setattr(workers_module.Crew, "_start", start)
    heard = Heard()
    found = compare_methods(run("helped"), **asked, jobs=2, listener=heard)
    assert figures(tmp_path / "helped") == figures(tmp_path / "alone")
    assert any(text.startswith("Helper 1 died (signal 9); the others go on") for text in heard.said)
    assert len(helpers) == 3, "another took its place"
    assert heard.trained == [], "helpers did it all"
    assert any("2 processes trained at once" in note for note in found.notes)


def test_a_comparison_killed_anywhere_goes_on_and_ends_the_same(run, tmp_path):
    asked = {"methods": ["plain", "fitnet"], "trials": 2}
    compare_methods(run("whole"), **asked)
    file = tmp_path / "plan.json"
    file.write_text(run("killed").model_dump_json(exclude_none=True), encoding="utf-8")
    code = (
        "import json, pathlib, sys\n"
        "from recdistill.recipes.comparing import compare_methods\n"
        "from recdistill.recipes.runfile import RunSettings\n"
        "from recdistill.settings import parse\n"
        f"run = parse(RunSettings, json.loads(pathlib.Path({str(file)!r}).read_text()))\n"
        "compare_methods(run, methods=['plain', 'fitnet'], trials=2)\n"
    )
    work = tmp_path / "killed" / "work"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 120
        while not list(work.glob("plain-mf3-trial0-*.json")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed" / "compare.json").exists()
    heard = Heard()
    compare_methods(run("killed"), **asked, listener=heard)
    assert "plain-mf3-trial0" not in heard.trained
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"methods": []}, UsageError, "There is no method to compare"),
        ({"methods": ["plian"]}, UnknownName, r"Did you mean 'plain'\?"),
        ({"methods": ["plain"], "seeds": 0}, UsageError, "--seeds must be at least 1; got 0"),
        ({"methods": ["plain"], "trials": -1}, UsageError, "--trials must be at least 0; got -1"),
        ({"methods": ["plain"], "sizes": [0]}, SettingsError, "'student.dim' must be a whole number"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(run, asked, error, said):
    heard = Heard()
    with pytest.raises(error, match=said):
        compare_methods(run(), **asked, listener=heard)
    assert heard.stages == []


def test_a_teacher_of_lists_is_refused_for_methods_that_ask_for_more(run, tmp_path):
    lists = tmp_path / "lists.parquet"
    pl.DataFrame({"user_id": ["u0"], "item_id": ["i0"], "rank": [1]}).write_parquet(lists)
    table = run().model_dump(mode="json", exclude_none=True) | {"teacher": {"lists": str(lists)}}
    with pytest.raises(SettingsError, match="cannot give vectors, which the method 'fitnet' asks for"):
        compare_methods(parse(RunSettings, table), methods=["plain", "rrd", "fitnet"])


def test_what_lists_without_scores_cannot_teach_is_refused_at_once_and_before_anything_is_trained(run, tmp_path):
    lists, heard = tmp_path / "lists.parquet", Heard()
    users = [f"u{n}" for n in range(60)]
    pl.DataFrame({"user_id": users, "item_id": ["i0"] * 60, "rank": [1] * 60}).write_parquet(lists)
    table = run().model_dump(mode="json", exclude_none=True) | {"teacher": {"lists": str(lists)}}
    said = r"'cd', 'rce-kd': The teacher \(ranks\) cannot give scores. Leave out cd, rce-kd; .* serve dcd"
    with pytest.raises(UsageError, match=said):
        compare_methods(parse(RunSettings, table), methods=["plain", "cd", "rce-kd"], listener=heard)
    assert heard.trained == []


def test_without_validation_data_nothing_is_tuned_and_the_choice_of_the_best_is_said_to_be_on_test(run, tmp_path):
    assign, heard = ("data.split=ratio", "data.valid=0.0"), Heard()
    with pytest.raises(UsageError, match=r"there are none. Hold some out: .*; or tune nothing: --trials 0"):
        compare_methods(run("tuned", *assign), methods=["plain", "rrd"], trials=1, listener=heard)
    assert heard.trained == []
    found = compare_methods(run("out", *assign), methods=["plain", "rrd"], trials=0)
    assert found.judged == "test"
    page = (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")
    assert "There are no validation data: the best student is chosen on test data" in page
    assert f"{found.best} is the student that is best on test ndcg@10." in page


def test_a_method_for_other_models_is_refused_before_anything_is_trained(run):
    heard = Heard()
    with pytest.raises(UsageError, match=r"Not everything can be taught: 'adarec': .* Leave out adarec; this teacher"):
        compare_methods(run(), methods=["plain", "rrd", "adarec"], listener=heard)
    assert heard.trained == []


def test_a_method_that_teaches_some_of_the_students_may_stay_without_the_others(run):
    table, heard = run().model_dump(mode="json", exclude_none=True), Heard()
    table |= {"teacher": {"model": "sasrec", "dim": 8}, "students": [{"model": "sasrec", "dim": 4}]}
    with pytest.raises(UsageError, match=r"Leave out adarec or else the student mf 3; this teacher"):
        compare_methods(parse(RunSettings, table), methods=["plain", "adarec"], listener=heard)
    assert heard.trained == []


def test_a_training_that_cannot_be_is_refused_before_the_teacher_is_trained(run):
    table, heard = run().model_dump(mode="json", exclude_none=True), Heard()
    table["students"] = [{"model": "sasrec", "dim": 4}]
    table["train"]["precision"], table["teacher"]["train"] = "bfloat16", {"precision": "float32"}
    with pytest.raises(UsageError, match=r"'plain mf 3', 'rrd mf 3': A 'mf' is not trained in that precision"):
        compare_methods(parse(RunSettings, table), methods=["plain", "rrd"], listener=heard)
    assert heard.trained == []


@pytest.mark.parametrize("name", ["rrd-x", "../x", "a b", "x" * 41])
def test_a_name_that_could_be_another_file_is_refused(run, name):
    table = run().model_dump(mode="json", exclude_none=True)
    table["students"] = [{"model": "mf", "dim": 3, "name": name}]  # de's "rrd-x" would be de-rrd's "x"
    with pytest.raises(SettingsError, match=r"'students\[0\].name' must be"):
        parse(RunSettings, table)


def test_what_an_ensemble_never_has_is_said_before_its_members_are_trained(run):
    table, heard = run().model_dump(mode="json", exclude_none=True), Heard()
    members = [{"model": "mf", "dim": 8}, {"model": "lightgcn", "dim": 8}]
    table["teacher"] = {"members": members, "combine": {"by": "scores"}}
    asked = {"methods": ["plain", "rd", "rce-kd"], "trials": 0}
    with pytest.raises(SettingsError, match="cannot give vectors, which the method 'fitnet' asks for"):
        compare_methods(parse(RunSettings, table), methods=["plain", "fitnet"], listener=heard)
    assert heard.trained == []
    found = compare_methods(parse(RunSettings, table), **asked, listener=heard)
    assert list(found.rows["ndcg@10"]) == ["teacher", "plain", "rd", "rce-kd"]
    assert heard.trained[:2] == ["teacher-1", "teacher-2"]


def test_students_of_several_models_each_beside_its_own_plain_one_and_tuned_for_itself(run, tmp_path):
    table = run().model_dump(mode="json", exclude_none=True)
    table["students"] = [{"model": "lightgcn", "dim": 4, "layers": 1}, {"model": "mf", "dim": 3, "name": "other"}]
    found = compare_methods(parse(RunSettings, table), methods=["plain", "rrd"], trials=1)
    students = ["mf 3", "lightgcn 4", "other 3"]
    assert list(found.rows["ndcg@10"]) == ["teacher", *(f"{m} {s}" for s in students for m in ("plain", "rrd"))]
    assert found.baselines["rrd lightgcn 4"] == "plain lightgcn 4"
    assert [search["student"]["model"] for search in found.tuned] == ["mf", "mf", "lightgcn", "lightgcn", "mf", "mf"]
    assert found.costs["plain lightgcn 4"].parameters == (60 + 80) * 4
    assert "each student for itself" in found.notes[0]
    assert (tmp_path / "out" / "bundles" / "rrd-other-3-tuned").is_dir()
    wider = compare_methods(parse(RunSettings, table), methods=["plain"], sizes=[3, 5], trials=1)
    assert list(wider.rows["ndcg@10"])[1:] == [f"plain {m} {d}" for m in ("mf", "lightgcn", "other") for d in (3, 5)]
    assert len(wider.tuned) == 3


def test_two_students_of_one_name_are_refused_before_anything_is_read(run):
    table, heard = run().model_dump(mode="json", exclude_none=True), Heard()
    table["students"] = [{"model": "mf", "dim": 3}]
    with pytest.raises(UsageError, match=r"are called; got 'mf 3'. Give one of them a name"):
        compare_methods(parse(RunSettings, table), methods=["plain"], listener=heard)
    table["students"] = [{"model": "mf", "dim": -3}]
    with pytest.raises(SettingsError, match=r"'students.0.dim'"):
        compare_methods(parse(RunSettings, table), methods=["plain"], listener=heard)
    assert heard.stages == []


def test_a_helper_ends_with_one_message_where_the_user_can_mend_it(tmp_path):
    plan = tmp_path / "plan.json"
    terms = {"methods": ["plain"], "seeds": [7], "sizes": [], "trials": 0, "tune_each": False}
    run = {
        "data": {"path": str(tmp_path / "nowhere.csv")},
        "student": {"model": "mf"},
        "method": {"name": "plain"},
        "output": {"dir": str(tmp_path / "out")},
    }
    Path(plan).write_text(json.dumps({"run": run, "what": "Terms", "terms": terms}), encoding="utf-8")
    command = [sys.executable, "-m", "recdistill.recipes.workers", str(plan)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "error: " in ended.stderr
    assert "Traceback" not in ended.stderr
