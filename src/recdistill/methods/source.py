"""The code that a method is made of, as a digest: a result that was kept is computed again when its method changes.

Read is the module that registers the method, and what it imports of `recdistill.methods`, `recdistill.terms` and
`recdistill.losses`, and so on from there; comments, docstrings, layout and what only a type checker imports do not
count. What all methods share (`methods.base`, models, the loop) does not count either: that is another release.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from recdistill.methods.base import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["code_of"]

_FOLLOWED = ("recdistill.methods.", "recdistill.terms.", "recdistill.losses.")
_SHARED = {"recdistill.methods.base", "recdistill.methods.ranges"}


def code_of(*methods: str) -> str:
    """16 hex digits of the code of methods.

    Raises:
        UnknownName: no such method.
    """
    todo, seen = [METHODS[name].build.__module__ for name in methods], dict[str, str]()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen[name], imported = _read(name)
            todo += imported
    return hashlib.blake2b("\n".join(f"{n} {seen[n]}" for n in sorted(seen)).encode(), digest_size=8).hexdigest()


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """A module's code without prose, and what it imports of methods, terms and losses."""
    found = find_spec(module) if module != "__main__" else None
    path = None if found is None or found.origin is None else Path(found.origin)
    if path is None or not path.is_file():  # written at a prompt: there is nothing to read
        return "", ()
    tree = _Stripped().visit(ast.parse(path.read_text(encoding="utf-8")))
    return ast.dump(tree), tuple(name for name in _imported(tree) if name not in _SHARED)


class _Stripped(ast.NodeTransformer):
    """Without docstrings and the texts under fields, and without what only a type checker reads."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A text that stands alone is prose."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Imports for types."""
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else self.generic_visit(node)


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            if node.module.startswith(_FOLLOWED):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(_FOLLOWED))
