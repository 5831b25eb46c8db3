"""What status says of teachers and of what is served: like for like, and of what people get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.stream.stream import Stream, method_of

FINETUNE, CCD = (Path(__file__).with_name(f"{name}.toml").read_text() for name in ("finetune", "ccd"))
DEEP = CCD.replace('name = "ccd"', 'name = "ccd"\ndepth = 60')


@pytest.mark.parametrize(
    ("method", "long", "short"),
    [(CCD, "near = 10", "near = 3"), (DEEP, "near = 10", "near = 3"), (FINETUNE, "depth = 20", "depth = 3")],
)
def test_teachers_are_measured_by_all_that_they_rank_not_by_the_lists_that_are_learned(  # noqa: PLR0917
    tmp_path, events, settings, method, long, short
):
    recalls = []
    for name in (long, short):
        with Stream.create(tmp_path / name, settings + method.replace(long, name)) as stream:
            stream.ingest(events, now=0.0)
            stream.step(blocks=1)
            recalls.append(stream.journal().find(0, "ensemble").measured["recall"])
    assert recalls[0] == recalls[1]
    assert recalls[0]["0"] > 0


@pytest.mark.parametrize("method", [CCD, DEEP, FINETUNE])
def test_a_single_teacher_ranks_as_it_does_as_a_student_and_leaves_out_what_it_is_told_alone(begun, method):
    with Stream(begun(method)) as stream:
        stream.step(blocks=1)
        stages = method_of(stream.settings)
        teacher = stream.objects.get(stream.journal().find(0, "teacher[0]").object).arrays
        block = stream.ledger.block(0)
        users = np.arange(block.users)
        for without in (
            Csr.empty(block.users, block.items),
            Csr.from_pairs(users, users % block.items, block.users, block.items),
        ):
            alone = stages.ranked("student", teacher, users, 20, without)
            np.testing.assert_array_equal(stages.joint([teacher])(users, 20, without), alone)
