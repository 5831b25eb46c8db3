"""A paper's table: cells computed once, shared by processes, printed beside the published figures."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import threading

import numpy as np
import polars as pl
import pytest

from recdistill.errors import DataError, UnknownName
from recdistill.recipes import derrd
from recdistill.recipes.cells import Cells
from recdistill.recipes.derrd import TABLES, Experiment, cells_of, pack, run_cell, unpack
from recdistill.recipes.published import DE_RRD_LOG, DE_RRD_PAPER
from recdistill.recipes.reproduce import markdown, reproduce


@pytest.fixture
def data(tmp_path):
    """40 users x 700 items with a given split: one valid and one test item a user."""
    draw = np.random.default_rng(0)
    rows = []
    for user in range(40):
        items = draw.choice(700, 12, replace=False)
        rows += [(user, int(i), "train") for i in items[2:]]
        rows += [(user, int(items[0]), "valid"), (user, int(items[1]), "test")]
    folder = tmp_path / "data"
    folder.mkdir()
    pl.DataFrame(rows, schema=["user_id", "item_id", "split"], orient="row").write_parquet(
        folder / "interactions.parquet"
    )
    return folder


@pytest.fixture
def short(monkeypatch):
    """The table of the paper, two epochs each, small experts."""
    table = TABLES["bpr"]
    students = tuple(
        dataclasses.replace(cell, dim=3, settings={**cell.settings, **({"experts": 2} if cell.name == "de" else {})})
        for cell in table.students
        if cell.name in {"plain", "de", "rrd", "rrd-top"}
    )
    small = dataclasses.replace(
        table, training={"epochs": 2}, teacher=dataclasses.replace(table.teacher, dim=6), students=students
    )
    monkeypatch.setitem(derrd.TABLES, "bpr", small)
    return small


def quiet(_):
    pass


def test_the_table_is_written_and_a_second_call_repeats_nothing(data, short, tmp_path):
    where = {"data": data, "out": tmp_path / "results" / "de-rrd", "work": tmp_path / "work", "seeds": [1, 2]}
    said = []
    found = reproduce("de-rrd", say=said.append, **where)
    assert len(said) == 10
    row = found["tables"]["bpr"]["methods"]["rrd"]
    assert set(row["seeds"]) == {"1", "2"}
    assert row["mean"]["test.H@5"] == pytest.approx(np.mean([s["test.H@5"] for s in row["seeds"].values()]))
    low, high = row["interval"]["test.H@5"]
    assert low <= row["mean"]["test.H@5"] <= high
    assert json.loads((tmp_path / "results" / "de-rrd.json").read_text()) == json.loads(json.dumps(found))
    page = (tmp_path / "results" / "de-rrd.md").read_text()
    assert "0.4843, 0.3989" not in page, "de-rrd was not run, so its row is missing"
    assert "0.4622, 0.3809 | 0.4698, 0.3879" in page
    assert "Not run yet: missing." in page  # NeuMF
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "results" / "de-rrd").rglob("*.json")}
    assert reproduce("de-rrd", say=quiet, **where) == found
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_the_means_of_the_ranks_are_the_metrics(data, short, tmp_path):
    experiment = Experiment.open(data, tmp_path / "out", tmp_path / "work")
    result = run_cell(experiment, short, short.students[0], 1)
    ranks = unpack(result["ranks"]["10"])
    assert len(ranks) == 40
    assert result["own"]["test.H@10"] == pytest.approx((ranks <= 10).mean())
    assert result["own"]["test.N@10"] == pytest.approx(((ranks <= 10) / np.log2(ranks + 1)).mean())


def test_ranks_survive_packing_with_their_halves():
    ranks = np.array([1, 2.5, 500, 17])
    np.testing.assert_array_equal(unpack(pack(ranks)), ranks)


def test_a_cell_another_process_holds_is_left_to_it(data, short, tmp_path):
    experiment = Experiment.open(data, tmp_path / "out", tmp_path / "work")
    about = experiment.about(short, short.students[0], 1)
    with experiment.cells.path("bpr-plain-seed1", about, ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_cell(experiment, short, short.students[0], 1) is None
    assert run_cell(experiment, short, short.students[0], 1) is not None


def test_the_candidates_are_drawn_once_and_recorded(data, tmp_path):
    first = Experiment.open(data, tmp_path / "out", tmp_path / "work").candidates
    again = Experiment.open(data, tmp_path / "other", tmp_path / "work").candidates
    fresh = Experiment.open(data, tmp_path / "out", tmp_path / "fresh").candidates
    assert first.digest == again.digest == fresh.digest


def test_unknown_papers_tables_and_rows_get_their_neighbours(data, tmp_path):
    where = {"data": data, "out": tmp_path / "o", "work": tmp_path / "w", "say": quiet}
    with pytest.raises(UnknownName, match=r"Unknown paper 'derrd'. Did you mean 'de-rrd'"):
        reproduce("derrd", **where)
    with pytest.raises(UnknownName, match=r"Unknown table 'brp'. Did you mean 'bpr'"):
        reproduce("de-rrd", tables=["brp"], **where)
    with pytest.raises(UnknownName, match=r"Unknown row 'plane'. Did you mean 'plain'"):
        reproduce("de-rrd", only=["plane"], **where)
    with pytest.raises(DataError, match=r"nowhere"):
        reproduce("de-rrd", **{**where, "data": tmp_path / "nowhere"})


def test_every_seed_has_its_own_teacher_before_its_students():
    order = [(cell.name, seed) for _, cell, seed in cells_of(["bpr"], [3, 4])]
    assert order[0] == ("teacher", 3)
    each = 1 + len(TABLES["bpr"].students)
    assert order[each] == ("teacher", 4)
    assert len(order) == 2 * each


def test_the_published_order_holds_in_the_published_figures():
    for table in DE_RRD_PAPER.values():
        assert table["plain"]["H@5"] < table["de-rrd"]["H@5"] < table["teacher"]["H@5"]
        assert all(row["H@5"] < row["H@10"] < row["H@20"] for row in table.values())
    assert DE_RRD_LOG["bpr"]["de"]["H@5"] == 0.4773


def test_a_page_without_any_cell_says_missing(data, tmp_path):
    found = reproduce("de-rrd", data=data, out=tmp_path / "o" / "de-rrd", work=tmp_path / "w", seeds=[], say=quiet)
    assert markdown(found).count("Not run yet: missing.") == len(TABLES)


def test_a_finished_cell_appears_whole(tmp_path):
    cells = Cells(tmp_path)
    cells.put("x", {"a": 1}, {"value": 2})
    assert cells.get("x", {"a": 1}) == {"value": 2}
    assert cells.get("x", {"a": 2}) is None
    assert [p.name for p in tmp_path.iterdir()] == [cells.path("x", {"a": 1}).name]


def test_a_cell_is_waited_for_and_then_read(tmp_path):
    cells = Cells(tmp_path)
    order = []

    def second():
        with cells.claim("x", 1, wait=True) as mine:
            order.append(("second", mine, cells.get("x", 1)))

    with cells.claim("x", 1) as mine, cells.claim("x", 1) as other:
        assert (mine, other) == (True, False)
        waiting = threading.Thread(target=second)
        waiting.start()
        cells.put("x", 1, {"value": 2})
        order.append("first")
    waiting.join()
    assert order == ["first", ("second", True, {"value": 2})]


def test_a_search_for_settings_shows_validation_figures_and_no_others(data, short, tmp_path, monkeypatch):
    table = TABLES["trials"]
    trial = next(cell for cell in table.students if cell.name == "rrd-3e-3")
    trial = dataclasses.replace(trial, dim=3, training={"epochs": 1})
    monkeypatch.setitem(derrd.TABLES, "trials", dataclasses.replace(table, teacher=short.teacher, students=(trial,)))
    monkeypatch.setitem(derrd.TABLES["trials"].training, "epochs", 2)
    where = {"data": data, "out": tmp_path / "o" / "de-rrd", "work": tmp_path / "w", "seeds": [1], "say": quiet}
    said: list[str] = []
    found = reproduce("de-rrd", tables=["trials"], **{**where, "say": said.append})
    assert said[-1].startswith("trials rrd-3e-3 seed 1: valid H@5")
    row = found["tables"]["trials"]["methods"][trial.name]["seeds"]["1"]
    assert row["epochs"] == 1, "what the cell says of its training goes before what the table says"
    assert "valid.H@5" in row
    assert not [key for key in row if key.startswith("test")]
    assert f"| {trial.name} | rrd | weight = 0.003, epochs = 1 | 1 |" in markdown(found)


def test_tables_of_one_base_model_share_their_teacher():
    labels = {table.label(table.teacher, 1) for table in TABLES.values()}
    assert labels == {"bpr-teacher-seed1", "neumf-teacher-seed1"}
