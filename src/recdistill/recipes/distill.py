"""`recdistill distill run.toml`: from a log to a measured, shipped student, with a page that tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recdistill.methods import METHODS
from recdistill.recipes.bench import Result
from recdistill.recipes.cells import write_text
from recdistill.recipes.compare import Comparison, noted, paired
from recdistill.recipes.folder import held
from recdistill.recipes.listener import Silent
from recdistill.recipes.rehearsal import refused, stand_in, unable
from recdistill.recipes.runfile import resolve
from recdistill.recipes.study import Study, load_log
from recdistill.report.page import Entry, Page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from recdistill.evaluation.card import Card
    from recdistill.recipes.listener import Listener
    from recdistill.recipes.runfile import RunSettings
    from recdistill.recipes.train import TrainSettings
    from recdistill.report.page import Curve

__all__ = ["Outcome", "distill", "machine", "students"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run."""

    comparison: Comparison
    """Cards, evaluations with the values of every user, paired tests against the plain student."""
    page: Path
    """`report.html`."""
    bundle: Path
    """The student to ship."""


def distill(run: RunSettings, *, text: str = "", overwrite: bool = False, listener: Listener | None = None) -> Outcome:
    """Everything a run file asks for. A finished stage is not repeated; a killed run goes on where it was.

    Args:
        run: as `runfile.read` gives it.
        text: the run file, to be kept beside the results.
        overwrite: replace the results of a run with other settings in the same folder.
        listener: told of what goes on.

    Raises:
        UsageError: the method cannot teach such a student, or not by such a teacher; or the folder holds a run with
            other settings.
        RecdistillError: what the user can mend, from any stage; nothing half-written is left behind.
    """
    listener = listener if listener is not None else Silent()
    method, plan = run.method.name, resolve(run)
    if run.students:
        listener.say("[[students]] are for `recdistill compare`: this trains [student] alone")
    listener.begin(f"Reading {run.data.path}")
    log = load_log(run.data, listener)
    study = Study(run, plan, log, listener, run.train.seed)
    wanted = dict.fromkeys(["plain", method] if run.student.baseline else [method])
    _check_able(study, wanted)  # what is refused takes no folder
    with held(run, overwrite=overwrite):
        return students(study, wanted, best=method, text=text, command="recdistill distill")


def students(
    study: Study,
    methods: Mapping[str, Mapping[str, object] | None],
    *,
    best: str | None,
    text: str,
    command: str,
    title: str | None = None,
) -> Outcome:
    """A teacher and students by several methods: measured, compared, saved, told on a page.

    Args:
        study: the run, its log and its seed.
        methods: name -> settings, None for those of the run file.
        best: the student the page and the bundle are about; the best on validation data when None.
        text: the run file as written.
        command: named at the foot of the page.
        title: of the page; the name of the data when None.
    """
    results: dict[str, Result] = {}
    teacher = study.teacher()
    if teacher is not None:
        results["teacher"] = teacher
    for method, settings in methods.items():
        results[method] = study.learned(study.lesson_by(method, settings))
    main = study.run.evaluate.metrics[-1]
    if best is None:
        distilled = [name for name in methods if name != "plain"] or list(methods)
        best = max(distilled, key=lambda name: results[name].valid.means[main])
    out = study.run.output.dir
    study.listener.begin("Comparing and writing the report")
    found = {name: result.test for name, result in results.items()}
    tests, corrected = paired(found, "plain" if "plain" in found else None, skip="teacher")
    comparison = Comparison(
        {name: result.card for name, result in results.items()},
        found,
        "teacher" if teacher is not None else None,
        "plain" if "plain" in found else None,
        tests,
        corrected,
        noted(found),
    )
    write_text(out / "results.json", comparison.to_json() + "\n")
    if text:
        write_text(out / "run.toml", text)
    page = _page(study, results, best, comparison, text=text, command=command, title=title)
    write_text(out / "report.html", page.render())
    return Outcome(comparison, out / "report.html", out / "bundles" / best)


def _check_able(study: Study, methods: Iterable[str]) -> None:
    """Refuse, before anything is trained, what cannot be taught, all of it at once; what is finished is not asked."""
    lessons = [study.lesson_by(method) for method in methods]
    if not study.run.teacher.members:  # whose students have no names before the members are trained
        lessons = [lesson for lesson in lessons if not study.has(lesson)]
    if lessons and (wrong := unable(stand_in(study), lessons)):
        raise refused(wrong)


def _page(
    study: Study,
    results: Mapping[str, Result],
    best: str,
    comparison: Comparison,
    *,
    text: str,
    command: str,
    title: str | None,
) -> Page:
    run, card, main = study.run, results[best].card, study.run.evaluate.metrics[-1]
    entries = [
        Entry(
            result.card,
            "teacher" if name == "teacher" else "plain" if name == "plain" else "student",
            result.curve,
            best=name == best,
            at_limit=_at_limit(result.curve, study.plan.teacher_train if name == "teacher" else study.plan.train),
        )
        for name, result in results.items()
    ]
    return Page(
        title=title or run.data.path.stem,
        subtitle=_subtitle(results, card.model, taught=run.teacher.given),
        entries=entries,
        main_metric=main,
        tests=comparison.tests.get(main, {}),
        corrected=comparison.corrected.get(main, {}),
        validation_metric=next(iter(study.plan.train.metrics), None),
        data=[*study.log.notes, *study.split.notes, *comparison.notes],
        settings=text,
        environment=machine(card, study.seed),
        citations=_papers(results),
        command=command,
    )


def machine(card: Card, seed: int) -> dict[str, str]:
    """What a page says of where it was measured."""
    env = card.environment
    return {
        "recdistill": env.recdistill,
        "python": env.python,
        "torch": env.torch or "\u2013",
        "numpy": env.numpy,
        "processor": env.cpu,
        "threads": f"{env.threads} of {env.cpus}",
        "platform": env.platform,
        "seed": str(seed),
    }


def _subtitle(results: Mapping[str, Result], student: str, *, taught: bool) -> str:
    teacher = results["teacher"].card.model if "teacher" in results else "teacher"
    return f"{teacher} \u2192 {student}" if taught else student


def _at_limit(curve: Curve | None, training: TrainSettings) -> bool:
    """Whether all epochs were used, with patience left."""
    if curve is None or not 0 < training.epochs <= len(curve.epochs):
        return False
    last = max(curve.best.values(), default=0)  # any metric's improvement starts the waiting anew
    return sum(epoch > last for epoch in curve.checked) < training.patience


def _papers(results: Mapping[str, Result]) -> Sequence[str]:
    return list(dict.fromkeys(METHODS[name].paper.bibtex() for name in results if name in METHODS))
