"""Every error a user can meet, in one tree.

    RecdistillError                 the user's to mend; the command line prints it and exits with 2
    ├── UsageError                  an argument, a combination of arguments
    │   ├── SettingsError           a key or value of a run file or of `--set`
    │   ├── UnknownName             a method, model, metric, split ... that is not registered
    │   └── MissingKnowledge        a teacher cannot answer what a term asks
    ├── DataError                   an interaction log, a list or vector file
    │   └── BadRows                 rows of a file that cannot be read
    ├── BundleError                 a bundle whose hash, shape, version or file set is wrong
    ├── CheckpointError             a checkpoint of another run, or a broken one
    └── TrainingError               the loss is not a number, nothing to train on

Anything else that is raised is ours, and shows its traceback. Messages come from `problem`: they name the thing, its
value, what is allowed, the nearest match and the remedy.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "BadRows",
    "BundleError",
    "CheckpointError",
    "DataError",
    "MissingKnowledge",
    "RecdistillError",
    "SettingsError",
    "TrainingError",
    "UnknownName",
    "UsageError",
    "nearest",
    "printable",
    "problem",
]


_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and those that turn the direction of writing."""


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name most like `name`, or None when nothing is close."""
    by_folded = {a.casefold(): a for a in allowed}
    found = get_close_matches(name.casefold(), list(by_folded), n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None


def printable(text: str) -> str:
    """Text with what would steer a terminal escaped: an id is shown, it does not act."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def problem(
    what: str,
    value: object = None,
    *,
    allowed: str | Sequence[str] | None = None,
    near: str | None = None,
    remedy: str | None = None,
) -> str:
    """One message in the house's form.

    Args:
        what: the thing that is wrong, as a clause: "The setting 'method.near' must be at least 1".
        value: what was given instead; left out when None.
        allowed: the allowed values, as prose or as names.
        near: the nearest allowed name, offered as "did you mean".
        remedy: what to do next, as a sentence.
    """
    parts = [what.rstrip(".") + (f"; got {value!r}." if value is not None else ".")]
    if near is not None:
        parts.append(f"Did you mean {near!r}?")
    if allowed is not None:
        parts.append(f"Allowed: {allowed if isinstance(allowed, str) else ', '.join(allowed)}.")
    if remedy is not None:
        parts.append(remedy.rstrip(".") + ".")
    return " ".join(parts)


class RecdistillError(Exception):
    """Something the user can mend."""


class UsageError(RecdistillError):
    """An argument, or a combination of arguments, that cannot be used."""


class SettingsError(UsageError):
    """A key or a value of a run file, or of `--set`."""


class UnknownName(UsageError):
    """A name that is not registered."""

    def __init__(self, kind: str, name: str, allowed: Iterable[str]) -> None:
        self.kind, self.name, self.allowed = kind, name, sorted(allowed)
        super().__init__(
            problem(f"Unknown {kind} {name!r}", allowed=self.allowed or "none", near=nearest(name, self.allowed))
        )


class MissingKnowledge(UsageError):
    """A view is asked for what its recommender does not know."""

    def __init__(self, kind: str, source: str, remedy: str) -> None:
        self.kind, self.source, self.remedy = kind, source, remedy
        super().__init__(problem(f"{source} cannot give {kind}", remedy=remedy))


class DataError(RecdistillError):
    """An interaction log, a list file or a vector file that cannot be used."""


class BadRows(DataError):
    """Rows of a file that cannot be read."""

    lines: tuple[int, ...] = ()
    """Where all of them stand in JSON lines, ascending; empty elsewhere."""
    told: str = ""
    """How many they are, and the first ten."""


class BundleError(RecdistillError):
    """A bundle whose hash, shape, version or set of files is wrong."""


class CheckpointError(RecdistillError):
    """A checkpoint that belongs to another run, or is broken."""


class TrainingError(RecdistillError):
    """Training cannot go on: the loss is not a number, or there is nothing to learn from."""
