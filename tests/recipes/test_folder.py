"""A run's folder belongs to one set of settings."""

from __future__ import annotations

import json

import pytest

from recdistill.errors import UsageError
from recdistill.recipes.folder import held
from recdistill.recipes.runfile import RunSettings
from recdistill.settings import parse


def run(folder, **train) -> RunSettings:
    table = {"data": {"path": "x"}, "student": {"model": "mf"}, "method": {"name": "plain"}}
    return parse(RunSettings, {**table, "train": train, "output": {"dir": str(folder)}})


def test_the_same_settings_resume_and_others_are_refused_by_name(tmp_path):
    for _ in range(2):
        with held(run(tmp_path, epochs=50)):
            pass
    said = (
        r"holds a run with other settings \(train.epochs: 50 there, 60 now\)\. Give another output.dir, .*--overwrite"
    )
    with pytest.raises(UsageError, match=said), held(run(tmp_path, epochs=60)):
        pass
    with held(run(tmp_path, epochs=50)):
        pass


def test_a_folder_is_taken_over_where_that_is_asked_for(tmp_path):
    with held(run(tmp_path, epochs=50)):
        pass
    with held(run(tmp_path, epochs=60), overwrite=True):
        pass
    with pytest.raises(UsageError, match=r"train.epochs: 60 there, 50 now"), held(run(tmp_path, epochs=50)):
        pass


def test_a_folder_is_not_taken_from_under_a_process_at_work(tmp_path):
    with held(run(tmp_path, epochs=50)):
        with held(run(tmp_path, epochs=50)):
            pass  # the same run shares it
        for overwrite, said in ((False, "other settings"), (True, "another process is at work on it")):
            with pytest.raises(UsageError, match=said), held(run(tmp_path, epochs=60), overwrite=overwrite):
                pass
    assert json.loads((tmp_path / "work" / "settings.json").read_text())["train"]["epochs"] == 50


def test_many_differences_are_counted(tmp_path):
    with held(run(tmp_path)):
        pass
    many = {"lr": 1, "batch": 2, "epochs": 3, "patience": 4, "every": 5, "seed": 6, "loss": "bce"}
    with pytest.raises(UsageError, match=r"and 2 more\)"), held(run(tmp_path, **many)):
        pass


def test_what_an_earlier_release_did_not_know_was_as_by_default(tmp_path):
    with held(run(tmp_path, epochs=50)):
        pass
    path = tmp_path / "work" / "settings.json"
    before = json.loads(path.read_text())
    del before["evaluate"]["latency"]
    before["student"]["name"] = ""  # a later one that compared it
    path.write_text(json.dumps(before))
    with held(run(tmp_path, epochs=50)):
        pass
    with (
        pytest.raises(UsageError, match=r"settings \(train.epochs: 50 there, 60 now\)"),
        held(run(tmp_path, epochs=60)),
    ):
        pass


def test_a_student_may_be_named_later(tmp_path):
    with held(run(tmp_path)):
        pass
    named = run(tmp_path).model_dump(mode="json")
    named["student"]["name"] = "small"
    with held(parse(RunSettings, named)):
        pass
