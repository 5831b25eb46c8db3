"""What CCD's table must show is decided by its figures, over common seeds, with noise taken for noise."""

from __future__ import annotations

import pytest

from recdistill.recipes.ccd_bars import baselines, beside, parts, shown

KEY = "recall@20 with base"


def row(*curves, student=True, of=3, seeds=None):
    """One curve a seed, of (LA, RA, H) after each block."""
    named = {str(seed): {KEY: curve} for seed, curve in zip(seeds or range(1, 9), curves, strict=False)}
    return {"seeds": named, "student": student, "of": of, "blocks": len(curves[0])}


def flat(*h, la=None, ra=None):
    return [(la or value, ra or value, value) for value in h]


ROWS = {
    "full-batch": row(flat(0.08, 0.07, 0.070)),
    "full-batch: decay of touched rows": row(flat(0.08, 0.07, 0.075)),
    "fine-tune": row(flat(0.08, 0.08, 0.080)),
    "spmf": row(flat(0.08, 0.085, 0.070)),
    "ccd": row(flat(0.09, 0.088, 0.085)),
    "teachers": row(flat(0.09, 0.089, 0.084), student=False),
    "teachers on their own": row(flat(0.09, 0.08, 0.083), student=False),
}


def verdicts(rows):
    return {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].rstrip(" |") for line in shown(rows)[2:]}


def test_every_claim_is_decided_by_its_figures():
    lines = shown(ROWS)
    assert "| H above every baseline | +0.0050 over fine-tune | yes |" in lines
    assert "| a gain after every block | +0.0030 at least, after D1 | yes |" in lines
    assert "| LA above full-batch: decay of touched rows | +0.0100 (0.0850 beside 0.0750) | yes |" in lines
    assert "| RA within 5 % of full-batch: decay of touched rows | 113.3 % of it (0.0850) | yes |" in lines
    assert "| teachers above those on their own, from D2 on | +0.0010 at least, after D2 | within noise |" in lines
    assert "| teachers never below the student | -0.0010 at least, after D2 | yes |" in lines


def test_a_claim_that_fails_says_no():
    worse = {**ROWS, "ccd": row(flat(0.09, 0.08, 0.06)), "teachers": row(flat(0.09, 0.07, 0.05), student=False)}
    found = verdicts(worse)
    assert set(found.values()) == {"no"}
    assert len(found) == 6


def test_other_ways_of_ccd_and_training_on_everything_are_no_baselines():
    assert baselines({**ROWS, "ccd: no replay": row(flat(1, 1, 1))}) == ["fine-tune", "spmf"]


def test_rows_are_compared_over_the_seeds_and_blocks_that_both_have():
    rows = {
        "ccd": row(flat(0.1, 0.2, 0.3), flat(0.3, 0.4, 0.5), seeds=(1, 2)),
        "spmf": row(flat(0.2, 0.3), flat(0.9, 0.9), seeds=(2, 3)),
    }
    ours, theirs = beside(rows, "ccd", "spmf") or pytest.fail("they share seed 2")
    assert ours[:, 2].tolist() == [0.3, 0.4]
    assert theirs[:, 2].tolist() == [0.2, 0.3]
    assert beside({**rows, "spmf": row(flat(0.2), seeds=(7,))}, "ccd", "spmf") is None


def test_what_an_unfinished_or_missing_row_would_decide_is_left_out():
    found = verdicts({**ROWS, "ccd": row(flat(0.09, 0.088))})
    assert found
    assert all(claim.startswith("teachers") for claim in found)
    assert shown({"fine-tune": ROWS["fine-tune"]}) == []
    assert shown({"ccd": ROWS["ccd"]}) == []


def test_each_part_is_worth_what_its_removal_costs():
    rows = {
        **ROWS,
        "ccd: no replay": row(flat(0.09, 0.08, 0.080)),
        "ccd: hinge": row(flat(0.09, 0.08, 0.086)),
        "ccd: one hop": row(flat(0.09, 0.08, 0.090)),
        "ccd: unfinished": row(flat(0.09, 0.08)),
    }
    lines = parts(rows)
    assert "| no replay | 1 | -0.0050 | -0.0050 | -0.0050 | it costs |" in lines
    assert "| hinge | 1 | +0.0010 | +0.0010 | +0.0010 | nothing measurable |" in lines
    assert "| one hop | 1 | +0.0050 | +0.0050 | +0.0050 | it is better so |" in lines
    assert len(lines) == 5
    assert parts(ROWS) == []
