"""`recdistill compare`: several methods and seeds on one split, tested user by user.

Letters: S seeds, m users with a target.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from recdistill.errors import UnknownName, UsageError, problem
from recdistill.evaluation.compare import Interval, PairedTest, bootstrap_interval, holm, paired_test, retention
from recdistill.methods import METHODS
from recdistill.recipes.cells import write_text
from recdistill.recipes.folder import held
from recdistill.recipes.listener import Silent
from recdistill.recipes.runfile import resolve
from recdistill.recipes.study import Study, load_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rich.console import Console, ConsoleOptions, RenderResult

    from recdistill.data.interactions import Interactions
    from recdistill.recipes.listener import Listener
    from recdistill.recipes.runfile import Plan, RunSettings

__all__ = ["OverSeeds", "Row", "over_seeds"]


@dataclass(frozen=True, slots=True)
class Row:
    """One system on one metric."""

    mean: Interval
    """Over users, and over seeds where there are several."""
    by_seed: tuple[float, ...]
    kept: Interval | None
    """Per cent of the teacher's; None for the teacher."""
    test: PairedTest | None
    """Against the baseline, seeds averaged user by user; None for the baseline itself."""
    p: float | None
    """The permutation test's p-value, corrected for the number of systems (Holm)."""


@dataclass(frozen=True)
class OverSeeds:
    """Metric -> system -> row; prints as a table for each metric."""

    rows: dict[str, dict[str, Row]]
    seeds: tuple[int, ...]
    baseline: str
    protocol: str
    notes: tuple[str, ...] = ()
    """What has to be known to read the figures, once each."""

    def to_json(self) -> str:
        """All of it, without the values of single users."""
        return json.dumps(
            {
                "seeds": self.seeds,
                "baseline": self.baseline,
                "protocol": self.protocol,
                "notes": self.notes,
                "rows": {m: {name: _plain(row) for name, row in rows.items()} for m, rows in self.rows.items()},
            },
            indent=2,
            allow_nan=False,
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A table for each metric."""
        for metric, rows in self.rows.items():
            yield _table(metric, rows, self)
        for note in self.notes:
            yield Text(note, style="dim")


def over_seeds(
    run: RunSettings,
    *,
    methods: Sequence[str],
    seeds: int = 1,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> OverSeeds:
    """Train teacher and students for every seed on the same split; what an earlier call finished is read.

    Args:
        run: a run file; its own method takes its settings, the others their defaults.
        methods: registered names; the first is the baseline of the tests, "plain" when it is among them.
        seeds: how many, from `train.seed` upwards; seed s trains its own teacher.
        overwrite: replace the results of a run with other settings in the same folder.
        listener: told of what goes on.

    Raises:
        UnknownName: no such method.
        UsageError: no method, or the folder holds a run with other settings.
    """
    listener = listener if listener is not None else Silent()
    for method in methods:
        if method not in METHODS:
            raise UnknownName("method", method, METHODS)
    if not methods:
        raise UsageError(problem("There is no method to compare", allowed=list(METHODS)))
    methods = list(dict.fromkeys(methods))
    baseline = "plain" if "plain" in methods else methods[0]
    plan = resolve(run)
    listener.begin(f"Reading {run.data.path}")
    log = load_log(run.data, listener)
    with held(run, overwrite=overwrite):
        return _over_seeds(run, plan, log, methods, seeds=seeds, baseline=baseline, listener=listener)


def _over_seeds(
    run: RunSettings,
    plan: Plan,
    log: Interactions,
    methods: Sequence[str],
    *,
    seeds: int,
    baseline: str,
    listener: Listener,
) -> OverSeeds:
    values: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    notes: dict[str, None] = {}
    chosen = tuple(range(run.train.seed, run.train.seed + seeds))
    for seed in chosen:
        study = Study(run, plan, log, listener, seed)
        teacher = study.teacher()
        found = {} if teacher is None else {"teacher": teacher}
        found |= {method: study.student(method) for method in methods}
        notes |= dict.fromkeys(note for result in found.values() for note in result.test.notes)
        for name, result in found.items():
            for metric, each in result.test.per_user.items():
                values.setdefault(metric, {}).setdefault(name, []).append(each)
    stacked = {m: {name: np.stack(per_seed) for name, per_seed in rows.items()} for m, rows in values.items()}
    whole = OverSeeds(
        {metric: _rows(by_name, baseline) for metric, by_name in stacked.items()},
        chosen,
        baseline,
        run.evaluate.protocol if run.evaluate.like is None else f"{run.evaluate.protocol}, like {run.evaluate.like}",
        tuple(notes),
    )
    write_text(run.output.dir / "compare.json", whole.to_json() + "\n")
    return whole


def _rows(by_name: dict[str, NDArray[np.float64]], baseline: str) -> dict[str, Row]:
    """(S, m) values of every system -> its row."""
    others = [name for name in by_name if name not in (baseline, "teacher")]
    tests = {name: paired_test(by_name[name], by_name[baseline]) for name in others}
    p = dict(zip(others, np.asarray(holm([t.p_permutation for t in tests.values()])).tolist(), strict=True))
    teacher = by_name.get("teacher")
    return {
        name: Row(
            bootstrap_interval(values),
            tuple(values.mean(axis=1).tolist()),
            None if teacher is None or name == "teacher" or teacher.mean() <= 0 else retention(values, teacher),
            tests.get(name),
            p.get(name),
        )
        for name, values in by_name.items()
    }


def _plain(row: Row) -> dict[str, Any]:
    def interval(value: Interval | None) -> list[float] | None:
        return None if value is None else [value.mean, value.low, value.high]

    return {
        "mean": interval(row.mean),
        "by_seed": row.by_seed,
        "kept_percent": interval(row.kept),
        "difference": interval(None if row.test is None else row.test.difference),
        "p_corrected": row.p,
    }


def _table(metric: str, rows: dict[str, Row], found: OverSeeds) -> Table:
    n = next(iter(rows.values())).mean.n
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=Text(f"{metric} · test · {found.protocol} · {n:,} users · {seeds}", style="dim"),
        title_justify="left",
    )
    for name in ("system", "mean [95 %]", "by seed", "kept of teacher", f"against {found.baseline}", "p (Holm)"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for name, row in rows.items():
        kept, test = row.kept, row.test
        table.add_row(
            Text(name),
            f"{row.mean.mean:.4f} [{row.mean.low:.4f}, {row.mean.high:.4f}]",
            " ".join(f"{value:.4f}" for value in row.by_seed),
            "\u2013" if kept is None else f"{kept.mean:.1f} % [{kept.low:.1f}, {kept.high:.1f}]",
            "\u2013"
            if test is None
            else f"{test.difference.mean:+.4f} [{test.difference.low:+.4f}, {test.difference.high:+.4f}]",
            "\u2013" if row.p is None else f"{row.p:.4f}",
        )
    return table
