"""What no file of the package may do, read from its syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "recdistill"
FILES = sorted(SRC.rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
LONGEST = 400

pytestmark = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(tree: ast.AST):
    """What is forbidden, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"imports {a.name}") for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES:
                yield node.lineno, f"imports {node.module}"
            if node.module == "torch" and any(alias.name in {"load", "save"} for alias in node.names):
                yield node.lineno, "torch.load and torch.save read and write pickles"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in call_faults(node))


def call_faults(node: ast.Call):
    name = dotted(node.func)
    if isinstance(node.func, ast.Name) and name in CALLS:
        yield f"calls {name}"
    if name in {"torch.load", "torch.save"} or name.endswith((".read_pickle", ".to_pickle", ".tofile")):
        yield f"calls {name}: that is a pickle, or bytes without a header"
    if name in {"np.load", "numpy.load", "np.save", "numpy.save"} and not says(node, "allow_pickle", wanted=False):
        yield f"{name} without allow_pickle=False"
    if says(node, "shell", wanted=True):
        yield "a shell"
    if any(k.arg == "weights_only" for k in node.keywords):
        yield "weights_only: that is a pickle"


def says(call: ast.Call, keyword: str, *, wanted: bool) -> bool:
    return any(
        k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is wanted for k in call.keywords
    )


def test_no_code_comes_out_of_data(path):
    assert [f"line {line}: {what}" for line, what in faults(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_a_file_is_short_enough_to_read(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{lines} lines: it is more than one noun"


def test_the_environment_of_the_user_is_read_and_never_set(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else []
        assert not any(dotted(t.value) == "os.environ" for t in targets if isinstance(t, ast.Subscript))
        if isinstance(node, ast.Call):
            setters = {"os.putenv", "os.environ.update", "os.environ.setdefault", "os.environ.pop"}
            assert dotted(node.func) not in setters


def test_devices_are_named_in_one_file(path):
    if path.name in {"runtime.py", "doctor.py"}:  # doctor tells people what torch sees, and uses none of it
        return
    found = [
        f"line {node.lineno}: {dotted(node)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and dotted(node).startswith(("torch.cuda", "torch.distributed"))
    ]
    assert found == []
