"""`recdistill compare`: run a contest, alone or with helpers, and say what it came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UnknownName, UsageError, problem
from recdistill.methods import METHODS
from recdistill.recipes.contest import Contest, Entrant, Terms, pupils, tasks
from recdistill.recipes.folder import held
from recdistill.recipes.labour import work_through
from recdistill.recipes.lessons import Lesson
from recdistill.recipes.listener import Silent
from recdistill.recipes.rehearsal import stand_in, unable, why
from recdistill.recipes.runfile import resolve
from recdistill.recipes.standings import TEACHER, Cost, Part, Standings, above, costs_relative, rows_of
from recdistill.recipes.standings_page import written
from recdistill.recipes.study import load_log
from recdistill.recipes.teacherfile import check_kinds
from recdistill.recipes.teaching import known, served
from recdistill.recipes.trials import check_valid, edges_told
from recdistill.recipes.workers import Crew

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recdistill.evaluation.segments import Segment
    from recdistill.recipes.bench import Result
    from recdistill.recipes.contest import Finished
    from recdistill.recipes.labour import Task
    from recdistill.recipes.listener import Listener
    from recdistill.recipes.runfile import RunSettings
    from recdistill.recipes.trials import Tuned

__all__ = ["compare_methods", "contest_of"]


def compare_methods(
    run: RunSettings,
    *,
    methods: Sequence[str],
    seeds: int = 1,
    sizes: Sequence[int] = (),
    trials: int = 8,
    tune_each: bool = False,
    jobs: int = 1,
    text: str = "",
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Standings:
    """Train teacher and students for every seed and size on the same split; what an earlier call finished is read.

    It writes `compare.json`, `compare.md` and `compare.html` into the run's folder. A killed call goes on, and several
    at once share the work.

    Args:
        run: a run file; its own method takes its settings, the others their defaults, where they are not tuned.
        methods: registered names; "plain" is the baseline of the tests, or the first when it is not among them.
        seeds: how many, from `train.seed` upwards; seed s trains its own teacher.
        sizes: dims of the students; the run file's student when empty.
        trials: for tuning each method on validation data; 0 takes the settings as they are.
        tune_each: tune for every size and seed, rather than for the first and use the winner everywhere.
        jobs: how many processes work at once, with one thread each.
        text: the run file as written, to be shown on the page.
        overwrite: replace the results of a run with other settings in the same folder.
        listener: told of what goes on.

    Raises:
        UnknownName: no such method.
        UsageError: no method, a number that is too small, a student without such sizes, or a folder that holds a run
            with other settings.
        SettingsError: the teacher's files cannot give what a method asks.
    """
    listener = listener if listener is not None else Silent()
    for what, value, least in (("seeds", seeds, 1), ("trials", trials, 0), ("jobs", jobs, 1)):
        if value < least:
            raise UsageError(problem(f"--{what} must be at least {least}", value))
    terms = Terms(
        methods=tuple(dict.fromkeys(methods)),
        seeds=tuple(range(run.train.seed, run.train.seed + seeds)),
        sizes=tuple(dict.fromkeys(sizes)),
        trials=trials,
        tune_each=tune_each,
    )
    _check(run, terms)
    contest = contest_of(run, terms, listener)  # what is refused takes no folder
    if trials:
        check_valid(contest, remedy="; or tune nothing: --trials 0")
    todo = tasks(contest)
    if run.teacher.members or not all(task.done() for task in todo):  # members are trained to say what is done
        _check_able(contest)
    with held(run, overwrite=overwrite):
        left = [task for task in todo if not task.done()]
        listener.say(f"{len(todo):,} pieces of work, {len(todo) - len(left):,} of them finished before")
        if jobs > 1 and left:
            Crew(run=run, terms=terms, jobs=min(jobs, len(left)), listener=listener).work()

        def told(task: Task) -> None:
            left = sum(not each.done() for each in todo)
            listener.say(f"{task.name}: finished, {left:,} of {len(todo):,} to go")

        work_through(todo, contest.cells, told=told)  # all of it, or what processes that died have left
        timed = run.evaluate.latency
        listener.begin("Testing, and timing what is served" if timed else "Testing")
        found = _standings(contest, jobs, timed=timed)
    written(found, run, contest, text=text)
    return found


def contest_of(run: RunSettings, terms: Terms, listener: Listener) -> Contest:
    """The contest of the first seed. Latency is not measured beside training: it comes last, in one process."""
    quiet = run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"latency": False})})
    listener.begin(f"Reading {run.data.path}")
    return Contest(quiet, resolve(run), load_log(run.data, listener), listener, run.train.seed, terms)


def _check(run: RunSettings, terms: Terms) -> None:
    """All that can be known before a log is read."""
    if not terms.methods:
        raise UsageError(problem("There is no method to compare", allowed=list(METHODS)))
    for method in terms.methods:
        if method not in METHODS:
            raise UnknownName("method", method, METHODS)
    plan = resolve(run)
    for method in terms.methods:
        if method != "plain" and not run.teacher.given:
            remedy = "Give the run file a [teacher], or ask for 'plain' alone"
            raise UsageError(problem(f"The method {method!r} needs a teacher", remedy=remedy))
        of_run = plan.method if method == run.method.name else METHODS[method].settings()
        check_kinds(run.teacher, method, METHODS[method].asks(of_run))
    pupils(run, plan, terms.sizes)


def _check_able(contest: Contest) -> None:
    """Refuse, before anything is trained, every student that its method cannot teach, all of them at once."""
    teacher, train = stand_in(contest), contest.split.train
    failed = unable(teacher, (_untuned(contest, entrant) for entrant in contest.entrants))
    wrong: dict[str, list[Entrant]] = {}  # why -> whom
    for entrant in contest.entrants:
        if entrant.name in failed:
            wrong.setdefault(why(failed[entrant.name]), []).append(entrant)
    if wrong:
        knows = known(teacher, train)
        can = "" if knows is None else f"; this teacher can serve {', '.join(served(knows)) or 'none'}"
        what = "; ".join(f"{', '.join(repr(each.name) for each in whom)}: {reason}" for reason, whom in wrong.items())
        remedy = f"Leave out {_left_out(contest, [each for whom in wrong.values() for each in whom])}{can}"
        raise UsageError(problem(f"Not everything can be taught: {what}", remedy=remedy))


def _untuned(contest: Contest, entrant: Entrant) -> Lesson:
    """How a student would be taught without tuning."""
    return Lesson(
        bench=contest,
        name=entrant.name,
        model=entrant.pupil.model,
        settings=entrant.pupil.settings,
        method=entrant.method,
        how=contest.how(entrant.method).model_dump(mode="json"),
        training=contest.plan.train,
    )


def _left_out(contest: Contest, wrong: Sequence[Entrant]) -> str:
    """Methods that teach nobody here; of the others, they or the student."""
    never = [m for m in contest.terms.methods if all(Entrant(m, pupil) in wrong for pupil in contest.pupils)]
    some: dict[str, list[str]] = {}
    for each in wrong:
        if each.method not in never:
            some.setdefault(each.pupil.label, []).append(each.method)
    return ", ".join([*never, *(f"{' and '.join(of)} or else the student {label}" for label, of in some.items())])


# standings


def _standings(contest: Contest, jobs: int, *, timed: bool) -> Standings:
    """Read everything that is finished, test it, and time what is served where that is asked for."""
    benches = [contest if seed == contest.seed else contest.at(seed) for seed in contest.terms.seeds]
    found: dict[str, list[Finished]] = {}
    entrants: dict[str, Entrant | None] = {entrant.name: entrant for entrant in contest.entrants}
    if contest.run.teacher.given:
        entrants = {TEACHER: None, **entrants}
    for name, entrant in entrants.items():
        each = [bench.finished(entrant) for bench in benches]
        found[name] = [one for one in each if one is not None]
    failed = {
        name: "; ".join(f"seed {s}: {one.failed}" for s, one in zip(contest.terms.seeds, of, strict=True) if one.failed)
        for name, of in found.items()
        if any(one.failed for one in of)
    }
    whole = {name: of for name, of in found.items() if all(one.result is not None for one in of)}
    students = [entrant for entrant in contest.entrants if entrant.name in whole]
    if not students:
        what = "No student could be trained: " + "; ".join(f"{name} ({why})" for name, why in failed.items())
        raise UsageError(problem(what, remedy="A smaller train.lr, or a smaller weight of the method"))
    base = "plain" if "plain" in contest.terms.methods else contest.terms.methods[0]
    baselines = {entrant.name: Entrant(base, entrant.pupil).name for entrant in students}
    main = contest.run.evaluate.metrics[-1]
    best = max(students, key=lambda entrant: np.mean([_result(one).valid.means[main] for one in whole[entrant.name]]))
    metrics = list(_result(whole[best.name][0]).test.per_user)
    main = metrics[-1]
    rows = {
        metric: rows_of(
            {name: _stacked([_result(one).test.per_user[metric] for one in of]) for name, of in whole.items()},
            baselines,
            best.name,
        )
        for metric in metrics
    }
    searches = _searches(benches)
    costs = {name: _cost(contest, entrants[name], of, timed=timed) for name, of in whole.items()}
    notes = dict.fromkeys(note for of in whole.values() for one in of for note in _result(one).test.notes)
    evaluate = contest.run.evaluate
    return Standings(
        rows=rows,
        segments=_segments(contest, whole, baselines, best.name, main),
        costs=costs_relative(costs, baselines),
        seeds=contest.terms.seeds,
        baselines=baselines,
        best=best.name,
        main=main,
        protocol=evaluate.protocol if evaluate.like is None else f"{evaluate.protocol}, like {evaluate.like}",
        tuned=tuple(each.as_json() for each in searches),
        failed=failed,
        judged="validation" if len(contest.split.valid.queries) else "test",
        notes=(
            *_tuning(contest),
            *above(rows[main], [each.name for each in students if each.method == "plain"], main),
            *edges_told(searches),
            *_unjudged(contest),
            *([_busy(jobs, timed=timed)] if jobs > 1 else []),
            *notes,
        ),
    )


def _segments(
    contest: Contest, whole: dict[str, list[Finished]], baselines: dict[str, str], best: str, main: str
) -> dict[str, Part]:
    """Users by what they have in training, from the values of all; items by their own evaluations."""
    found: dict[str, Part] = {}
    queries = _result(whole[best][0]).test.queries
    for segment in contest.users:
        inside = segment.member[queries]
        values = {
            name: _stacked([_result(one).test.per_user[main][inside] for one in of]) for name, of in whole.items()
        }
        found[segment.name] = _part(segment, values, baselines, best)
    for segment in contest.items:
        if all(segment.name in one.segments for of in whole.values() for one in of):
            values = {
                name: _stacked([one.segments[segment.name].per_user[main] for one in of]) for name, of in whole.items()
            }
            found[segment.name] = _part(segment, values, baselines, best)
    return found


def _part(segment: Segment, values: dict[str, NDArray[np.float64]], baselines: dict[str, str], best: str) -> Part:
    users = next(iter(values.values())).shape[1]
    return Part(segment.about, users, rows_of(values, baselines, best, tests=False))


def _cost(contest: Contest, entrant: Entrant | None, of: list[Finished], *, timed: bool) -> Cost:
    cards = [_result(one).card for one in of]
    seconds = [card.training.seconds for card in cards if card.training.seconds is not None]
    epochs = [card.training.epochs for card in cards if card.training.epochs is not None]
    overlaps = [card.agreement.overlap.mean for card in cards if card.agreement is not None]
    tuned = contest.tuned(entrant) if entrant is not None and contest.terms.trials else None
    return Cost(
        student=cards[0].model,
        parameters=cards[0].parameters,
        bytes=cards[0].bytes,
        latency=contest.latency(entrant) if timed else None,
        seconds=float(np.mean(seconds)) if seconds else None,
        epochs=float(np.mean(epochs)) if epochs else None,
        overlap=float(np.mean(overlaps)) if overlaps else None,
        tuning=None if tuned is None else tuned.seconds,
    )


def _searches(benches: Sequence[Contest]) -> list[Tuned]:
    """What every search came to, once, in the order of the table."""
    found: dict[tuple[str, int], Tuned] = {}
    for bench in benches:
        for entrant in bench.entrants if bench.terms.trials else ():
            search = bench.search(entrant)
            tuned = bench.tuned(entrant)
            if tuned is not None:
                found.setdefault((search.name, tuned.seed), tuned)
    return list(found.values())


def _tuning(contest: Contest) -> list[str]:
    """How the settings were come by, in sentences."""
    terms, metric = contest.terms, contest.plan.train.metrics[0]
    if not terms.trials:
        return [
            f"Nothing was tuned: {contest.run.method.name} has the settings of the run file, the others their defaults."
        ]
    other = " and ".join(
        word for word, several in (("size", len(terms.sizes) > 1), ("seed", len(terms.seeds) > 1)) if several
    )
    where = f"with seed {terms.seeds[0]}" + (f" at {terms.sizes[0]} dims" if terms.sizes else "")
    where += f", and the winner is used for every other {other}" if other else ""
    where = "anew for every size and seed" if terms.tune_each else where
    where += ", each student for itself" if contest.run.students else ""
    plural, teacher = "s" if terms.trials > 1 else "", contest.run.teacher
    trained = teacher.model is not None or any(member.model is not None for member in teacher.members)
    return [
        f"Every method had {terms.trials} trial{plural}, judged by {metric} on validation data, {where}. Learning rate "
        "and weight decay were tuned for all, plain among them; the first trial is the settings as they were.",
        *(["The teacher was not tuned: it is trained as the run file says."] if trained else []),
    ]


def _unjudged(contest: Contest) -> list[str]:
    if len(contest.split.valid.queries):
        return []
    return ["There are no validation data: the best student is chosen on test data, which flatters it."]


def _busy(jobs: int, *, timed: bool) -> str:
    after = "; latency was measured after them" if timed else ""
    return f"{jobs} processes trained at once, so seconds are longer than alone{after}."


def _result(one: Finished) -> Result:
    """Of a row that did not fail."""
    assert one.result is not None  # noqa: S101
    return one.result


def _stacked(values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.stack(values)
