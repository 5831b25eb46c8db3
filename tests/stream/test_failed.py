"""Training that fails, and blocks with nothing in them: the stream goes on with what it has, and says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recdistill.cli.stream import step
from recdistill.errors import TrainingError
from recdistill.stream.status import status
from recdistill.stream.stream import Stream

FINETUNE, CCD = (Path(__file__).with_name(f"{name}.toml").read_text() for name in ("finetune", "ccd"))


def test_training_that_diverges_is_a_student_that_is_not_served_and_the_next_one_goes_on(begun, edit, capsys):
    folder = begun(FINETUNE)
    with Stream(folder) as stream:
        stream.step(blocks=1)
        before = stream.versions.serving()
    edit(folder, "update = { epochs = 1, batch = 512 }", "update = { epochs = 2, batch = 512, lr = 1e30 }")
    edit(folder, "distil = { epochs = 1, batch = 512 }", "distil = { epochs = 2, batch = 512, lr = 1e30 }")
    step(folder, blocks=1)
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["cycle 1", "cycle 1"]
    assert "not published: " in said[0]
    assert said[1].startswith("cycle 1: the teachers wait for the next update: teacher 0: ")
    with Stream(folder) as stream:
        assert stream.versions.serving() == before
        (cycle,) = status(stream, now=0.0).cycles[1:]
        assert (cycle.passed, cycle.done) == (False, True)
        assert "finite" in cycle.why[0] or "NaN" in cycle.why[0]
        assert cycle.notes[0].startswith("the teachers wait for the next update: teacher 0: ")
    edit(folder, "update = { epochs = 2, batch = 512, lr = 1e30 }", "update = { epochs = 1, batch = 512 }")
    edit(folder, "distil = { epochs = 2, batch = 512, lr = 1e30 }", "distil = { epochs = 1, batch = 512 }")
    with Stream(folder) as stream:
        assert stream.step() == [2]
        made = stream.objects.get(stream.journal().find(2, "teacher[0]").object).about["made"]["inputs"]
        assert made["start"] == stream.journal().find(0, "teacher[0]").object
        assert made["blocks"] == [stream.journal().find(cycle, "collect").object for cycle in (1, 2)]
        assert stream.versions.serving() > before


def test_the_first_student_must_be_trained(begun, edit):
    folder = begun(FINETUNE)
    edit(folder, "base = { epochs = 1, batch = 512 }", "base = { epochs = 2, batch = 512, lr = 1e30 }")
    with Stream(folder) as stream, pytest.raises(TrainingError):
        stream.step()


@pytest.mark.parametrize("method", [FINETUNE, CCD])
@pytest.mark.parametrize("empty", [0, 1])
def test_a_block_whose_only_person_is_forgotten_is_passed_over(tmp_path, log, write_csv, settings, method, empty):  # noqa: PLR0917
    text = settings.replace("base = 1500", "base = 100000").replace("least = 5", "least = 1") + method
    with Stream.create(tmp_path / "s", text) as stream:
        for n in range(3):
            if n == empty:
                lines = "".join(f"gone,i{i},1\n" for i in range(4))
                (tmp_path / "one.csv").write_text("user,item,timestamp\n" + lines)
                stream.ingest(tmp_path / "one.csv", now=float(n))
            else:
                part = slice(n * 700, n * 700 + 700)
                stream.ingest(write_csv(log, tmp_path / f"{n}.csv", part), now=float(n))
            stream.ledger.close_open(now=float(n), asked=True)
        stream.forget("gone")
        last = stream.ledger.blocks()[-1].number
        assert stream.step()[-1] == last
        passed = [cycle.passed for cycle in status(stream, now=0.0).cycles]
        assert False in passed
        assert passed[-1]
        version = stream.versions.open(stream.versions.serving())
        assert np.isfinite(version.arrays["user"]).all()


def test_a_newest_block_with_too_few_people_to_judge_by_says_so_and_claims_no_pass(tmp_path, events, settings, toy):
    text = settings.replace("worse = 1.0", "worse = 0.0\nnewest_least = 1000")
    with Stream.create(tmp_path / "s", text) as stream:
        stream.ingest(events, now=0.0)
        stream.step(stages=toy.Toy(), blocks=2)
        (check,) = [c for c in stream.journal().find(1, "gate").measured["checks"] if c["name"] == "newest block"]
        assert (check["judged"], check["passed"]) == (False, True)
        assert check["why"].startswith("not judged: ")
        assert check["why"].endswith(" users are held out of the newest block, fewer than 1000")
        notes = status(stream, now=0.0).cycles[1].notes
        assert notes == (f"newest block {check['why']}", f"distilled: newest block {check['why']}")
