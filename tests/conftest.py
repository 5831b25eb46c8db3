"""Fixtures every test may use."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

DATA = Path(os.environ.get("RECDISTILL_DATA", Path(__file__).parents[2] / "shared" / "data"))

settings.register_profile("recdistill", deadline=None)  # machines are shared: one example may take a second
settings.load_profile("recdistill")


@pytest.fixture(autouse=True)
def the_same_draws():
    """Every test begins with the same generators, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)  # for a test that forgot a generator of its own
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture
def data_dir():
    """`data_dir("ml_100k")`: the folder of a real data set; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"real data {name!r} is not at {DATA} (set RECDISTILL_DATA to the folder that holds it)")
        return folder

    return find


@pytest.fixture
def one_thread():
    """For figures that depend on how torch splits its sums."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
