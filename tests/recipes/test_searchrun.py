"""The command of the search: drawn cells, cards beside controls, a front, a bundle; resumable; refuses early."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import recdistill.recipes.cellstudy as module
from recdistill.errors import SettingsError, UnknownName, UsageError
from recdistill.recipes import searchrun, trained
from recdistill.recipes.searchfile import SearchRun, resolve, weights
from recdistill.recipes.searchrun import search_run
from recdistill.search.budget import Budget
from recdistill.search.derive import Design
from recdistill.serve.service import Service
from recdistill.settings import overlay, parse

SCENE = """
import numpy as np, polars as pl
draw = np.random.default_rng(0)
lengths = draw.integers(5, 12, 40)
user = np.repeat(np.arange(40), lengths)
item = np.concatenate([(draw.integers(25) + np.cumsum(draw.choice([1, 1, 1, 2], n))) % 25 for n in lengths])
log = pl.DataFrame({"user_id": user, "item_id": item, "timestamp": np.arange(len(user))})
"""
"""40 users x 25 items: each goes round a ring from where it begins, with a slip now and then."""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(module, "_TIMED", 0.01)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def bundles(request, monkeypatch):
    """As where the extra `onnx` is not installed: tracing every student of a search takes half a minute."""
    if request.node.get_closest_marker("encoders") is None:
        monkeypatch.setattr(trained, "can_export", lambda: False)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory):
    made: dict = {}
    exec(SCENE, made)  # noqa: S102
    path = tmp_path_factory.mktemp("log") / "ring.parquet"
    made["log"].write_parquet(path)
    return path


def table(log_file, out):
    return {
        "data": {"path": str(log_file)},
        "teacher": {"model": "gru4rec", "dim": 12, "length": 8},
        "search": {
            "epochs": 2, "batch": 16, "cells": 2, "frame": {"dim": 8, "length": 8}, "estimate": 2, "random": 2,
        },
        "retrain": {"epochs": 2, "batch": 16},
        "train": {"epochs": 2, "batch": 16, "loss": "cross-entropy", "negatives": 0, "weight_decay": 0.0,
                  "device": "cpu"},
        "evaluate": {"latency": False},
        "output": {"dir": str(out)},
    }  # fmt: skip


@pytest.fixture
def run(log_file, tmp_path):
    def settings(*assign: str) -> SearchRun:
        return parse(SearchRun, overlay(table(log_file, tmp_path / "out"), assign))

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
        return [stage.removeprefix("Training ") for stage in self.stages if stage.startswith(("Training", "Searching"))]


ALWAYS = ["all-none", "all-skip", "nextitnet"]
EVERYTHING = ["teacher", "hand-made", *ALWAYS, "random-1", "random-2", "searched-plain", "searched"]


@pytest.mark.encoders
def test_a_search_ends_with_cells_drawn_cards_beside_controls_a_front_a_bundle_and_a_page(run):
    heard = Heard()
    found = search_run(run("evaluate.latency=true"), text="# the file\n", listener=heard)
    assert heard.trained[:3] == ["teacher", "Searching cells, price weight 0.1", "searched"]
    cards = found.comparison.cards
    assert list(cards) == EVERYTHING
    out = found.page.parent
    # the design, as JSON, in the picture and in the bundle
    design = Design.from_json((out / "cell.json").read_text(encoding="utf-8"))
    assert design == found.design
    assert {path.stem for path in (out / "cells").iterdir()} == {*EVERYTHING} - {"teacher", "hand-made"}
    drawn = ElementTree.fromstring(found.drawing.read_text(encoding="utf-8"))  # noqa: S314
    shown = [node.text for node in drawn.iter() if node.get("class") == "operator"]
    there = [edge.operator for edge in design.cells[0] if edge.operator != "none"]
    assert sorted(shown) == sorted(there)
    # the hand-made model is of the teacher's kind, and as wide as the cells
    assert cards["hand-made"].model == "gru4rec, 8 dims"
    assert cards["all-none"].method == "adarec"
    assert cards["searched-plain"].method is None
    # what is measured: end to end, of all, and the random cells cost what the searched ones do
    rows = {name: found.told.rows[name] for name in EVERYTHING}
    assert all(card.latency is not None and card.latency.threads == 1 for card in cards.values())
    assert rows["all-none"].body == 2 * (3 + 2 * 8)  # two cells: mix and norm
    assert rows["teacher"].cost is None
    assert {row.group for row in rows.values()} == {
        "teacher", "hand-made", "control", "random", "plain", "searched",
    }  # fmt: skip
    # the front
    with (out / "front.csv").open(encoding="utf-8", newline="") as file:
        front = {row["system"]: row for row in csv.DictReader(file)}
    assert list(front) == EVERYTHING
    assert front["searched"]["price_weight"] == "0.1"
    assert front["all-none"]["price_weight"] == ""
    valid = found.comparison.cards["all-none"].metrics[0]
    assert valid.split == "valid"
    assert float(front["all-none"]["valid ndcg@10"]) == pytest.approx(valid.values["ndcg@10"].mean, abs=1e-6)
    assert float(front["searched"]["p50_ms"]) == pytest.approx(cards["searched"].latency.p50_ms, rel=1e-3)
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert content["searched"] == "searched"
    assert content["searches"][0]["asked"] == "price weight 0.1"
    # the bundle serves
    assert found.bundle == out / "bundles" / "searched"
    service = Service.from_bundle(found.bundle)
    assert service.recommend([3], k=5).n_rows == service.recommend_after([[3]], k=5).n_rows == 5
    page = found.page.read_text(encoding="utf-8")
    for word in (
        "What was found",
        "Chances of operators",
        "Who learned from whom",
        "Shares of the loss",
        "# the file",
        "all systems in turns",
        "recdistill search run.toml --pareto",
        "64 designs were tried after the last epoch with the supernet\u2019s weights, by ndcg@100 on validation data",
    ):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_paired_tests_are_against_the_searched_student_and_the_teacher_has_none(run):
    found = search_run(run())
    assert found.comparison.baseline == "searched"
    assert set(found.comparison.tests["ndcg@10"]) == set(EVERYTHING) - {"teacher", "searched"}


def test_the_supernets_order_of_the_cells_is_compared_with_that_after_their_training(run, monkeypatch):
    asked = []
    monkeypatch.setattr(searchrun, "kendall", lambda one, other: asked.append((one, other)) or 0.25 * len(asked))
    found = search_run(run())
    cells = [*ALWAYS, "random-1", "random-2", "searched"]
    after = [
        [card.metrics[at].values["ndcg@10"].mean for card in map(found.comparison.cards.get, cells)] for at in (0, 1)
    ]
    assert [other for _, other in asked] == [pytest.approx(each) for each in after]
    assert asked[0][0] == asked[1][0]
    said = "order of 6 cells with that after their training: 0.25 on validation data, 0.50 on test data."
    assert said in found.page.read_text(encoding="utf-8")
    assert found.told.order.said.endswith(said)
    content = json.loads((found.page.parent / "results.json").read_text(encoding="utf-8"))
    assert content["order"] == {"n": 6, "valid": 0.25, "test": 0.5}


def test_a_teacher_that_is_read_again_is_told_of_before_the_search(run):
    search_run(run(*LESS))
    heard = Heard()
    search_run(run(*LESS, "search.price_weight=3.0"), overwrite=True, listener=heard)
    assert heard.trained[:2] == ["teacher", "Searching cells, price weight 3"]


def test_a_finished_search_is_not_repeated(run):
    first = search_run(run("evaluate.latency=true"))
    before = first.page.read_bytes()
    heard = Heard()
    search_run(run("evaluate.latency=true"), listener=heard)
    assert [stage for stage in heard.trained if "Searching" in stage] == []
    assert not any("Timing" in stage for stage in heard.stages)
    assert first.page.read_bytes() == before


def test_a_front_searches_each_price_weight_once_and_trains_equal_cells_once(run):
    search_run(run())
    heard = Heard()
    found = search_run(run("search.pareto=[0.1, 0.0, 5.0]"), overwrite=True, listener=heard)
    searches = [stage for stage in heard.trained if "Searching" in stage]
    assert searches == ["Searching cells, price weight 0", "Searching cells, price weight 5"]
    asked = {step.asked: step.name for step in found.told.steps}
    assert asked["price weight 0.1"] == "searched"
    assert set(asked) == {"price weight 0.1", "price weight 0", "price weight 5"}
    names = [name for name in found.comparison.cards if name.startswith("searched") and name != "searched-plain"]
    assert sorted(set(asked.values())) == sorted(names)
    assert "A search for every price weight" in found.page.read_text(encoding="utf-8")


def test_a_budget_is_kept_and_the_front_below_it_competes_on_validation(run):
    found = search_run(run("search.budget='params=900 params'", "search.pareto=[10.0]"))
    rows, best = found.told.rows, found.told.searched
    assert rows[best].cost <= 900
    assert "Held to a budget of 900 parameters: by the price list it costs" in found.told.budget
    kept = [step.name for step in found.told.steps if step.cost <= 900]
    means = {name: found.comparison.cards[name].metrics[0].values["ndcg@10"].mean for name in dict.fromkeys(kept)}
    assert found.comparison.cards[best].metrics[0].split == "valid"
    assert means[best] == max(means.values())
    assert found.bundle.name == best


def test_a_budget_that_nothing_keeps_is_refused_before_anything_is_trained(run):
    heard = Heard()
    said = r"No architecture keeps the budget of 40 B: the cheapest costs \d+\.\d kB, of which"
    with pytest.raises(UsageError, match=said):
        search_run(run("search.budget='bytes=40B'"), listener=heard)
    assert heard.trained == []


def test_a_search_without_validation_data_is_refused_before_anything_is_trained(run):
    heard = Heard()
    with pytest.raises(UsageError, match=r"A search needs validation data, and there are none.*Hold some out"):
        search_run(run("data.split='ratio'", "data.valid=0.0"), listener=heard)
    assert heard.trained == []


def test_random_cells_cost_what_the_searched_ones_do(run):
    found = search_run(run("search.random=3", "search.price_weight=0.0"))
    rows = found.told.rows
    costs = [rows[f"random-{at}"].cost for at in (1, 2, 3)]
    fixed = 25 * 8  # scores of items
    for cost in costs:
        assert abs(cost - rows["searched"].cost) <= 0.8 * (rows["searched"].cost - fixed)
    assert found.told.random is not None
    assert found.told.random.n == 3


def test_controls_add_to_those_that_stand_in_every_table(run):
    more = "search.controls=['all-cau_max_pool', 'all-skip']"
    found = search_run(run("search.random=0", more, "retrain.baseline=false"))
    assert list(found.comparison.cards) == ["teacher", "hand-made", *ALWAYS, "all-cau_max_pool", "searched"]
    assert found.told.random is None


def test_the_official_way_inherits_weights_and_asks_no_teacher_again(run, monkeypatch):
    small = ("search.random=0", "retrain={preset='compat', epochs=1, batch=16}")
    found = search_run(run(*small))
    assert list(found.comparison.cards) == ["teacher", "hand-made", *ALWAYS, "searched"]
    assert found.comparison.cards["searched"].method is None
    monkeypatch.setattr(module, "run_search", None)  # what is finished is neither searched nor refined again
    again = search_run(run(*small))
    assert again.design == found.design


def test_each_cell_its_own_architecture_is_drawn_cell_by_cell(run):
    found = search_run(run("search.shared=false", "search.random=0", "retrain.baseline=false"))
    assert [cell.title for cell in found.told.cells] == ["cell 1 of 2", "cell 2 of 2"]


@pytest.mark.parametrize(
    ("assign", "error", "said"),
    [
        ("search.epoch=3", SettingsError, r"Unknown setting 'search.epoch'\. Did you mean 'search.epochs'\?"),
        (
            "search.frame.dims=3",
            SettingsError,
            r"Unknown setting 'search.frame.dims'\. Did you mean 'search.frame.dim'",
        ),
        ("search.paretto=[0.1]", SettingsError, r"Unknown setting 'search.paretto'\. Did you mean 'search.pareto'\?"),
        ("retrain.base=false", SettingsError, r"Unknown setting 'retrain.base'\. Did you mean 'retrain.baseline'\?"),
        ("student.dims=3", SettingsError, r"Unknown setting 'student.dims'\. Did you mean 'student.dim'\?"),
        ("train.epoch=3", SettingsError, r"Unknown setting 'train.epoch'\. Did you mean 'train.epochs'\?"),
        ("searh.epochs=3", SettingsError, r"Unknown setting 'searh'\. Did you mean 'search'\?"),
        ("search.preset=compatt", UnknownName, r"Unknown preset of a search 'compatt'\. Did you mean 'compat'\?"),
        ("search.space=casual", UnknownName, r"Unknown search space 'casual'\. Did you mean 'causal'\?"),
        ("search.space=published", UsageError, "The space 'published' leaks under a next-item loss"),
        (
            "search={space='attentive', frame={dim=7, length=8}}",
            UsageError,
            "2 heads of the operator 'attention' do not divide the width; got 7",
        ),
        ("search.controls=['all-nothing']", UnknownName, "Unknown operator of the space 'causal' 'nothing'"),
        ("search.paths=99", SettingsError, "'search.paths'.*the space 'causal' has 10 operators; got 99"),
        ("search.budget='2 m'", SettingsError, r"Unknown unit 'm' of the budget '2 m'"),
        (
            "search.frame.length=11",
            SettingsError,
            r"'search.frame.length' is longer than what the teacher reads \(8 items",
        ),
        (
            "teacher={model='bert4rec', length=8}",
            SettingsError,
            r"'teacher.cloze' leaves the teacher no epoch of its second stage, of 2 in all; got 100\. Allowed: 0 to 1",
        ),
        (
            "teacher={model='bert4rec', length=8, cloze=1}",
            SettingsError,
            r"'student.cloze' gives the hand-made student a first stage.*got 100\. Allowed: 0\. Set \[student\] cloze",
        ),
        ("search.pareto=[-1.0]", SettingsError, "'search.pareto' must hold weights of at least 0; got -1"),
        ("teacher={model='mf'}", UsageError, "The teacher of a search reads histories, and 'mf' does not"),
        ("teacher={lists='a.parquet'}", SettingsError, "a search asks for the layers of its teacher"),
        ("student.model=neumf", UsageError, "The student of a search reads histories, and 'neumf' does not"),
    ],
)
def test_what_is_wrong_with_a_run_file_is_said_before_the_log_is_read(run, assign, error, said):
    with pytest.raises(error, match=said):
        resolve(run(assign))


def test_stages_of_bert4rec_are_free_where_nobody_asks_the_teacher(run):
    model = "teacher={model='bert4rec', length=8}"
    assert resolve(run(model, "search.distillation.weight=0.0", "retrain.distilled=false")).student == "bert4rec"
    two = "teacher={model='bert4rec', length=8, cloze=1}"
    assert resolve(run(two, "student.cloze=0")).student_settings.cloze == 0


def test_the_search_takes_device_metrics_and_protocol_of_train_unless_it_says_otherwise(run):
    plan = resolve(run("train.metrics=['mrr@5']"))
    assert plan.search.metrics == plan.teacher_train.metrics == ("mrr@5",)
    assert plan.search.device == "cpu"
    assert resolve(run("train.metrics=['mrr@5']", "search.metrics=['hr@5']")).search.metrics == ("hr@5",)


def test_price_weights_are_numbers_with_commas_between():
    assert weights("0, 0.03,1") == [0.0, 0.03, 1.0]
    with pytest.raises(
        UsageError, match=r"A price weight is a number of at least 0; got 'x'\. For example --pareto 0,"
    ):
        weights("0,x")
    assert str(Budget.parse("latency=2ms")) == "2 ms"


LESS = ("search.random=0", "retrain.baseline=false")
KILLED = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_searchrun import LESS, table
import torch
torch.set_num_threads(1)
from recdistill.recipes.searchfile import SearchRun
from recdistill.recipes.searchrun import search_run
from recdistill.recipes import trained
from recdistill.settings import overlay, parse
from recdistill.training import trainer
trained.can_export = lambda: False
trainer.Keep.__init__.__defaults__ = (0.0,)
log, out = sys.argv[1:]

class Deadly:
    def __init__(self, name, epoch):
        self.name, self.at = name, epoch
    def say(self, text): pass
    def begin(self, stage): pass
    def watch(self, run):
        return [self] if run == self.name else []
    def on_start(self, report): self.begun = len(report.history)
    def on_epoch(self, record, report):
        if record.epoch == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_end(self, report): pass

run = parse(SearchRun, overlay(table(log, out), LESS))
for name, epoch in [("search-0.1", 0), ("search-0.1", 1), ("searched", 0)]:
    child = os.fork()
    if child == 0:
        search_run(run, listener=Deadly(name, epoch))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(name, epoch, "killed" if os.WIFSIGNALED(status) else "ended")
"""


def test_a_search_killed_in_any_stage_goes_on_and_ends_the_same(run, log_file, tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", script, str(log_file), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed") == 3, done.stdout
    heard = Heard()
    resumed = search_run(run(*LESS), listener=heard)
    whole = search_run(run(*LESS, f"output.dir='{tmp_path / 'whole'}'"))
    assert resumed.design == whole.design
    for name, found in whole.comparison.evaluations.items():
        assert resumed.comparison.evaluations[name].to_json() == found.to_json()
    for file in ("cell.json", "cell.svg"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    users = np.arange(3)
    one, other = (Service.from_bundle(each.bundle).recommend(users, k=5).to_dict() for each in (resumed, whole))
    assert one == other
