"""What a comparison says: means, corrected tests, counts against the teacher, costs; and how it looks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from recdistill.evaluation.compare import Interval, holm, paired_test
from recdistill.evaluation.latency import Latency
from recdistill.recipes.standings import Cost, Part, Standings, above, costs_relative, rows_of
from recdistill.recipes.standings_page import as_json, markdown
from recdistill.recipes.standings_tables import tables

DRAW = np.random.default_rng(0)
VALUES = {
    "teacher": np.array([[1.0, 0.5, 0.5, 0.0] * 10] * 2),
    "plain": np.array([[0.0, 0.5, 0.0, 0.0] * 10] * 2),
    "rrd": np.array([[1.0, 0.5, 0.0, 0.5] * 10, [1.0, 0.5, 0.0, 0.0] * 10]),
    "de": DRAW.random((2, 40)),
}
BASE = dict.fromkeys(["plain", "rrd", "de"], "plain")


def cost(seconds, epochs=10.0):
    return Cost("mf, 8 dims", 1000, 5000, None, seconds, epochs, 0.5, 12.0)


@pytest.fixture
def standings():
    rows = {metric: rows_of(VALUES, BASE, "rrd") for metric in ("recall@10", "ndcg@10")}
    parts = {
        name: Part("at most 3 training interactions", 40, rows_of(VALUES, BASE, "rrd", tests=False))
        for name in ("cold users", "warm users", "head items", "tail items")
    }
    trial = {"number": 0, "values": {"train.lr": 0.01}, "metric": 0.5, "epochs": 3, "seconds": 1.0, "failed": None}
    search = {
        "method": "rrd",
        "student": {"model": "mf", "dim": 8},
        "seed": 7,
        "metric": "valid ndcg@10",
        "space": {"train.lr": "0.001 to 0.1, log"},
        "best": 0,
        "settings": {},
        "trials": [trial, {**trial, "number": 1, "metric": None, "failed": "The loss is not finite"}],
    }
    costs = costs_relative({"teacher": cost(9.0), "plain": cost(2.0), "rrd": cost(6.0, 15.0), "de": cost(3.0)}, BASE)
    return Standings(
        rows, parts, costs, (7, 8), BASE, "rrd", "ndcg@10", "full", (search,), {"cd": "seed 7: no"}, ("Note.",)
    )


def test_means_are_over_users_and_seeds_and_tests_are_of_users():
    rows = rows_of(VALUES, BASE, "rrd")
    assert rows["rrd"].mean.mean == pytest.approx(0.4375)
    assert rows["rrd"].by_seed == (0.5, 0.375)
    assert rows["rrd"].kept.mean == pytest.approx(87.5)
    assert rows["teacher"].kept is None
    assert rows["plain"].baseline is None
    assert rows["rrd"].best is None
    assert rows["rrd"].baseline.difference.mean == pytest.approx(0.3125)


def test_p_values_are_corrected_for_all_rows_together():
    rows = rows_of(VALUES, BASE, "rrd")
    raw = [paired_test(VALUES[name], VALUES["plain"]).p_permutation for name in ("rrd", "de")]
    assert [rows[name].baseline.p for name in ("rrd", "de")] == holm(raw).tolist()
    raw = [paired_test(VALUES[name], VALUES["rrd"]).p_permutation for name in ("plain", "de")]
    assert [rows[name].best.p for name in ("plain", "de")] == holm(raw).tolist()


def test_users_for_whom_the_student_beats_the_teacher_are_counted():
    # of four kinds of users, ten each: equal, equal, worse, and better in one seed of two
    teacher = rows_of(VALUES, BASE, "rrd")["rrd"].teacher
    assert (teacher.better, teacher.worse, teacher.equal) == (10, 10, 20)
    assert teacher.difference.mean == pytest.approx(-0.0625)
    assert teacher.p is None


def test_students_of_two_sizes_are_tested_against_the_plain_one_of_their_size():
    values = {"plain 4": VALUES["plain"], "rrd 4": VALUES["rrd"], "plain 8": VALUES["rrd"], "rrd 8": VALUES["rrd"]}
    base = {"plain 4": "plain 4", "rrd 4": "plain 4", "plain 8": "plain 8", "rrd 8": "plain 8"}
    rows = rows_of(values, base, "rrd 8")
    assert rows["rrd 4"].baseline.against == "plain 4"
    assert (rows["rrd 8"].baseline.better, rows["rrd 8"].baseline.p) == (0, 1)


def test_training_is_compared_with_the_baselines_in_all_and_by_epoch(standings):
    assert standings.costs["rrd"].times == 3
    assert standings.costs["rrd"].epoch_times == pytest.approx(2)
    assert standings.costs["teacher"].times is None


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_shows_everything_without_cutting(standings, width):
    console = Console(width=width, color_system=None)
    with console.capture() as caught:
        console.print(standings)
    text = caught.get()
    assert "\u2026" not in text
    for said in ("against plain", "against rrd", "ndcg@10 by segment", "Against the teacher", "10 : 10", "1 failed"):
        assert said in text
    assert "cd is not in the tables: seed 7: no" in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())


def test_json_markdown_and_tables_say_the_same(standings):
    whole = json.loads(as_json(standings))
    assert whole["rows"]["ndcg@10"]["rrd"]["baseline"]["against"] == "plain"
    assert whole["tuned"][0]["trials"][1]["failed"] == "The loss is not finite"
    page = markdown(standings, title="A comparison", command="recdistill compare run.toml")
    for shown in tables(standings):
        assert f"## {shown.title}" in page
        for row in shown.rows:
            assert row[0].split("\n")[0] in page
    assert "Printed by `recdistill compare run.toml`." in page


def test_plain_students_above_their_teacher_are_warned_of():
    rows = rows_of(VALUES | {"plain 8": VALUES["teacher"] + 0.1}, BASE, "rrd")
    assert above(rows, ["plain"], "ndcg@10") == []
    assert above({}, [], "ndcg@10") == []
    (said,) = above(rows, ["plain", "plain 8"], "ndcg@10")
    assert said.startswith("Warning: plain 8 (0.6000), without a teacher, is above the teacher (0.5000) in ndcg@10")


def test_without_measured_latency_there_is_no_column_of_it(standings):
    (costs,) = [shown for shown in tables(standings) if shown.title == "Cost"]
    assert "p50" not in costs.heading
    assert "p50" not in costs.note
    some = replace(standings.costs["rrd"], latency=Latency(0.5, 0.8, 1.0, 9.0, 10, 1, 9))
    (costs,) = [s for s in tables(replace(standings, costs=standings.costs | {"rrd": some})) if s.title == "Cost"]
    assert {row[0].split("\n")[0]: row[3] for row in costs.rows}["rrd"] == "0.50 ms"
    assert "p50" in costs.note


def test_without_a_teacher_there_is_nothing_to_keep_or_to_beat(standings):
    values = {name: each for name, each in VALUES.items() if name != "teacher"}
    alone = replace(standings, rows={"ndcg@10": rows_of(values, BASE, "rrd")}, segments={}, tuned=())
    assert [shown.title.split(" ")[0] for shown in tables(alone)] == ["ndcg@10", "Cost"]
    assert alone.rows["ndcg@10"]["rrd"].kept is None
    assert alone.users == 40
    assert isinstance(alone.rows["ndcg@10"]["rrd"].mean, Interval)
