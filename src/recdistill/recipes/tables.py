"""Results as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from recdistill.report.words import amount, megabytes, short

if TYPE_CHECKING:
    from recdistill.evaluation.card import Card
    from recdistill.evaluation.compare import Interval
    from recdistill.recipes.compare import Comparison
    from recdistill.report.search import SearchPage

__all__ = ["differences", "results", "searched"]


_WIDE = 116  # columns of a terminal that hold everything


def results(found: Comparison, *, width: int = _WIDE) -> Table:
    """One row a system: metrics with intervals, what is kept of the teacher, size, latency.

    Args:
        found: what was measured.
        width: columns of the terminal; below 116, numbers are shorter and users a second are left out.
    """
    some = next(iter(found.evaluations.values()))
    wide = width >= _WIDE
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="bold",
        title=Text(f"{some.name} · {some.how} · {len(some.queries):,} users", style="dim"),
        title_justify="left",
        caption=Text("below each mean its 95 % interval; bytes and latency on this machine", style="dim"),
        caption_justify="left",
    )
    main = found.metrics[-1]
    names = [*found.metrics, "kept", "overlap", "params", "bytes", "p50 ms", *(["users/s"] if wide else [])]
    table.add_column("system", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    top = max((e.means[main] for n, e in found.evaluations.items() if n != found.teacher), default=None)
    for name, card in found.cards.items():
        best = name != found.teacher and found.evaluations[name].means[main] == top and len(found.cards) > 1
        cells = _cells(card, found.metrics, main, digits=4 if wide else 3)
        table.add_row(*cells[: len(names) + 1], style="bold" if best else "")
    return table


def differences(found: Comparison) -> Table:
    """Paired tests against the baseline, on the last metric."""
    metric = found.metrics[-1]
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="bold",
        title=Text(f"{metric}, user by user, against {found.baseline}", style="dim"),
        title_justify="left",
        caption=Text("p: sign-flip permutation, corrected for the number of systems (Holm)", style="dim"),
        caption_justify="left",
    )
    for name in ("system", "difference", "users better", "worse", "p"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for name, test in found.tests[metric].items():
        d = test.difference
        table.add_row(
            Text(name),
            f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]",
            f"{test.wins:,}",
            f"{test.losses:,}",
            f"{found.corrected[metric][name]:.4f}",
        )
    return table


def searched(page: SearchPage, *, width: int = _WIDE) -> Table:
    """One row a system of a search: metrics with intervals, sizes, and latency from a history to a list.

    Args:
        page: what was measured.
        width: columns of the terminal; below 116, the main metric alone, and shorter numbers.
    """
    wide, main, student = width >= _WIDE, page.main_metric, page.student
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="bold",
        title=Text(f"test \u00b7 {page.protocol} \u00b7 {page.users} users", style="dim"),
        title_justify="left",
        caption=Text("p50, p99: ms from one history to a list; /s: 256 at a time", style="dim"),
        caption_justify="left",
    )
    metrics = page.metrics if wide else [main]
    table.add_column("system", no_wrap=True)
    for name in [*metrics, "kept", "body", *(["params"] if wide else []), "bytes", "p50", "p99", "/s"]:
        table.add_column(name, justify="right", no_wrap=True)
    for entry in page.entries:
        card, kept, timed = entry.card, entry.card.retention.get(main), entry.card.latency
        times = (
            [_NONE] * 3
            if timed is None
            else [Text(f"{timed.p50_ms:.3g}"), Text(f"{timed.p99_ms:.3g}"), Text(short(timed.users_per_second))]
        )
        table.add_row(
            Text.assemble(entry.name, "\n", (card.model.removesuffix(" dims"), "dim")),
            *(_interval(entry.metrics[metric], 4) for metric in metrics),
            _NONE if kept is None else Text(f"{kept.mean:.1f} %"),
            Text(short(page.row(entry).body)),
            *([Text(short(card.parameters))] if wide else []),
            Text(megabytes(card.bytes)),
            *times,
            style="bold" if student is not None and entry.name == student.name else "",
        )
    if page.random is not None and page.random.n > 1:
        r = page.random
        gaps = [""] * (len(metrics) - 1)
        mean = Text.assemble((f"{r.mean:.4f}\n\u00b1{r.deviation:.4f}", "dim"))
        table.add_row(Text(f"random cells\nmean of {r.n}", style="dim"), *gaps, mean)
    return table


def _cells(card: Card, metrics: list[str], main: str, *, digits: int) -> list[Text]:
    measured = card.metrics[-1].values
    lines = [Text.assemble(card.name, "\n", (card.model.removesuffix(" dims"), "dim"))]
    lines += [_interval(measured[metric], digits) for metric in metrics]
    kept = card.retention.get(main)
    lines.append(_NONE if kept is None else _interval(kept, 1, " %"))
    lines.append(_NONE if card.agreement is None else Text(f"{100 * card.agreement.overlap.mean:.1f} %"))
    lines += [Text(short(card.parameters or None)), Text(megabytes(card.bytes))]
    timed = card.latency
    lines.append(_NONE if timed is None else Text(f"{timed.p50_ms:.3g}"))
    lines.append(_NONE if timed is None else Text(amount(timed.users_per_second)))
    return lines


def _interval(value: Interval, digits: int, unit: str = "") -> Text:
    bounds = f"{value.low:.{digits}f}\u2013{value.high:.{digits}f}"
    return Text.assemble(f"{value.mean:.{digits}f}{unit}", "\n", (bounds, "dim"))


_NONE = Text("\u2013")
