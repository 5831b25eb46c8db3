"""What is served or evaluated from files is read without torch and polars, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = [
    "recdistill",
    "recdistill.bundle",
    "recdistill.serve",
    "recdistill.serve.service",
    "recdistill.serve.histories",
    "recdistill.bundle.encoder",
    "recdistill.bundle.graph",
    "recdistill.evaluation.metrics",
    "recdistill.evaluation.ranking",
    "recdistill.evaluation.compare",
    "recdistill.evaluation.evaluate",
    "recdistill.ids",
    "recdistill.data.csr",
    "recdistill.settings",
    "recdistill.cli",
]


def loaded(code: str) -> set[str]:
    """The top-level packages a fresh interpreter holds after `code`."""
    tail = "\nimport sys\nprint(' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + tail], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_loads_neither_torch_nor_polars(module):
    heavy = {"torch", "polars", "pandas", "pyarrow", "scipy", "matplotlib", "onnx", "onnxruntime"}
    assert not loaded(f"import {module}") & heavy


def test_answering_from_a_bundle_needs_neither(tmp_path):
    code = f"""
import numpy as np
from pathlib import Path
from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.ids import IdTable
from recdistill.serve import Service
path = Path({str(tmp_path / "bundle")!r})
arrays = {{"user": np.ones((2, 3), np.float32), "item": np.arange(12, dtype=np.float32).reshape(4, 3)}}
users, items = IdTable.from_ids(["a", "b"]), IdTable.from_ids([1, 2, 3, 4])
bundle.save(path, kind="vectors", arrays=arrays, users=users, items=items,
    seen=Csr.empty(2, 4), popular=np.array([0]), model="mf", settings={{}}, lineage={{}}, metrics={{}}, citations=[])
answer = Service.from_bundle(path, verify="full").recommend(["a", "nobody"], k=2)
assert answer.item_id.tolist() == [4, 3, 1], answer.item_id
"""
    assert not loaded(code) & {"torch", "polars", "pandas", "pyarrow", "scipy", "onnx", "onnxruntime"}
