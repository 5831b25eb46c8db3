"""Models that read all blocks: on every way along a stream they hold what was learned so far."""

from __future__ import annotations

import pytest

from recdistill.continual import teaching
from recdistill.continual.settings import settings_of
from recdistill.recipes.kept import Kept
from recdistill.recipes.lineage import Lineage

from .conftest import SETTINGS

READS = {"layers": 1, "reads": "all"}
WAYS = [
    ("ccd", "warm"),
    *((how, "scratch") for how in ("ccd", "distil-only", "static", "fine-tune", "replay", "full-batch")),
]


def lineage(stream, tmp_path, how, *, student="lightgcn", start="scratch"):
    """Along the stream, with a student and teachers of every kind that reads."""
    teachers = [{"name": name, "dim": 5, **READS} for name in ("lightgcn", "vae")]
    models = {"student": {"name": student, "dim": 4, **READS}, "teachers": teachers}
    settings = settings_of(settings=SETTINGS | models | {"distil": SETTINGS["distil"] | {"start": start}})
    return Lineage(stream, how, lambda _: settings, seed=1, keep=Kept.at(tmp_path))


def all_of(stream, k):
    out = stream[k].train.csr()
    for block in stream[:k]:
        out = out.union(block.train.csr().widened(out.n_rows, out.n_columns))
    return out


@pytest.mark.parametrize("student", ["lightgcn", "vae"])
@pytest.mark.parametrize(("how", "start"), WAYS)
def test_a_student_holds_all_that_was_learned_so_far(stream, tmp_path, how, student, start):
    found = lineage(stream, tmp_path, how, student=student, start=start).student(2)
    assert found.context.keys.tolist() == all_of(stream, 2).keys.tolist()


def test_teachers_hold_all_and_learn_from_all(stream, tmp_path, monkeypatch):
    told = []
    real = teaching.imputing

    def imputing(net, rows, *others):
        told.append(rows)
        return real(net, rows, *others)

    monkeypatch.setattr(teaching, "imputing", imputing)
    for member in lineage(stream, tmp_path, "ccd").members(2):
        assert member.context.keys.tolist() == all_of(stream, 2).keys.tolist()
    assert [rows.keys.tolist() for rows in told] == [all_of(stream, k).keys.tolist() for k in (1, 2)]
