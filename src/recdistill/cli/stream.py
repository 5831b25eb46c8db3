"""Commands of a stream: one folder, a ledger in, versions out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from recdistill.cli.train import OnBadRows

if TYPE_CHECKING:
    from collections.abc import Callable

    from recdistill.cli.screen import Screen
    from recdistill.data.formats.table import OnBadRows as OnBad
    from recdistill.ledger import Ingested
    from recdistill.stream.stream import Stream

__all__ = ["COMMANDS", "forget", "ingest", "init", "recommend", "report", "rollback", "status", "step"]

Folder = Annotated[Path, typer.Argument(help="The folder of the stream.", show_default=False)]
Assign = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key: --set blocks.events=5000")
]


def init(
    folder: Folder,
    *,
    settings: Annotated[
        Path | None, typer.Option(help="A TOML file; a template with every key explained if left out.")
    ] = None,
    assign: Assign = None,
) -> None:
    """Begin a stream: a folder with its settings and an empty ledger."""
    from recdistill.recipes.stream import begin

    begin(folder, settings=settings, assign=assign or ()).close()
    typer.echo(f"Wrote {folder / 'stream.toml'}. Next: recdistill stream ingest {folder} LOG")


def ingest(
    folder: Folder,
    sources: Annotated[
        list[str] | None, typer.Argument(help="Logs of any format that is read; - for JSON lines from standard input.")
    ] = None,
    *,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="ROLE=NAME", help="user, item, timestamp, weight or event: --column user=uid"),
    ] = None,
    on_bad_rows: OnBadRows = None,
) -> None:
    """Append events. What was ingested before counts once, so any file may be given again at any time."""
    from recdistill.cli.screen import Screen
    from recdistill.errors import UsageError, problem
    from recdistill.stream.stream import Stream

    roles = dict[str, str]()
    for one in columns or ():
        role, equals, name = one.partition("=")
        if not equals:
            raise UsageError(problem("--column takes ROLE=NAME", one, remedy="For example --column user=uid"))
        roles[role] = name
    how = cast("OnBad", on_bad_rows or "error")  # checked where the log is read
    screen = Screen()
    with Stream(folder) as stream:
        for source in sources or ["-"]:
            if source == "-":
                _of_pipe(stream, columns=roles, on_bad_rows=how, say=screen.say)
            else:
                typer.echo(_became(source, stream.ingest(source, columns=roles, on_bad_rows=how, echo=screen.say)))


def step(
    folder: Folder,
    *,
    blocks: Annotated[int | None, typer.Option(min=1, help="Finish at most so many cycles; all if left out.")] = None,
    close: Annotated[bool, typer.Option("--close", help="Close the open block first, however young it is.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of this process.")] = 1,
) -> None:
    """Do all that is due: student, gate, publish, teachers, ensemble, distil, proxies. Kill it, and repeat it."""
    import time

    from recdistill.cli.screen import Screen
    from recdistill.recipes.stream import overrun
    from recdistill.stream.chain import put_off
    from recdistill.stream.status import status as look
    from recdistill.stream.stream import Stream

    with Stream(folder) as stream:
        import torch

        torch.set_num_threads(threads)
        done = stream.step(blocks=blocks, close=close, watch=_Told(Screen()))
        journal = stream.journal()
        for cycle in done:
            for who, which in (("", ""), (", distilled", "[distil]")):
                told = journal.find(cycle, f"publish{which}")
                gate = journal.find(cycle, f"gate{which}")
                if told is not None and told.object:
                    typer.echo(f"cycle {cycle}{who}: published {told.object}")
                elif gate is not None:
                    why = "; ".join(check["why"] for check in gate.measured["checks"] if not check["passed"])
                    typer.echo(f"cycle {cycle}{who}: not published: {why}")
            waits = put_off(journal, cycle)
            if waits is not None:
                typer.echo(f"cycle {cycle}: {waits}")
        if not done:
            typer.echo("Nothing is due.")
        over = overrun(look(stream, now=time.time()))
        if over is not None:
            typer.echo(over)


def status(
    folder: Folder,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say where the stream stands: cycles, gates, LA, RA and H, sizes, what is due next."""
    import json
    import time

    from recdistill.cli.screen import console
    from recdistill.stream.status import status as look
    from recdistill.stream.stream import Stream

    with Stream(folder) as stream:
        found = look(stream, now=time.time())
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2, ensure_ascii=False))
        return
    from recdistill.recipes.stream import table

    console().print(table(found))


def rollback(
    folder: Folder,
    *,
    to: Annotated[str | None, typer.Option(help="A version; the one before the serving one if left out.")] = None,
) -> None:
    """Serve an earlier version, at once. The next student that passes the gates replaces it."""
    from recdistill.stream.stream import Stream

    with Stream(folder) as stream:
        typer.echo(f"Serving {stream.rollback(to)}")


def forget(
    folder: Folder,
    users: Annotated[
        list[str], typer.Argument(help="External ids of people, or @file with one a line.", show_default=False)
    ],
) -> None:
    """Remove people from events, tables, lists, holdouts and versions; schedule what deletion cannot remove."""
    from recdistill.cli.lists import ids
    from recdistill.stream.stream import Stream

    named = [one for word in users for one in (ids(word, "USERS") if word.startswith("@") else [word])]
    with Stream(folder) as stream:
        done = stream.forget(*named)
    typer.echo(
        f"Removed from {done['versions']} versions and {done['objects']} stage outputs. The proxies begin anew in "
        f"cycle {done['proxies']}, the teachers are trained from scratch in cycle {done['retrain']}."
    )


def recommend(
    folder: Folder,
    *,
    users: Annotated[str, typer.Option(help="External ids with commas between, or @file.", show_default=False)],
    k: Annotated[int, typer.Option(min=1, help="Items each.")] = 10,
    out: Annotated[Path | None, typer.Option(help="lists.parquet, .csv or .jsonl; a table if left out.")] = None,
) -> None:
    """Recommend from the version that is served; who is newer than it is folded in from what the ledger holds."""
    from recdistill.cli.lists import ids, write
    from recdistill.cli.screen import console
    from recdistill.stream.answers import answer
    from recdistill.stream.stream import Stream

    asked = ids(users, "--users")
    with Stream(folder) as stream:
        found = answer(stream, asked, k)
    if out is None:
        console().print(found)
    else:
        write(found, out)
        typer.echo(f"Wrote {found.n_rows:,} rows for {len(found):,} users to {out}")


def report(
    folder: Folder,
    *,
    out: Annotated[Path | None, typer.Option(help="Where to write it. [default: report.html in the folder]")] = None,
) -> None:
    """Write a page: LA, RA and H along the stream, teacher and student, times, sizes, what is due."""
    from recdistill.recipes.stream import write_page
    from recdistill.stream.stream import Stream

    place = out or folder / "report.html"
    with Stream(folder) as stream:
        write_page(stream, place)
    typer.echo(f"Wrote {place}")


def _of_pipe(stream: Stream, *, columns: dict[str, str], on_bad_rows: OnBad, say: Callable[[str], object]) -> None:
    """A line a batch, for a pipe may never end; and their sum."""
    import sys

    name = "standard input"
    parts: list[Ingested] = []

    def told(part: Ingested) -> None:
        parts.append(part)
        typer.echo(_became(name, part))

    done = stream.ingest_lines(sys.stdin, columns=columns, on_bad_rows=on_bad_rows, echo=say, told=told)
    if done is None:
        typer.echo(f"{name}: nothing came")
    elif len(parts) > 1:
        typer.echo(_became(f"{name}, {len(parts):,} batches", done))


def _became(source: str, done: Ingested) -> str:
    """What became of a batch."""
    parts = [f"{done.new:,} new of {done.read:,} events"]
    parts += [f"{n:,} {what}" for n, what in ((done.repeated, "repeated"), (done.late, "late")) if n]
    parts += [f"{done.refused:,} of people who were forgotten"] if done.refused else []
    closed = f"; closed block {', '.join(map(str, done.closed))}" if done.closed else ""
    return f"{source}: {', '.join(parts)}{closed}"


class _Told:
    """Stages on standard error."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def on_stage(self, cycle: int, stage: str, what: str, about: str) -> None:
        del about
        if what == "begins":
            self._screen.say(f"cycle {cycle}: {stage}")


COMMANDS = (init, ingest, step, status, rollback, forget, recommend, report)
