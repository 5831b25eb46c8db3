"""Settings that are edited between steps: what may change counts from the next cycle, what may not is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recdistill.errors import SettingsError
from recdistill.stream.status import status
from recdistill.stream.stream import Stream

FINETUNE, CCD = (Path(__file__).with_name(f"{name}.toml").read_text() for name in ("finetune", "ccd"))


class Cut(BaseException):
    pass


class Watch:
    """Ends a step before a stage."""

    def __init__(self, cycle, stage):
        self.at = (cycle, stage, "begins")

    def on_stage(self, *told):
        if told[:3] == self.at:
            raise Cut


@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2), (2, 3)])
def test_the_teachers_clock_may_be_edited_and_counts_from_the_next_cycle(begun, toy, old, new, edit):
    folder = begun(f"[teacher]\nevery = {old}\n", 250)
    with Stream(folder) as stream:
        assert stream.step(stages=toy.Toy(), blocks=4) == [0, 1, 2, 3]
    edit(folder, f"every = {old}", f"every = {new}")
    with Stream(folder) as stream:
        found = status(stream, now=0.0)
        assert all(cycle.done for cycle in found.cycles)
        assert found.due[0].startswith("cycle 4: collect")
        assert stream.step(stages=toy.Toy()) == [4, 5]
        taught = [line.cycle for line in stream.journal().lines() if line.stage == "teacher[0]"]
    assert taught == [*range(0, 4, old), *(cycle for cycle in (4, 5) if cycle % new == 0)]


@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2)])
def test_a_cycle_that_has_begun_keeps_the_clock_that_it_began_with(begun, toy, old, new, edit):
    folder = begun(f"[teacher]\nevery = {old}\n", 250)
    with Stream(folder) as stream:
        stream.step(stages=toy.Toy(), blocks=1)
        with pytest.raises(Cut):
            stream.step(stages=toy.Toy(), watch=Watch(1, "gate"))
    edit(folder, f"every = {old}", f"every = {new}")
    with Stream(folder) as stream:
        assert stream.step(stages=toy.Toy(), blocks=1) == [1]
        assert (stream.journal().find(1, "proxies") is None) == (old == 2)


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (
            FINETUNE,
            "\ndim = 4",
            "\ndim = 8",
            "The setting 'method.dim' cannot be edited once a stream has begun; got 8",
        ),
        (FINETUNE, "members = 1", "members = 2", "The setting 'method.members' cannot be edited"),
        (FINETUNE, FINETUNE, CCD, "The setting 'method.name' cannot be edited once a stream has begun; got 'ccd'"),
        (CCD, "student = { dim = 4 }", "student = { dim = 6 }", "The setting 'method.student.dim' cannot be edited"),
        (CCD, "teachers = [{ dim = 4 }]", "teachers = [{ dim = 5 }]", "The setting 'method.teachers' cannot be edited"),
    ],
)
def test_a_method_of_another_name_or_shape_is_refused_by_name(begun, edit, text, *, old, new, said):
    folder = begun(text)
    with Stream(folder) as stream:
        stream.step(blocks=1)
    edit(folder, old, new)
    with Stream(folder) as stream:
        with pytest.raises(SettingsError, match=re.escape(said)):
            stream.step()
        assert stream.journal().find(1, "collect") is None
    edit(folder, new, old)
    with Stream(folder) as stream:
        assert stream.step(blocks=1) == [1]


def test_what_is_trained_and_how_long_may_be_edited(begun, edit):
    folder = begun(FINETUNE)
    with Stream(folder) as stream:
        stream.step(blocks=1)
    edit(folder, "update = { epochs = 1, batch = 512 }", "update = { epochs = 2, batch = 128, lr = 0.01 }")
    with Stream(folder) as stream:
        assert stream.step(blocks=1) == [1]
        assert stream.journal().find(1, "student").measured["epochs"] == 2


def test_recall_at_another_cut_off_is_not_held_against_the_best_at_the_first(begun, toy, edit):
    folder = begun("", 250)
    with Stream(folder) as stream:
        stream.step(stages=toy.Toy(), blocks=2)
    edit(folder, "forgetting = 1.0", "forgetting = 0.0\nk = 1")
    with Stream(folder) as stream:
        stream.step(stages=toy.Toy(), blocks=1)
        checks = {check["name"]: check for check in stream.journal().find(2, "gate").measured["checks"]}
        assert checks["old blocks"]["passed"]
