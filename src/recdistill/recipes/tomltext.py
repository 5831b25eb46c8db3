"""Plain tables as TOML text, for run files that a command writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["as_toml"]


def as_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for each key, in their order; values that are tables stand inline, None and empty tables are left out.

    Args:
        tables: name -> key -> text, number, truth value, list or table of such.

    Raises:
        UsageError: a value of another kind.
    """
    parts: list[str] = []
    for name, table in tables.items():
        lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not _nothing(value)]
        if lines:
            parts.append("\n".join([f"[{_key(name)}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False)  # a basic string of TOML has the escapes of JSON
        case list() | tuple():
            return f"[{', '.join(_value(each) for each in value)}]"  # pyright: ignore[reportUnknownVariableType]
        case dict():
            inner = [f"{_key(str(key))} = {_value(each)}" for key, each in value.items() if not _nothing(each)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            return f"{{ {', '.join(inner)} }}"
        case _:
            raise UsageError(problem("TOML has no such value", value))


def _nothing(value: object) -> bool:
    return value is None or value == {}


def _key(key: str) -> str:
    plain = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    return key if plain else json.dumps(key, ensure_ascii=False)
