"""What is kept on disk, and what a budget takes: events only where that helps."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from recdistill.cli.app import app
from recdistill.recipes.stream import table
from recdistill.stream import disk
from recdistill.stream.status import status
from recdistill.stream.stream import Stream

OFTEN = "[disk]\nversions = 5\ncycles = 5\nbudget = {}\ndrop_events = true\n"


@pytest.fixture
def often(tmp_path, log, write_csv, settings, toy):
    """`often(budget)`: a stream stepped after each of four files, with a budget under which old events may go."""

    def stepped(budget, name="s"):
        text = settings.replace("base = 1500", "base = 400").replace("events = 500", "events = 300")
        stream = Stream.create(tmp_path / name, text + OFTEN.format(budget))
        opened.append(stream)
        for n in range(4):
            stream.ingest(write_csv(log, tmp_path / f"{n}.csv", slice(n * 600, n * 600 + 600)), now=0.0)
            stream.step(stages=toy.Toy())
        return stream

    opened = []
    yield stepped
    for stream in opened:
        stream.close()


def kept(stream):
    """The cycles whose first teacher is kept."""
    return {x.cycle for x in stream.journal().lines() if x.stage == "teacher[0]" and stream.objects.has(x.object)}


def test_a_budget_that_no_event_would_help_takes_none_and_says_what_has_to_stay(often):
    stream = often(1)
    assert len(kept(stream)) == 1
    assert len(stream.versions.names()) == 2
    assert stream.ledger.counts()["events"] == 2400, "nothing went for nothing"
    found = status(stream, now=0.0)
    assert 1 < found.least < sum(found.bytes.values())
    said = Console(width=200, file=io.StringIO())
    said.print(table(found))
    wanted = f"The budget of 1 B cannot be kept: {found.least / 1000:.0f} kB have to stay"
    assert wanted in said.file.getvalue()
    told = CliRunner().invoke(app, ["stream", "step", str(stream.folder)])
    assert wanted in told.output


def test_a_budget_takes_outputs_then_events_and_the_next_cycle_still_runs(  # noqa: PLR0917
    often, toy, write_csv, log, tmp_path, edit
):
    whole = often(10**9, "whole")
    size = sum(disk.sizes(whole).values())
    assert status(whole, now=0.0).least < size
    stream = often(1)
    edit(stream.folder, "budget = 1\n", f"budget = {status(stream, now=0.0).least + 4_000}\n")
    with Stream(stream.folder) as again:
        again.step(stages=toy.Toy())
        assert sum(disk.sizes(again).values()) <= again.settings.disk.budget < size
        assert again.ledger.counts()["events"] < 2400
        again.ingest(write_csv(log, tmp_path / "more.csv", slice(2400, 3000)), now=0.0)
        assert again.step(stages=toy.Toy())


def test_the_whole_folder_is_counted(often):
    stream = often(10**9)
    (stream.folder / "report.html").write_text("x" * 1000)
    assert disk.sizes(stream)["other"] >= 1000 + (stream.folder / "stream.toml").stat().st_size
    files = [file for file in stream.folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert sum(disk.sizes(stream).values()) == sum(file.stat().st_size for file in files)
