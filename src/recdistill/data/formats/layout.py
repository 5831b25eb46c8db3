"""What a text file looks like: its separator, whether it has a header, whether it is one line per user."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recdistill.data.formats.roles import ALIASES, canonical, naming
from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Layout", "looked_at"]

_SEPARATORS = ("\t", ",", ";", "|", "::", " ")
_WORDS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", "::": "'::'", " ": "blank"}
_TYPED = re.compile(r"[^:\s]+:(token|float|token_seq|float_seq)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_YEAR_1973 = 10**8  # a whole number above it, in a file without a header, is a time
_EVERY_KNOWN = {canonical(alias) for aliases in ALIASES.values() for alias in aliases}


@dataclass(frozen=True)
class Layout:
    """The layout of a text file."""

    separator: str
    """One of the known ones; " " splits at every blank or tab of a file of lists."""
    names: tuple[str, ...]
    """The columns; "1", "2", ... of a file without a header."""
    header: bool
    lists: bool = False
    """One line per user: the user, then items."""
    quoted: bool = True
    """Whether `"` quotes."""
    sequences: frozenset[str] = frozenset()
    """Columns that hold several values, separated by blanks (RecBole's token_seq, float_seq)."""
    mapping: tuple[tuple[str, str], ...] = ()
    """Role and column, where the layout itself says so."""
    notes: tuple[str, ...] = ()


def looked_at(
    path: Path,
    lines: Sequence[str],
    *,
    columns: Mapping[str, str] | None,
    separator: str | None,
    header: bool | None,
    lists: bool | None,
) -> Layout:
    """The layout of a file, from its name and its first lines.

    Args:
        path: the file; its name settles `u.data` and `.inter`.
        lines: the first lines, as `first_lines` gives them.
        columns: what the user said of the columns.
        separator: what the user said; found when None.
        header: what the user said; found when None.
        lists: what the user said; found when None.

    Raises:
        DataError: it can be read in two ways, or in none; the remedy says which argument settles it.
    """
    filled = [line for line in lines if line.strip()]
    stem = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    first = filled[0]
    if all(_TYPED.fullmatch(name) for name in first.split("\t")) and header is not False and separator is None:
        return _recbole(first)
    if lists or (lists is None and separator is None and _is_lists(path, filled, columns)):
        return Layout(" ", ("user", "items"), header=False, lists=True, notes=("One line per user: user, items",))
    if separator is None:
        separator = "\t" if stem == "u.data" else _separator(path, filled)
    elif separator not in _SEPARATORS and len(separator.encode()) != 1:
        raise DataError(problem("A separator is one character, or '::'", separator))
    if header is None:
        header = _has_header(path, filled, separator, columns)
    fields = _fields(first, separator)
    said = "header" if header else "no header"
    notes = (f"Separator {_WORDS.get(separator, repr(separator))}, {said}",)
    quoted = separator != "::" and stem != "u.data"
    if header:
        names = tuple(name.strip() for name in fields)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            remedy = "Give each column a name of its own"
            raise DataError(problem(f"{path.name}: two columns have the name", twice[0], remedy=remedy))
        return Layout(separator, names, header=True, quoted=quoted, notes=notes)
    counts = Counter(len(_fields(line, separator)) for line in filled)
    width = counts.most_common(1)[0][0]
    names = tuple(str(i + 1) for i in range(width))
    mapping = () if columns else _positions(path, filled, separator, width)
    return Layout(separator, names, header=False, quoted=quoted, mapping=mapping, notes=notes)


def _recbole(first: str) -> Layout:
    names = tuple(first.split("\t"))
    sequences = frozenset(name for name in names if name.endswith("_seq"))
    return Layout(
        "\t", names, header=True, quoted=False, sequences=sequences, notes=("RecBole's typed header, separator tab",)
    )


def _fields(line: str, separator: str) -> list[str]:
    """A rough cut of a line: a separator within quotes does not count, quotes around a field are taken off."""
    if '"' not in line or separator == "::":
        return line.split(separator)
    bare = re.sub(r'"[^"]*"', lambda m: m.group().replace(separator, "\0"), line)
    return [field.replace("\0", separator).strip().strip('"') for field in bare.split(separator)]


def _separator(path: Path, lines: Sequence[str]) -> str:
    """The separator that cuts every line alike; where no one does, the one that cuts most lines alike."""
    counts = {s: Counter(len(_fields(line, s)) for line in lines) for s in _SEPARATORS}
    even = [s for s, c in counts.items() if len(c) == 1 and next(iter(c)) > 1]
    proper = [s for s in even if s != " "] or even
    named = [s for s in proper if sum(canonical(f) in _EVERY_KNOWN for f in _fields(lines[0], s)) > 1]
    if len(named) == 1:
        return named[0]
    if len(proper) == 1:
        return proper[0]
    if len(proper) > 1:
        words = ", ".join(_WORDS[s] for s in proper)
        what = f"{path.name}: the separator could be {words}"
        raise DataError(problem(what, lines[0][:80], remedy=f"Say which: separator={proper[0]!r}"))
    named = [s for s in _SEPARATORS if sum(canonical(f) in _EVERY_KNOWN for f in _fields(lines[0], s)) > 1]
    if named:
        return named[0]
    best = max(_SEPARATORS, key=lambda s: sum(n for width, n in counts[s].items() if width > 1))
    width, often = counts[best].most_common(1)[0]
    if width < 2 or often * 2 <= len(lines):
        remedy = "Name it with separator=..., or a file of one line per user with lists=True"
        what = f"{path.name}: no separator cuts its lines into columns"
        raise DataError(problem(what, lines[0][:80], allowed=", ".join(_WORDS.values()), remedy=remedy))
    return best


def _has_header(path: Path, lines: Sequence[str], separator: str, columns: Mapping[str, str] | None) -> bool:
    first = [field.strip() for field in _fields(lines[0], separator)]
    known = sum(canonical(field) in _EVERY_KNOWN for field in first)
    if columns and all(name.isdecimal() for name in columns.values()):
        return False  # columns named by position
    if known or (columns and any(name in first for name in columns.values())):
        return True
    if any(_NUMBER.fullmatch(field) for field in first):
        return False
    body = [_fields(line, separator) for line in lines[1:]]
    numeric = any(all(len(row) > c and _NUMBER.fullmatch(row[c].strip()) for row in body) for c in range(len(first)))
    if body and numeric:
        return True  # text above a column of numbers
    if all(any(c.isdigit() for c in field) for field in first[:2]):
        return False  # names of columns have no digits; "u12" and "i3" are ids
    what = f"{path.name}: its first line could be a header or an interaction"
    raise DataError(problem(what, lines[0][:80], remedy="Say which: header=True or header=False"))


def _positions(path: Path, lines: Sequence[str], separator: str, width: int) -> tuple[tuple[str, str], ...]:
    """Roles by position: user, item, then weight or timestamp (told by size), or both."""
    rows = [fields for line in lines if len(fields := _fields(line, separator)) == width]

    def is_time(column: int) -> bool:
        values = [row[column].strip() for row in rows]
        return all(value.isdecimal() and int(value) > _YEAR_1973 for value in values)

    pair = (("user", "1"), ("item", "2"))
    if width == 2:
        return pair
    if width == 3:
        return (*pair, ("timestamp" if is_time(2) else "weight", "3"))
    if width == 4 and is_time(3):
        return (*pair, ("weight", "3"), ("timestamp", "4"))
    what = f"{path.name} has no header, and its {width} columns could be anything"
    remedy = f"Name them by position: {naming({'user': '1', 'item': '2'})}"
    raise DataError(problem(what, lines[0][:80], remedy=remedy))


def _is_lists(path: Path, lines: Sequence[str], columns: Mapping[str, str] | None) -> bool:
    """Lines of blank-separated words and no header: lists when their lengths differ."""
    if columns or any(c in line for line in lines for c in ',;|"') or any("::" in line for line in lines):
        return False
    words = [line.split() for line in lines]
    if any(canonical(word) in _EVERY_KNOWN for word in words[0]):
        return False
    widths = {len(row) for row in words}
    if widths <= {1, 2}:
        return max(widths) == 2 and not any("\t" in line for line in lines)
    if len(widths) > 1:
        mixed = sum("\t" in line for line in lines)
        return mixed == 0 or all("\t" in line for line in lines if len(line.split()) > 1)
    if any("\t" in line for line in lines) or not path.name.lower().startswith(("train", "test", "valid")):
        return False
    if len(lines) == 1:
        return True
    what = f"{path.name}: every line has {widths.pop()} words, which could be columns or a user's list of items"
    remedy = f"Say which: lists=True, or {naming({'user': '1', 'item': '2'})}"
    raise DataError(problem(what, lines[0][:80], remedy=remedy))
