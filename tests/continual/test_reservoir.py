"""SPMF's sample of the past."""

from __future__ import annotations

import numpy as np

from recdistill.continual.learning import Run
from recdistill.continual.plain import base
from recdistill.continual.reservoir import kept, update_spmf
from recdistill.continual.settings import Initial, Reservoir


def test_a_reservoir_holds_every_interaction_so_far_with_the_same_chance(stream):
    whole = sum(len(block.train) for block in stream)
    inside = np.zeros(3)
    for seed in range(60):
        sample = None
        for block in stream:
            sample = kept(sample, block, size=100, seed=seed)
        assert len(sample[0]) == len(sample[1]) == 100
        pairs = [set(zip(b.train.user.tolist(), b.train.item.tolist(), strict=True)) for b in stream]
        found = list(zip(sample[0].tolist(), sample[1].tolist(), strict=True))
        inside += [sum(p in some for p in found) for some in pairs]
    expected = 60 * 100 * np.array([len(b.train) for b in stream]) / whole
    np.testing.assert_allclose(inside / inside.sum(), expected / expected.sum(), rtol=0.1)  # a pair may come twice


def test_a_small_stream_is_kept_whole(stream):
    sample = kept(None, stream[0], size=10_000, seed=0)
    assert len(sample[0]) == len(stream[0].train)


def test_the_model_learns_from_the_block_and_from_the_past(stream, settings):
    c = settings.update.training
    before = base(stream[0], settings.student, settings.plain, run=Run(1)).snapshot
    sample = kept(None, stream[0], size=50, seed=0)
    args = {"training": c.model_copy(update={"decay": "touched"}), "initial": Initial(hops="none"), "run": Run(2)}
    after = update_spmf(stream[1], before, sample, Reservoir(share=3.0), **args).snapshot
    assert (after.weights["user"][3] != before.weights["user"][3]).any(), "user 3 is away, but was sampled"
    alone = update_spmf(stream[1], before, None, Reservoir(share=3.0), **args).snapshot
    assert (alone.weights["user"][3] == before.weights["user"][3]).all()
