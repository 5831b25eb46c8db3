"""Standings for people: tables on a terminal, JSON, Markdown and a page."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from recdistill.methods import METHODS
from recdistill.recipes.cells import write_text
from recdistill.recipes.standings import TEACHER
from recdistill.recipes.standings_tables import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from recdistill.recipes.contest import Contest
    from recdistill.recipes.runfile import RunSettings
    from recdistill.recipes.standings import Standings

__all__ = ["as_json", "markdown", "terminal", "written"]

_WIDE = 116  # columns of a terminal that hold everything


def terminal(found: Standings, *, width: int = _WIDE) -> Iterator[RenderableType]:
    """Tables for a terminal, then what has to be known to read them.

    Args:
        found: the standings.
        width: columns of the terminal; below 116, bounds have three digits.
    """
    for shown in tables(found, digits=4 if width >= _WIDE else 3):
        table = Table(
            box=None,
            padding=(0, 2, 0, 0),
            pad_edge=False,
            header_style="bold",
            title=Text(shown.title, style="dim"),
            title_justify="left",
            caption=Text(shown.note, style="dim") if shown.note else None,
            caption_justify="left",
        )
        for at, name in enumerate(shown.heading):
            table.add_column(Text(name), justify="left" if at == 0 else "right", no_wrap=at == 0)
        for row in shown.rows:
            best = row[0].partition("\n")[0] == found.best
            table.add_row(*map(_cell, row), style="bold" if best else "")
        yield table
        yield Text()
    for name, why in found.failed.items():
        yield Text(f"{name} is not in the tables: {why}", style="bold")
    for note in found.notes:
        yield Text(note, style="bold" if note.startswith("Warning") else "dim")


def _cell(text: str) -> Text:
    first, _, below = text.partition("\n")
    return Text.assemble(first, *([("\n" + below, "dim")] if below else []))


def markdown(found: Standings, *, title: str, command: str) -> str:
    """The same as Markdown."""
    lines = [f"# {title}", ""]
    for note in found.notes:
        lines += [note, ""]
    for name, why in found.failed.items():
        lines += [f"**{name} is not in the tables**: {why}", ""]
    for shown in tables(found):
        lines += [f"## {shown.title}", "", _line(shown.heading), "|" + "---|" * len(shown.heading)]
        lines += [_line(row) for row in shown.rows]
        lines += ["", *([shown.note, ""] if shown.note else [])]
    return "\n".join([*lines, f"Printed by `{command}`.", ""])


def as_json(found: Standings) -> str:
    """All of it but the values of single users."""
    return json.dumps(asdict(found), indent=2, allow_nan=False)


def written(found: Standings, run: RunSettings, contest: Contest, *, text: str) -> None:
    """`compare.json`, `compare.md` and `compare.html`, each whole or not at all."""
    from recdistill.recipes.distill import machine  # noqa: PLC0415
    from recdistill.report.contest import ContestPage, Dot  # noqa: PLC0415

    out, terms = run.output.dir, contest.terms
    words = [f"--methods {','.join(terms.methods)} --seeds {len(terms.seeds)} --trials {terms.trials}"]
    words += [f"--sizes {','.join(map(str, terms.sizes))}"] if terms.sizes else []
    command = " ".join(["recdistill compare run.toml", *words, *(["--tune-each"] if terms.tune_each else [])])
    title = f"{run.data.path.stem}: {', '.join(terms.methods)}"
    result = contest.finished(next(each for each in contest.entrants if each.name == found.best))
    assert result is not None and result.result is not None  # noqa: S101, PT018 - it is in the tables
    write_text(out / "compare.json", as_json(found) + "\n")
    write_text(out / "compare.md", markdown(found, title=title, command=command))
    dots = [
        Dot(name, row.mean, found.costs[name].bytes, found.costs[name].seconds, _style(name, found))
        for name, row in found.rows[found.main].items()
    ]
    page = ContestPage(
        title=title,
        subtitle=f"{result.result.card.model} of {found.users:,} users, test, {found.protocol}",
        tables=tables(found),
        best=found.best,
        main_metric=found.main,
        dots=dots,
        notes=[*found.notes, *(f"{name} is not in the tables: {why}" for name, why in found.failed.items())],
        searches=found.tuned,
        data=[*contest.log.notes, *contest.split.notes],
        settings=text,
        environment=machine(result.result.card, found.seeds[0]),
        citations=list(dict.fromkeys(METHODS[name].paper.bibtex() for name in terms.methods)),
        command=command,
    )
    write_text(out / "compare.html", page.render())


def _style(name: str, found: Standings) -> int:
    if name == TEACHER:
        return 0
    if name in found.baselines.values():
        return 1
    methods = list(
        dict.fromkeys(each.partition(" ")[0] for each in found.baselines if each not in found.baselines.values())
    )
    return 2 + methods.index(name.partition(" ")[0]) % 6


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"
