"""The run file: what `init` writes can be read, and what is misspelt is said."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from recdistill.errors import SettingsError, UnknownName
from recdistill.recipes.runfile import read, resolve
from recdistill.recipes.template import TEMPLATE


@pytest.fixture
def run_toml(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(TEMPLATE, encoding="utf-8")
    return file


def test_the_template_is_the_run_file_of_the_specification():
    assert tomllib.loads(TEMPLATE) == {
        "data": {"path": "ratings.csv", "split": "leave-last-out"},
        "teacher": {"model": "mf", "dim": 200},
        "student": {"model": "mf", "dim": 20},
        "method": {"name": "de-rrd"},
        "train": {"epochs": 1000, "batch": 1024, "seed": 7, "device": "auto"},
        "evaluate": {"metrics": ["recall@10", "ndcg@10"], "protocol": "full"},
        "output": {"dir": "runs/first"},
    }


def test_the_template_resolves(run_toml):
    plan = resolve(read(run_toml))
    assert (plan.teacher.dim, plan.student.dim, plan.train.epochs, plan.train.batch) == (200, 20, 1000, 1024)
    assert plan.teacher_train == plan.train


def test_every_commented_key_of_the_template_is_a_setting(tmp_path):
    file = tmp_path / "all.toml"
    file.write_text(re.sub(r"^# (\w+ = )", r"\1", TEMPLATE, flags=re.M), encoding="utf-8")
    run = read(file)
    plan = resolve(run)
    assert (run.data.k_core, run.data.dedup, run.data.columns["user"]) == (5, "last", "member")
    assert (plan.teacher_train.epochs, plan.train.epochs, plan.method.rrd.near) == (500, 1000, 40)


def test_the_commented_defaults_are_the_defaults(run_toml, tmp_path):
    file = tmp_path / "defaults.toml"
    examples = {"columns", "min_rating", "k_core", "dedup", "like", "train", "rrd"}
    text = re.sub(r"^# (\w+)( = )", lambda m: m[0] if m[1] in examples else m[1] + m[2], TEMPLATE, flags=re.M)
    file.write_text(text, encoding="utf-8")
    given, default = read(file), read(run_toml)
    assert (given.data, given.evaluate, given.student) == (default.data, default.evaluate, default.student)
    assert resolve(given) == resolve(default)


def test_an_assignment_wins_over_the_file(run_toml):
    run = read(run_toml, ["student.dim=32", "method.name=rrd", "method.near=20", "output.dir=elsewhere"])
    plan = resolve(run)
    assert (plan.student.dim, plan.method.near, run.output.dir) == (32, 20, Path("elsewhere"))


@pytest.mark.parametrize(
    ("assignment", "error", "said"),
    [
        ("data.spilt=time", SettingsError, "Unknown setting 'data.spilt'. Did you mean 'data.split'?"),
        (
            "data.split=leave_last_out",
            SettingsError,
            "no such choice; got 'leave_last_out'. Did you mean 'leave-last-out'?",
        ),
        ("data.columns.usr=x", SettingsError, "'data.columns.usr"),
        (
            "evaluate.protocol=sampled",
            SettingsError,
            'The setting \'evaluate.protocol\' must be "full", or "sampled(n)"',
        ),
        ("teacher.lists=x.parquet", SettingsError, "The setting 'teacher': a teacher is either a model to train"),
        ("train.learning_rat=1", SettingsError, "Unknown setting 'train.learning_rat'."),
        ("teacher.train.epoch=1", SettingsError, "Did you mean 'teacher.train.epochs'?"),
        ("student.dmi=3", SettingsError, "Did you mean 'student.dim'?"),
        ("student.baselin=false", SettingsError, "Did you mean 'student.baseline'?"),
        ("student.dim=0", SettingsError, "The setting 'student.dim' must be a whole number, at least 1; got 0."),
        ("method.rrd.naer=3", SettingsError, "Did you mean 'method.rrd.near'?"),
        ("method.name=derrd", UnknownName, "Unknown method 'derrd'. Did you mean 'de-rrd'?"),
        ("student.model=mff", UnknownName, "Unknown model 'mff'. Did you mean 'mf'?"),
    ],
)
def test_a_misspelt_setting_is_an_error(run_toml, assignment, error, said):
    with pytest.raises(error) as caught:
        resolve(read(run_toml, [assignment]))
    assert said in str(caught.value)


def test_the_run_file_of_a_search_is_told_from_one_of_a_run(run_toml):
    text = run_toml.read_text(encoding="utf-8")
    run_toml.write_text(text.replace("[method]", "[search]\nrandom = 2\n\n[method]"), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        read(run_toml)
    said = (
        f"{run_toml} is the run file of a search: it has [search]. Run `recdistill search {run_toml}`; or take [search]"
    )
    assert str(caught.value).startswith(said)
    with pytest.raises(SettingsError, match=r"it has \[search\] and \[retrain\]"):
        read(run_toml, ["retrain.baseline=false"])


def test_a_run_file_without_a_teacher_trains_the_student_alone_and_says_so_where_it_cannot(run_toml):
    text = run_toml.read_text(encoding="utf-8")
    alone = re.sub(r"\[teacher\].*?(?=\[student\])", "", text, flags=re.DOTALL)
    assert "[teacher]" not in alone
    run_toml.write_text(alone, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"the method 'de-rrd' needs a \[teacher\]: a model to train, or files"):
        read(run_toml)
    run = read(run_toml, ["method.name=plain"])
    assert not run.teacher.given
    assert resolve(run).teacher is None
    with pytest.raises(SettingsError, match="a teacher is either a model to train"):
        read(run_toml, ["method.name=plain", "teacher.dim=20"])


def test_a_teacher_from_files_takes_no_model_settings(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        TEMPLATE.replace('model = "mf"                    # or:', 'lists = "a.parquet" #', 1), encoding="utf-8"
    )
    with pytest.raises(SettingsError, match=r"A teacher from files is not trained, so \[teacher\] has no dim"):
        resolve(read(file))


MEMBERS = """
[[teacher.members]]
model = "mf"
dim = 8
train = { epochs = 3 }

[[teacher.members]]
lists = "top.parquet"
weight = 2.0

[teacher.combine]
by = "ranks"
rate = 10.0
"""


def of_members(tmp_path, change=lambda text: text):
    text = (
        TEMPLATE.replace('model = "mf"                    # or', "# or")
        .replace("dim = 200\n", "")
        .replace('"de-rrd"', '"rrd"')
    )
    file = tmp_path / "run.toml"
    file.write_text(change(text.replace("[student]", MEMBERS + "\n[student]", 1)), encoding="utf-8")
    return file


def test_a_teacher_may_be_several(tmp_path):
    run = read(of_members(tmp_path))
    plan = resolve(run)
    assert plan.teacher is None
    assert run.teacher.given
    assert (plan.members[0][0].dim, plan.members[0][1].epochs, plan.members[1][0]) == (8, 3, None)
    assert (run.teacher.members[1].weight, run.teacher.combine.rate) == (2.0, 10.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace('lists = "top.parquet"', ""), "a member is either a model to train"),
        (lambda text: text.replace('lists = "top.parquet"', 'lists = "top.parquet"\ndim = 3'), "has no dim"),
        (lambda text: text.replace("dim = 8", "dmi = 8"), "Did you mean 'teacher.members.0.dim'"),
        (lambda text: text.replace("weight = 2.0", "weight = -1.0"), "weight"),
        (lambda text: text.replace('by = "ranks"', 'by = "rank"'), "ranks"),
    ],
)
def test_what_is_wrong_about_a_member_is_said(tmp_path, change, says):
    file = of_members(tmp_path, change)
    with pytest.raises(SettingsError, match=says):
        resolve(read(file))


@pytest.mark.parametrize("method", ["cd", "rce-kd"])
def test_methods_of_logits_ask_members_to_be_combined_by_scores(tmp_path, method):
    file = of_members(tmp_path)
    with pytest.raises(SettingsError) as caught:
        resolve(read(file, [f"method.name={method}"]))
    assert f"'{method}' reads scores as logits" in str(caught.value)
    assert 'Combine by = "scores" in [teacher.combine]' in str(caught.value)
    served = str(caught.value).split("can serve: ")[1].rstrip(".").split(", ")
    assert "rrd" in served
    assert not {"cd", "rce-kd", "fitnet"} & set(served)
    resolve(read(file, [f"method.name={method}", "teacher.combine.by=scores"]))


def test_members_stand_in_place_of_a_model_and_are_needed_to_combine(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(TEMPLATE.replace("[student]", MEMBERS + "\n[student]", 1), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"or members \(\[\[teacher.members\]\]\)"):
        read(file)
    file.write_text(TEMPLATE.replace("[student]", '[teacher.combine]\nby = "scores"\n\n[student]', 1))
    with pytest.raises(SettingsError, match="there are none: add"):
        read(file)


def test_what_files_never_hold_is_said_before_anything_is_read_with_what_would_serve(tmp_path):
    text = TEMPLATE.replace('model = "mf"                    # or', 'lists = "top.parquet"  # or', 1)
    file = tmp_path / "run.toml"
    file.write_text(text.replace("dim = 200\n", "", 1), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        resolve(read(file))
    said = str(caught.value)
    assert "[teacher] lists cannot give vectors, which the method 'de-rrd' asks for" in said
    assert "vectors come from vectors (vectors = ...)" in said
    assert "rrd" in said.split("can serve: ")[1]
    assert "htd" not in said.split("can serve: ")[1]
    resolve(read(file, ["method.name=rrd"]))
    with pytest.raises(SettingsError, match="cannot give weights"):
        resolve(read(file, ["method.name=bd"]))
