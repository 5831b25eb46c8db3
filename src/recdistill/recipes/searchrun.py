"""`recdistill search run.toml`: from a log to searched cells, drawn, measured beside what they must beat, and shipped.

Beside what `recdistill distill` writes, the output folder holds

    cell.json, cell.svg     the student's design (`search.derive.Design`) and its picture
    cells/<name>.json       the designs of all rows that are made of cells
    front.csv               every system: metrics, sizes, latency, the cost by the search's price list
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from rich.text import Text

from recdistill.methods.adarec import ADAREC
from recdistill.recipes.cells import write_text
from recdistill.recipes.cellstudy import CellStudy
from recdistill.recipes.compare import Comparison, noted, paired
from recdistill.recipes.distill import machine
from recdistill.recipes.drawing import drawn, legend
from recdistill.recipes.folder import held
from recdistill.recipes.front import front
from recdistill.recipes.listener import Silent
from recdistill.recipes.pricing import verdict
from recdistill.recipes.searchfile import resolve
from recdistill.recipes.study import load_log
from recdistill.recipes.tables import searched
from recdistill.report.cell import as_text, standalone
from recdistill.report.page import Entry
from recdistill.report.search import Beliefs, Order, Row, SearchPage, Spread, Step
from recdistill.search.budget import Budget
from recdistill.search.fidelity import kendall
from recdistill.search.run import shares
from recdistill.search.space import SPACES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console, ConsoleOptions, RenderResult

    from recdistill.evaluation.card import Card
    from recdistill.recipes.bench import Result
    from recdistill.recipes.cellstudy import Searched
    from recdistill.recipes.listener import Listener
    from recdistill.recipes.pricing import Verdict
    from recdistill.recipes.searchfile import SearchRun
    from recdistill.report.search import Group
    from recdistill.search.derive import Design

__all__ = ["SearchOutcome", "search_run"]

_SEARCHED, _PLAIN, _HAND_MADE = "searched", "searched-plain", "hand-made"


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """A finished search."""

    comparison: Comparison
    """Cards and evaluations of all systems; the paired tests are of the others less the searched student."""
    design: Design
    """The student's cells."""
    told: SearchPage
    """Everything `report.html` says."""
    page: Path
    """`report.html`."""
    drawing: Path
    """`cell.svg`."""
    bundle: Path
    """The student to ship."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The cells in letters, the table, and what it came to in a few sentences."""
        for cell in self.told.cells:
            yield Text(f"{as_text(cell)}\n")
        yield searched(self.told, width=options.max_width)
        yield Text(f"\n{_words(self.told)}")


@dataclass(frozen=True, eq=False)
class _Found:
    """All that was trained."""

    results: dict[str, Result]
    groups: dict[str, Group]
    designs: dict[str, Design]
    searches: dict[str, list[Searched]]
    """Row -> the searches that found it."""
    inherited: dict[str, float]
    """Of the best and of the cells beside it: what the supernet says of them."""
    best: str


def search_run(
    run: SearchRun, *, text: str = "", overwrite: bool = False, listener: Listener | None = None
) -> SearchOutcome:
    """Everything a run file with a [search] asks for. What is finished is not repeated; a killed run goes on.

    Args:
        run: as `searchfile.read` gives it.
        text: the run file, to be kept beside the results.
        overwrite: replace the results of a run with other settings in the same folder.
        listener: told of what goes on.

    Raises:
        UsageError: the folder holds a run with other settings.
        RecdistillError: what the user can mend, from any stage; a budget that nothing keeps before any training.
    """
    listener = listener if listener is not None else Silent()
    plan = resolve(run)
    listener.begin(f"Reading {run.data.path}")
    untimed = run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"latency": False})})  # see `timing`
    study = CellStudy(untimed, plan, load_log(run.data, listener), listener, run.train.seed)
    study.check()
    with held(run, overwrite=overwrite):
        return _searched(run, study, text=text)


def _searched(run: SearchRun, study: CellStudy, *, text: str) -> SearchOutcome:
    listener = study.listener
    found = _trained(study)
    rows = _measured(study, found, latency=run.evaluate.latency)
    listener.begin("Comparing and writing the report")
    evaluations = {name: result.test for name, result in found.results.items()}
    tests, corrected = paired(evaluations, found.best, skip="teacher")
    cards = {name: result.card for name, result in found.results.items()}
    comparison = Comparison(cards, evaluations, "teacher", found.best, tests, corrected, noted(evaluations))
    page = _page(study, found, comparison, rows, text=text)
    _write(study, found, comparison, page, text=text)
    out = run.output.dir
    return SearchOutcome(
        comparison,
        found.designs[found.best],
        page,
        out / "report.html",
        out / "cell.svg",
        out / "bundles" / found.best,
    )


def _trained(study: CellStudy) -> _Found:
    """Teacher, searches, what they found, and what stands beside it."""
    results: dict[str, Result] = {}
    groups: dict[str, Group] = {"teacher": "teacher"}
    teacher = study.teacher()
    assert teacher is not None  # noqa: S101 - the run file's validator has seen to it
    results["teacher"] = teacher
    searches: dict[str, list[Searched]] = {}
    for c in study.asked:
        one = study.search(c)
        same = [name for name, others in searches.items() if others[0].design.operators == one.design.operators]
        name = same[0] if same else _SEARCHED if not searches else f"{_SEARCHED}-{c.price_weight:g}"
        searches.setdefault(name, []).append(one)
    students = {name: study.searched(name, each[0]) for name, each in searches.items()}
    main = study.run.evaluate.metrics[-1]
    within = _within(study, searches)
    best = max(within, key=lambda name: students[name].valid.means[main], default=_SEARCHED)
    first = searches[best][0]
    results[_HAND_MADE] = study.hand_made(_HAND_MADE)
    groups[_HAND_MADE] = "hand-made"
    designs = study.controls(first)
    inherited = study.scored(first, designs | {best: first.design})
    for name, design in designs.items():
        results[name] = study.design(name, design, first.settings)
        groups[name] = "random" if name.startswith("random-") and name not in study.run.search.controls else "control"
    if study.run.retrain.baseline and study.plan.retrain.distilled:
        results[_PLAIN] = study.searched(_PLAIN, first, distilled=False)
        groups[_PLAIN] = "plain"
        designs[_PLAIN] = first.design
    results |= students
    groups |= dict.fromkeys(students, "searched")
    designs |= {name: each[0].design for name, each in searches.items()}
    return _Found(results, groups, designs, searches, inherited, best)


def _within(study: CellStudy, searches: Mapping[str, list[Searched]]) -> list[str]:
    """The rows that may be shipped: with a budget all that keep it, else the one the run file asks for."""
    most = searches[_SEARCHED][0].most
    if most is None:
        return [_SEARCHED]
    return [name for name, each in searches.items() if _chosen(study, each[0]) <= most]


def _chosen(study: CellStudy, of: Searched) -> float:
    """What its design took when it was chosen, measured where it can be; the price list counts the rest."""
    return study.pricing.takes(of.settings, of.design) if of.costs.unit in ("bytes", "ms") else of.cost


def _measured(study: CellStudy, found: _Found, *, latency: bool) -> dict[str, Row]:
    """The rows beside the cards; the cards get their latency, which is measured of all in turns."""
    names = list(found.results)
    bodies = study.bodies(names)
    timed = study.timing(names) if latency else {}
    first = found.searches[found.best][0]
    rows: dict[str, Row] = {}
    for name, result in found.results.items():
        if name in timed:
            card = result.card.model_copy(update={"latency": timed[name].latency})
            found.results[name] = replace(result, card=card)
        design = found.designs.get(name)
        rows[name] = Row(
            found.groups[name],
            bodies[name],
            timed[name].encoder_ms if name in timed else math.nan,
            None if design is None else first.costs.of(design, study.space),
        )
    return rows


def _page(study: CellStudy, found: _Found, comparison: Comparison, rows: dict[str, Row], *, text: str) -> SearchPage:
    run, main, c = study.run, study.run.evaluate.metrics[-1], study.plan.search
    best = found.searches[found.best][0]
    cards = comparison.cards
    student = study.student(found.best)
    space = SPACES[best.design.space]
    budget = _verdict(study, found, cards[found.best])
    return SearchPage(
        title=run.data.path.parent.name if run.data.path.stem == "interactions" else run.data.path.stem,
        subtitle=f"{cards['teacher'].model} \u2192 cells, {best.design.width} dims",
        entries=[
            Entry(
                cards[name],
                "teacher" if name == "teacher" else "student",
                result.curve,
                best=name == found.best,
            )
            for name, result in found.results.items()
        ],
        main_metric=main,
        tests=comparison.tests.get(main, {}),
        corrected=comparison.corrected.get(main, {}),
        validation_metric=c.metrics[0],
        data=[*study.log.notes, *study.split.notes],
        settings=text,
        environment=machine(cards[found.best], study.seed),
        citations=[ADAREC.bibtex()],
        command="recdistill search",
        rows=rows,
        cells=drawn(best.design, best.chances, student.chain),
        legend=legend(best.design),
        chain=_chain(best, study.split.train.n_items),
        budget="" if budget is None else budget.said,
        kept=budget is None or budget.kept,
        searched=found.best,
        random=_spread(comparison, found.groups, main),
        order=_order(found, main),
        steps=[
            Step(
                each.asked,
                name,
                each.cost,
                each.costs.unit,
                max(each.curve.metrics[c.metrics[0]], default=math.nan),
                each.seconds,
                _told(each),
                None if each.settings.budget is not None else each.settings.price_weight,
            )
            for name, several in found.searches.items()
            for each in several
        ],
        history=best.curve,
        shares=_shares(best),
        beliefs=[
            Beliefs(
                "" if len(best.chances) == 1 else f"cell {at}",
                [f"{source or 'in'}\u2192{target}" for source, target in space.edges],
                space.names,
                chances,
                [space.index(name) for name in best.design.operators[min(at, best.design.depth) - 1]],
            )
            for at, chances in enumerate(best.chances, 1)
        ],
        mapping=best.mapping,
        timing="" if cards[found.best].latency is None else _TIMING,
    )


_TIMING = (
    "Latency is from the history of a user to the ten best items: encoder, scores of all items, what is seen left out; "
    "in torch, one thread, all systems in turns, norms folded into convolutions. It says nothing of a machine at work "
    "on other things."
)


def _chain(best: Searched, items: int) -> str:
    d, f = best.design, best.settings.frame
    cells = f"{d.depth} \u00d7 this cell" if len(d.cells) == 1 else f"these {d.depth} cells"
    places = ", with their places" if f.positions else ""
    return (
        f"A history of up to {f.length} items \u2192 vectors of width {d.width}{places} \u2192 {cells} "
        f"\u2192 scores of {items:,} items."
    )


def _told(of: Searched) -> str:
    """What became of the cells that alpha alone says."""
    if (each := of.refined) is None:
        return ""
    scores = f"alpha\u2019s own had {each.derived:.4f}, the design that was kept {each.kept:.4f}"
    how = f"with the supernet\u2019s weights, by {each.by} on validation data"
    return f"{each.tried} designs were tried after the last epoch {how}: {scores}."


def _verdict(study: CellStudy, found: _Found, card: Card) -> Verdict | None:
    """Whether what is shipped keeps the budget; None without one."""
    if (asked := found.searches[_SEARCHED][0].settings.budget) is None:
        return None
    best, budget = found.searches[found.best][0], Budget.parse(asked)
    chosen = _chosen(study, best)
    took = {"bytes": card.bytes, "latency": chosen if card.latency is None else card.latency.p50_ms}.get(budget.of)
    bundled = study.bundled(found.best) if budget.of == "latency" else None
    return verdict(budget, best.costs, best.cost, took=took, chosen=chosen, bundled=bundled)


def _spread(comparison: Comparison, groups: Mapping[str, Group], metric: str) -> Spread | None:
    values = [comparison.evaluations[name].means[metric] for name, group in groups.items() if group == "random"]
    if not values:
        return None
    return Spread(len(values), statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


def _order(found: _Found, metric: str) -> Order | None:
    """Whether the supernet ranks cells as they are after their training; None of fewer than three, or of equals."""
    results = [found.results[name] for name in found.inherited]
    if len(results) < 3:
        return None
    before = list(found.inherited.values())
    valid, test = (
        kendall(before, [part.means[metric] for part in parts])
        for parts in ([each.valid for each in results], [each.test for each in results])
    )
    return None if math.isnan(valid + test) else Order(len(results), valid, test)


def _shares(best: Searched) -> dict[str, list[float]]:
    losses = best.curve.losses
    each = [shares({name: values[at] for name, values in losses.items()}) for at in range(len(best.curve.epochs))]
    return {name: [one[name] for one in each] for name in losses}


def _words(page: SearchPage) -> str:
    student, main, said = page.student, page.main_metric, list[str]()
    assert student is not None  # noqa: S101
    if page.random is not None:
        r, value = page.random, student.metrics[main].mean
        spread = f" \u00b1 {r.deviation:.4f}" if r.n > 1 else ""
        said.append(f"{main}: searched {value:.4f}, {r.n} random cells of the same price {r.mean:.4f}{spread}.")
    if page.beaten_by:
        said.append(f"Not better than {', '.join(page.beaten_by)}.")
    if page.order is not None:
        said.append(page.order.said)
    if page.budget:
        said.append(page.budget)
    return "\n".join(said)


def _write(study: CellStudy, found: _Found, comparison: Comparison, page: SearchPage, *, text: str) -> None:
    out = study.run.output.dir
    for name, design in found.designs.items():
        write_text(out / "cells" / f"{name}.json", design.to_json())
    write_text(out / "cell.json", found.designs[found.best].to_json())
    write_text(out / "cell.svg", standalone(page.cells, label=f"The cells found for {page.title}"))
    content = json.loads(comparison.to_json()) | {
        "searched": found.best,
        "rows": {name: asdict(row) for name, row in page.rows.items()},
        "random": None if page.random is None else asdict(page.random),
        "order": None if page.order is None else asdict(page.order),
        "searches": [asdict(step) for step in page.steps],
    }
    write_text(out / "results.json", json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")
    write_text(out / "front.csv", front(page, comparison.metrics))
    if text:
        write_text(out / "run.toml", text)
    write_text(out / "report.html", page.render())


def _finite(content: object) -> object:
    """NaN, which JSON does not have, as null."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
