"""What people see: stages, a progress bar with time left, loss terms and the validation metric, tables, errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text
from typing_extensions import override

from recdistill.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import ConsoleOptions, RenderableType
    from rich.progress import TaskID

    from recdistill.training.watch import EpochRecord, Report, Watch

__all__ = ["Bar", "Screen", "console", "show_error"]

_LINE_SECONDS = 30.0
"""Where there is no terminal, a line at most this often."""


def console(*, stderr: bool = False) -> Console:
    """A console that takes what it is given as text: no markup, emoji codes, guessed colours or control codes."""
    return _Plain(stderr=stderr, markup=False, emoji=False, highlight=False)


class _Plain(Console):
    """Shows control characters of ids and names escaped, so that no log can steer a terminal."""

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


def show_error(message: str) -> None:
    """One clear message on standard error."""
    lines = message.splitlines() or [""]
    out = console(stderr=True)
    for at, line in enumerate(lines):
        out.print(Text.assemble(("error: " if at == 0 else "       ", "bold red"), line), soft_wrap=True)


class Screen:
    """A listener that draws on standard error, so that standard output stays clean for results."""

    def __init__(self, out: Console | None = None) -> None:
        self._out = out or console(stderr=True)

    def say(self, text: str) -> None:
        """An indented remark."""
        for line in text.splitlines():
            self._out.print(Text(f"  {line.strip()}", style="dim"), soft_wrap=True)

    def begin(self, stage: str) -> None:
        """A headline."""
        self._out.print(Text(stage, style="bold"), soft_wrap=True)

    def watch(self, run: str) -> Sequence[Watch]:
        """A progress bar for one training."""
        return (Bar(run, self._out),)


class Bar:
    """A training run as a bar: epochs, time left at most, loss terms, the validation metric and its best."""

    def __init__(self, run: str, out: Console) -> None:
        self._run, self._out = run, out
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._told = 0.0

    def on_start(self, report: Report) -> None:
        """Show the bar where it stands."""
        self._told = time.monotonic()
        if report.history and not report.stopped:
            self._out.print(Text(f"  {self._run}: going on after epoch {len(report.history)}", style="dim"))
        if not self._out.is_terminal or report.stopped:
            return
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("at most"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[now]}", markup=False),
            console=self._out,
            transient=True,
        )
        self._progress.start()
        done = len(report.history)
        self._task = self._progress.add_task(self._run, total=report.epochs, completed=done, now="")

    def on_epoch(self, record: EpochRecord, report: Report) -> None:
        """Move on by one epoch."""
        now = describe(record, report)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=record.epoch + 1, now=now)
        elif time.monotonic() - self._told > _LINE_SECONDS:
            self._told = time.monotonic()
            self._out.print(Text(f"  {self._run}: epoch {record.epoch + 1} of {record.epochs}  {now}"), soft_wrap=True)

    def on_end(self, report: Report) -> None:
        """Put one line in the bar's place."""
        if self._progress is not None:
            self._progress.stop()
        best = ", ".join(f"{name} {b.value:.4f} at epoch {b.epoch + 1}" for name, b in report.best.items())
        said = f"  {self._run}: {len(report.history)} epochs in {_clock(report.seconds)}, {report.stopped or 'stopped'}"
        self._out.print(Text(said + (f"; best {best}" if best else ""), style="dim"), soft_wrap=True)


def describe(record: EpochRecord, report: Report) -> str:
    """An epoch in a few words: "base 102.3  rrd 11.2  ndcg@10 0.3921 (best 0.3950)"."""
    parts = [f"{name} {value:.4g}" for name, value in record.losses.items()]
    for name, value in record.metrics.items():
        best = report.best.get(name)
        parts.append(f"{name} {value:.4f}" + (f" (best {best.value:.4f})" if best is not None else ""))
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
