"""Systems side by side on the same held-out data: cards, retention of the teacher's quality, paired tests.

Letters: m users with a target.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from recdistill.errors import UsageError, nearest, problem
from recdistill.evaluation.card import Card, Measured, Training, agreement, environment
from recdistill.evaluation.compare import holm
from recdistill.evaluation.evaluate import Evaluation, evaluate
from recdistill.evaluation.latency import Latency, measure
from recdistill.evaluation.ranking import following
from recdistill.recipes.leaks import leaks
from recdistill.recipes.measure import check_held, fits
from recdistill.recipes.tables import differences, results

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import ConsoleOptions, RenderResult

    from recdistill.data.candidates import Candidates
    from recdistill.data.interactions import HeldOut
    from recdistill.evaluation.compare import PairedTest
    from recdistill.evaluation.conventions import Convention
    from recdistill.evaluation.ranking import Ranker
    from recdistill.recipes.trained import Trained

__all__ = ["Comparison", "System", "card", "compare"]

METRICS = ("recall@10", "ndcg@10")


@dataclass(frozen=True, eq=False)
class System:
    """Something that ranks, and what is known of it."""

    name: str
    ranker: Ranker
    model: str
    method: str | None = None
    parameters: int = 0
    """Numbers that are served."""
    bytes: int | None = None
    """Of its bundle."""
    training: Training = field(default_factory=Training)
    citations: tuple[str, ...] = ()
    timed: bool = True
    """Whether its latency means anything: a teacher from files is not served by us."""
    trained: Trained | None = field(default=None, repr=False)
    """Where it was trained here: by which it is checked that held-out data are of the same users and items."""

    @classmethod
    def of(cls, name: str, thing: Trained | Ranker) -> System:
        """What was trained here, or any ranker."""
        from recdistill.recipes.trained import Trained  # noqa: PLC0415 - rankers from files need no torch

        if not isinstance(thing, Trained):
            return cls(name, thing, model=type(thing).__name__)
        arrays = thing.model.arrays().values()
        best = next(iter(thing.report.best.values()), None)
        return cls(
            name,
            thing.ranker(),
            model=label(thing.name, thing.settings.get("model", {})),
            method=None if thing.method == "plain" else thing.method,
            parameters=thing.model.n_parameters,
            bytes=sum(array.nbytes for array in arrays),
            training=Training(
                seconds=thing.report.seconds,
                epochs=len(thing.report.history),
                best_epoch=None if best is None else best.epoch,
            ),
            citations=thing.citations,
            trained=thing,
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Cards side by side; prints as a table."""

    cards: dict[str, Card]
    """In the order given."""
    evaluations: dict[str, Evaluation] = field(repr=False)
    """With the values of every user."""
    teacher: str | None = None
    baseline: str | None = None
    """What the paired tests are against."""
    tests: dict[str, dict[str, PairedTest]] = field(default_factory=dict[str, "dict[str, PairedTest]"])
    """Metric -> system -> its difference from the baseline."""
    corrected: dict[str, dict[str, float]] = field(default_factory=dict[str, "dict[str, float]"])
    """Metric -> system -> the permutation test's p-value, corrected for their number (Holm)."""
    notes: tuple[str, ...] = ()
    """What has to be known to read the figures: a system that knew the targets, candidates that ran out."""

    @property
    def metrics(self) -> list[str]:
        """What was measured."""
        return list(next(iter(self.evaluations.values())).per_user)

    def to_json(self) -> str:
        """The cards and the tests, as JSON."""
        content: dict[str, Any] = {
            "teacher": self.teacher,
            "baseline": self.baseline,
            "notes": list(self.notes),
            "cards": {name: each.model_dump(mode="json") for name, each in self.cards.items()},
            "tests": {
                metric: {
                    name: {
                        "difference": [test.difference.mean, test.difference.low, test.difference.high],
                        "p": test.p_permutation,
                        "p_corrected": self.corrected[metric][name],
                        "better": test.wins,
                        "worse": test.losses,
                    }
                    for name, test in by_name.items()
                }
                for metric, by_name in self.tests.items()
            },
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, and the paired tests below it."""
        yield results(self, width=options.max_width)
        if self.tests:
            yield differences(self)
        for note in self.notes:
            yield Text(note, style="dim")

    def __repr__(self) -> str:
        printer = Console(width=160, color_system=None)
        with printer.capture() as caught:
            printer.print(self)
        return caught.get()


def compare(
    systems: Mapping[str, Trained | Ranker | System],
    held: HeldOut,
    *,
    metrics: str | Sequence[str] = METRICS,
    protocol: str = "full",
    candidates: Candidates | None = None,
    like: str | Convention | None = None,
    teacher: str | None = None,
    baseline: str | None = None,
    latency: bool = True,
    seed: int | None = None,
) -> Comparison:
    """Measure systems on the same held-out data.

    Args:
        systems: name -> what `fit` or `distill` returned, or any ranker over the rows of the log.
        held: the test (or validation) part of a split.
        metrics: names with a cut-off.
        protocol: "full" or "sampled(n)".
        candidates: of the sampled protocol.
        like: another library's convention of metrics, "rectools", "lenskit", ... (docs/metrics.md); None for ours.
        teacher: whose quality the others are held against; the system of that very name when None.
        baseline: what the paired tests are against; the system named "plain" when None.
        latency: whether to time single answers and tables.
        seed: recorded in the cards.

    Raises:
        UsageError: no systems, a teacher or baseline that is not among them, training data given to be measured on, or
            a system that was trained on other users or items.
        UnknownName: no such metric or convention.
    """
    if not systems:
        raise UsageError(problem("There is nothing to compare", remedy="Give at least one system by name"))
    teacher = _among(teacher, systems, "teacher", "teacher")
    baseline = _among(baseline, systems, "baseline", "plain")
    check_held(held)
    known = {name: thing if isinstance(thing, System) else System.of(name, thing) for name, thing in systems.items()}
    for name, system in known.items():
        if system.trained is not None:
            fits(f"The system {name!r}", system.trained, held)
    found = {
        name: evaluate(system.ranker, held, metrics, protocol=protocol, candidates=candidates, like=like)
        for name, system in known.items()
    }
    cards = {
        name: card(
            system,
            [found[name]],
            teacher=None if teacher in (None, name) else (known[teacher], found[teacher]),
            held=held,
            latency=measure(system.ranker, users=held.queries, exclude=held.seen) if latency and system.timed else None,
            seed=seed,
        )
        for name, system in known.items()
    }
    tests, corrected = paired(found, baseline, skip=teacher)
    warned = [
        note
        for name, system in known.items()
        if system.trained is not None
        for note in leaks(f"the system {name!r}", system.trained, held)
    ]
    return Comparison(cards, found, teacher, baseline, tests, corrected, noted(found, *warned))


def noted(found: Mapping[str, Evaluation], *more: str) -> tuple[str, ...]:
    """What evaluations say beside their figures, once each, and what else has to be said."""
    return tuple(dict.fromkeys([*(note for each in found.values() for note in each.notes), *more]))


def card(
    system: System,
    measured: Sequence[Evaluation],
    *,
    teacher: tuple[System, Evaluation] | None,
    held: HeldOut,
    latency: Latency | None,
    seed: int | None,
) -> Card:
    """The card of one system.

    Args:
        system: what was measured.
        measured: its evaluations; the last one is held against the teacher's.
        teacher: the teacher and its evaluation; None for a teacher.
        held: whose users the lists are compared for.
        latency: as measured.
        seed: recorded.
    """
    last = measured[-1]
    kept = {}
    if teacher is not None:
        kept = {metric: last.retention(teacher[1], metric) for metric in last.per_user if teacher[1].means[metric] > 0}
    return Card(
        name=system.name,
        model=system.model,
        method=system.method,
        metrics=tuple(Measured.of(each) for each in measured),
        parameters=system.parameters,
        bytes=system.bytes,
        latency=latency,
        agreement=None
        if teacher is None
        else agreement(
            following(system.ranker, held),
            following(teacher[0].ranker, held),
            held.queries,
            10,
            exclude=held.seen,
        ),
        retention=kept,
        training=system.training,
        environment=environment(seed=seed),
        citations=system.citations,
    )


def paired(
    found: Mapping[str, Evaluation], baseline: str | None, *, skip: str | None = None
) -> tuple[dict[str, dict[str, PairedTest]], dict[str, dict[str, float]]]:
    """Every system against the baseline, user by user, the p-values of one metric corrected together."""
    tests: dict[str, dict[str, PairedTest]] = {}
    corrected: dict[str, dict[str, float]] = {}
    others = [name for name in found if name not in (baseline, skip)]
    if baseline is None or not others:
        return tests, corrected
    for metric in found[baseline].per_user:
        tests[metric] = {name: found[name].versus(found[baseline], metric) for name in others}
        adjusted = holm([test.p_permutation for test in tests[metric].values()])
        corrected[metric] = dict(zip(others, np.asarray(adjusted).tolist(), strict=True))
    return tests, corrected


def label(model: str, settings: Mapping[str, Any]) -> str:
    """How a model is called in tables: "mf, 20 dims"."""
    return f"{model}, {settings['dim']} dims" if "dim" in settings else model


def _among(name: str | None, systems: Mapping[str, object], what: str, default: str) -> str | None:
    if name is None:
        return default if default in systems else None
    if name not in systems:
        raise UsageError(
            problem(f"The {what} is not among the systems", name, near=nearest(name, systems), allowed=list(systems))
        )
    return name
