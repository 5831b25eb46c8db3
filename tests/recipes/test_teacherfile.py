"""[teacher] of a run file: what other systems wrote, and one teacher at several moments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill.errors import DataError, SettingsError
from recdistill.recipes import lessons
from recdistill.recipes.distill import distill
from recdistill.recipes.runfile import RunSettings, resolve
from recdistill.recipes.teacherfile import Teacher, elsewhere, steps_of
from recdistill.settings import overlay, parse
from recdistill.teachers.ensemble import Ensemble
from recdistill.teachers.trajectory import Trajectory

PEERS = Path(__file__).parents[1] / "golden" / "peers"
RECBOLE = {"recbole": str(PEERS / "recbole_bpr.pth"), "ids": str(PEERS / "recbole_dataset.pth")}


@pytest.fixture
def run(tmp_path):
    """`run(teacher)`: 30 users x 20 items, called as RecBole's golden data set calls them, of whom each has 6 items."""
    with np.load(PEERS / "recbole_models.npz") as file:
        users, items = file["users"], file["items"]
    draw = np.random.default_rng(0)
    rows = [(user, item, at) for user in users for at, item in enumerate(draw.choice(items, 6, replace=False))]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.write_parquet(tmp_path / "log.parquet")

    def settings(teacher, *assign):
        table = {
            "data": {"path": str(tmp_path / "log.parquet")},
            "teacher": teacher,
            "student": {"model": "mf", "dim": 3, "baseline": False},
            "method": {"name": "rrd", "near": 4, "far": 4, "reach": 8, "depth": 10},
            "train": {"epochs": 2, "device": "cpu"},
            "evaluate": {"latency": False},
            "output": {"dir": str(tmp_path / "out")},
        }
        return parse(RunSettings, overlay(table, assign))

    return settings


class Heard:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def begin(self, stage):
        pass

    def watch(self, run):
        return ()


def test_a_recbole_checkpoint_teaches_from_a_run_file_and_says_what_it_knows(run):
    heard = Heard()
    outcome = distill(run(RECBOLE, "method.name=de", "method={name='de', experts=2}"), listener=heard)
    assert list(outcome.comparison.cards) == ["teacher", "de"]
    report = "knows 100 % of your items (20 of 20), 100 % of users (30 of 30)"
    assert f"the teacher recbole 'recbole_bpr.pth' {report}" in heard.said
    assert "recbole" in outcome.page.read_text(encoding="utf-8")


def test_factors_that_implicit_saved_teach_from_a_run_file(run, tmp_path):
    with np.load(PEERS / "recbole_models.npz") as file:
        users, items = file["users"], file["items"]
    draw = np.random.default_rng(1)
    factors = {"user_factors": draw.normal(size=(30, 4)), "item_factors": draw.normal(size=(19, 4))}
    np.savez(tmp_path / "als.npz", **factors, factors=4, regularization=0.01)  # as `model.save` names them
    np.savez(tmp_path / "ids.npz", users=users, items=items[:19])
    heard = Heard()
    teacher = {"implicit": str(tmp_path / "als.npz"), "ids": str(tmp_path / "ids.npz")}
    distill(run(teacher, "method={name='de', experts=2}"), listener=heard)
    said = "the teacher implicit 'als.npz' knows 95 % of your items (19 of 20), 100 % of users (30 of 30)"
    assert said in heard.said
    np.savez(tmp_path / "ids.npz", users=users[1:], items=items[:19])
    with pytest.raises(DataError, match=r"user factors of shape \(30, 4\) and 29 user ids"):
        elsewhere(parse(Teacher, teacher))
    np.savez(tmp_path / "als.npz", item_factors=factors["item_factors"])
    with pytest.raises(DataError, match=r"als.npz has no array 'user_factors'.*give them as lists="):
        elsewhere(parse(Teacher, teacher))
    with pytest.raises(DataError, match="There is no file"):
        elsewhere(parse(Teacher, teacher | {"implicit": "nowhere.npz"}))


def test_hetcomp_climbs_the_bundles_of_a_folder(run, tmp_path):
    for epochs in (2, 10):
        out = tmp_path / f"step-{epochs}"
        assign = [f"teacher.train.epochs={epochs}", f"output.dir={out}", "method={name='plain'}"]
        distill(run({"model": "mf", "dim": 8}, *assign))
        (tmp_path / "steps").mkdir(exist_ok=True)
        (out / "bundles" / "teacher").rename(tmp_path / "steps" / f"step-{epochs}")
    heard = Heard()
    chosen = "method={name='hetcomp', base=1.0, near=6, period=1}"
    found = distill(run({"trajectory": str(tmp_path / "steps")}, chosen), listener=heard)
    assert [line for line in heard.said if "step-" in line] == [
        f"The teacher at step {at} of 2: the teacher bundle 'step-{epochs}' knows 100 % of your items (20 of 20), "
        "100 % of users (30 of 30)"
        for at, epochs in ((1, 2), (2, 10))
    ]
    named = run({"trajectory": [str(tmp_path / "steps" / f"step-{n}") for n in (2, 10)]}, chosen)
    again = distill(named, overwrite=True)
    assert again.comparison.cards["hetcomp"].metrics == found.comparison.cards["hetcomp"].metrics


def test_a_member_of_several_may_be_a_trajectory_of_lists(run, tmp_path, monkeypatch):

    lists = pl.read_parquet(tmp_path / "log.parquet").select("user_id", "item_id")
    for step in (9, 10):
        lists.write_parquet(tmp_path / f"{step}.parquet")
    members = [{"model": "mf", "dim": 4}, {"trajectory": [str(tmp_path / f"{step}.parquet") for step in (9, 10)]}]
    made = []
    whole = lessons.joined_members
    monkeypatch.setattr(lessons, "joined_members", lambda *a, **k: made.append(whole(*a, **k)) or made[-1])
    distill(run({"members": members}, "method={name='hetcomp', base=1.0, near=6}"))
    (ensemble,) = made
    assert isinstance(ensemble, Ensemble)
    assert isinstance(ensemble.members[1], Trajectory)
    assert len(ensemble.members[1].steps) == 2


def test_the_steps_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("step-10", "step-9", "step-100", ".hidden"):
        (tmp_path / name).mkdir()
    assert [path.name for path in steps_of(tmp_path)] == ["step-9", "step-10", "step-100"]


def test_a_folder_that_holds_no_steps_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no step in .* Or name the steps: trajectory = \["):
        steps_of(tmp_path)
    with pytest.raises(DataError, match="is no folder of steps"):
        steps_of(tmp_path / "nowhere")
    (tmp_path / "manifest.json").touch()  # a bundle is one step, not a folder of such
    with pytest.raises(DataError, match="is no folder of steps"):
        steps_of(tmp_path)


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({"recbole": "b.pth"}, "recbole holds rows, not ids: ids = ... names the data set RecBole saved, or an npz of"),
        ({"implicit": "a.npz"}, "implicit holds rows, not ids: ids = ... names an npz of users and items"),
        ({"lists": "a.parquet", "ids": "i.npz"}, "ids belongs to recbole or implicit"),
        ({**RECBOLE, "lists": "a.parquet"}, "lists and recbole are several teachers: give each as one of"),
        ({"trajectory": []}, "a trajectory has at least one step"),
        (
            {**RECBOLE, "model": "mf"},
            r"files \(lists, scores, vectors, bundle, recbole, implicit, trajectory\), or",
        ),
        ({"members": [{"model": "mf", **RECBOLE}]}, "a member is either a model to train"),
    ],
)
def test_what_does_not_go_together_is_said(run, teacher, says):
    with pytest.raises(SettingsError, match=says):
        run(teacher)


def test_an_ensemble_of_checkpoints_has_no_vectors_and_says_so_before_the_log_is_read(run):
    members = {"members": [RECBOLE, RECBOLE]}
    with pytest.raises(SettingsError, match="The members of an ensemble together cannot give vectors"):
        resolve(run(members, "method={name='de'}"))
    assert resolve(run(RECBOLE, "method={name='de'}")).teacher is None
