"""`recdistill tune run.toml --budget bytes=5MB`: the best method and size under a budget, and the front beside it.

How trials are spent. The budget decides the widths first: a student's cost is known before it is trained
(`recipes.weighing`), so nothing that is too dear is ever trained. At the widest width that keeps the budget methods are
tuned against each other by successive halving (`recipes.halving`), every trial suggested by those of its own method
(TPE over learning rate, weight decay and the method's own settings, `recipes.trials`). The best two, and the plain
student, which gets as many trials as the winner had, are then trained at the smaller widths with the settings found.

Why not one search over (method, size, settings): settings of different methods share nothing but the training's, so a
joint sampler learns little from one method about another, and spends most of a few dozen trials on the sizes and
methods that are worse; quality rises with the width nearly always, so the widest that fits is where methods are told
apart, and the front needs one training a width rather than a search.

Everything is judged on validation data. The student that is best there, of all that were tried, is trained once more
from the same seed, measured on test data once, and shipped, with the run file that makes it again. Whatever is finished
is a cell: a killed run goes on, and more trials or another budget use what is there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from recdistill.errors import TrainingError, UnknownName, UsageError, problem
from recdistill.methods import METHODS
from recdistill.recipes.folder import held
from recdistill.recipes.halving import better_half, rungs
from recdistill.recipes.labour import Task, work_through
from recdistill.recipes.listener import Silent
from recdistill.recipes.rehearsal import refused, stand_in, unable
from recdistill.recipes.runfile import resolve
from recdistill.recipes.shipping import shipped
from recdistill.recipes.study import Study, load_log
from recdistill.recipes.train import distill
from recdistill.recipes.trials import Search, check_valid, edges_told
from recdistill.recipes.weighing import Cost, Scales, asked, ladder, named, weighed
from recdistill.recipes.workers import Crew
from recdistill.search.budget import Budget
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recdistill.recipes.listener import Listener
    from recdistill.recipes.runfile import RunSettings
    from recdistill.recipes.shipping import Shipped
    from recdistill.recipes.trained import Trained
    from recdistill.recipes.trials import Trial, Tuned

__all__ = ["METHODS_TRIED", "TRIALS", "Asking", "Found", "Tried", "front_of", "study_of", "tried", "tune"]

METHODS_TRIED = ("rrd", "hetcomp", "dcd", "cd", "ir-rrd", "unkd", "fitnet", "ftd")
"""Methods that are tried where none are named, with the run file's own; of them those that the teacher can serve. They
are the best of docs/results/methods.md (Last.fm, 200 -> 20)."""
TRIALS = 24
"""Trials of methods at the widest width, where nobody says how many."""
_FINALISTS = 2
"""Methods that are trained at smaller widths too."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked for, as plain values, so that helpers may be told."""

    of: Literal["latency", "bytes", "params", "macs"]
    """What the budget is of."""
    most: float
    methods: tuple[str, ...]
    trials: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tried:
    """A method at a width, and all that was tried of it."""

    cost: Cost
    tuned: Tuned

    @property
    def method(self) -> str:
        """Its name."""
        return self.tuned.method

    @property
    def best(self) -> Trial:
        """Of its trials."""
        return self.tuned.best

    @property
    def worth(self) -> float:
        """The validation metric of the best trial, in [0, 1]; -1 where none gave a number."""
        return -1.0 if self.best.metric is None else self.best.metric


@dataclass(frozen=True, eq=False)
class Found:
    """What was tried under a budget, and what is best of it on validation data."""

    budget: Budget
    metric: str
    """The validation metric."""
    tried: tuple[Tried, ...]
    """Methods at widths; the plain student among them."""
    best: Tried
    rounds: tuple[tuple[str, ...], ...]
    """The methods that were in each round of halving."""
    notes: tuple[str, ...] = ()

    def plain(self, dim: int) -> Tried | None:
        """The student without a teacher of that width."""
        return next((each for each in self.tried if each.method == "plain" and each.cost.dim == dim), None)

    @property
    def front(self) -> list[Tried]:
        """Those that nothing as cheap beats, the cheapest first."""
        return front_of(self.tried, self.budget)

    @property
    def seconds(self) -> float:
        """Training of all trials, and their validation."""
        return sum(each.tuned.seconds for each in self.tried)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        front = self.front
        return {
            "budget": {"of": self.budget.of, "most": self.budget.most},
            "metric": f"valid {self.metric}",
            "best": {"method": self.best.method, "dim": self.best.cost.dim},
            "rounds": [list(round_) for round_ in self.rounds],
            "seconds": self.seconds,
            "notes": list(self.notes),
            "tried": [
                {"method": each.method, **asdict(each.cost), "front": each in front, **each.tuned.as_json()}
                for each in self.tried
            ],
        }


def tune(
    run: RunSettings,
    budget: Budget,
    *,
    methods: Sequence[str] = (),
    trials: int = 0,
    sizes: Sequence[int] = (),
    jobs: int = 1,
    text: str = "",
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Shipped:
    """Find the best student under a budget, and ship it. What is finished is not repeated; a killed run goes on.

    Args:
        run: as `runfile.read` gives it; its student's `dim` is what is looked for.
        budget: the most a student may take: bytes of its bundle, milliseconds of an answer (p50), or parameters.
        methods: registered names; those of `METHODS_TRIED` and the run file's own when empty. "plain" always stands
            beside them.
        trials: how many trainings are shared among the methods at the widest width; `TRIALS` when 0, at least one each.
        sizes: widths that are tried; from the budget when empty.
        jobs: how many processes train at once, with one thread each.
        text: the run file, to be kept beside the results.
        overwrite: replace the results of a run with other settings in the same folder.
        listener: told of what goes on.

    Raises:
        UnknownName: no such method.
        UsageError: no student keeps the budget; there is no teacher, or no validation data; the budget is of something
            else; the folder holds a run with other settings.
        RecdistillError: what the user can mend, from any stage.
    """
    listener = listener if listener is not None else Silent()
    for method in methods:
        if method not in METHODS:
            raise UnknownName("method", method, METHODS)
    if budget.of == "macs":
        raise UsageError(
            problem("A student is not tuned under a budget of", budget.of, allowed="bytes, latency, params")
        )
    if not run.teacher.given:
        remedy = "Give the run file a [teacher]; a plain student alone needs no method: its best size is the widest"
        raise UsageError(problem("Tuning chooses among methods, and there is no teacher", remedy=remedy))
    asking = Asking(budget.of, budget.most, tuple(dict.fromkeys(methods)), trials, tuple(sizes))
    if methods:
        rungs(len({*methods} - {"plain"}), trials or TRIALS)  # before the teacher is trained, not after
    if run.students:
        listener.say("[[students]] are for `recdistill compare`: this tunes [student] alone")
    listener.begin(f"Reading {run.data.path}")
    study = study_of(run, listener)
    check_valid(study)
    chosen = able(study, asking.methods)  # what is refused takes no folder
    asking = replace(asking, methods=chosen, trials=trials or max(TRIALS, len(chosen)))
    rungs(len(chosen), asking.trials)
    with held(run, overwrite=overwrite):
        costs_of(study, budget, sizes)  # before anything is trained, and before helpers keep the processor busy
        if jobs > 1:
            _taught(study)
            Crew(run=run, terms=asking, jobs=jobs, listener=listener).work()
        return shipped(study, tried(study, asking), text=text)


def study_of(run: RunSettings, listener: Listener) -> Study:
    """The data and the teacher of a run."""
    return Study(run, resolve(run), load_log(run.data, listener), listener, run.train.seed)


def front_of(tried: Sequence[Tried], budget: Budget) -> list[Tried]:
    """Of what was tried, what nothing cheaper or as cheap beats or equals, the cheapest first."""
    found: list[Tried] = []
    for each in sorted(tried, key=lambda one: (one.cost.of(budget), -one.worth)):
        if each.worth > max((other.worth for other in found), default=-1.0):
            found.append(each)
    return found


def tried(study: Study, asking: Asking, *, told: Callable[[Task], object] = lambda _: None) -> Found:
    """Weigh, tune, sweep. Several processes may do so at once: each takes what nobody is at.

    Args:
        study: the data, the teacher and the folder.
        asking: what is asked for, its methods those of `able`.
        told: called with every search that was done here.
    """
    budget, plan = Budget(asking.of, asking.most), study.plan
    costs, notes = costs_of(study, budget, asking.sizes)
    chosen, rounds = asking.methods, rungs(len(asking.methods), asking.trials)
    _taught(study)
    finalists = min(_FINALISTS, rounds[-1].methods)
    most = sum(rung.methods * (rung.each - before.each) for before, rung in pairwise(rounds))
    most += rounds[0].methods * rounds[0].each + rounds[-1].each + (finalists + 1) * (len(costs) - 1)
    widths = ", ".join(str(cost.dim) for cost in costs)
    study.listener.say(f"{len(chosen)} methods at {widths} dims: at most {most} trainings.")

    def of(cost: Cost, method: str, trials: int, like: Tuned | None = None) -> Search:
        return Search(
            bench=study,
            model=study.run.student.model,
            model_settings={**plan.student.model_dump(mode="json"), "dim": cost.dim},
            method=method,
            how=study.how(method) if like is None else parse(METHODS[method].settings, dict(like.how)),
            training=plan.train if like is None else like.training,
            trials=trials,
            name=f"{method}-{cost.dim}",
        )

    def ran(searches: Sequence[Search]) -> list[Tuned]:
        tasks = [
            Task(f"{each.name}-{each.trials}", lambda s=each: s.found() is not None, lambda: True, each.run)
            for each in searches
        ]
        work_through(tasks, study.cells, told=told)
        return [each.run() for each in searches]

    top, alive, found, met = costs[0], list(chosen), dict[str, "Tuned"](), list[tuple[str, ...]]()
    for rung in rounds:
        alive = better_half({name: found[name].best.metric if found else 0.0 for name in alive}, rung.methods)
        met.append(tuple(alive))
        found |= {each.method: each for each in ran([of(top, name, rung.each) for name in alive])}
    alive = better_half({name: found[name].best.metric for name in alive}, finalists)
    found |= {"plain": ran([of(top, "plain", rounds[-1].each)])[0]}
    swept = [(cost, name) for cost in costs[1:] for name in ("plain", *alive)]
    smaller = ran([of(cost, name, 1, found[name]) for cost, name in swept])
    everything = [Tried(top, each) for each in found.values()]
    everything += [Tried(cost, each) for (cost, _), each in zip(swept, smaller, strict=True)]
    best = _best(study, budget, everything)
    notes = (*notes, *edges_told(each.tuned for each in everything))
    return Found(budget, plan.train.metrics[0], tuple(everything), best, tuple(met), notes)


def _best(study: Study, budget: Budget, tried: Sequence[Tried]) -> Tried:
    """The best on validation data, the cheaper of equals, whose bundle with its own manifest keeps the budget."""
    order = sorted(tried, key=lambda each: (-each.worth, each.cost.of(budget)))
    if order[0].worth < 0:
        what = "No trial gave a number"
        raise TrainingError(problem(what, order[0].best.failed, remedy="Look at train.lr and the log"))
    for each in order:
        if budget.of != "bytes" or weighed(study, _untrained(study, each)) <= budget.most:
            return each
    raise UsageError(problem("No bundle keeps the budget with what it says of its training", remedy="Raise the budget"))


def _untrained(study: Study, each: Tried) -> Trained:
    """The student as it is before its first step, with all that its bundle will say of it."""
    return distill(
        None if each.method == "plain" else study.knows,
        each.tuned.model,
        study.split.train,
        method=each.method,
        settings=each.tuned.how,
        model_settings=each.tuned.model_settings,
        training=each.tuned.training.model_copy(update={"epochs": 0}),
        seed=study.seed,
        echo=None,
    )


def costs_of(study: Study, budget: Budget, sizes: Sequence[int]) -> tuple[list[Cost], list[str]]:
    """What students of the widths that keep the budget cost, the widest first; and what is worth knowing of it."""
    settings = study.plan.student.model_dump(mode="json")
    if "dim" not in settings:
        raise UsageError(
            problem(f"The model {study.run.student.model!r} has no `dim` to tune", remedy="Choose another")
        )
    study.listener.begin("Weighing students")
    settings.pop("dim")
    scales = Scales(study, study.run.student.model, settings, timed=budget.of == "latency")
    wide = study.plan.teacher.model_dump().get("dim") if study.plan.teacher is not None else None
    if not sizes:
        found = ladder(scales, budget, widest=wide)
        full = wide is not None and found[0].dim == wide
        said = [f"A student as wide as its teacher ({wide} dims) keeps the budget."] if full else []
        return found, said
    wrong = [dim for dim in sizes if dim < 1 or not scales.possible(dim)]
    if wrong:
        raise UsageError(problem(f"The model {study.run.student.model!r} cannot be of that width", wrong[0]))
    every = [scales.cost(dim) for dim in sorted(set(sizes), reverse=True)]
    fit = [cost for cost in every if cost.of(budget) <= budget.most]
    if not fit:
        widest, least = ladder(scales, budget, widest=wide)[0], every[-1]
        what = f"No width of --sizes keeps the budget of {asked(budget)}: {least.dim} dims take {named(least, budget)}"
        remedy = f"Give smaller --sizes: {widest.dim} dims keep it ({named(widest, budget)}); or a larger budget"
        raise UsageError(problem(what, remedy=remedy))
    left = [f"{cost.dim} dims ({named(cost, budget)})" for cost in every if cost not in fit]
    return fit, [f"Too dear, and not trained: {', '.join(left)}."] if left else []


def able(study: Study, named_methods: Sequence[str]) -> tuple[str, ...]:
    """The methods that are tried, each known to get from teacher and student what it asks; nothing is trained.

    Raises:
        UsageError: methods that were named, here or in the run file, do not get it, or there is none.
    """
    wanted = dict.fromkeys(["plain", *(named_methods or (study.run.method.name, *METHODS_TRIED))])
    wrong = unable(stand_in(study), [study.lesson_by(method) for method in wanted])
    if asked_for := {name: wrong[name] for name in ("plain", study.run.method.name, *named_methods) if name in wrong}:
        raise refused(asked_for)
    if wrong:
        study.listener.say(
            "Not tried: " + "; ".join(f"{name} ({str(error).partition('. ')[0]})" for name, error in wrong.items())
        )
    found = tuple(name for name in wanted if name != "plain" and name not in wrong)
    if not found:
        raise UsageError(problem("There is no method to tune", allowed=[name for name in METHODS if name != "plain"]))
    return found


def _taught(study: Study) -> None:
    """Train the teacher: one process does, the others read it."""
    with study.cells.claim("teacher-of-tuning", "teacher", wait=True):
        _ = study.knows
