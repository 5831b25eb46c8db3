"""Run files and settings: frozen, strict, and a misspelt key is an error with its nearest match.

A value is looked for in three places, the later one wins: the model's defaults, the run file, `--set a.b=c` in the
order given. What the three give is read once, by `parse`, as strictly as JSON: a text is not a number, `true` is not 1,
and an unknown key is an error. All that is wrong is said at once, a line each, with the full dotted key.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic._internal._model_construction import ModelMetaclass  # pydantic has no public name for it
from typing_extensions import override

from recdistill.errors import SettingsError, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

__all__ = ["Settings", "load", "overlay", "parse", "prose"]

Schema = dict[str, Any]
_KEY = re.compile(r"[A-Za-z0-9_-]+")


_ELSEWHERE = {
    "lr": ("learning_rate", "eta"),
    "batch": ("batch_size",),
    "epochs": ("n_epochs", "num_epochs", "max_epochs", "iterations"),
    "negatives": ("n_negatives", "num_negatives", "negative_samples"),
    "dim": ("embedding_dim", "embedding_size", "n_factors", "factors", "latent_dim", "hidden_size"),
    "weight_decay": ("l2", "regularization", "reg"),
    "optimiser": ("optimizer",),
    "patience": ("early_stopping",),
    "dropout": ("dropout_rate", "dropout_prob"),
}
"""What our keys are called in other libraries, so that their words find ours."""


class _Explained(ModelMetaclass):
    """Calls of a settings class in Python complain in the house's form, as run files do."""

    @override
    def __call__(cls, *args: Any, **given: Any) -> Any:
        try:
            return super().__call__(*args, **given)
        except ValidationError as error:
            raise _explained(cast("type[Settings]", cls), given, error) from None


class Settings(BaseModel, metaclass=_Explained):
    """A frozen table of settings; the text under a field is its documentation.

    Raises:
        SettingsError: at a call: unknown keys, values of a wrong type or out of range, missing keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def load(path: Path, *, writer: str = "recdistill init") -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        path: the file.
        writer: the command that writes one, for who has none.

    Raises:
        SettingsError: there is no such file, or it is not TOML (with the line and column).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        siblings = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        message = problem(
            f"There is no run file {str(path)!r} (looked at {path.resolve()})",
            near=nearest(path.name, siblings),
            remedy=f"Write one with `{writer}`",
        )
        raise SettingsError(message) from None
    except UnicodeDecodeError as error:
        raise SettingsError(problem(f"The run file {str(path)!r} is not UTF-8 text (byte {error.start})")) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        remedy = 'Texts stand in quotes, tables begin with [name]: dir = "runs/first"'
        raise SettingsError(problem(f"The run file {str(path)!r} is not TOML: {error}", remedy=remedy)) from None


def overlay(table: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `table` with `a.b=c` assigned, in order; the last one wins.

    Args:
        table: nested tables, left as they are.
        assignments: as given to `--set`. The value is TOML (`0.5`, `true`, `["ndcg@10"]`, `"text"`); a bare word is
            a text.

    Raises:
        SettingsError: no `=`, a key that is not dotted words, a broken value, or a key below a plain value.
    """
    out = _copied(table)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        words = key.strip().split(".")
        if not equals or not all(_KEY.fullmatch(word) for word in words):
            remedy = "For example --set train.epochs=50"
            raise SettingsError(problem("--set takes key=value", assignment, remedy=remedy))
        inner = out
        for depth, word in enumerate(words[:-1], 1):
            below = _table(inner.setdefault(word, {}))
            if below is None:
                above = ".".join(words[:depth])
                raise SettingsError(problem(f"--set {assignment}: {above!r} is a value, it has no keys", inner[word]))
            inner = below
        inner[words[-1]] = _value(assignment, text.strip())
    return out


def parse(model: type[S], table: Mapping[str, Any], *, at: str = "", also: Sequence[str] = ()) -> S:
    """Read a table as settings, strictly.

    Args:
        model: the settings' class.
        table: what was given, nested; what is left out takes its default.
        at: the dotted key of the table itself ("method"), put before every key in messages.
        also: keys that the table had and others have read; messages count them among the allowed.

    Raises:
        SettingsError: unknown keys, values of a wrong type or out of range, missing keys: one line each.
    """
    try:
        # JSON, because strict reading of JSON still takes a list for a tuple and a text for a path, as TOML needs.
        return model.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        raise _explained(model, table, error, at=at, also=also) from None


def prose(schema: Schema, defs: Mapping[str, Schema]) -> str:
    """What a JSON schema allows, in words: "a whole number, at least 1"."""
    schema = _resolved(schema, defs)
    if "words" in schema:
        return str(schema["words"])
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        members = [prose(member, defs) for member in schema["anyOf"] if member.get("type") != "null"]
        return " or ".join(dict.fromkeys(members))
    name = {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "array": "a list",
        "object": "a table",
    }.get(str(schema.get("type")), "a value")
    if isinstance(schema.get("items"), dict):
        name += f" (of each: {prose(schema['items'], defs)})"
    bounds = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
        "minItems": "at least {} of them",
        "minLength": "at least {} characters",
        "pattern": "like {}",
    }
    return ", ".join([name, *(form.format(schema[bound]) for bound, form in bounds.items() if bound in schema)])


def _explained(
    model: type[Settings], table: Mapping[str, Any], error: ValidationError, *, at: str = "", also: Sequence[str] = ()
) -> SettingsError:
    """All that is wrong, a line each."""
    schema = model.model_json_schema()
    messages: dict[str, str] = {}
    found = error.errors(include_url=False)
    inside = {each["loc"][:-1] for each in found if each["loc"]}
    for one in found:
        if one["type"] == "too_short" and one["loc"] in inside:
            continue  # of the members that there are, none is right, and each has its line
        key, message = _explain(schema, table, one, at, also=also)
        messages.setdefault(key, message)  # the members of a union complain one by one of the same key
    return SettingsError("\n".join(messages.values()))


def _table(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _copied(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v if (inner := _table(v)) is None else _copied(inner) for k, v in table.items()}


def _value(assignment: str, text: str) -> object:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        if not text or text[0] in "[{\"'":
            remedy = "Quote the whole for the shell: --set 'evaluate.metrics=[\"ndcg@10\"]'"
            raise SettingsError(problem(f"The value of --set {assignment} is not TOML", text, remedy=remedy)) from None
        return text
    date_or_more = len(read) > 1 or not isinstance(read["value"], (bool, int, float, str, list, dict))
    return text if date_or_more else cast("object", read["value"])


def _resolved(schema: Schema, defs: Mapping[str, Schema]) -> Schema:
    """The schema behind references, and behind "or nothing"."""
    while "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    members = cast("list[Schema]", schema.get("anyOf", []))
    something = [member for member in members if member.get("type") != "null"]
    return _resolved(something[0], defs) if len(something) == 1 else schema


def _explain(
    root: Schema, given: Mapping[str, Any], error: ErrorDetails, at: str, *, also: Sequence[str]
) -> tuple[str, str]:
    """The dotted key of one pydantic error, and its message in the house's form."""
    defs = cast("Mapping[str, Schema]", root.get("$defs", {}))
    schema, siblings = _resolved(root, defs), list[str]()
    value: object = given
    words = [at] if at else []
    for depth, step in enumerate(error["loc"]):
        table = _table(value)
        if table is not None:
            properties = cast("Schema", schema.get("properties", {}))
            others = cast("Schema", schema.get("additionalProperties") or {})
            siblings, value = [*properties, *(() if depth else also)], table.get(str(step))
            schema = _resolved(properties.get(str(step), others), defs)
            words.append(str(step))
        elif isinstance(step, int) and isinstance(value, list):
            schema = _resolved(schema.get("items", {}), defs)
            value = cast("list[object]", value)[step]
            words[-1] += f"[{step}]"
        else:
            break  # the name of a union's member
    key = ".".join(words)
    what = f"The setting {key!r}"
    reason = error["msg"].partition(", ")[2] or error["msg"]
    choices = [str(choice) for choice in cast("list[object]", schema.get("enum", []))]
    match error["type"]:
        case "extra_forbidden":
            above, dot, word = key.rpartition(".")
            meant = {theirs: ours for ours in siblings for theirs in _ELSEWHERE.get(ours, ())}
            near = nearest(word, [*siblings, *meant])
            near = meant.get(near, near) if near else None
            message = problem(f"Unknown setting {key!r}", near=near and above + dot + near, allowed=siblings or "none")
        case "missing":
            message = problem(f"{what} is missing", allowed=prose(schema, defs), remedy=schema.get("description"))
        case "value_error" | "assertion_error":
            given_whole = not error["loc"]  # a table, of which the reason names what is wrong
            message = problem(f"{what}: {reason}", None if given_whole else value) if key else problem(reason)
        case _ if choices:
            message = problem(f"{what} has no such choice", value, near=nearest(str(value), choices), allowed=choices)
        case _:
            message = problem(f"{what} must be {prose(schema, defs)}", value)
    return key, message
