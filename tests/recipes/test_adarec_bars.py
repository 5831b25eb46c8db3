"""The bars of `reproduce adarec`: each claim that finished rows decide has its figure and its verdict."""

from __future__ import annotations

import pytest

from recdistill.recipes.adarec_bars import shown, times_longer


@pytest.fixture
def scene():
    """Two seeds; every bar is met, by the worse seed narrowly where seeds differ."""
    gap = {"NDCG@10": {"difference": [0.010, 0.002, 0.018]}}
    timed = {"1": {"body": 5.0}}
    return {
        "rows": {
            "teacher": {"seeds": {"1": {}, "2": {}}, "body": [1000, 1000]},
            "searched": {
                "seeds": {"1": {"seconds": 10.0}, "2": {"seconds": 10.0}},
                "body": [40, 100],
                "retention": [98.0, 95.0, 101.0],
            },
        },
        "searches": {"1": {"seconds": 5.0}, "2": {"seconds": 15.0, "refine_seconds": 5.0}},
        "against random": {
            "1": {"difference": 0.006, "spread": 0.003},
            "2": {"difference": 0.004, "spread": 0.005},
        },
        "against others": {"teacher": gap, "all-none": gap, "all-skip": gap},
        "ms": {
            "1": {"teacher": timed, "searched": {"1": {"body": 0.5}}},
            "2": {"teacher": timed, "searched": {"1": {"body": 1.0}}},
        },
    }


def verdicts(scene):
    return [line.split(" | ")[-1].removesuffix(" |") for line in shown(scene)[2:]]


def test_each_bar_has_its_figure_of_the_worst_seed(scene):
    assert shown(scene) == [
        "| must show | measured | does it |",
        "|---|---|---|",
        "| searched: at least 98 % of the teacher's NDCG@10 | 98.0 % (95.0-101.0) | yes |",
        "| at most 1/10 of its body | 1/10 (100 of 1,000) | yes |",
        "| above the mean of the random cells by more than their spread | +0.0050, spread 0.0040, seeds 2 | yes |",
        "| above all-none and all-skip | +0.0100 (+0.0020 to +0.0180) over all-none | yes |",
        "| body at least 5 times as fast as the teacher's | 5.0 times | yes |",
        "| a search takes at most twice the training of what it found | 2 times | yes |",
    ]


def test_a_bar_that_is_missed_says_no(scene):
    scene["rows"]["searched"] |= {"body": [40, 101], "retention": [97.9, 95.0, 101.0]}
    scene["against random"]["2"]["spread"] = 0.008
    scene["against others"]["all-skip"] = {"NDCG@10": {"difference": [-0.001, -0.003, 0.001]}}
    scene["ms"]["2"]["searched"]["1"]["body"] = 1.01
    scene["searches"]["2"]["seconds"] = 20.1
    assert verdicts(scene) == ["no"] * 6
    scene["against others"]["all-skip"] = {"NDCG@10": {"difference": [0.001, -0.001, 0.003]}}
    assert verdicts(scene)[3] == "within chance"


def test_hand_made_students_as_fast_are_a_bar_once_both_are_there(scene):
    others = scene["against others"]
    others["sasrec as fast"] = {"NDCG@10": {"difference": [0.003, -0.002, 0.008]}}
    assert not any("as fast and" in line for line in shown(scene))
    others["nextitnet as fast"] = others["teacher"]
    (line,) = (line for line in shown(scene) if "as fast and" in line)
    what = "above nextitnet as fast and sasrec as fast"
    assert line == f"| {what} | +0.0030 (-0.0020 to +0.0080) over sasrec as fast | within chance |"


def test_claims_whose_rows_are_missing_are_left_out(scene):
    scene["ms"] = {}
    scene["against random"] = {}
    del scene["against others"]["all-none"]
    assert len(verdicts(scene)) == 3
    scene["rows"]["searched"] = {"seeds": {}}
    assert shown(scene) == []


def test_ratios_of_times_are_within_a_seed(scene):
    assert times_longer(scene["ms"], "searched", "teacher") == pytest.approx(0.2)
    assert times_longer({"1": {"searched": {}}, "2": {"teacher": {}}}, "searched", "teacher") is None
