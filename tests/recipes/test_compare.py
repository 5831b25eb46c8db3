"""Side by side: cards, retention, tests; and over seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.errors import UnknownName, UsageError
from recdistill.evaluation.ranking import VectorRanker
from recdistill.recipes.compare import System, compare


@pytest.fixture(scope="module")
def parts():
    return split(planted(users=50, items=40, interactions=500, dim=4, seed=3))


def ranker(parts, seed: int, dim: int = 4) -> VectorRanker:
    draw = np.random.default_rng(seed)
    return VectorRanker(
        draw.normal(size=(parts.train.n_users, dim)).astype(np.float32),
        draw.normal(size=(parts.train.n_items, dim)).astype(np.float32),
    )


def test_a_system_against_itself_keeps_everything_and_differs_in_nothing(parts):
    one = ranker(parts, 0)
    found = compare({"teacher": one, "plain": one, "student": one}, parts.test, latency=False)
    card = found.cards["student"]
    assert card.retention["recall@10"].mean == pytest.approx(100)
    assert card.agreement.overlap.mean == 1
    test = found.tests["recall@10"]["student"]
    assert (test.wins, test.losses, found.corrected["recall@10"]["student"]) == (0, 0, 1)


def test_the_teacher_is_named_by_its_name_or_by_the_argument(parts):
    systems = {"big": ranker(parts, 0), "small": ranker(parts, 1)}
    assert compare(systems, parts.test, latency=False).teacher is None
    assert compare(systems, parts.test, teacher="big", latency=False).cards["small"].agreement is not None
    with pytest.raises(UsageError, match=r"The teacher is not among the systems; got 'bigg'. Did you mean 'big'\?"):
        compare(systems, parts.test, teacher="bigg", latency=False)


def test_nothing_to_compare_and_unknown_metrics_are_errors(parts):
    with pytest.raises(UsageError, match="There is nothing to compare"):
        compare({}, parts.test)
    with pytest.raises(UnknownName, match="ndcg"):
        compare({"a": ranker(parts, 0)}, parts.test, metrics=["ndgc@10"], latency=False)


def test_it_prints_as_a_table_that_fits_a_narrow_terminal(parts):
    from rich.console import Console

    systems = {
        name: System(name, ranker(parts, n), "mf, 200 dims", parameters=6_080_400, bytes=25_321_600)
        for n, name in enumerate(["teacher", "plain", "de-rrd"])
    }
    found = compare(systems, parts.test, latency=False)
    for width in (80, 160):
        console = Console(width=width, color_system=None)
        with console.capture() as caught:
            console.print(found)
        text = caught.get()
        assert "\u2026" not in text
        assert "de-rrd" in text
        assert "against plain" in text
    assert "recall@10" in repr(found)
    json.loads(found.to_json())
