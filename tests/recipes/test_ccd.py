"""CCD along a small stream: cells computed once, stages shared, gone on with, printed."""

from __future__ import annotations

import dataclasses
import json
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.continual.settings import Update, over, settings_of
from recdistill.continual.snapshot import Snapshot
from recdistill.data.blocks import official
from recdistill.errors import DataError, UnknownName
from recdistill.evaluation.continual import continual
from recdistill.recipes import ccd, ccd_page, kept, lineage
from recdistill.recipes.ccd import ROWS, SCENES, Scene, markdown, measured, reproduce
from recdistill.recipes.ccd_published import Floor
from recdistill.recipes.ccd_rows import ABLATIONS
from recdistill.recipes.papers import REPRODUCTIONS
from recdistill.runtime import Runtime
from recdistill.training import trainer

OTHER = Runtime(torch.device("meta"))

TINY = {"epochs": 3, "batch": 64, "every": 3}
SETTINGS = {
    "student": {"dim": 4},
    "teachers": [{"name": "mf", "dim": 5}, {"name": "vae", "dim": 4}, {"name": "lightgcn", "dim": 4}],
    "base": TINY,
    "plain": TINY,
    "distil": {"training": TINY, "near": 5},
    "update": {"training": TINY, "margin": 1e-4, "replay": {"depth": 8}},
    "teach": {"training": TINY, "replay": {"depth": 8}},
}


@pytest.fixture
def data(tmp_path):
    """Three blocks of 30, 36 and 40 users over 70, 80 and 90 items."""
    chance = np.random.default_rng(0)
    rows = []
    for k, (users, items) in enumerate(((30, 70), (36, 80), (40, 90))):
        for u in range(users):
            near = (np.arange(items) % 4 == u % 4) * 5.0 + 1
            mine = chance.choice(items, size=8, replace=False, p=near / near.sum())
            rows += [
                (u, int(i), k, part) for i, part in zip(mine, ["train"] * 5 + ["valid", "test", "test"], strict=True)
            ]
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "block", "split"], orient="row")
    table.write_parquet(folder / "interactions.parquet")
    return folder.parent


@pytest.fixture
def small(monkeypatch):
    scene = Scene("tiny", "Tiny", "tiny", SETTINGS, published="yelp")
    monkeypatch.setattr(ccd, "SCENES", {"tiny": scene})
    return scene


def places(tmp_path, data, name="a"):
    return {"data": data, "out": tmp_path / name / "ccd", "work": tmp_path / name / "work", "tables": ["tiny"]}


def test_the_table_is_written_and_a_second_call_repeats_nothing(data, small, tmp_path, monkeypatch):
    where = places(tmp_path, data)
    said: list[str] = []
    rows = ["fine-tune: decay of touched rows", "ccd", "teachers", "teachers on their own", "popularity so far"]
    found = reproduce(**where, seeds=[1], only=rows, say=said.append)
    assert [line.split(" seed")[0] for line in said] == [f"tiny {row}" for row in rows]
    row = found["scenes"]["tiny"]["rows"]["ccd"]["seeds"]["1"]
    a = np.array(row["recall@20"], np.float64)
    assert np.isnan(a[np.triu_indices(3, 1)]).all(), "no block is asked before it came"
    whole = continual(a, decimals=4)
    assert row["recall@20 with base"][-1] == [whole[-1].la, whole[-1].ra, whole[-1].h]
    errors = np.array(row["error"], np.float64)
    expected = [np.sqrt((np.diag(errors) ** 2).sum()) / 3, np.sqrt((errors[2] ** 2).sum()) / 3]
    np.testing.assert_allclose(found["scenes"]["tiny"]["rows"]["ccd"]["errors"], expected)
    assert row["new"][0] is None
    assert row["new"][2] is not None
    text = (tmp_path / "a" / "ccd.md").read_text()
    assert text == markdown(json.loads((tmp_path / "a" / "ccd.json").read_text()))
    assert "| gain of the student* |" in text
    assert "| published gain of the teacher |" in text
    drawn = ElementTree.parse(tmp_path / "a" / "ccd" / "tiny.svg").getroot()  # noqa: S314
    named = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "label"]
    assert named == ["teachers", "CCD", "fine-tune, touched"]
    monkeypatch.setattr(ccd, "Lineage", None)
    assert reproduce(**where, seeds=[1], only=rows, say=lambda _: None) == found


def test_a_scene_with_less_than_two_curves_has_no_figure(data, small, tmp_path):
    reproduce(**places(tmp_path, data), seeds=[1], only=["fine-tune"], say=lambda _: None)
    assert not list((tmp_path / "a" / "ccd").glob("*.svg"))


def test_rows_share_the_stages_they_have_in_common(data, small, tmp_path):
    where = places(tmp_path, data)
    reproduce(**where, seeds=[1], only=["ccd", "ccd: no replay", "no update"], say=lambda _: None)
    names = [path.name.rsplit("-", 1)[0] for path in (tmp_path / "a/work/stages").glob("*.safetensors")]
    assert names.count("teacher-base") == 3, "once a member, whatever the row"
    # distilled from blocks 0 and 1 by "ccd"; "no replay" shares the first, and has its own second
    assert names.count("distil") == 3
    assert names.count("student") == 4


def test_a_row_asks_once_for_what_a_stage_makes(data, small, tmp_path, monkeypatch):
    """Everything of a block needs what came before it several times, and that again what came before."""
    asked = []
    for name in ("snapshot", "unheld", "lists"):
        real = getattr(kept.Kept, name)

        def counted(self, stage, about, *rest, real=real):
            asked.append((stage, json.dumps(about, sort_keys=True), *(each for each in rest if isinstance(each, int))))
            return real(self, stage, about, *rest)

        monkeypatch.setattr(kept.Kept, name, counted)
    reproduce(**places(tmp_path, data), seeds=[1], only=["ccd"], say=lambda _: None)
    assert {stage for stage, *_ in asked} == {"teacher-base", "lists", "distil", "student", "teacher"}
    assert len(asked) == len(set(asked))


def test_the_teachers_of_a_table_are_those_that_taught_its_student(data, small, tmp_path):
    where = places(tmp_path, data)
    reproduce(**where, seeds=[1], only=["ccd"], say=lambda _: None)
    before = {path.name for path in (tmp_path / "a/work/stages").glob("*.safetensors")}
    reproduce(**where, seeds=[1], only=["teachers"], say=lambda _: None)
    made = {path.name for path in (tmp_path / "a/work/stages").glob("*.safetensors")} - before
    assert {name.rsplit("-", 1)[0] for name in made} == {"teacher"}, "only those of the last block were missing"
    assert len(made) == 3


def test_a_killed_run_ends_with_the_same_figures(data, small, tmp_path, monkeypatch):
    whole = reproduce(**places(tmp_path, data), seeds=[1], only=["ccd"], say=lambda _: None)
    left = [6]
    real = trainer.checkpoint.save

    def save(*args, **kwargs):
        real(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    where = places(tmp_path, data, "b")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            reproduce(**where, seeds=[1], only=["ccd"], say=lambda _: None)
    again = reproduce(**where, seeds=[1], only=["ccd"], say=lambda _: None)
    key = "recall@20"
    one, two = (found["scenes"]["tiny"]["rows"]["ccd"]["seeds"]["1"][key] for found in (whole, again))
    assert one == two


def test_what_is_known_of_an_unfinished_row_is_printed_as_unfinished(data, small, tmp_path, monkeypatch):
    where = places(tmp_path, data)
    real = lineage.Lineage.after

    def until_the_second_block(self, k):
        if k == 2:
            raise KeyboardInterrupt
        return real(self, k)

    with monkeypatch.context() as patch:
        patch.setattr(lineage.Lineage, "after", until_the_second_block)
        with pytest.raises(KeyboardInterrupt):
            reproduce(**where, seeds=[1], only=["fine-tune"], say=lambda _: None)
    found = reproduce(**where, seeds=[1], only=["popularity so far"], say=lambda _: None)
    row = found["scenes"]["tiny"]["rows"]["fine-tune"]
    assert (row["blocks"], row["of"]) == (2, 3)
    assert len(row["mean"]["recall@20 with base"]) == 2
    lines = (tmp_path / "a" / "ccd.md").read_text().splitlines()
    assert any(line.startswith("| fine-tune (unfinished: after D1) | 1 |") for line in lines)
    curve, _ = (line for line in lines if line.startswith("| fine-tune | 0."))  # H, then LA and RA
    assert curve.endswith(" |  |")
    reproduce(**where, seeds=[1], only=["fine-tune"], say=lambda _: None)
    assert "unfinished" not in (tmp_path / "a" / "ccd.md").read_text()


def test_no_row_has_a_comma_in_its_name():
    assert not [name for name in ROWS if "," in name], "--only takes a list with commas between"


def test_a_row_that_is_the_same_in_a_scene_is_named_and_not_run_twice(data, small, tmp_path, monkeypatch):
    within = {"update": {"margin": 0.5, "training": TINY}, "teach": {"margin": None}}
    monkeypatch.setitem(ROWS, "fine-tune: again", dataclasses.replace(ROWS["fine-tune"], name="fine-tune: again"))
    monkeypatch.setitem(ROWS, "fine-tune: other", ccd.Row("fine-tune: other", "fine-tune", within))
    said: list[str] = []
    names = ["fine-tune: again", "fine-tune: other", "fine-tune"]
    found = reproduce(**places(tmp_path, data), seeds=[1], only=names, say=said.append)
    assert said[0] == "tiny fine-tune: again: the same as fine-tune here"
    assert [line.split(" seed")[0] for line in said[1:]] == ["tiny fine-tune", "tiny fine-tune: other"]
    assert set(found["scenes"]["tiny"]["rows"]) == {"fine-tune", "fine-tune: other"}


def test_what_a_scene_sets_already_is_no_row_of_its_own():
    first = ccd._firsts(SCENES["yelp-lightgcn-small-all"])
    same = {name: whose for name, whose in first.items() if name != whose}
    assert same == {
        "fine-tune: graph of all blocks": "fine-tune: within a margin",
        "ccd: quick updates": "ccd",
        "ccd: warm start": "ccd",
        "ccd: graph of all blocks": "ccd",
    }
    assert ccd._firsts(SCENES["yelp-mf"])["ccd: warm start"] == "ccd: warm start"


@pytest.mark.slow
def test_every_row_runs(data, small, tmp_path):
    found = reproduce(**places(tmp_path, data), seeds=[1], only=list(ROWS), say=lambda _: None)
    rows = found["scenes"]["tiny"]["rows"]
    assert set(rows) == set(ccd._firsts(small).values())
    assert len(rows) > len(ROWS) - 5
    for row in rows.values():
        assert 0 <= row["mean"]["recall@20 with base"][-1][2] <= 1


def test_popularity_is_measured_as_worked_by_hand(tmp_path):
    rows = [(0, 0, 0, "train"), (1, 0, 0, "train"), (0, 1, 0, "train"), (1, 1, 0, "test"), (1, 2, 0, "valid")]
    rows += [(2, 2, 0, "train"), (2, 1, 1, "train"), (2, 0, 1, "test"), (2, 3, 1, "valid"), (3, 3, 1, "train")]
    folder = tmp_path / "s"
    folder.mkdir()
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "block", "split"], orient="row")
    table.write_parquet(folder / "interactions.parquet")
    stream = official(folder)
    found = measured(stream, lineage.Lineage(stream, "popularity", lambda _: None, seed=0, keep=None).after)
    # four items, lists of twenty: everything that is not masked is found
    assert found["recall@20"] == [[1.0, None], [1.0, 1.0]]
    assert found["error"] == [[0.0, None], [0.0, 0.0]]
    assert found["new"] == [None, None]
    assert found["old"] == [None, 1.0]


def test_an_unknown_table_or_row_and_data_that_is_not_there(tmp_path):
    where = {"data": tmp_path, "out": tmp_path / "o", "work": tmp_path / "w"}
    with pytest.raises(UnknownName, match="Did you mean 'yelp-mf'"):
        reproduce(**where, tables=["yelp"])
    with pytest.raises(UnknownName, match="Unknown row 'ccdd'"):
        reproduce(**where, only=["ccdd"])
    with pytest.raises(DataError, match=r"There is no interactions\.parquet in"):
        reproduce(**where)


def test_every_scene_and_row_has_settings_that_parse():
    for scene in SCENES.values():
        for row in ROWS.values():
            for k in range(6):
                assert ccd._settings(scene, row, k).student.dim in (8, 16)
    labels = {ccd._label(scene, row, 1) for scene in SCENES.values() for row in ROWS.values()}
    assert len(labels) == len(SCENES) * len(ROWS)
    assert REPRODUCTIONS["ccd"].tables == "yelp-mf-small"
    assert dataclasses.is_dataclass(SCENES["yelp-mf"])


@pytest.mark.parametrize("scene", SCENES)
def test_what_stands_beside_ccd_is_updated_as_the_sheet_has_it(scene):
    names = ("spmf", "lwc-kd", "lwc-kd with piw", "no update", "ccd: updates of the sheet")
    for name in names:
        found = ccd._settings(SCENES[scene], ROWS[name], 1)
        assert (found.update, found.teach.margin) == (Update(), None), name
    official = ccd._settings(SCENES[scene], ROWS["ccd as the official code"], 1)
    assert official.update == settings_of("compat").update
    distil = settings_of("compat").distil
    how = ("passes", "weight", "start", "layer")
    assert [getattr(official.distil, name) for name in how] == [getattr(distil, name) for name in how]
    assert official.teach.margin is None


@pytest.mark.parametrize("how", ["fine-tune", "spmf", "lwc-kd with piw"])
def test_a_margin_is_among_what_a_baseline_depends_on(data, small, tmp_path, how):
    reproduce(**places(tmp_path, data), seeds=[1], only=[f"{how}: within a margin"], say=lambda _: None)
    stages = tmp_path / "a/work/stages"
    of = [Snapshot.load(path)[1]["of"] for path in stages.glob(f"{how.split()[0]}-*.safetensors")]
    assert [about["margin"] for about in of] == [0.5, 0.5]


@pytest.mark.parametrize("name", [*ABLATIONS, "ccd: quick updates"])
def test_every_part_can_be_left_out(data, small, tmp_path, name):
    found = reproduce(**places(tmp_path, data), seeds=[1], only=["ccd", name], say=lambda _: None)
    whole, less = (found["scenes"]["tiny"]["rows"][row]["seeds"]["1"]["recall@20"] for row in ("ccd", name))
    assert whole[0] == less[0], "the first student is the same"
    students = [Snapshot.load(path)[0] for path in (tmp_path / "a/work/stages").glob("student-*.safetensors")]
    last = {each.digest for each in students if each.n_users == 40}
    assert len(last) == 2, "after the last block the row has a student of its own"


def test_a_part_that_is_left_out_is_not_run(data, small, tmp_path):
    def stages(name: str) -> list[str]:
        reproduce(
            **{**places(tmp_path, data, name), "work": tmp_path / name}, seeds=[1], only=[name], say=lambda _: None
        )
        return [path.name.rsplit("-", 1)[0] for path in (tmp_path / name / "stages").glob("*.safetensors")]

    assert "teacher" not in stages("ccd: no teacher update")
    assert stages("ccd: no teacher update").count("teacher-base") == 3
    # the student of block 2 begins from that of block 1, and no proxy of cycle 2 is left out
    assert stages("ccd: no distilled start").count("distil") == 2


def test_gains_are_over_the_baselines_that_are_there_and_name_the_missing(data, small, tmp_path):
    found = reproduce(**places(tmp_path, data), seeds=[1], only=["fine-tune", "spmf", "ccd"], say=lambda _: None)
    rows = found["scenes"]["tiny"]["rows"]
    for which in ("with", "without"):
        rows["spmf"]["mean"][f"recall@20 {which} base"].pop()  # unfinished: after D1
    h = {name: [curve[2] for curve in row["mean"]["recall@20 with base"]] for name, row in rows.items()}
    text = markdown(found)
    unbased = {
        name: [curve[2] for curve in row["mean"]["recall@20 without base"]] for name, row in rows.items()
    }  # from D1 on
    wanted = [unbased["ccd"][0] - max(unbased["fine-tune"][0], unbased["spmf"][0])]
    wanted += [unbased["ccd"][1] - unbased["fine-tune"][1]]
    assert "| the same without base* |  | " + " | ".join(f"{gain:+.4f}" for gain in wanted) + " |" in text
    wanted = [h["ccd"][1] - max(h["fine-tune"][1], h["spmf"][1]), h["ccd"][2] - h["fine-tune"][2]]
    assert "| gain of the student* |  | " + " | ".join(f"{gain:+.4f}" for gain in wanted) + " |" in text
    assert "Missing: fine-tune: decay of touched rows (from D1 on), fine-tune: within a margin (from D1 on), " in text
    assert "spmf (from D2 on), lwc-kd (from D1 on)" in text


def test_independent_figures_stand_beside_our_rows(data, small, tmp_path, monkeypatch):
    floor = (
        Floor("tiny, fine-tune", 0.1, 0.2, "tiny", "fine-tune"),
        Floor("tiny, spmf", 0.1, 0.2, "tiny", "spmf"),
        Floor("other", 0.3, 0.4),
    )
    monkeypatch.setattr(ccd_page, "CCD_FLOOR", floor)
    found = reproduce(**places(tmp_path, data), seeds=[1, 2], only=["fine-tune"], say=lambda _: None)
    mean = found["scenes"]["tiny"]["rows"]["fine-tune"]["mean"]
    h, without = (mean[f"recall@20 {which} base"][-1][2] for which in ("with", "without"))
    lines = markdown(found).splitlines()
    assert f"| tiny, fine-tune | 0.1000 | 0.2000 | fine-tune | 2 | {h:.4f} | {without:.4f} | {h - 0.1:+.4f} |" in lines
    assert "| tiny, spmf | 0.1000 | 0.2000 | spmf: missing |  |  |  |  |" in lines
    assert "| other | 0.3000 | 0.4000 | no such row |  |  |  |  |" in lines


def test_dormant_users_are_on_the_page_where_there_are_any(data, small, tmp_path):
    found = reproduce(**places(tmp_path, data), seeds=[1, 2], only=["popularity so far"], say=lambda _: None)
    seeds = found["scenes"]["tiny"]["rows"]["popularity so far"]["seeds"]

    def shown():
        lines = markdown(found).splitlines()
        head = next(n for n, line in enumerate(lines) if "| dormant users |" in line)
        assert lines[head].count("|") == lines[head + 1].count("|") == lines[head + 2].count("|")
        return lines[head + 2].split("|")[-2].strip()

    assert shown() == "", "nobody can be away in three blocks"
    seeds["1"]["dormant"], seeds["2"]["dormant"] = 0.1, 0.2
    assert shown() == "0.1500"


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_runs_with_its_student_and_its_teachers(data, tmp_path, monkeypatch, name):
    """The published ones too: an epoch of each stage, on a small stream."""
    scene, short = SCENES[name], {"epochs": 1, "batch": 128, "every": 1}
    quick = {"training": short}
    changes = {"base": short, "plain": short, "distil": {**quick, "near": 5}, "update": quick, "teach": quick}
    settings = over(settings_of("default", scene.settings), changes).model_dump(mode="json")
    small = dataclasses.replace(scene, folder="tiny", settings=settings)
    monkeypatch.setattr(ccd, "SCENES", {name: small})
    where = {**places(tmp_path, data), "tables": [name]}
    row = reproduce(**where, seeds=[1], only=["ccd"], say=lambda _: None)["scenes"][name]["rows"]["ccd"]
    assert (row["blocks"], row["of"]) == (3, 3)
    assert all(0 <= value <= 1 for value in row["mean"]["recall@20 with base"][-1])
    members = [each["name"] for each in settings["teachers"]]
    stages = [path.name.rsplit("-", 1)[0] for path in (tmp_path / "a/work/stages").glob("*.safetensors")]
    few = "small" in name
    of = (3 if few else 7) if "gowalla-lightgcn" in name else (2 if few else 5)
    assert stages.count("teacher-base") == len(members) == of
    assert (settings["student"]["name"] == "lightgcn") == ("lightgcn" in name)


def test_a_row_that_a_gpu_has_made_says_so(data, small, tmp_path, monkeypatch):
    asked = []
    real = kept.Run
    monkeypatch.setattr(ccd.Runtime, "of", lambda: OTHER)
    monkeypatch.setattr(kept, "Run", lambda *args: (asked.append(args[-1]), real(*args[:-1]))[1])
    found = reproduce(**places(tmp_path, data), seeds=[1], only=["fine-tune"], say=lambda _: None)
    assert set(asked) == {OTHER}
    assert found["scenes"]["tiny"]["rows"]["fine-tune"]["devices"] == ["meta"]
    assert "| fine-tune (meta) | 1 |" in markdown(found)
