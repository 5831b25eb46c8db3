"""Which column means what: names recognised whatever their case, an explicit mapping first, ambiguity an error."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from recdistill.errors import DataError, UsageError, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

__all__ = ["ALIASES", "EVENT", "ROLES", "Role", "by_column", "canonical", "event_column", "naming", "recognised"]

Role = Literal["user", "item", "weight", "timestamp", "split"]
ROLES: tuple[Role, ...] = ("user", "item", "weight", "timestamp", "split")

ALIASES: dict[Role, tuple[str, ...]] = {
    "user": ("user", "uid", "user_id", "visitor_id", "session_id", "query_id", "customer_id", "reviewer_id"),
    "item": ("item", "iid", "item_id", "item_id_list", "movie_id", "asin", "business_id", "product_id"),
    "weight": ("weight", "rating", "value", "label", "score"),
    "timestamp": ("timestamp", "ts", "time", "datetime", "date"),
    "split": ("split", "fold"),
}
"""Recognised names; case, `_`, `-` and blanks make no difference (`userId`, `USER_ID`, `user id`)."""

EVENT = ("event_id", "event_uuid", "message_id")
"""Names of a column that names each event, recognised likewise where events are taken in. A column "event" is none: it
says of what kind an event is as often as which one it is, so it has to be named."""

_BY_COLUMN = ContextVar("_BY_COLUMN", default=False)


def canonical(name: str) -> str:
    """The name without case, `_`, `-`, blanks, and without the type of a RecBole header (`user_id:token`)."""
    return "".join(c for c in name.split(":", maxsplit=1)[0].casefold() if c not in "_- \ufeff")


def event_column(names: Sequence[str], columns: Mapping[str, str], source: str) -> tuple[str | None, dict[str, str]]:
    """The column that names each event, or None, and what the user said of the other roles.

    Args:
        names: the columns of the source.
        columns: role -> column, as the user said; the role is "event" or one of `EVENT`.
        source: how errors call the source.

    Raises:
        UsageError: `columns` names the event twice, or a role that events have not.
        DataError: two columns could be meant.
    """
    known = {canonical(name) for name in EVENT}
    said = {role: name for role, name in columns.items() if canonical(role) in known | {"event"}}
    others = {role: name for role, name in columns.items() if role not in said}
    if len(said) > 1:
        raise UsageError(problem("The mapping of columns names the event twice", list(said.values())))
    roles = ("user", "item", "timestamp", "weight")
    for role in others:
        if _role(role) not in roles:
            allowed = (*roles, "event")
            near = nearest(role, allowed)
            raise UsageError(problem("Unknown role in the mapping of columns", role, allowed=allowed, near=near))
    if said:
        return next(iter(said.values())), others
    fitting = [name for name in names if canonical(name) in known and name not in others.values()]
    if len(fitting) > 1:
        what = f"{source}: {len(fitting)} columns could hold the event: {', '.join(map(repr, fitting))}"
        raise DataError(
            problem(what, remedy=f"Say which: columns={{'event': {fitting[0]!r}}} (--column event={fitting[0]})")
        )
    return (fitting[0] if fitting else None), others


@contextmanager
def by_column() -> Generator[None]:
    """Remedies inside name columns as `recdistill stream ingest` takes them: `--column item=NAME`."""
    token = _BY_COLUMN.set(True)
    try:
        yield
    finally:
        _BY_COLUMN.reset(token)


def naming(columns: Mapping[Role, str | None]) -> str:
    """How to name columns, in Python and on the command line, for remedies; None stands for any name."""
    python = ", ".join(f"{role!r}: {'...' if name is None else repr(name)}" for role, name in columns.items())
    if _BY_COLUMN.get():
        option, words = "--column", [f"{role}={name or 'NAME'}" for role, name in columns.items()]
    else:
        option = "--set"
        words = [f"data.columns.{role}={'NAME' if name is None else _toml(name)}" for role, name in columns.items()]
    return f"columns={{{python}}} ({' '.join(f'{option} {shlex.quote(word)}' for word in words)})"


def recognised(names: Sequence[str], columns: Mapping[str, str] | None, source: str) -> dict[Role, str]:
    """Role -> the column of `names` that holds it.

    Args:
        names: the columns of the source.
        columns: what the user said: role -> column. `rating` and `time` are understood as roles too.
        source: how errors call the source.

    Raises:
        UsageError: `columns` names a role or a column that does not exist.
        DataError: user or item is not found, or two columns could be meant.
    """
    said = _said(names, columns or {}, source)
    found: dict[Role, str] = dict(said)
    for role in ROLES:
        if role in found:
            continue
        known = {canonical(alias) for alias in ALIASES[role]}
        fitting = [name for name in names if canonical(name) in known and name not in said.values()]
        if len(fitting) > 1:
            what = f"{source}: {len(fitting)} columns could hold the {role}: {', '.join(map(repr, fitting))}"
            raise DataError(problem(what, remedy=f"Say which: {naming({role: fitting[0]})}"))
        if fitting:
            found[role] = fitting[0]
    for role in ROLES[:2]:
        if role not in found:
            near = next((n for a in ALIASES[role] if (n := nearest(a, names))), None)
            what = f"{source}: no column is recognised as the {role}"
            remedy = f"Say which column holds it: {naming({role: None})}"
            raise DataError(problem(what, list(names), allowed=", ".join(ALIASES[role]), near=near, remedy=remedy))
    return {role: found[role] for role in ROLES if role in found}


def _toml(name: str) -> str:
    """As `--set` takes a text: bare where it cannot be read as anything else."""
    return name if re.fullmatch(r"[A-Za-z_][\w-]*", name) else json.dumps(name, ensure_ascii=False)


def _role(said: str) -> Role | None:
    return next((r for r in ROLES if canonical(said) in map(canonical, (r, *ALIASES[r]))), None)


def _said(names: Sequence[str], columns: Mapping[str, str], source: str) -> dict[Role, str]:
    said: dict[Role, str] = {}
    for key, name in columns.items():
        role = _role(key)
        if role is None:
            near = nearest(key, ROLES)
            raise UsageError(problem("Unknown role in the mapping of columns", key, allowed=ROLES, near=near))
        if role in said:
            raise UsageError(problem(f"The mapping of columns names the {role} twice", [said[role], name]))
        fitting = [n for n in names if n == name] or [n for n in names if n.casefold() == name.casefold()]
        if len(fitting) != 1:
            what = f"{source} has no column {name!r}, which was named as the {role}"
            raise UsageError(problem(what, allowed=list(names), near=nearest(name, names)))
        said[role] = fitting[0]
    twice = [name for name in said.values() if list(said.values()).count(name) > 1]
    if twice:
        raise UsageError(
            problem("One column cannot have two roles", twice[0], remedy="Map each role to its own column")
        )
    return said
