"""The parts of `benchmarks/ccd_peer.py` that run no other code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recdistill.data.blocks import blocks
from recdistill.data.synthetic import random_log


@pytest.fixture
def official():
    """Makes what an official update of some epochs tells: an epoch costs 1, a validation 10, a draw 100."""

    def update(epochs):
        parts, now = [], 0.0

        def then(name, seconds):
            nonlocal now
            parts.append([name, now, now + seconds])
            now += seconds

        then("adjacency", 1000)
        then("reports before and after", 2000)
        then("draw", 100)
        for epoch in range(epochs):
            then("negatives", 0.25)
            now += 0.75
            if epoch % 5 == 0:
                then("validation: scores and lists", 4)
                then("validation", 6)
                if epoch:
                    then("draw", 100)
        then("reports before and after", 2000)
        peak = {"adjacency": 12.0, "reports before and after": 11.0, "draw": 9.0, "the rest": 7.0}
        return {"cpu_s": now, "parts": parts, "peak_gb": peak}

    return update


def test_what_has_no_counterpart_stands_beside(script, official):
    assert script.alone(official(6)) == (100 + 6 + 2 * 10 + 100, 9.0)


@pytest.mark.parametrize("epochs", [6, 10, 11, 12, 55])
def test_epochs_that_were_not_run_are_put_together_from_parts(script, official, epochs):
    for ran in (6, 10, 12):
        whole = official(ran)["cpu_s"] + script.stretched(official(ran), epochs)
        assert whole == pytest.approx(official(epochs)["cpu_s"])


@pytest.mark.parametrize(
    ("cost", "epochs", "said"),
    [
        ((10, 0.9), 6, "| 22.6 | 10.0 | yes |"),
        ((11.5, 0.9), 6, "| 19.7 | 10.0 | **no** |"),
        ((10, 1.0), 6, "| 22.6 | 9.0 | **no** |"),
        ((10, 0.9), 11, "| ~34.1 | 10.0 | yes |"),
    ],
)
def test_a_bar_is_reached_in_time_and_in_memory_or_not_at_all(script, official, cost, epochs, said):
    ours = {"cpu_s": cost[0], "peak_gb": {"draw": cost[1], "the rest": 0.1}, "epochs": epochs}
    assert script.ratios({"default": ours}, official(6)).splitlines()[-1].endswith(said)


def test_a_block_is_written_as_the_official_files_have_it(script):
    log = random_log(30, 20, 200, seed=0)
    log = replace(log, split=(np.arange(len(log)) % 3).astype(np.int8))
    (block,) = blocks(log, np.zeros(len(log), np.int64))
    written = script.task(block)
    for name, held in (("valid_dict", block.valid), ("test_dict", block.test)):
        assert {u: set(items) for u, items in written[name].items()} == {
            int(u): set(held.targets.row(u).tolist()) for u in held.queries
        }
        assert set(written[name]) <= set(written["train_dict"])  # a user without training items is there all the same
    assert sorted({i for items in written["train_dict"].values() for i in items}) == written["item_list"]


def test_a_folder_without_the_official_code_is_said_to_be_one(script, tmp_path):
    with pytest.raises(SystemExit, match=r"--repo has no Run/S_update\.py; got .*Clone https://github\.com/Gyu-Seok0"):
        script.checkout(tmp_path)
