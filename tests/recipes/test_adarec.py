"""Searched students beside teachers, hand-made ones and random cells: computed once, gone on with, printed."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import polars as pl
import pytest

from recdistill.data.synthetic import planted
from recdistill.errors import UnknownName
from recdistill.evaluation.compare import holm
from recdistill.recipes import adarec, adarec_page, as_fast, scenes
from recdistill.recipes.adarec_page import _dearness
from recdistill.recipes.cells import Cells
from recdistill.recipes.derrd import pack
from recdistill.recipes.onnx_times import onnx_times
from recdistill.recipes.papers import REPRODUCTIONS
from recdistill.recipes.scenes import RANDOM, Scene, Study, extras, rows
from recdistill.recipes.sequences import Places
from recdistill.search.derive import Design, named
from recdistill.search.space import SPACES

FAST = {"epochs": 2, "batch": 20, "lr": 0.01, "device": "cpu"}


AS_FAST = ("nextitnet as fast", "sasrec as fast")
FIXED = ("all-none", "all-skip", "nextitnet", "sasrec", "all-cau_cnn_3_d2")


@pytest.fixture
def data(tmp_path):
    """Two logs of 40 users who walk round 30 items: the last item is the test, the last but one valid."""
    for name, pace in (("walks", 7), ("strolls", 11)):
        logged = []
        for user in range(40):
            items = [(user * pace + step) % 30 for step in range(6 + user % 5)]
            parts = ["train"] * (len(items) - 2) + ["valid", "test"]
            logged += [(user, item, part) for item, part in zip(items, parts, strict=True)]
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        pl.DataFrame(logged, schema=["user_id", "item_id", "split"], orient="row").write_parquet(
            folder / "interactions.parquet"
        )
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two scenes with narrow models."""
    teacher = {"dim": 12, "groups": 2, "dropout": 0.1}
    search = {"epochs": 1, "warm_up": 0, "cells": 2, "device": "cpu", "frame": {"dim": 4}}
    both = [
        Scene(name, name.title(), name, "given", teacher, search=search, training=FAST) for name in ("walks", "strolls")
    ]
    monkeypatch.setattr(scenes, "SCENES", {each.name: each for each in both})
    monkeypatch.setattr(adarec, "SCENES", {each.name: each for each in both})
    quick = partial(onnx_times, rounds=1)
    monkeypatch.setattr(scenes, "onnx_times", quick)
    monkeypatch.setattr(as_fast, "onnx_times", quick)
    candidates = {"nextitnet": [{"dim": 4, "groups": 1, "tied": True}], "sasrec": [{"dim": 4, "layers": 1, "heads": 1}]}
    monkeypatch.setattr(scenes, "CANDIDATES", candidates)
    monkeypatch.setattr(scenes, "TEACHERS", {"sasrec": {"dim": 8, "layers": 2}, "bert4rec": {"dim": 8, "cloze": 1}})
    narrow = {"small sasrec": ("sasrec", {"dim": 4, "layers": 2, "heads": 1})}
    monkeypatch.setattr(scenes, "_SMALL", narrow)
    for module in (scenes, adarec):
        monkeypatch.setattr(module, "RANDOM", 2)


@pytest.fixture
def where(data, tmp_path):
    return {"data": data, "out": tmp_path / "results" / "adarec", "work": tmp_path / "work", "seeds": [1]}


def test_every_row_is_computed_once_and_printed(where, tmp_path):
    said: list[str] = []
    found = adarec.reproduce(say=said.append, tables=["walks"], **where)
    table = found["scenes"]["walks"]["rows"]
    here = [row for row in rows("walks") if row not in {"search", "sizes", "latency", "cell of strolls"}]
    assert [name for name, row in table.items() if row["seeds"]] == here
    assert table["teacher"]["retention"][0] == pytest.approx(100)
    assert table["searched"]["body"][1] < table["teacher"]["body"][0]
    assert table["all-none"]["body"][1] <= table["nextitnet"]["body"][0]
    assert found["scenes"]["walks"]["against random"]["1"]["cells"] == 2
    page = (tmp_path / "results" / "adarec.md").read_text()
    assert "| cell of strolls | missing |" in page
    assert "Not run yet (`--tables strolls`): missing." in page
    assert "| random cells of its price, mean of 2 | 1 |" in page
    assert {"teacher", "searched", "small sasrec", "random 1"} <= set(found["scenes"]["walks"]["ms"]["1"])
    assert set(found["scenes"]["walks"]["ms"]["1"]["searched"]["256"]) == {"body", "head", "end to end"}
    others = found["scenes"]["walks"]["against others"]
    assert set(others) == {"teacher", "searched alone", *FIXED, "small sasrec", *AS_FAST}
    for metric in ("NDCG@10", "NDCG@20"):
        assert all(each[metric]["corrected"] >= each[metric]["p"] for each in others.values())
    ms = found["scenes"]["walks"]["ms"]["1"]
    ratio = ms["searched"]["1"]["body"] / ms["small sasrec"]["1"]["body"]
    (line,) = (line for line in page.splitlines() if line.startswith("| small sasrec | 1 | ") and "(" in line[21:30])
    assert line.endswith(f"| {ratio:.2f} |")
    assert "- Seed 1 found: " in page
    assert page.count("| must show | measured | does it |") == 1
    assert "| body at least 5 times as fast as the teacher's | " in page
    assert json.loads((tmp_path / "results" / "adarec.json").read_text()) == json.loads(json.dumps(found))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}
    cells = {path for path in before if path.parent.name == "cells"}
    assert len(cells) == len(here) + 3  # the search, what is as fast, and the milliseconds
    assert adarec.reproduce(say=said.append, tables=["walks"], **where) == found
    assert all(path.stat().st_mtime_ns == before[path] for path in cells)


def test_a_cell_of_another_scene_is_trained_once_that_scene_is_searched(where):
    only = ["searched", "cell of walks"]
    first = adarec.reproduce(say=str, tables=["strolls"], only=only, **where)
    assert not first["scenes"]["strolls"]["rows"]["cell of walks"]["seeds"]
    adarec.reproduce(say=str, tables=["walks"], only=["search"], **where)
    then = adarec.reproduce(say=str, tables=["strolls"], only=only, **where)
    assert then["scenes"]["strolls"]["rows"]["cell of walks"]["seeds"]
    page = where["out"].with_suffix(".md").read_text()
    assert "| Strolls: own cell less the cell of walks | 1 |" in page


def test_a_student_that_two_rows_share_is_trained_once_and_training_it_again_gives_the_same(where):
    folder = where["out"] / "cells"

    def outcome(row: str) -> dict:
        (path,) = folder.glob(f"walks-{row}-seed1-*.json")
        return json.loads(path.read_text())

    adarec.reproduce(say=str, tables=["walks"], only=["search"], **where)
    (path,) = folder.glob("walks-search-*.json")
    search = json.loads(path.read_text())
    skip = named("all-skip", SPACES["attentive"], width=4, depth=2)
    search["designs"] |= {"searched": skip.model_dump(mode="json")}
    path.write_text(json.dumps(search))
    adarec.reproduce(say=str, tables=["walks"], only=["searched"], **where)
    adarec.reproduce(say=str, tables=["walks"], only=["all-skip"], **where)
    trained, read = outcome("searched"), outcome("all-skip")
    assert read["same as"] == "searched"
    of = ("ranks", "valid", "test", "parameters", "seconds")
    assert [read[each] for each in of] == [trained[each] for each in of]
    for path in (*folder.glob("walks-searched-*.json"), *folder.glob("walks-all-skip-*.json")):
        path.unlink()
    adarec.reproduce(say=str, tables=["walks"], only=["all-skip"], **where)
    again = outcome("all-skip")
    assert "same as" not in again
    assert (again["ranks"], again["valid"]) == (trained["ranks"], trained["valid"])


def test_what_is_as_fast_says_its_size_where_it_is_the_small_model_too(where, monkeypatch):
    (narrow,) = scenes.CANDIDATES["sasrec"]
    monkeypatch.setattr(scenes, "_SMALL", {"small sasrec": ("sasrec", narrow)})
    adarec.reproduce(say=str, tables=["walks"], only=["small sasrec", "sasrec as fast"], **where)
    (path,) = (where["out"] / "cells").glob("walks-sasrec-as-fast-*.json")
    found = json.loads(path.read_text())
    assert found["same as"] == "small sasrec"
    assert found["student"].items() >= narrow.items()


def test_the_random_cells_cost_what_the_searched_one_does(where):
    adarec.reproduce(say=str, tables=["walks"], only=["search"], **where)
    (path,) = (where["out"] / "cells").glob("walks-search-*.json")
    result = json.loads(path.read_text())
    designs = {name: Design.model_validate(each) for name, each in result["designs"].items()}
    assert set(designs) == {"searched", "random 0", "random 1"}
    assert designs["random 0"].operators != designs["searched"].operators
    assert set(result["inherited"]) == {*designs, *FIXED}
    low, high = sorted(result["inherited"][f"random {at}"] for at in range(2))
    page = where["out"].with_suffix(".md").read_text()
    searched, before = result["inherited"]["searched"], result["derived"]["inherited"]
    said = f"searched {searched:.4f}, as alpha has it {before:.4f}, random cells {low:.4f} to {high:.4f}."
    assert said in page


def test_hand_made_students_are_the_largest_that_take_no_longer_than_the_searched_one(monkeypatch):
    train = planted(users=20, items=30, interactions=200, dim=4, seed=1)
    sizes = [{"dim": 4, "layers": layers, "heads": 1} for layers in (1, 2, 3)]
    ms = {"searched": 2.0, "sasrec 0": 1.5, "sasrec 1": 1.9, "sasrec 2": 2.1, "gru4rec 0": 2.6, "gru4rec 1": 2.4}

    def onnx_times(models, train, **asked):
        del train
        assert (asked["batches"], asked["length"]) == ((1,), 50)
        assert set(models) == set(ms)
        return {name: {"1": {"body": ms[name]}} for name in models}

    monkeypatch.setattr(as_fast, "onnx_times", onnx_times)
    among = {"sasrec": sizes, "gru4rec": [{"dim": 4}, {"dim": 6}]}
    chosen = as_fast.as_fast(("cells", {"dim": 4, "cell": "all-skip"}), train, candidates=among)
    assert chosen == {
        "ms": 2.0,
        "sasrec": {"student": sizes[1], "ms": 1.9},
        "gru4rec": {"student": {"dim": 6}, "ms": 2.4},  # none is fast enough: the fastest
    }


def test_what_is_as_fast_is_chosen_once_and_another_choice_is_not_asked_for(where, monkeypatch):
    adarec.reproduce(say=str, tables=["walks"], only=["sasrec as fast"], **where)
    (sizes,) = (where["out"] / "cells").glob("walks-sizes-*.json")
    chosen = json.loads(sizes.read_text())["sasrec"]
    places = Places(Cells(where["out"] / "cells"), where["work"], lambda _: ())
    study = Study(scenes.SCENES["walks"], 1, None, places)
    assert study.about("sasrec as fast")["student"] == chosen["student"], "another choice is another row"
    monkeypatch.setattr(scenes, "as_fast", None)
    found = adarec.reproduce(say=str, tables=["walks"], only=["nextitnet as fast"], **where)
    (made,) = (where["out"] / "cells").glob("walks-sasrec-as-fast-*.json")
    assert chosen["student"].items() <= json.loads(made.read_text())["student"].items()
    assert found["scenes"]["walks"]["as fast"]["1"]["sasrec"] == chosen
    page = where["out"].with_suffix(".md").read_text()
    assert f"sasrec dim 4, heads 1, layers 1 ({chosen['ms']:.3g} ms)." in page


def test_further_rows_are_computed_for_who_names_them_and_printed_where_they_are(where):
    only = ["searched", "searched: as alpha has it", "searched: mapping left", "searched: no hidden"]
    only += ["sasrec: searched", "sasrec: teacher"]
    assert set(only[1:]) <= set(extras())
    assert not set(extras()) & set(rows("walks"))
    found = adarec.reproduce(say=str, tables=["walks"], only=only, **where)
    against = found["scenes"]["walks"]["against others"]
    assert set(against) == {"teacher", *only[1:4]}, "another teacher's are no matter of these"
    for family in (["teacher"], only[1:4]):  # each with a correction of its own
        raw = [against[row]["NDCG@10"]["p"] for row in family]
        assert [against[row]["NDCG@10"]["corrected"] for row in family] == holm(raw).tolist()
    files = (where["out"] / "cells").glob("*.json")
    cells = {path.name.rsplit("-", 2)[0]: json.loads(path.read_text()) for path in files}
    about = {name: each["about"] for name, each in cells.items()}
    assert about["walks-searched-mapping-left"]["distillation"]["mapping"] == "left"
    assert about["walks-searched-no-hidden"]["distillation"]["hidden"] == 0
    assert about["walks-searched-no-hidden"]["from"] == about["walks-search"], "their cells are that search's"
    assert about["walks-searched"]["distillation"] == about["walks-searched-as-alpha-has-it"]["distillation"]
    assert about["walks-sasrec-searched"]["teacher"]["name"] == "sasrec"
    assert about["walks-sasrec-search"] == {
        **about["walks-search"],
        "teacher": about["walks-sasrec-teacher"]["teacher"],
    }
    page = where["out"].with_suffix(".md").read_text()
    there = [name for name in (*rows("walks"), *extras()) if f"| {name} | 1 | " in page]
    assert set(there) >= set(only) | {"teacher"}
    assert "bert4rec: teacher" not in page
    times = cells["walks-sasrec-teacher"]["body"] / cells["walks-sasrec-searched"]["body"]
    assert "- Taught by sasrec: " in page
    assert f" of its NDCG@10 at 1/{times:.1f} of its body." in page
    kept = cells["walks-sasrec-searched"]["test"]["NDCG@10"] / cells["walks-sasrec-teacher"]["test"]["NDCG@10"]
    assert f"- Taught by sasrec: {100 * kept:.1f} % (" in page


def test_the_cells_as_alpha_has_them_are_those_before_the_refinement(where):
    adarec.reproduce(say=str, tables=["walks"], only=["search"], **where)
    places = Places(Cells(where["out"] / "cells"), where["work"], lambda _: ())
    study = Study(scenes.SCENES["walks"], 1, None, places)
    cells = study.found("search")["derived"]["cells"]
    assert study._design("searched: as alpha has it").operators[0] == tuple(cells)
    assert study._design("searched: mapping left") == study._design("searched")


def test_names_that_are_not_there_are_refused(where):
    with pytest.raises(UnknownName, match="Unknown table 'wlaks'"):
        adarec.reproduce(tables=["wlaks"], **where)
    with pytest.raises(UnknownName, match="Unknown row 'serched'"):
        adarec.reproduce(tables=["walks"], only=["serched"], **where)


def test_it_is_a_paper_of_the_command():
    assert REPRODUCTIONS["adarec"].tables == "ml-100k"
    assert RANDOM == 10


def test_what_a_search_costs_has_its_refinement_where_it_was_timed():
    trained = {"seconds": 10.0}
    assert _dearness({"seconds": 20.0}, trained) == ", 2 times its training"
    assert _dearness({"seconds": 20.0, "refine_seconds": 5.0}, trained) == ", 2.5 times its training"


def test_the_supernets_order_is_judged_of_all_designs_and_of_the_random_ones_alone():
    inherited = {"all-none": 0.1, "searched": 0.5, "random 0": 0.4, "random 1": 0.3}
    after = {"all-none": 0.1, "searched": 0.5, "random 0": 0.2, "random 1": 0.3}
    both = {name: {"valid": {"NDCG@10": value}, "test": {"NDCG@10": -value}} for name, value in after.items()}
    tau = adarec._rank_correlations(inherited, both)
    both_ways = pytest.approx(-1)
    found = {"designs": 4, "valid": pytest.approx(4 / 6), "test": pytest.approx(-4 / 6), "after": both_ways}
    assert tau["all"] == found, "one pair of six"
    assert tau["random"] == {"designs": 2, "valid": pytest.approx(-1), "test": pytest.approx(1), "after": both_ways}


def test_where_cells_differ_by_seed_sizes_are_a_range_and_times_those_of_the_slowest_seed():
    rest = {"valid": {}, "test": {}, "epochs": 1, "seconds": 1.0, "ranks": pack(np.array([1, 3]))}
    bodies = {1: 20, 2: 50, 3: 30}
    done = {seed: rest | {"parameters": 900 + body, "body": body} for seed, body in bodies.items()}
    row = adarec._summary(done, {})
    assert (row["parameters"], row["body"]) == ([920, 950], [20, 50])
    assert adarec_page._range(row["body"]) == "20 - 50"
    assert adarec_page._range([20, 20]) == "20"
    ms = {seed: {"searched": {"1": {"body": body}}} for seed, body in (("1", 0.2), ("2", 0.5))}
    assert adarec_page._slowest(ms, "searched") == {"1": {"body": 0.5}}
    assert adarec_page._slowest(ms, "teacher") == {}
