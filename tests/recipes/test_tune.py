"""Tuning under a budget: what fits is known before training, the best is chosen on validation data and made again."""

from __future__ import annotations

import io
import json
import re
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recdistill.recipes.lessons as lessons_module
import recdistill.recipes.tune as tune_module
import recdistill.recipes.weighing as weighing_module
from recdistill.data.synthetic import planted
from recdistill.errors import DataError, TrainingError, UnknownName, UsageError
from recdistill.evaluation.card import bytes_on_disk
from recdistill.recipes.distill import distill
from recdistill.recipes.listener import Silent
from recdistill.recipes.runfile import RunSettings, read, resolve
from recdistill.recipes.study import Study, load_log
from recdistill.recipes.tune import METHODS_TRIED, able, tune
from recdistill.recipes.weighing import MANIFEST, Scales, ladder
from recdistill.search.budget import Budget
from recdistill.settings import overlay, parse


@pytest.fixture(scope="module")
def log_file(tmp_path_factory):
    log = planted(users=60, items=50, interactions=900, dim=4, seed=1)
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    columns = {"user_id": log.users.external(log.user), "item_id": log.items.external(log.item)}
    frame = pl.DataFrame({name: list(column) for name, column in columns.items()} | {"timestamp": log.timestamp})
    frame.write_parquet(path)
    return path


@pytest.fixture
def run(log_file, tmp_path):
    def settings(*assign):
        table = {
            "data": {"path": str(log_file)},
            "teacher": {"model": "mf", "dim": 12, "train": {"epochs": 4}},
            "student": {"model": "mf", "dim": 3},
            "method": {"name": "rrd", "near": 8, "far": 8, "reach": 16, "depth": 20},
            "train": {"epochs": 2, "lr": 0.01, "device": "cpu", "batch": 256},
            "evaluate": {"latency": False},
            "output": {"dir": str(tmp_path / "out")},
        }
        return parse(RunSettings, overlay(table, assign))

    return settings


def study(settings):
    return Study(settings, resolve(settings), load_log(settings.data, Silent()), Silent(), settings.train.seed)


def scales(settings, *, timed=False):
    of = study(settings)
    return Scales(of, settings.student.model, {k: v for k, v in of.plan.student if k != "dim"}, timed=timed)


@pytest.fixture
def trained(monkeypatch):
    """The students that were trained, by method and width, in order; `stop` after so many raises."""
    real, calls, stop = lessons_module.distill, [], []

    def train(teacher, model, *words, **more):
        if stop and len(calls) == stop[0]:
            raise KeyboardInterrupt
        calls.append((more["method"], more["model_settings"]["dim"]))
        return real(teacher, model, *words, **more)

    monkeypatch.setattr(lessons_module, "distill", train)
    train.calls, train.stop = calls, stop
    return train


FEW = {"methods": ["rrd", "ftd"], "trials": 4, "sizes": [6, 3]}
ROOM = Budget("bytes", 1e6)


# what a student costs


@pytest.mark.parametrize("model", ["mf", "neumf", "lightgcn"])
def test_the_bytes_of_a_bundle_are_known_before_training(run, model):
    settings = run(f"student.model={model}", "student.dim=5")
    found = distill(settings)
    actual = bytes_on_disk(found.bundle)
    predicted = scales(run(f"student.model={model}")).cost(5).bytes
    assert actual <= predicted <= actual + MANIFEST + 100
    assert found.comparison.cards["rrd"].parameters == scales(run(f"student.model={model}")).cost(5).parameters


def test_the_bytes_of_a_sequential_bundle_are_known_before_training(run):
    settings = run("student.model=gru4rec", "student.dim=6", "method={name='plain'}", "teacher={}")
    actual = bytes_on_disk(distill(settings).bundle)
    assert actual <= scales(settings).cost(6).bytes <= actual + MANIFEST + 200


def test_the_widest_student_that_keeps_the_budget_heads_the_ladder(run):
    of = scales(run())
    most = of.predicted(8)
    found = ladder(of, Budget("bytes", most))
    assert [cost.dim for cost in found] == [8, 5, 4, 2]  # 8, and 0.7, 0.5, 0.35 and 0.25 of it, rounded down
    assert found[0].bytes <= most < of.predicted(9)
    assert [cost.dim for cost in ladder(of, Budget("bytes", most + 1e9), widest=3)] == [3, 2, 1]
    assert ladder(of, Budget("params", 330))[0].dim == 3  # 60 users and 50 items


def test_widths_that_the_model_cannot_have_are_left_out(run, monkeypatch):
    monkeypatch.setattr(weighing_module, "weighed", lambda bench, student: 1000)  # nothing is exported
    of = scales(run("student.model=sasrec", "student.dim=8", "student.heads=2", "method={name='plain'}", "teacher={}"))
    assert not of.possible(7)
    assert {cost.dim % 2 for cost in ladder(of, Budget("params", 50 * 9))} == {0}


def test_a_sequential_student_steps_down_for_what_it_reads_histories_with(run, monkeypatch):
    of = scales(run("student.model=gru4rec", "student.dim=8", "method={name='plain'}", "teacher={}"))
    monkeypatch.setattr(weighing_module, "weighed", lambda bench, student: 500 * student.model.dim + 1000)
    assert ladder(of, Budget("bytes", 500 * 20 + 1000 + MANIFEST))[0].dim == 20
    assert of.predicted(22) <= 500 * 20 + 1000 + MANIFEST < of.cost(21).bytes


def test_latency_is_asked_of_an_untrained_student_once(run, monkeypatch):
    asked = []

    class Taken:
        p50_ms = 0.25

    def measure(ranker, **more):
        asked.append(ranker.n_items)
        return Taken()

    monkeypatch.setattr(weighing_module, "measure", measure)
    of = scales(run(), timed=True)
    assert of.cost(4).p50_ms == 0.25
    assert scales(run(), timed=True).cost(4) == of.cost(4)
    assert asked == [50]
    with pytest.raises(UsageError) as caught:
        ladder(of, Budget.parse("latency=0.2ms"))
    assert str(caught.value) == (
        "No mf student keeps the budget of 0.20 ms: the smallest, of 1 dims, takes 0.25 ms. Give at least "
        "latency=0.28ms, or fewer items: data.k_core; `recdistill export` has an approximate search."
    )


def test_a_budget_that_nothing_keeps_names_the_smallest_students_bytes_and_what_they_are(run, trained):
    with pytest.raises(UsageError) as caught:
        tune(run(), Budget.parse("bytes=2kB"))
    of = scales(run())
    least = of.cost(1).bytes
    said = str(caught.value)
    assert said.startswith("No mf student keeps the budget of 2.0 kB: the smallest, of 1 dims, takes ")
    assert "are ids, what users have seen and the manifest. Give at least bytes=" in said
    enough = Budget.parse(said.partition("at least ")[2].partition(",")[0])
    assert enough.most == least
    assert ladder(of, enough)[0].dim == 1
    with pytest.raises(UsageError, match="No mf student keeps the budget of 10 parameters"):
        tune(run(), Budget.parse("10params"), sizes=[4, 2])
    assert trained.calls == []


# the whole


def test_the_best_on_validation_data_is_shipped_within_the_budget_and_measured_beside_the_plain_one(run, trained):
    most = scales(run()).predicted(6)
    found = tune(run(), Budget("bytes", most), methods=["rrd", "ftd", "de"], trials=6)
    tried = {(each.method, each.cost.dim): each for each in found.found.tried}
    widths = sorted({dim for _, dim in tried}, reverse=True)
    assert widths == [6, 4, 3, 2, 1]
    top = max(each.worth for each in tried.values())
    best = found.found.best
    assert best.worth == top
    assert found.found.rounds == (("rrd", "ftd", "de"), found.found.rounds[1])
    assert len(found.found.rounds[1]) == 2
    finalists = {method for method, dim in tried if dim == 4} - {"plain"}
    assert finalists == set(found.found.rounds[1])
    for method in finalists:
        assert len(tried["plain", 6].tuned.trials) == len(tried[method, 6].tuned.trials) == 2
    assert all(len(each.tuned.trials) == 1 for (_, dim), each in tried.items() if dim < 6)
    cards = found.comparison.cards
    assert list(cards) == ["teacher", "plain", "best"]
    assert cards["best"].bytes == bytes_on_disk(found.bundle) <= most
    assert cards["best"].metrics[0].values["ndcg@10"].mean == pytest.approx(top, abs=5e-5)  # training rounds
    assert cards["plain"].model == cards["best"].model
    assert best.best.low <= best.worth <= best.best.high
    assert "test" not in json.dumps([each.tuned.as_json() for each in tried.values()])
    assert len(trained.calls) == 6 + 2 + 3 * 4 - 1 + 2  # trials, plain's, three at each smaller width, the last two


def test_a_bundle_that_its_own_manifest_makes_too_large_is_not_chosen(run, monkeypatch):
    asked = []

    def weighed(bench, student):
        asked.append(student.model.dim)
        return 2e6 if student.model.dim == 6 else 1000

    monkeypatch.setattr(tune_module, "weighed", weighed)
    found = tune(run(), ROOM, **FEW).found
    assert max(found.tried, key=lambda each: each.worth).cost.dim == asked[0] == 6
    assert found.best.cost.dim == asked[-1] == 3
    assert asked == sorted(asked, reverse=True), "the best on validation data first"


def test_the_front_is_what_nothing_as_cheap_beats(run):
    found = tune(run(), ROOM, **FEW).found
    places = [(each.cost.bytes, each.worth) for each in found.tried]
    for each in found.tried:
        beaten = any(cost <= each.cost.bytes and worth > each.worth for cost, worth in places)
        assert (each in found.front) != beaten or any(other.worth == each.worth for other in found.front)
    assert [each.cost.bytes for each in found.front] == sorted(each.cost.bytes for each in found.front)
    assert found.best is found.front[-1]


def test_the_run_file_that_is_written_makes_the_best_student_again(run, tmp_path):
    found = tune(run(), ROOM, **FEW)
    again = read(found.run_file)
    assert tomllib.loads(found.run_file.read_text(encoding="utf-8"))["student"]["dim"] == found.found.best.cost.dim
    outcome = distill(again.model_copy(update={"output": again.output.model_copy(update={"dir": tmp_path / "again"})}))
    one, other = outcome.comparison.cards, found.comparison.cards
    assert one[found.found.best.method].metrics == other["best"].metrics
    assert one["teacher"].metrics == other["teacher"].metrics, "its training is not that of the tuned student"


def test_a_finished_tuning_is_read_and_a_stopped_one_goes_on(run, trained):
    trained.stop.append(5)
    with pytest.raises(KeyboardInterrupt):
        tune(run(), ROOM, **FEW)
    trained.stop.clear()
    first = tune(run(), ROOM, **FEW)
    whole = list(trained.calls)
    second = tune(run(), ROOM, **FEW)
    assert trained.calls == whole
    assert len(whole) == 4 + 2 + 3 + len(set(first.comparison.cards) - {"teacher"})
    assert second.found.as_json() == first.found.as_json()
    assert second.comparison.cards == first.comparison.cards
    tune(run(), ROOM, methods=["rrd", "ftd"], trials=6, sizes=[6, 3])
    more = trained.calls[len(whole) :]
    assert len([call for call in more if call[1] == 6]) <= 3 + 2, "only the third trials are new, and what is shipped"


def test_helpers_find_what_one_process_finds(run, tmp_path):
    few = {"methods": ["rrd", "ftd"], "trials": 2, "sizes": [3]}
    alone = tune(run(), ROOM, **few)
    beside = tune(run(f"output.dir={tmp_path / 'helped'}"), ROOM, jobs=2, **few)

    def without_time(found):
        told = found.found.as_json()
        for part in [told, *told["tried"], *(trial for each in told["tried"] for trial in each["trials"])]:
            part.pop("seconds", None)
        return told

    assert without_time(beside) == without_time(alone)
    said = [path.read_text(encoding="utf-8") for path in (tmp_path / "helped" / "log").glob("helper-*.log")]
    assert len(said) == 2
    trained = [line for text in said for line in text.splitlines() if re.match("Training (rrd|ftd|plain)", line)]
    assert sorted(trained) == [f"Training {name}-3-trial0" for name in ("ftd", "plain", "rrd")], "each by one of them"


def test_methods_that_are_not_named_are_those_that_the_teacher_can_serve(run, log_file, tmp_path, trained):
    frame = pl.read_parquet(log_file).select("user_id", "item_id").unique(maintain_order=True)
    ids = frame["item_id"].unique(maintain_order=True).to_list()
    users = frame["user_id"].unique(maintain_order=True).to_list()
    draw = np.random.default_rng(0)
    rows = [(user, item) for user in users for item in draw.permutation(ids)[:30]]
    pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").write_parquet(tmp_path / "lists.parquet")
    settings = run(f"teacher={{lists='{tmp_path / 'lists.parquet'}'}}")
    tune(settings, ROOM, trials=5, sizes=[3])
    tried = {method for method, _ in trained.calls} - {"plain"}
    assert tried == {"rrd", "ir-rrd", "dcd", "unkd", "hetcomp"} < set(METHODS_TRIED)
    with pytest.raises(UsageError, match=r"(?s)cannot give vectors.*'cd'.*cannot give scores|scores.*'de'.*vectors"):
        tune(settings, ROOM, methods=["rrd", "de", "cd"], sizes=[3])


def test_methods_that_are_tried_are_the_best_that_were_measured():
    path = Path(__file__).parents[2] / "docs" / "results" / "methods.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["tables"]["lastfm-10"]["rows"]
    worth = {name: row["means"]["full"]["ndcg@10"] for name, row in rows.items() if "means" in row}
    teacher, plain = worth.pop("teacher"), worth.pop("plain")
    assert {name for name, value in worth.items() if value > 0.95 * teacher} <= set(METHODS_TRIED) <= set(worth)
    assert min(worth[name] for name in METHODS_TRIED) > plain
    page = " ".join((path.parents[1] / "tune.md").read_text(encoding="utf-8").split())
    assert f"the run file's own and those of {', '.join(f'`{name}`' for name in METHODS_TRIED)} that the" in page


@pytest.mark.parametrize(
    ("assign", "asked", "says"),
    [
        ((), {"methods": ["rrd", "adarec"]}, "cannot give states"),
        (("method={name='adarec'}",), {}, "cannot give states"),
        ((), {"methods": ["adarec", "rrd"], "sizes": [3, 2]}, "cannot give states"),
        (("method={name='fitnet', layer=5}",), {}, "has no such layer of vectors; got 5"),
        (("method={name='de'}",), {"trials": 8}, "9 methods need at least as many trials"),
    ],
)
def test_what_cannot_be_taught_is_said_before_the_teacher_is_trained(run, assign, asked, says):
    begun, listener = [], Silent()
    listener.begin = begun.append
    with pytest.raises(UsageError, match=says):
        tune(run(*assign), ROOM, **{"sizes": [3], **asked}, listener=listener)
    assert not [stage for stage in begun if stage.startswith("Training")]


def test_all_that_cannot_be_taught_is_said_at_once_each_with_its_remedy(run):
    with pytest.raises(UsageError) as caught:
        tune(run("method={name='fitnet', layer=5}"), ROOM, methods=["rrd", "fitnet", "adarec"], sizes=[3])
    one, *others = str(caught.value).splitlines()
    assert one.startswith("'fitnet': The matrix factorisation has no such layer of vectors; got 5. Allowed: 'served'")
    assert others[0].startswith("'adarec': The teacher (")
    assert "give a sequential model trained here" in others[0]


def test_methods_that_are_left_out_are_named_with_the_reason(run):
    said, listener = [], Silent()
    listener.say = said.append
    found = able(replace(study(run("student={model='neumf', dim=3}")), listener=listener), ())
    assert found == METHODS_TRIED
    assert not [text for text in said if text.startswith("Not tried")]
    model = {"members": [{"model": "mf", "dim": 4}]}
    table = run().model_dump(mode="json", exclude_none=True) | {"teacher": model}
    found = able(replace(study(parse(RunSettings, table)), listener=listener), ())
    assert found == ("rrd", "hetcomp", "dcd", "ir-rrd", "unkd")
    assert said[-1].startswith("Not tried: cd (The method 'cd' reads scores as logits")
    assert "fitnet (The teacher (ranks, scores) cannot give vectors)" in said[-1]


def test_a_width_of_sizes_that_is_too_dear_names_the_widest_that_is_not(run, trained):
    most = scales(run()).predicted(4)
    with pytest.raises(UsageError) as caught:
        tune(run(), Budget("bytes", most), sizes=[99, 50])
    assert str(caught.value).startswith("No width of --sizes keeps the budget of ")
    assert ": 50 dims take " in str(caught.value)
    assert "Give smaller --sizes: 4 dims keep it" in str(caught.value)
    assert trained.calls == []


def test_widths_that_are_too_dear_are_said_and_not_trained(run, trained):
    most = scales(run()).predicted(4)
    found = tune(run(), Budget("bytes", most), methods=["rrd"], trials=1, sizes=[9, 4])
    assert {dim for _, dim in trained.calls} == {4}
    assert found.found.notes[0].startswith("Too dear, and not trained: 9 dims (")


def test_where_the_plain_student_is_best_it_is_shipped_and_said(run, monkeypatch):
    real = lessons_module.distill

    def worse(teacher, model, *words, **more):
        if more["method"] != "plain":
            raise TrainingError("it went away")
        return real(teacher, model, *words, **more)

    monkeypatch.setattr(lessons_module, "distill", worse)
    found = tune(run(), ROOM, methods=["rrd"], trials=2, sizes=[4])
    assert found.found.best.method == "plain"
    assert list(found.comparison.cards) == ["teacher", "best"]
    assert "No method is better than the plain student" in found.told.words
    assert "distillation buys nothing here" in found.page.read_text(encoding="utf-8")
    assert "failed" in found.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("assign", "asked", "error", "says"),
    [
        ((), {"methods": ["rdr"]}, UnknownName, "Unknown method 'rdr'. Did you mean"),
        ((), {"budget": Budget.parse("3Mmacs")}, UsageError, "not tuned under a budget of; got 'macs'"),
        (("teacher={}", "method={name='plain'}"), {}, UsageError, "there is no teacher. Give the run file a"),
        (("data.split=ratio", "data.valid=0"), {}, UsageError, "judged on validation data, and there are none"),
        ((), {"methods": ["rrd", "ftd"], "trials": 1}, UsageError, "2 methods need at least as many trials"),
        ((), {"sizes": [0]}, UsageError, "The model 'mf' cannot be of that width; got 0"),
        ((), {"methods": ["plain"]}, UsageError, "There is no method to tune. Name one beside 'plain'"),
    ],
)
def test_what_cannot_be_tuned_is_said_before_a_student_is_trained(run, trained, assign, asked, error, says):  # noqa: PLR0917
    with pytest.raises(error) as caught:
        tune(run(*assign), asked.pop("budget", ROOM), **{"sizes": [3], **asked})
    assert says in str(caught.value)
    assert trained.calls == []


@pytest.mark.parametrize("begin", [distill, partial(tune, budget=ROOM)])
def test_students_of_a_comparison_are_said_to_be_left_out(run, begin):
    said, listener = [], Silent()
    listener.say = said.append
    with pytest.raises(DataError):
        begin(run("students=[{model='lightgcn'}]", "data.path=nowhere.csv"), listener=listener)
    assert said[0].startswith("[[students]] are for `recdistill compare`")


def test_the_page_and_the_table_tell_the_front(run):
    from rich.console import Console

    found = tune(run(), Budget.parse("bytes=1MB"), **FEW)
    page = found.page.read_text(encoding="utf-8")
    assert "budget 1.0 MB" in page
    assert page.count('class="front"') == 1
    assert f"{found.found.best.method} at {found.found.best.cost.dim} dims" in page
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(found)
    told = console.export_text()
    assert "ndcg@10 on validation data, under 1.0 MB" in told
    assert told.count("\u25cf") == len(found.found.front) + 1
    rows = (found.page.parent / "front.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(found.found.tried)
    kept = json.loads((found.page.parent / "tune.json").read_text(encoding="utf-8"))
    assert kept["best"] == {"method": found.found.best.method, "dim": found.found.best.cost.dim}
