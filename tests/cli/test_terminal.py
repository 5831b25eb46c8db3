"""Where output goes: narrow encodings, full disks, ids that would steer a terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from recdistill.cli.screen import console
from recdistill.data.csr import Csr
from recdistill.errors import UsageError
from recdistill.evaluation.ranking import VectorRanker
from recdistill.ids import IdTable
from recdistill.serve.service import Service


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recdistill", *words]
    environment = {**os.environ, **env}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_module_runs_as_the_command_does():
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, "0.1.0")


def test_an_encoding_without_a_character_escapes_it():
    done = run("doctor", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in run("distill", "r\u00fcn.toml", PYTHONIOENCODING="ascii").stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")  # noqa: PTH110
def test_a_full_disk_behind_standard_output_is_said_in_words():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "recdistill", "cite"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "What is written here cannot be used: no space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_control_characters_of_ids_are_shown_escaped_and_stay_in_files(tmp_path, capsys):
    steering = "a\x1b[31m\u202eb"
    users, items = IdTable.from_ids(["u"]), IdTable.from_ids([steering])
    one = np.ones((1, 1), np.float32)
    told = Service(VectorRanker(one, one), users, items, Csr.empty(1, 1), np.zeros(0, np.int64)).recommend(["u"], 1)
    console().print(told)
    shown = capsys.readouterr().out
    assert r"a\x1b[31m\u202eb" in shown
    assert "\x1b" not in shown
    assert told.item_id.tolist() == [steering]


def test_a_bundle_onto_or_below_a_file_is_refused(tmp_path):
    import recdistill as rd

    model = rd.fit("mf", rd.read({"user": [1, 1, 2], "item": [1, 2, 3]}, echo=None), dim=2, training={"epochs": 1})
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="file is there and is no bundle"):
        model.save(tmp_path / "file")
    with pytest.raises(UsageError, match=r"below cannot be made: .*file is a file"):
        model.save(tmp_path / "file" / "below")


@pytest.mark.parametrize("option", [["--protocol", "sampled(0)"], ["--metrics", "ndgc@10"], ["--split", "leave-last"]])
def test_what_is_to_be_measured_is_checked_before_anything_is_read(option):
    done = run("evaluate", "nowhere", "--data", "nothing.csv", *option)
    assert done.returncode == 2
    assert "nothing.csv" not in done.stderr
    assert any(
        said in done.stderr for said in ('"sampled(n)" with n at least 1', "Did you mean 'ndcg'", "leave-last-out")
    )
