"""`recdistill reproduce methods`: every method for students of collaborative filtering, on real data, tuned alike.

A teacher of 200 dims by matrix factorisation; students of 20 and 40. Every method has eight trials on CiteULike at
1/10, judged on validation data with seed 1, and its winner is used for every table and seed: a table of another log or
size says what such settings are worth there, not what tuning there would have been. Cells are small and kept; what is
not finished is missing in the table and is said to be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import rng
from recdistill.data.sources import read
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
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recdistill.data.interactions import Interactions
    from recdistill.recipes.trained import Trained
    from recdistill.training.watch import Watch

__all__ = ["TABLES", "Table", "markdown", "reproduce", "rows"]

_TRIALS = 8
_CUT = 0.1
"""Of the training interactions, for validation, where a log gives none."""


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


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table("citeulike-10", "CiteULike, MF 200 -> 20", "citeulike_derrd", 20, "sampled(499)", "full"),
        Table("citeulike-5", "CiteULike, MF 200 -> 40", "citeulike_derrd", 40, "sampled(499)", "full"),
        Table("lastfm-10", "Last.fm, MF 200 -> 20", "lastfm_lightgcn", 20, "full"),
        Table("lastfm-5", "Last.fm, MF 200 -> 40", "lastfm_lightgcn", 40, "full"),
        Table("foursquare-10", "Foursquare, MF 200 -> 20", "foursquare", 20, "full", None, {"every": 5, "patience": 5}),
    )
}
TUNED_ON = "citeulike-10"


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
    tables: Sequence[str] = (TUNED_ON,),
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
        only: rows; all of them when empty.
        watch: watches for a training, given its name.
        say: told of every finished cell.

    Raises:
        UnknownName: no such table or row.
        DataError: the data are not there.
    """
    among("table", tables, TABLES)
    among("row", only, rows())
    places = _Places(data, Cells(out / "cells"), work, watch)
    todo = [(TABLES[t], row, seed) for seed in seeds for t in tables for row in rows() if not only or row in only]

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
            result = {"about": about, "settings": tuned, **self._measured(bench, table, trained)}
            self.cells.put(label, about, result)
            if lesson is not None:
                lesson.checkpoint.unlink(missing_ok=True)
            return result

    def bench(self, table: Table, seed: int) -> Study:
        """The log, its split and its teacher; one log is read once, and a teacher is kept for all its students."""
        if (table.name, seed) not in self._benches:
            run = parse(RunSettings, _run(table, self.data, self.work))
            if table.folder not in self._logs:
                self._logs[table.folder] = _with_validation(read(run.data.path, echo=None))
            log = self._logs[table.folder]
            self._benches.clear()  # tables follow each other: their teachers are not all kept in memory
            self._benches[table.name, seed] = Study(run, resolve(run), log, _Listener(self.watch), seed)
        return self._benches[table.name, seed]

    def _lesson(self, bench: Study, table: Table, method: str) -> Lesson:
        found = self.tuned(method)
        return Lesson(
            bench=bench,
            name=f"{method}-mf{table.dim}",
            model="mf",
            settings=bench.plan.student.model_dump(mode="json"),
            method=method,
            how=found["method"],
            training=bench.plan.train.model_copy(update=found["train"]),
            code=code_of(method, *found["method"].get("parts", ())),
        )

    def tuned(self, method: str) -> dict[str, Any]:
        """The winner of a method's trials: all of its settings, and the tuned ones of training."""
        table, first = TABLES[TUNED_ON], 1
        about = {"table": asdict(table), "method": method, "trials": _TRIALS, "code": code_of(method)}
        label = f"tuned-{method}"
        with self.cells.claim(label, about, wait=True):
            done = self.cells.get(label, about)
            if done is None:
                bench = self.bench(table, first)
                found = Search(
                    bench=bench,
                    model="mf",
                    model_settings=bench.plan.student.model_dump(mode="json"),
                    method=method,
                    how=METHODS[method].settings(),
                    training=bench.plan.train,
                    trials=_TRIALS,
                    name=f"{method}-mf{table.dim}",
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
        }

    @cached_property
    def _benches(self) -> dict[tuple[str, int], Study]:
        return {}

    @cached_property
    def _logs(self) -> dict[str, Interactions]:
        return {}


def _about(table: Table, row: str, seed: int) -> dict[str, Any]:
    """All that a cell depends on."""
    about: dict[str, Any] = {"table": asdict(table), "row": row, "seed": seed}
    if row == TEACHER:
        return about
    return about | {"tuned on": asdict(TABLES[TUNED_ON]), "trials": _TRIALS, "code": code_of(row)}


def _run(table: Table, data: Path, work: Path) -> dict[str, Any]:
    """The run file of a table."""
    return {
        "data": {"path": str(data / table.folder / "interactions.parquet"), "split": "given"},
        "teacher": {"model": "mf", "dim": 200},
        "student": {"model": "mf", "dim": table.dim},
        "method": {"name": "plain"},
        "train": {"seed": 1, "device": "cpu", "metrics": ["ndcg@10"], "protocol": table.protocol} | table.training,
        "output": {"dir": str(work / table.folder)},
    }


def _with_validation(log: Interactions) -> Interactions:
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
        for row in rows():
            done = {s: cells.get(f"{table.name}-{row}-seed{s}", _about(table, row, s)) for s in seeds}
            of["rows"][row] = {s: each for s, each in done.items() if each is not None}
        found[table.name] = of
    return found
