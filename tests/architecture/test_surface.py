"""The public names, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import recdistill as rd

ROOT = Path(__file__).parents[2]


def test_the_public_names_are_these_in_order():
    assert rd.__all__ == [
        "Card",
        "Comparison",
        "Evaluation",
        "HeldOut",
        "Interactions",
        "RecdistillError",
        "Recommendations",
        "Service",
        "Split",
        "TrainSettings",
        "Trained",
        "__version__",
        "cite",
        "compare",
        "distill",
        "evaluate",
        "export_bundle",
        "fit",
        "read",
        "split",
        "teacher",
    ]
    assert rd.__all__ == sorted(rd.__all__)


@pytest.mark.parametrize("name", rd.__all__)
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(rd, name)
    assert name in dir(rd)
    assert name == "__version__" or thing.__doc__


def test_what_the_type_checker_sees_is_what_is_loaded():
    tree = ast.parse((ROOT / "src/recdistill/__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname or alias.name: node.module.removeprefix("recdistill.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == rd._HOMES


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, recdistill as rd\n"
        "heavy = {'torch', 'numpy', 'polars', 'pydantic', 'rich', 'typer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "rd.read, rd.split, rd.Service, rd.evaluate, rd.Card, rd.Recommendations\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'recdistill' has no attribute 'distil'"):
        _ = rd.distil


def test_the_version_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert rd.__version__ == project["version"]
    assert f"version: {rd.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{rd.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
