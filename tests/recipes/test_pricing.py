"""Budgets of what is shipped: the fixed part is measured, whoever is chosen is measured, and what holds is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import recdistill.recipes.cellstudy as studying
import recdistill.recipes.pricing as module
from recdistill.cli.app import app
from recdistill.evaluation.latency import Latency
from recdistill.recipes.answers import Answers
from recdistill.recipes.cellstudy import CellStudy
from recdistill.recipes.pricing import Pricing, verdict
from recdistill.recipes.searchfile import SearchRun, resolve
from recdistill.recipes.searchrun import search_run
from recdistill.recipes.study import load_log
from recdistill.search.budget import Budget, figure
from recdistill.search.cost import Costs
from recdistill.search.derive import named
from recdistill.search.model import Cells
from recdistill.search.settings import SearchSettings
from recdistill.search.space import SPACES
from recdistill.settings import overlay, parse

from .test_searchrun import SCENE, Heard, table

SPACE = SPACES["causal"]
FEW = ("search.random=0", "search.controls=[]", "retrain.baseline=false", "search.epochs=1", "retrain.epochs=1")
"""The searched student alone."""
HERE = "; measured here, from a history to a list, "


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path):
    made: dict = {}
    exec(SCENE, made)  # noqa: S102
    made["log"].write_parquet(tmp_path / "ring.parquet")

    def settings(*assign: str) -> SearchRun:
        return parse(SearchRun, overlay(table(tmp_path / "ring.parquet", tmp_path / "out"), [*FEW, *assign]))

    return settings


def answering(ms):
    """Answers by a clock that knows the models."""

    def answers(models, histories, users, **asked):
        del histories, users, asked
        each = {name: ms(model) for name, model in models.items()}
        return {name: Answers(Latency(p, p, p, 1.0, 10, 1, 10), p / 2, 256) for name, p in each.items()}

    return answers


def filled(model):
    """How many edges of a student have an operator."""
    return sum(name != "none" for row in design_of(model) for name in row)


def design_of(model):
    return model.frame.designed().operators if isinstance(model, Cells) else ()


# what is said


@pytest.mark.parametrize(
    ("budget", "unit", "took", "chosen", "said"),
    [
        (
            "latency=2ms", "ms", 1.8, 1.9,
            f"2.0 ms: by the price list it costs 1.5 ms{HERE}1.8 ms, which keeps it.",
        ),
        (
            "latency=2ms", "ms", 2.4, 2.4,
            f"2.0 ms: by the price list it costs 1.5 ms{HERE}2.4 ms, which is more: nothing that was tried keeps it.",
        ),
        (
            "latency=2ms", "ms", 2.1, 1.9,
            f"2.0 ms: by the price list it costs 1.5 ms{HERE}2.1 ms, which is more; when it was chosen it took 1.9 ms.",
        ),
        (
            "bytes=5kB", "bytes", 4900, 4900,
            "5.0 kB: by the price list it costs 2 B; its bundle has 4.9 kB, which keeps it.",
        ),
        (
            "bytes=5kB", "bytes", 24700, 24700,
            "5.0 kB: by the price list it costs 2 B; its bundle has 24.7 kB, which is more: nothing that was tried "
            "keeps it.",
        ),
        (
            "macs=20M", "multiply-adds", None, 1.5,
            "20,000,000 multiply-adds: by the price list it costs 1.5 multiply-adds, which keeps it.",
        ),
    ],
)  # fmt: skip
def test_whether_a_budget_is_kept_is_said_in_a_sentence(budget, unit, took, chosen, said):
    found = verdict(Budget.parse(budget), Costs(unit, (0.0,)), 1.5, took=took, chosen=chosen)
    assert (found.kept, found.said) == (said.endswith(", which keeps it."), f"Held to a budget of {said}")


@pytest.mark.parametrize(("bundled", "ends"), [(0.5, ", which keeps it."), (2.5, "nothing that was tried keeps it.")])
def test_a_budget_of_latency_is_to_be_kept_by_the_bundle_too(bundled, ends):
    costs = Costs("ms", (0.0,))
    found = verdict(Budget.parse("latency=2ms"), costs, 1.5, took=1.8, chosen=None, bundled=bundled)
    assert f"{HERE}1.8 ms, its bundle in onnxruntime {figure(bundled, 'ms')}, " in found.said
    assert found.said.endswith(ends)
    assert found.kept == (bundled < 2)


def test_a_budget_that_is_not_kept_is_an_error_on_the_command_line(tmp_path, monkeypatch):
    def searched(*_, **__):
        told = SimpleNamespace(kept=False, budget="Held to a budget of 2.0 ms, which is more.")
        return SimpleNamespace(told=told, drawing=Path("a"), page=Path("b"), bundle=Path("c"))

    monkeypatch.setattr("recdistill.recipes.searchrun.search_run", searched)
    file = tmp_path / "run.toml"
    file.write_text("[data]\npath = 'log.parquet'\n[teacher]\nmodel = 'sasrec'\n[output]\ndir = 'out'\n")
    done = CliRunner().invoke(app, ["search", str(file), "--budget", "latency=2ms"])
    assert done.exit_code == 1
    assert "error: Held to a budget of 2.0 ms, which is more." in done.stderr
    assert "Student: c" in done.stdout


# who is chosen


class Known(Pricing):
    """Knows what designs take."""

    def takes(self, c, design):
        del c
        return self.plan[design.operators]


def choosing(took):
    """Which is chosen of designs that cost 1.9, 1.8, ... and take `took`, under 2 ms, and what was said of it."""
    designs = [named(f"random-{at}", SPACE, width=4, depth=2) for at in range(len(took))]
    costs = {design.operators: 1.9 - at / 10 for at, design in enumerate(designs)}
    heard = Heard()
    pricing = Known(SimpleNamespace(listener=heard), {d.operators: ms for d, ms in zip(designs, took, strict=True)})
    found = SimpleNamespace(
        design=designs[0],
        costs=SimpleNamespace(of=lambda design, _: costs[design.operators], unit="ms", fixed=0.9, cell=0.05),
        under=lambda most: next((each for each in designs if costs[each.operators] <= most), None),
    )
    return designs.index(pricing.keeping(SearchSettings(budget="2ms"), found)), heard.said


def test_the_best_design_that_is_measured_to_keep_the_budget_is_taken():
    assert choosing([1.99, 1.0, 1.0]) == (0, [])
    assert choosing([2.05, 1.95, 1.0]) == (1, []), "1 + 0.9 / 1.05 is the next one's"
    assert choosing([2.15, 1.0, 1.95, 1.0]) == (2, []), "1 + 0.9 / 1.15 = 1.78"


def test_where_nothing_keeps_a_budget_the_one_that_takes_least_is_taken_and_it_is_said():
    no = "No design keeps the budget of 2.0 ms: "
    assert choosing([3.0, 2.9]) == (0, [f"{no}One design was measured, and the least takes 3.0 ms."])
    # 1 + 0.9 / 1.1 = 1.82, 1 + 0.8 / 1.08 ** 2 = 1.69, 1 + 0.6 / 1.2 ** 4 = 1.29
    assert choosing([2.1, 2.08, 9.0, 2.2]) == (1, [f"{no}3 designs were measured, and the least takes 2.1 ms."])


# whole runs


def test_a_latency_budget_holds_for_what_is_measured_and_is_not_searched_for_again(run, monkeypatch):
    asked = ("evaluate.latency=true", "search.budget='1.5ms'")
    tables = []

    def measured(*_, **__):
        tables.append(1)
        return Costs("ms", (0.001,) * 9 + (0.0,), cell=0.002, fixed=0.01, digest="list")  # far too cheap

    monkeypatch.setattr("recdistill.search.run.measured", measured)
    answers = answering(lambda model: 1.0 + 0.1 * filled(model))
    monkeypatch.setattr(module, "answers", answers)
    monkeypatch.setattr(studying, "answers", answers)
    exported = []

    def times_of_bundles(paths, **asked):
        exported.append((paths, asked))
        return {name: {"1": {"end to end": 0.7}} for name in paths}

    monkeypatch.setattr(studying, "times_of_bundles", times_of_bundles)
    found = search_run(run(*asked))
    assert exported == [({"searched": found.bundle}, {"batches": (1,), "length": 8})]
    assert "its bundle in onnxruntime 0.70 ms, which keeps it." in found.told.budget
    assert found.comparison.cards["searched"].latency.p50_ms <= 1.5
    assert found.told.kept
    assert "which keeps it" in found.told.budget
    edges = sum(name != "none" for name in found.design.operators[0])
    assert found.told.rows["searched"].cost == pytest.approx(1.0 + 2 * edges * 0.001), (
        "what is around cells is measured"
    )
    heard = Heard()
    again = search_run(run(*asked), listener=heard)
    assert tables == [1], "the table lies with the run"
    assert len(exported) == 1, "and so does what its bundle takes"
    assert again.design == found.design
    assert not any("Searching" in stage for stage in heard.stages)
    assert not any("Timing" in stage for stage in heard.stages)
    monkeypatch.setattr(studying, "device_of", lambda _: {"name": "abacus"})
    heard = Heard()
    search_run(run(*asked), listener=heard)
    assert not any("Searching" in stage for stage in heard.stages)
    assert any("Timing" in stage for stage in heard.stages), "answers are timed on every machine"


def test_a_budget_of_bytes_is_of_the_bundle(run):
    settings = run()
    study = CellStudy(settings, resolve(settings), load_log(settings.data, Heard()), Heard(), settings.train.seed)
    plain = named("all-none", SPACE, width=8, depth=2)
    least = study.pricing.takes(study.plan.search.model_copy(update={"budget": "1 B"}), plain)
    most = int(least) + 1200
    found = search_run(run(f"search.budget='bytes={most}'"), overwrite=True)
    size = found.comparison.cards["searched"].bytes
    on_disk = sum(path.stat().st_size for path in found.bundle.rglob("*") if path.is_file())
    assert size == on_disk <= most
    assert f"its bundle has {size / 1000:.1f} kB, which keeps it" in found.told.budget
    assert least - 1 < found.told.rows["searched"].cost <= most
