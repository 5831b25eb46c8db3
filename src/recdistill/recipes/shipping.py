"""What `recdistill tune` ends with: the best student shipped and measured once, its run file, a table and a page."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from recdistill.methods import METHODS
from recdistill.recipes.cells import write_text
from recdistill.recipes.compare import Comparison, noted, paired
from recdistill.recipes.distill import machine
from recdistill.recipes.lessons import Lesson
from recdistill.recipes.tomltext import as_toml
from recdistill.recipes.weighing import asked, named
from recdistill.report.page import Entry
from recdistill.report.tune import Round, Row, TunePage
from recdistill.report.words import megabytes, milliseconds
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console, ConsoleOptions, RenderResult

    from recdistill.recipes.bench import Result
    from recdistill.recipes.study import Study
    from recdistill.recipes.train import TrainSettings
    from recdistill.recipes.tune import Found, Tried
    from recdistill.search.budget import Budget
    from recdistill.settings import Settings

__all__ = ["Shipped", "run_file", "shipped"]

_BEST = "best"
"""The name of the bundle, the log and the row."""


@dataclass(frozen=True, eq=False)
class Shipped:
    """A finished tuning; prints as the front, and what was shipped."""

    found: Found
    """Everything that was tried, judged on validation data."""
    comparison: Comparison
    """The teacher, the best student and the plain one of its width, on test data."""
    told: TunePage
    """Everything `report.html` says."""
    page: Path
    """`report.html`."""
    bundle: Path
    """The student to ship."""
    run_file: Path
    """`best.toml`, which makes it again: `recdistill distill best.toml`."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The front on validation data, the test, and what it came to in a few sentences."""
        yield _table(self.told)
        yield self.comparison
        yield Text(f"\n{self.told.words}")


def shipped(study: Study, found: Found, *, text: str) -> Shipped:
    """Train what is best once more from the same seed, measure it on test data, save it, and tell of it."""
    out, main = study.run.output.dir, study.run.evaluate.metrics[-1]
    best, plain = found.best, found.plain(found.best.cost.dim)
    results: dict[str, Result] = {}
    if (teacher := study.teacher()) is not None:
        results["teacher"] = teacher
    if plain is not None and best.method != "plain":
        results["plain"] = study.learned(_lesson(study, plain, "plain"))
    results[_BEST] = study.learned(_lesson(study, best, _BEST))
    study.listener.begin("Comparing and writing the report")
    evaluations = {name: result.test for name, result in results.items()}
    baseline = "plain" if "plain" in results else None
    tests, corrected = paired(evaluations, baseline, skip="teacher")
    cards = {name: result.card for name, result in results.items()}
    of_teacher = "teacher" if teacher is not None else None
    comparison = Comparison(cards, evaluations, of_teacher, baseline, tests, corrected, noted(evaluations))
    page = TunePage(
        title=_title(study.run.data.path),
        subtitle=f"{best.method}, {cards[_BEST].model}, under {asked(found.budget)}",
        entries=[
            Entry(
                result.card,
                "teacher" if name == "teacher" else "plain" if name == "plain" else "student",
                result.curve,
                best=name == _BEST,
            )
            for name, result in results.items()
        ],
        main_metric=main,
        tests=tests.get(main, {}),
        corrected=corrected.get(main, {}),
        validation_metric=found.metric,
        data=[*study.log.notes, *study.split.notes, *comparison.notes],
        settings=text,
        environment=machine(cards[_BEST], study.seed),
        citations=list(dict.fromkeys(METHODS[each.method].paper.bibtex() for each in found.tried)),
        command="recdistill tune",
        of=found.budget.of,
        most=found.budget.most,
        asked=asked(found.budget),
        kept=_kept(found, results[_BEST]),
        best_method=best.method,
        best_dim=best.cost.dim,
        rows=[_row(found, each) for each in found.tried],
        rounds=_rounds(found),
        seconds=found.seconds,
        notes=found.notes,
        teacher_valid=None if teacher is None else teacher.valid.means.get(found.metric),
    )
    again = out / "best.toml"
    write_text(again, run_file(study, best))
    write_text(out / "tune.json", json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n")
    write_text(out / "results.json", comparison.to_json() + "\n")
    write_text(out / "front.csv", _csv(page))
    if text:
        write_text(out / "run.toml", text)
    write_text(out / "report.html", page.render())
    return Shipped(found, comparison, page, out / "report.html", out / "bundles" / _BEST, again)


def run_file(study: Study, best: Tried) -> str:
    """The run file that makes a student again; how the teacher is trained stands in it, since [train] is tuned."""
    run, plan = study.run, study.plan
    table: dict[str, dict[str, Any]] = run.model_dump(mode="json", exclude_defaults=True)
    train = _unlike(best.tuned.training, {})
    table["train"] = {**train, "seed": study.seed}
    table["student"] = {**table["student"], "dim": best.cost.dim}
    table["method"] = {"name": best.method, **_own(METHODS[best.method].settings, best.tuned.how)}
    teacher = table.get("teacher", {})
    if plan.teacher is not None:
        teacher["train"] = _unlike(plan.teacher_train, train)
    for member, (settings, training) in zip(teacher.get("members", ()), plan.members, strict=False):
        if settings is not None:
            member["train"] = _unlike(training, train)
    table["output"] = {"dir": str(run.output.dir / _BEST)}
    order = ("data", "teacher", "student", "method", "train", "evaluate", "output")
    said = f"# The best student that `recdistill tune` found under {{budget}}: recdistill distill {_BEST}.toml\n\n"
    return said.format(budget="its budget") + as_toml({name: table[name] for name in order if name in table})


def _title(path: Path) -> str:
    return path.parent.name if path.stem == "interactions" else path.stem


def _lesson(study: Study, each: Tried, name: str) -> Lesson:
    return Lesson(
        bench=study,
        name=name,
        model=each.tuned.model,
        settings=each.tuned.model_settings,
        method=each.method,
        how=each.tuned.how,
        training=each.tuned.training,
    )


def _unlike(training: TrainSettings, other: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, or from what [train] would say."""
    every, default = training.model_dump(mode="json"), type(training)().model_dump(mode="json")
    return {key: value for key, value in every.items() if value != other.get(key, default[key])}


def _own(settings: type[Settings], how: Mapping[str, Any]) -> dict[str, Any]:
    return parse(settings, dict(how)).model_dump(mode="json", exclude_defaults=True)


def _row(found: Found, each: Tried) -> Row:
    trial, plain = each.best, found.plain(each.cost.dim)
    return Row(
        method=each.method,
        dim=each.cost.dim,
        bytes=each.cost.bytes,
        parameters=each.cost.parameters,
        p50_ms=each.cost.p50_ms,
        worth=trial.metric,
        low=trial.low,
        high=trial.high,
        plain=None if plain is None or each.method == "plain" else plain.best.metric,
        front=each in found.front,
        best=each is found.best,
        trials=tuple(one.metric for one in each.tuned.trials),
    )


def _rounds(found: Found) -> list[Round]:
    """Of each method, and of the plain student, how far it came at the widest width."""
    top = max(each.cost.dim for each in found.tried)
    told: list[Round] = []
    for each in found.tried:
        if each.cost.dim != top:
            continue
        last = sum(each.method in round_ for round_ in found.rounds)
        trial = each.best
        told.append(
            Round(each.method, last, len(found.rounds), len(each.tuned.trials), trial.metric, each.tuned.seconds)
        )
    return sorted(told, key=lambda one: (-one.last, -(one.worth or 0.0)))


def _kept(found: Found, result: Result) -> str:
    """Whether what was shipped keeps the budget, weighed again."""
    budget, card = found.budget, result.card
    if budget.of == "bytes":
        return f"Its bundle has {megabytes(card.bytes)}, {_within(card.bytes or 0, budget)} the budget"
    if budget.of == "params":
        return f"It serves {card.parameters:,} numbers, within the budget"
    if card.latency is None:
        return f"An untrained student of its width answered in {named(found.best.cost, budget)}"
    p50 = card.latency.p50_ms
    why = "" if p50 <= budget.most else ": timings here vary by more than it leaves"
    return f"It answers in {milliseconds(p50)}, {_within(p50, budget)} the budget{why}"


def _within(cost: float, budget: Budget) -> str:
    return "within" if cost <= budget.most else "above"


def _csv(page: TunePage) -> str:
    told = io.StringIO()
    out = csv.writer(told, lineterminator="\n")
    out.writerow(["method", "dim", "bytes", "parameters", "p50_ms", "valid", "low", "high", "trials", "front", "best"])
    for row in page.ordered:
        numbers = ("" if value is None else f"{value:.6f}" for value in (row.p50_ms, row.worth, row.low, row.high))
        p50, *quality = numbers
        words = (len(row.trials), int(row.front), int(row.best))
        out.writerow([row.method, row.dim, row.bytes, row.parameters, p50, *quality, *words])
    return told.getvalue()


def _table(page: TunePage) -> Table:
    """One row a method and width, the widest first; what is on the front is marked."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=Text(f"{page.validation_metric} on validation data, under {page.asked}", style="dim"),
        title_justify="left",
        caption=Text("\u25cf on the front: nothing as cheap is better; [95 % interval over users]", style="dim"),
        caption_justify="left",
    )
    for name in ("", "method", "dims", "bytes", *(["p50"] if page.timed else []), "mean", "over plain", "trials"):
        table.add_column(name, justify="left" if name in {"", "method"} else "right", no_wrap=True)
    for row in page.ordered:
        mean = "failed" if row.worth is None else f"{row.worth:.4f} [{row.low:.4f}, {row.high:.4f}]"
        table.add_row(
            "\u25cf" if row.front else "",
            Text(row.method),
            str(row.dim),
            megabytes(row.bytes),
            *([milliseconds(row.p50_ms)] if page.timed else []),
            mean,
            "\u2013" if row.gain is None else f"{row.gain:+.1%}",
            str(len(row.trials)),
            style="bold" if row.best else "dim" if row.method == "plain" else "",
        )
    return table
