"""Every method on real data: tuned once, used everywhere, missing where it is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recdistill.recipes.method_tables as module
from recdistill.data.synthetic import planted
from recdistill.errors import UnknownName
from recdistill.recipes.cells import Cells
from recdistill.recipes.method_tables import TABLES, reproduce, rows
from recdistill.recipes.method_tables_page import markdown, pack, unpack


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two logs of the tables, made up, and tables that train for one epoch."""
    for folder, parts in (("citeulike_derrd", (0, 1, 2)), ("lastfm_lightgcn", (0, 2))):
        log = planted(users=40, items=550, interactions=900, dim=4, seed=1)
        log = log.take(np.argsort(log.user, kind="stable"))
        first = np.append(True, log.user[1:] != log.user[:-1])
        part = np.where(first, parts[-1], 0)
        if len(parts) > 2:
            part = np.where(np.append(False, first[:-1]), 1, part)
        (tmp_path / folder).mkdir()
        columns = {"user_id": list(log.users.external(log.user)), "item_id": list(log.items.external(log.item))}
        names = np.array(["train", "valid", "test"])[part]
        pl.DataFrame({**columns, "split": names}).write_parquet(tmp_path / folder / "interactions.parquet")
    short = {name: replace(table, training={"epochs": 1}, dim=4) for name, table in TABLES.items()}
    monkeypatch.setattr(module, "TABLES", short)
    monkeypatch.setattr(module, "_TRIALS", 2)
    return {"data": tmp_path, "out": tmp_path / "o" / "methods", "work": tmp_path / "w"}


def test_every_method_that_such_a_student_can_have_is_a_row():
    assert rows()[:2] == ["teacher", "plain"]
    assert {"rrd", "de", "bd", "hetcomp", "sum"} <= set(rows())
    assert "adarec" not in rows(), "it needs layers of a sequential teacher"


def test_values_survive_packing_to_three_digits():
    values = np.array([0.0, 1.0, 0.5, 1 / np.log2(3)])
    np.testing.assert_allclose(unpack(pack(values)), values, atol=5e-4)


def test_a_method_is_tuned_on_one_table_and_its_winner_is_used_on_the_other(places, monkeypatch):
    said = []
    asked = {"seeds": [1], "tables": ["lastfm-10", "lastfm-5"], "only": ["teacher", "plain", "rrd"]}
    found = reproduce(**places, **asked, say=said.append)
    assert len(said) == 6
    assert said[0].startswith("lastfm-10 teacher seed 1: test ndcg@10 ")
    first, other = (found["tables"][name]["rows"]["rrd"] for name in ("lastfm-10", "lastfm-5"))
    assert first["settings"]["method"] == other["settings"]["method"]
    assert {key: first["settings"]["train"][key] for key in ("lr", "weight_decay")} == {
        key: other["settings"]["train"][key] for key in ("lr", "weight_decay")
    }
    assert set(first["means"]) == set(other["means"]) == {"full"}
    cells = places["out"] / "cells"
    assert len(list(cells.glob("lastfm-*-trials-*.json"))) == 3, "the teacher, plain and rrd, once for both sizes"
    assert found["tables"]["lastfm-10"]["tests"]["full"]["rrd"]["p"] <= 1
    text = (places["out"].with_name("methods.md")).read_text(encoding="utf-8")
    assert text == markdown(found)
    assert "| rrd | 1 |" in text
    assert f"full, {found['tables']['lastfm-10']['tests']['full']['rrd']['users']} users:" in text
    assert "| htd | missing |" in text
    assert "Not run yet: missing." in text
    assert not list(places["work"].rglob("rrd*.safetensors")), "students' checkpoints are gone"

    def nothing(*words, **more):
        raise AssertionError(words)

    monkeypatch.setattr("recdistill.recipes.lessons.distill", nothing)
    assert reproduce(**places, **asked, say=said.append) == found


def test_a_table_may_have_few_rows_and_its_cells_are_not_named_by_them(places):
    chosen = TABLES["foursquare-10"].rows
    assert {"teacher", "plain"} < set(chosen) < set(rows())
    found = reproduce(**places, seeds=[1], tables=["lastfm-10"], only=["teacher"], say=str)
    assert list(found["tables"]["foursquare-10"]["rows"]) == list(chosen)
    assert list(found["tables"]["lastfm-10"]["rows"]) == rows()
    with pytest.raises(UnknownName, match="'rd'"):
        reproduce(**places, tables=["foursquare-10"], only=["rd"])
    about = module._about(TABLES["foursquare-10"], "plain", 1)
    assert about == module._about(replace(TABLES["foursquare-10"], rows=()), "plain", 1)


@pytest.mark.parametrize("row", ["teacher", "plain", "rrd"])
def test_what_names_a_finished_cell_is_as_it_was(row):
    folder = Path(__file__).parents[2] / "docs" / "results" / "methods" / "cells"
    for table in ("lastfm-10", "lastfm-5"):
        about = json.loads(json.dumps(module._about(TABLES[table], row, 1)))
        assert Cells(folder).has(f"{table}-{row}-seed1", about), table


def test_where_cells_ran_is_said_also_of_those_that_did_not_keep_it(places):
    found = reproduce(**places, seeds=[1], tables=["lastfm-10"], only=["teacher"], say=str)
    (cell,) = (places["out"] / "cells").glob("lastfm-10-teacher-seed1-*.json")
    about = json.loads(cell.read_text())
    machine = f"{about['device']}, {about['environment']['cpu']}, {about['environment']['cpus']} processors"
    (where,) = found["where"]
    assert where.startswith(machine)
    assert f"on: {where} (1 cells)" in markdown(found)
    device = f"{about['device']}, machine not kept"
    for gone, left in (("environment", device), ("device", "device and machine not kept")):
        del about[gone]
        cell.write_text(json.dumps(about))
        found = reproduce(**places, seeds=[1], tables=["lastfm-10"], only=["teacher"], say=str)
        assert found["where"] == {left: 1}


def test_unknown_tables_and_rows_are_said(places):
    with pytest.raises(UnknownName, match="Did you mean 'citeulike-10'"):
        reproduce(**places, tables=["citeulike10"])
    with pytest.raises(UnknownName, match="Did you mean 'rrd'"):
        reproduce(**places, only=["rrdd"])


def test_each_log_is_tuned_on_itself_and_citeulike_is_measured_by_both_protocols(places):
    found = reproduce(**places, seeds=[1], tables=["citeulike-10"], only=["teacher", "plain"], say=str)
    assert set(found["tables"]["citeulike-10"]["rows"]["plain"]["means"]) == {"sampled(499)", "full"}
    cells = {path.name.rpartition("-")[0] for path in (places["out"] / "cells").glob("*-trials-*.json")}
    assert cells == {"citeulike-10-plain-trials"}, "its teacher is as the authors train it"


def test_rows_are_tested_over_the_seeds_they_share_with_teacher_and_plain(places):
    asked = {"tables": ["citeulike-10"], "say": str}
    reproduce(**places, **asked, seeds=[1, 2], only=["teacher", "plain"])
    found = reproduce(**places, **asked, seeds=[1], only=["rrd"])
    tests = found["tables"]["citeulike-10"]["tests"]["full"]
    assert tests["rrd"]["seeds"] == [1]
    assert tests["plain"]["seeds"] == [1, 2]
    assert tests["rrd"]["p"] is not None
    assert tests["plain"]["p"] is None
