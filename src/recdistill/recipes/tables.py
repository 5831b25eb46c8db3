"""Results as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from recdistill.report.words import amount, megabytes, milliseconds

if TYPE_CHECKING:
    from recdistill.evaluation.card import Card
    from recdistill.evaluation.compare import Interval
    from recdistill.recipes.compare import Comparison

__all__ = ["differences", "results"]


def results(found: Comparison) -> Table:
    """One row a system: metrics with intervals, what is kept of the teacher, size, latency."""
    some = next(iter(found.evaluations.values()))
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=Text(f"{some.name} · {some.protocol} · {len(some.queries):,} users", style="dim"),
        title_justify="left",
        caption=Text("95 % intervals; bytes and latency on this machine", style="dim"),
        caption_justify="left",
    )
    table.add_column("system")
    for metric in found.metrics:
        table.add_column(metric, justify="right")
    for name in ("kept", "overlap@10", "parameters", "bytes", "top-10 p50", "users/s"):
        table.add_column(name, justify="right")
    main = found.metrics[-1]
    top = max((e.means[main] for n, e in found.evaluations.items() if n != found.teacher), default=None)
    for name, card in found.cards.items():
        best = name != found.teacher and found.evaluations[name].means[main] == top
        table.add_row(*_cells(card, found.metrics, main), style="bold" if best and len(found.cards) > 1 else "")
    return table


def differences(found: Comparison) -> Table:
    """Paired tests against the baseline, on the last metric."""
    metric = found.metrics[-1]
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
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


def _cells(card: Card, metrics: list[str], main: str) -> list[Text]:
    measured = card.metrics[-1].values
    lines = [Text.assemble(card.name, "\n", (card.model, "dim"))]
    lines += [_interval(measured[metric], 4) for metric in metrics]
    kept = card.retention.get(main)
    lines.append(Text("\u2013") if kept is None else _interval(kept, 1, " %"))
    lines.append(Text("\u2013" if card.agreement is None else f"{100 * card.agreement.overlap.mean:.1f} %"))
    lines += [Text(amount(card.parameters)), Text(megabytes(card.bytes))]
    timed = card.latency
    lines.append(Text("\u2013" if timed is None else milliseconds(timed.p50_ms)))
    lines.append(Text("\u2013" if timed is None else amount(timed.users_per_second)))
    return lines


def _interval(value: Interval, digits: int, unit: str = "") -> Text:
    bounds = f"{value.low:.{digits}f}\u2013{value.high:.{digits}f}"
    return Text.assemble(f"{value.mean:.{digits}f}{unit}", "\n", (bounds, "dim"))
