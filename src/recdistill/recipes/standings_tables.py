"""Standings as tables of texts, the same for a terminal, Markdown and a page.

A cell may have two lines: a figure, and below it its interval or what belongs to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recdistill.recipes.standings import TEACHER
from recdistill.report.words import amount, megabytes, milliseconds, short, times

if TYPE_CHECKING:
    from recdistill.evaluation.compare import Interval
    from recdistill.recipes.standings import Cost, Standings, Versus

__all__ = ["Shown", "tables"]

_NONE = "\u2013"


@dataclass(frozen=True, slots=True)
class Shown:
    """A table in words."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(found: Standings, *, digits: int = 4) -> list[Shown]:
    """Everything that is shown of standings, in order.

    Args:
        found: the standings.
        digits: of the bounds of intervals.
    """
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    how = f"test \u00b7 {found.protocol} \u00b7 {found.users:,} users \u00b7 {seeds}"
    shown = [_quality(metric, found, f"{metric} \u00b7 {how}", digits) for metric in found.rows]
    shown.append(_costs(found))
    if found.segments:
        shown.append(_segments(found, digits))
    if TEACHER in found.rows[found.main]:
        shown.append(_beats(found))
    if found.tuned:
        shown.append(_trials(found))
    return shown


def _quality(metric: str, found: Standings, title: str, digits: int) -> Shown:
    several = len(found.seeds) > 1
    heading = ["system", "mean", *(["by seed"] if several else []), "kept"]
    heading += [f"against {_base(found)}", f"against {found.best}"]
    lines = [
        [
            name,
            _mean(row.mean, digits),
            *(["\n".join(f"{value:.4f}" for value in row.by_seed)] if several else []),
            _NONE if row.kept is None else f"{row.kept.mean:.1f} %\n{row.kept.low:.1f}\u2013{row.kept.high:.1f}",
            _against(row.baseline, digits),
            _against(row.best, digits),
        ]
        for name, row in found.rows[metric].items()
    ]
    note = (
        "Below each figure its 95 % bootstrap interval over users and seeds; kept: of the teacher's. Differences are "
        "user by user, seeds averaged; p: sign-flip permutation, corrected for the number of rows (Holm). "
        f"{found.best} is the student that is best on {found.judged} {found.main}."
    )
    return _shown(title, heading, lines, note if metric == found.main else "")


def _costs(found: Standings) -> Shown:
    timed = any(cost.latency is not None for cost in found.costs.values())
    heading = ["system", "params", "bytes", *(["p50"] if timed else []), "training", f"\u00d7 {_base(found)}"]
    heading += ["tuning", "overlap@10"]
    lines = [
        [
            f"{name}\n{cost.student.removesuffix(' dims')}",
            short(cost.parameters or None),
            megabytes(cost.bytes),
            *([milliseconds(None if cost.latency is None else cost.latency.p50_ms)] if timed else []),
            _NONE if cost.seconds is None else f"{_seconds(cost.seconds)}\n{amount(cost.epochs)} epochs",
            _times(cost),
            _NONE if cost.tuning is None else _seconds(cost.tuning),
            _NONE if cost.overlap is None else f"{100 * cost.overlap:.1f} %",
        ]
        for name, cost in found.costs.items()
    ]
    p50 = "p50: one user's top-10 from the bundle, in one thread; " if timed else ""
    note = (
        "training: with validation, the mean over seeds, and below what it is over the baseline's, of all and of an "
        f"epoch; tuning: all trials; {p50}overlap: of the teacher's first ten."
    )
    return _shown("Cost", heading, lines, note)


def _segments(found: Standings, digits: int) -> Shown:
    heading = ["system", *(f"{name}\n{part.users:,} users" for name, part in found.segments.items())]
    lines: list[list[str]] = []
    for name in found.rows[found.main]:
        cells = [name]
        for part in found.segments.values():
            row = part.rows[name]
            p = "" if row.baseline is None or row.baseline.p is None else f" p {_p(row.baseline.p)}"
            figure, _, bounds = _mean(row.mean, digits).partition("\n")
            cells.append(f"{figure}{p}\n{bounds}")
        lines.append(cells)
    cuts = "; ".join(f"{name}: {part.about}" for name, part in found.segments.items())
    note = f"{cuts}. p: against {_base(found)}, in each segment corrected for the number of rows (Holm)."
    return _shown(f"{found.main} by segment", heading, lines, note)


def _beats(found: Standings) -> Shown:
    heading = ["system", "all", *found.segments]
    lines: list[list[str]] = []
    for name, row in found.rows[found.main].items():
        if name != TEACHER:
            parts = [row, *(part.rows[name] for part in found.segments.values())]
            lines.append([name, *(_counts(part.teacher) for part in parts)])
    note = "Users for whom the student is better : worse than the teacher, seeds averaged; below, for whom it is equal."
    return _shown(f"Against the teacher, {found.main}", heading, lines, note)


def _trials(found: Standings) -> Shown:
    lines: list[list[str]] = []
    for search in found.tuned:
        trials: Any = search["trials"]
        best, first = trials[search["best"]], trials[0]
        failed = sum(trial["metric"] is None for trial in trials)
        student: Any = search["student"]
        values = [f"{key.partition('.')[2]} {_value(value)}" for key, value in best["values"].items()]
        lines.append(
            [
                f"{search['method']}\n{student['model']}, {student.get('dim', '')}".removesuffix(", "),
                str(search["seed"]),
                _NONE if first["metric"] is None else f"{first['metric']:.4f}",
                _NONE if best["metric"] is None else f"{best['metric']:.4f}",
                f"{best['number']} of {len(trials)}" + (f"\n{failed} failed" if failed else ""),
                f"{', '.join(values[:2])}\n{', '.join(values[2:])}".rstrip("\n"),
            ]
        )
    heading = ["tuned", "seed", "before", "best", "trial", "settings of the best"]
    note = "Trials count from 0, the settings as they were; all of them are in compare.json and on the page."
    return _shown(f"Tuning, {found.tuned[0]['metric']}", heading, lines, note)


def _base(found: Standings) -> str:
    names = set(found.baselines.values())
    return names.pop() if len(names) == 1 else "plain" if all(n.startswith("plain") for n in names) else "the baseline"


def _shown(title: str, heading: list[str], rows: list[list[str]], note: str = "") -> Shown:
    return Shown(title, tuple(heading), tuple(map(tuple, rows)), note)


def _mean(value: Interval, digits: int) -> str:
    return f"{value.mean:.4f}\n{value.low:.{digits}f}\u2013{value.high:.{digits}f}"


def _against(versus: Versus | None, digits: int) -> str:
    if versus is None:
        return _NONE
    d, p = versus.difference, "" if versus.p is None else f" p {_p(versus.p)}"
    return f"{d.mean:+.4f}{p}\n{d.low:+.{digits}f} to {d.high:+.{digits}f}"


def _counts(versus: Versus | None) -> str:
    if versus is None:
        return _NONE
    return f"{amount(versus.better)} : {amount(versus.worse)}\n{amount(versus.equal)}"


def _times(cost: Cost) -> str:
    if cost.times is None:
        return _NONE
    return f"{times(cost.times)}\n{times(cost.epoch_times)}" if cost.epoch_times is not None else times(cost.times)


def _p(value: float) -> str:
    return f"{value:.4f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
