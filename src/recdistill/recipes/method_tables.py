"""`recdistill reproduce methods`: every method for students of collaborative filtering, on real data, tuned alike.

A teacher of 200 dims by matrix factorisation; students of 20 and 40. Every method has eight trials at 1/10, judged on
validation data with seed 1, and its winner is used for every seed and for 1/5 too. CiteULike and Last.fm have trials of
their own, Foursquare takes CiteULike's winners: it says what such settings are worth there, not what tuning there would
have been; Gowalla takes Last.fm's. These two have the plain student and the best four alone. Cells are small and kept;
what is not finished is missing in the table and is said to be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import rng
from recdistill.data.sources import read
from recdistill.evaluation.card import environment
from recdistill.evaluation.evaluate import evaluate
from recdistill.knowledge.view import Kind
from recdistill.methods import METHODS
from recdistill.methods.source import code_of
from recdistill.recipes.cells import Cells, among, finish, publish
from recdistill.recipes.lessons import Lesson
from recdistill.recipes.listener import Silent
from recdistill.recipes.method_tables_page import METRICS, Found, markdown, pack, summary
from recdistill.recipes.runfile import RunSettings, resolve
from recdistill.recipes.standings import TEACHER
from recdistill.recipes.study import Study
from recdistill.recipes.trials import Search
from recdistill.runtime import Runtime
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from recdistill.data.interactions import Interactions
    from recdistill.recipes.trained import Trained
    from recdistill.training.watch import Watch

__all__ = ["TABLES", "Table", "markdown", "reproduce", "rows", "with_validation"]

_TRIALS = 8
_FIRST = 1
"""The seed of all trials."""
_CUT = 0.1
"""Of the training interactions, for validation, where a log gives none."""

_EXPERTS = {"precision": "bfloat16", "dropped": 1e-2}
_HOW: Mapping[str, dict[str, Any]] = {
    "de": _EXPERTS,
    "htd": _EXPERTS,
    "pckd": _EXPERTS,
    "de-rrd": {"de": _EXPERTS},
    "sum": {"parts": {"htd": _EXPERTS, "rrd": {}}},
}
"""What methods do otherwise than their defaults: experts are as in `reproduce de-rrd`, at half the time."""


@dataclass(frozen=True, slots=True)
class Table:
    """A log and a size of students."""

    name: str
    title: str
    folder: str
    """Of the log, below the folder of all data sets."""
    dim: int
    """Of the students; the teacher has 200."""
    protocol: str
    """Of validation and of the first figures."""
    also: str | None = None
    """Another protocol the test is measured by."""
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    """What its training does otherwise than the defaults."""
    tuned_on: str = "citeulike-10"
    """The table whose trials chose the settings."""
    teacher_trials: int = 0
    """Of the teacher, which would else be as DE-RRD's authors train it."""

    rows: tuple[str, ...] = ()
    """Its rows, all of `rows()` when empty; the only thing that cells do not depend on."""


_LASTFM: dict[str, Any] = {"tuned_on": "lastfm-10", "teacher_trials": _TRIALS}
_LARGE: dict[str, Any] = {"every": 5, "patience": 5}
_BEST = (TEACHER, "plain", "hetcomp", "dcd", "rrd", "ir-rrd")
"""The plain student, and the four methods that are best on Last.fm at 1/10, of those that are measured."""

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table("citeulike-10", "CiteULike, MF 200 -> 20", "citeulike_derrd", 20, "sampled(499)", "full"),
        Table("citeulike-5", "CiteULike, MF 200 -> 40", "citeulike_derrd", 40, "sampled(499)", "full"),
        Table("lastfm-10", "Last.fm, MF 200 -> 20", "lastfm_lightgcn", 20, "full", **_LASTFM),
        Table("lastfm-5", "Last.fm, MF 200 -> 40", "lastfm_lightgcn", 40, "full", **_LASTFM),
        Table("foursquare-10", "Foursquare, MF 200 -> 20", "foursquare", 20, "full", None, _LARGE, rows=_BEST),
        Table(
            "gowalla-10", "Gowalla, MF 200 -> 20", "gowalla_lightgcn", 20, "full", None, _LARGE, rows=_BEST, **_LASTFM
        ),
    )
}


def rows() -> list[str]:
    """The teacher, the plain student, and every method that asks for no layers of a sequential teacher."""
    able = [name for name in METHODS if Kind.STATES not in METHODS[name].asks(METHODS[name].settings())]
    return [TEACHER, "plain", *(name for name in able if name != "plain")]


def reproduce(
    *,
    data: Path,
    out: Path,
    work: Path,
    seeds: Sequence[int] = (1, 2, 3),
    tables: Sequence[str] = ("citeulike-10",),
    only: Sequence[str] = (),
    watch: Callable[[str], Sequence[Watch]] = lambda _: (),
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Finish the cells that are missing, then write `methods.json` and `methods.md` beside their directory.

    Args:
        data: the folder of all data sets.
        out: where finished cells are kept. Several processes may work on one directory.
        work: checkpoints and trials; a killed run goes on from them.
        seeds: each trains its own teacher and students.
        tables: by name; see `TABLES`.
        only: rows; all that a table has when empty.
        watch: watches for a training, given its name.
        say: told of every finished cell.

    Raises:
        UnknownName: no such table, or none of them has such a row.
        DataError: the data are not there.
    """
    among("table", tables, TABLES)
    among("row", only, {row: None for t in tables for row in _rows(TABLES[t])})
    places = _Places(data, Cells(out / "cells"), work, watch)
    wanted = {t: [row for row in _rows(TABLES[t]) if not only or row in only] for t in tables}
    todo = [(TABLES[t], row, seed) for seed in seeds for t in tables for row in wanted[t]]

    def tell(at: tuple[Table, str, int], result: dict[str, Any]) -> None:
        means = next(iter(result["test"].values()))
        say(f"{at[0].name} {at[1]} seed {at[2]}: test ndcg@10 {means['ndcg@10']:.4f}, {result['epochs']} epochs")

    finish(todo, lambda at: places.cell(*at), tell)
    return publish(out, summary(_collected(places.cells)), markdown)


class _Listener(Silent):
    def __init__(self, watch: Callable[[str], Sequence[Watch]]) -> None:
        self._watch = watch

    def watch(self, run: str) -> Sequence[Watch]:
        return self._watch(run)


@dataclass(frozen=True)
class _Places:
    """Where things are, and the benches that were opened."""

    data: Path
    cells: Cells
    work: Path
    watch: Callable[[str], Sequence[Watch]]

    def cell(self, table: Table, row: str, seed: int) -> dict[str, Any] | None:
        """Computed, gone on with, or read; None while another process is at it."""
        about, label = _about(table, row, seed), f"{table.name}-{row}-seed{seed}"
        if (done := self.cells.get(label, about)) is not None:
            return done
        with self.cells.claim(label, about) as mine:
            if not mine:
                return None
            if (done := self.cells.get(label, about)) is not None:
                return done
            bench = self.bench(table, seed)
            lesson = None if row == TEACHER else self._lesson(bench, table, row)
            trained = bench.trained_teacher if lesson is None else lesson.trained
            tuned = None if lesson is None else {"method": lesson.how, "train": lesson.training.model_dump(mode="json")}
            where = {"environment": environment(seed=seed).model_dump(mode="json")}
            result = {"about": about, "settings": tuned, **self._measured(bench, table, trained), **where}
            self.cells.put(label, about, result)
            if lesson is not None:
                lesson.checkpoint.unlink(missing_ok=True)
            return result

    def bench(self, table: Table, seed: int) -> Study:
        """The log, its split and its teacher; one log is read once, and a teacher is kept for all its students."""
        if (table.name, seed) not in self._benches:
            taught = self._teaching(TABLES[table.tuned_on]) if table.teacher_trials else {}
            self._benches.clear()  # tables follow each other: their teachers are not all kept in memory
            self._benches[table.name, seed] = self._study(table, seed, taught)
        return self._benches[table.name, seed]

    def _study(self, table: Table, seed: int, taught: dict[str, Any]) -> Study:
        """`taught`: how the teacher is trained, beside what the table says."""
        run = parse(RunSettings, _run(table, self.data, self.work, taught))
        if table.folder not in self._logs:
            self._logs[table.folder] = with_validation(read(run.data.path, echo=None))
        return Study(run, resolve(run), self._logs[table.folder], _Listener(self.watch), seed)

    def _teaching(self, table: Table) -> dict[str, Any]:
        """How the teacher of a table is trained best, by trials of the same number and range as a student's."""
        bench = self._study(table, _FIRST, {})
        assert bench.plan.teacher is not None  # noqa: S101 - it is a model
        settings = bench.plan.teacher.model_dump(mode="json")
        trials = table.teacher_trials
        return self._tried(table, bench, row=TEACHER, method="plain", settings=settings, trials=trials)["train"]

    def _lesson(self, bench: Study, table: Table, method: str) -> Lesson:
        found = self.tuned(TABLES[table.tuned_on], method)
        return Lesson(
            bench=bench,
            name=f"{method}-mf{table.dim}",
            model="mf",
            settings=bench.plan.student.model_dump(mode="json"),
            method=method,
            how=found["method"],
            training=bench.plan.train.model_copy(update=found["train"]),
            code=_code(method),
        )

    def tuned(self, table: Table, method: str) -> dict[str, Any]:
        """The winner of a method's trials on a table: all of its settings, and the tuned ones of training."""
        bench = self.bench(table, _FIRST)
        settings = bench.plan.student.model_dump(mode="json")
        return self._tried(table, bench, row=method, method=method, settings=settings, trials=_TRIALS)

    def _tried(
        self, table: Table, bench: Study, *, row: str, method: str, settings: dict[str, Any], trials: int
    ) -> dict[str, Any]:
        """The winner of a row's trials, once."""
        about = {"table": _named(table), "method": row, "trials": trials, "code": _code(method), **_how(method)}
        label = f"{table.name}-{row}-trials"
        with self.cells.claim(label, about, wait=True):
            done = self.cells.get(label, about)
            if done is None:
                found = Search(
                    bench=bench,
                    model="mf",
                    model_settings=settings,
                    method=method,
                    how=parse(METHODS[method].settings, _HOW.get(method, {})),
                    training=bench.plan.train,
                    trials=trials,
                    name=f"{row}-mf{settings['dim']}",
                ).run()
                train = {key: getattr(found.training, key) for key in ("lr", "weight_decay")}
                done = {"method": dict(found.how), "train": train, "trials": found.as_json()["trials"]}
                self.cells.put(label, about, done)
        return done

    def _measured(self, bench: Study, table: Table, trained: Trained) -> dict[str, Any]:
        test: dict[str, dict[str, float]] = {}
        users: dict[str, dict[str, str]] = {}
        for protocol in (table.protocol, *([table.also] if table.also else [])):
            candidates = bench.candidates(protocol)
            found = evaluate(trained.ranker(), bench.split.test, METRICS, protocol=protocol, candidates=candidates)
            test[protocol] = found.means
            users[protocol] = {metric: pack(values) for metric, values in found.per_user.items()}
        report = trained.report
        return {
            "test": test,
            "users": users,
            "valid": {metric: best.value for metric, best in report.best.items()},
            "epochs": len(report.history),
            "seconds": round(report.seconds, 3),
            "parameters": trained.model.n_parameters,
            "device": bench.plan.train.device,
        }

    @cached_property
    def _benches(self) -> dict[tuple[str, int], Study]:
        return {}

    @cached_property
    def _logs(self) -> dict[str, Interactions]:
        return {}


def _about(table: Table, row: str, seed: int) -> dict[str, Any]:
    """All that a cell depends on."""
    about: dict[str, Any] = {"table": _named(table), "row": row, "seed": seed}
    if row == TEACHER:
        return about
    return about | {"tuned on": _named(TABLES[table.tuned_on]), "trials": _TRIALS, "code": _code(row)} | _how(row)


def _named(table: Table) -> dict[str, Any]:
    """What names a table's cells: all of it but which rows it has."""
    return {key: value for key, value in asdict(table).items() if key != "rows"}


def _rows(table: Table) -> list[str]:
    return list(table.rows) or rows()


def _code(method: str) -> str:
    return code_of(method, *_HOW.get(method, {}).get("parts", ()))


def _how(method: str) -> dict[str, Any]:
    """What a cell depends on, where a method is not as by default."""
    return {"how": _HOW[method]} if method in _HOW else {}


def _run(table: Table, data: Path, work: Path, taught: dict[str, Any]) -> dict[str, Any]:
    """The run file of a table."""
    device = str(Runtime.of().device)
    return {
        "data": {"path": str(data / table.folder / "interactions.parquet"), "split": "given"},
        "teacher": {"model": "mf", "dim": 200, "train": taught},
        "student": {"model": "mf", "dim": table.dim},
        "method": {"name": "plain"},
        "train": {"seed": _FIRST, "device": device, "metrics": ["ndcg@10"], "protocol": table.protocol}
        | table.training,
        "output": {"dir": str(work / table.folder)},
    }


def with_validation(log: Interactions) -> Interactions:
    """A log that gives a validation part, or else a tenth of its training interactions, drawn by their place."""
    if log.split is None or (log.split == 1).any():
        return log
    draw = rng.uniform(rng.key(0, "validation"), np.arange(len(log), dtype=np.int64), 1)[:, 0]
    return replace(log, split=np.where((log.split == 0) & (draw < _CUT), np.int8(1), log.split).astype(np.int8))


def _collected(cells: Cells, seeds: Sequence[int] = range(1, 21)) -> dict[str, Found]:
    """Every finished cell under its table, row and seed."""
    found: dict[str, Found] = {}
    for table in TABLES.values():
        of: Found = {"title": table.title, "rows": {}}
        for row in _rows(table):
            done = {s: cells.get(f"{table.name}-{row}-seed{s}", _about(table, row, s)) for s in seeds}
            of["rows"][row] = {s: each for s, each in done.items() if each is not None}
        found[table.name] = of
    return found
