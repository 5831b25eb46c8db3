"""Designs are tried near the derived one: within its price, the best first, the same ones for the same seed."""

from __future__ import annotations

import pytest

from recdistill.errors import SettingsError
from recdistill.search.cost import Shape, counted
from recdistill.search.derive import Design, living, named
from recdistill.search.refine import Refine, refine
from recdistill.search.settings import SearchSettings
from recdistill.search.space import SPACES

SPACE = SPACES["causal"]
SHAPE = Shape(width=8, length=10, items=50)
COSTS = counted(SPACE, SHAPE, "params")
START = named("nextitnet", SPACE, width=8, depth=2)
MOST = COSTS.fixed + 2 * (COSTS.of(START, SPACE) - COSTS.fixed)


def skips(design):
    """A score that is known: the share of edges that are skips."""
    names = [name for row in design.operators for name in row]
    return names.count("skip_connect") / len(names)


def tried(score=skips, start=START, **changes):
    settings = Refine(designs=40, parents=4)
    given = {"space": SPACE, "costs": COSTS, "settings": settings, "most": MOST, "seed": 3}
    return refine(start, score, **(given | changes))


def test_the_best_design_is_found_and_stands_first():
    found = tried(settings=Refine(designs=400, parents=4))
    assert found[0].score == 1.0
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_it_never_ends_below_where_it_began_and_asks_each_design_once():
    asked = []
    found = tried(lambda design: asked.append(design.operators) or skips(design))
    assert asked[0] == START.operators
    assert len(asked) == len(set(asked)) == len(found) == 40
    assert found[0].score >= skips(START)


def test_of_equal_scores_the_cheaper_design_is_taken():
    found = tried(lambda _: 1.0)
    assert [each.cost for each in found] == sorted(each.cost for each in found)


@pytest.mark.parametrize("share", [1.0, 1.1, 3.0])
def test_nothing_costs_more_than_it_may(share):
    most = COSTS.fixed + (COSTS.of(START, SPACE) - COSTS.fixed) * share
    found = tried(settings=Refine(designs=30), most=most)
    assert max(each.cost for each in found) <= most * (1 + 1e-12)
    assert all(each.cost == COSTS.of(each.design, SPACE) for each in found)


def test_where_there_is_room_dearer_cells_are_tried():
    most = COSTS.of(START, SPACE) * 3
    found = tried(most=most, settings=Refine(designs=60))
    assert most >= max(each.cost for each in found) > COSTS.of(START, SPACE) * 1.2


def test_designs_that_are_known_are_tried_first_where_they_can_be_paid():
    asked = []
    names = ["all-skip", "all-cau_cnn_5_d4", "all-none"]
    tried(lambda design: asked.append(design.operators) or 0.0, beside=names)
    known = [named(name, SPACE, width=8, depth=2).operators for name in names]
    assert asked[:3] == [START.operators, known[0], known[2]]
    assert known[1] not in asked


def test_no_operator_that_reads_nothing_is_tried():
    for each in tried(settings=Refine(designs=200)):
        assert all(living(row, SPACE) == row for row in each.design.operators)


def test_the_same_seed_tries_the_same_designs():
    assert tried() == tried()
    assert {each.design.operators for each in tried()} != {each.design.operators for each in tried(seed=4)}


def test_cells_of_their_own_stay_as_many_as_the_depth_and_keep_the_exit():
    row = ["skip_connect"] * len(SPACE.edges)
    start = Design.of(SPACE, [row, row, row], width=8, depth=3, exit=True)
    found = tried(start=start, most=1e9)
    assert {(len(each.design.cells), each.design.depth, each.design.exit) for each in found} == {(3, 3, True)}
    assert any(len(set(each.design.operators)) > 1 for each in found)


def test_none_are_tried_when_none_are_wanted():
    assert tried(settings=Refine(designs=0)) == ()


def test_it_ends_when_there_is_nothing_new():
    row = ["none"] * len(SPACE.edges)
    nothing = Design.of(SPACE, [row], width=8, depth=1)
    found = tried(start=nothing, most=0.0, settings=Refine(designs=50))
    assert [each.design.operators for each in found] == [nothing.operators]


def test_a_metric_that_is_none_is_refused_before_anything_is_searched():
    with pytest.raises(SettingsError, match="Unknown metric 'ndgc'\\. Did you mean 'ndcg'"):
        SearchSettings(refine={"metric": "ndgc@100"})
    with pytest.raises(SettingsError, match="A metric is a name and a cut-off of at least 1; got 'ndcg'"):
        SearchSettings(metrics=["ndcg"])
