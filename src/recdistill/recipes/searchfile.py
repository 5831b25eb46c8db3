"""The run file of a search: [data], [teacher], [train], [evaluate], [output] as in any run file, and three tables more.

[search] holds `SearchSettings`, [retrain] holds `RetrainSettings`, each over a preset; [student] is the small model
made by hand that a searched one has to beat. Their keys are checked by `resolve`, which is the first to import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, model_validator

from recdistill.errors import SettingsError, UsageError, problem
from recdistill.recipes.runfile import Data, Evaluate, Output, Teacher, Train
from recdistill.settings import Settings, load, overlay, parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recdistill.recipes.train import TrainSettings
    from recdistill.search.settings import RetrainSettings, SearchSettings

__all__ = ["SearchPlan", "SearchRun", "read", "resolve", "weights"]

_SHARED = ("device", "metrics", "protocol")
_WRITER = "recdistill init --search"


class Search(Settings):
    """[search]: where and how cells are looked for. Other keys are those of `SearchSettings`."""

    model_config = ConfigDict(extra="allow")

    preset: str = "default"
    """ "default", or "compat": what the official code does."""
    pareto: tuple[float, ...] = ()
    """Price weights: a search for each, and what each finds is trained. With a budget they weigh what it is of."""
    random: int = Field(default=3, ge=0)
    """How many random cells of the price of the searched ones are trained beside them."""
    controls: tuple[str, ...] = ()
    """Cells by name that are trained beside them: "all-<operator>", "random-<seed>". All-none, all-skip and the space's
    hand-made cells always are."""


class Retrain(Settings):
    """[retrain]: how what was found is trained, and everything beside it. Other keys are those of `RetrainSettings`."""

    model_config = ConfigDict(extra="allow")

    preset: str = "default"
    """ "default" is fresh weights, distilled; "compat" inherited ones, without distillation."""
    baseline: bool = True
    """Train the searched cells without a teacher too, so that the table shows what distillation is worth."""


class HandMade(Settings):
    """[student]: a small model made by hand, trained as the searched one is. Other keys go to the model."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    """A sequential model; the teacher's own when left out. Its width and length are those of the search."""


class SearchRun(Settings):
    """A run file with a [search]."""

    data: Data
    teacher: Teacher
    student: HandMade = HandMade()
    search: Search = Search()
    retrain: Retrain = Retrain()
    train: Train = Train()
    """The teacher's training. What [search] leaves out of `device`, `metrics` and `protocol` is as here."""
    evaluate: Evaluate = Evaluate()
    output: Output

    @model_validator(mode="after")
    def _trained_here(self) -> SearchRun:
        if self.teacher.model is None or self.teacher.kinds or self.teacher.members:
            msg = 'a search asks for the layers of its teacher, a sequential model trained here: model = "sasrec"'
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What belongs to models, the search and the trainer, read by their own settings."""

    teacher: Settings
    """The teacher model's."""
    teacher_train: TrainSettings
    """The teacher's training: [train], and [teacher.train] over it."""
    student: str
    """The model that is made by hand."""
    student_settings: Settings
    """Its settings."""
    search: SearchSettings
    retrain: RetrainSettings
    members: tuple[tuple[Settings | None, TrainSettings], ...] = ()
    """A search has one teacher, a model."""


def read(path: Path, assign: Sequence[str] = ()) -> SearchRun:
    """A run file, with `--set` assignments over it.

    Raises:
        SettingsError: the file is missing or not TOML, is that of a distillation, or a key or value is wrong.
    """
    written = load(path, writer=_WRITER)
    table = overlay(written, assign)
    if alien := [f"[{name}]" for name in ("method", "students") if name in table]:
        given = " and ".join(alien)
        if "search" in written:
            raise SettingsError(problem(f"A search has no {given}", remedy="Take it out: how to distil is in [search]"))
        what = f"{path} is the run file of a distillation: it has {given}"
        remedy = f"Run `recdistill distill {path}`, or write one of a search with `{_WRITER}`"
        raise SettingsError(problem(what, remedy=remedy))
    return parse(SearchRun, table)


def resolve(run: SearchRun) -> SearchPlan:
    """Check every key that belongs to a model, the search or the trainer. Imports torch.

    Raises:
        UnknownName: no such model, metric, preset, space, control ...
        SettingsError: a key or value they do not have.
        UsageError: a teacher or a student that is not sequential; a space that leaks, or that the width does not suit.
    """
    from recdistill.recipes.search import retraining_of, settings_of  # noqa: PLC0415
    from recdistill.recipes.train import TrainSettings  # noqa: PLC0415
    from recdistill.search.budget import Budget  # noqa: PLC0415
    from recdistill.search.derive import named  # noqa: PLC0415
    from recdistill.search.space import SPACES  # noqa: PLC0415

    run.evaluate.check()
    assert run.teacher.model is not None  # noqa: S101 - the file's validator has seen to it
    train, own = run.train.model_extra or {}, run.search.model_extra or {}
    parse(TrainSettings, train, at="train", also=tuple(Train.model_fields))
    inherited = {key: train[key] for key in _SHARED if key in train and key not in own}
    search = settings_of(run.search.preset, {**inherited, **own}, also=tuple(Search.model_fields))
    plan = SearchPlan(
        teacher=_settings(run.teacher.model, run.teacher, at="teacher"),
        teacher_train=parse(TrainSettings, {**train, **run.teacher.train}, at="teacher.train"),
        student=run.student.model or run.teacher.model,
        student_settings=_hand_made(run, search),
        search=search,
        retrain=retraining_of(run.retrain.preset, run.retrain.model_extra, also=tuple(Retrain.model_fields)),
    )
    _check_training(plan)
    _check_length(plan)
    _check_stages(plan)
    space = SPACES[search.space]
    if search.frame.leak == "refuse":
        space.check(search.frame.scored)
    for operator in space.operators:
        operator.check(search.frame.dim)
    for name in run.search.controls:
        named(name, space, width=search.frame.dim)
    if search.budget is not None:
        Budget.parse(search.budget)
    if low := [weight for weight in run.search.pareto if weight < 0]:
        raise SettingsError(problem("The setting 'search.pareto' must hold weights of at least 0", low[0]))
    return plan


def _check_length(plan: SearchPlan) -> None:
    """The teacher is asked about the student's histories: to be found before the one is trained, not after."""
    reads, asked = getattr(plan.teacher, "length", None), plan.search.frame.length
    if reads is not None and reads < asked:
        remedy = "Give the teacher that length too: [teacher] length, or shorten [search.frame] length"
        what = f"The setting 'search.frame.length' is longer than what the teacher reads ({reads} items)"
        raise SettingsError(problem(what, asked, allowed=f"1 to {reads}", remedy=remedy))


def _check_stages(plan: SearchPlan) -> None:
    """Position by position BERT4Rec teaches and learns in its second stage alone: to be found before it is trained."""
    cloze, epochs = getattr(plan.teacher, "cloze", 0), plan.teacher_train.epochs
    asked = plan.retrain.distilled or plan.search.distillation.weight > 0
    if asked and 0 < epochs <= cloze:
        what = f"The setting 'teacher.cloze' leaves the teacher no epoch of its second stage, of {epochs} in all"
        remedy = (
            "Its first stage teaches no positions: train it for more epochs, or set [teacher] cloze lower; 0 skips it"
        )
        raise SettingsError(problem(what, cloze, allowed=f"0 to {epochs - 1}", remedy=remedy))
    if plan.retrain.distilled and (cloze := getattr(plan.student_settings, "cloze", 0)):
        what = "The setting 'student.cloze' gives the hand-made student a first stage, in which no teacher can be asked"
        remedy = 'Set [student] cloze = 0, or take another model: [student] model = "sasrec"'
        raise SettingsError(problem(what, cloze, allowed="0", remedy=remedy))


def weights(text: str) -> list[float]:
    """Price weights with commas between: "0,0.03,0.1".

    Raises:
        UsageError: one of them is not a number of at least 0.
    """
    found: list[float] = []
    for word in text.split(","):
        try:
            found.append(float(word))
        except ValueError:
            found.append(-1.0)
        if not 0 <= found[-1] < float("inf"):
            raise UsageError(problem("A price weight is a number of at least 0", word.strip(), remedy=_WEIGHTS))
    return found


_WEIGHTS = "For example --pareto 0,0.03,0.1,0.3,1"


def _check_training(plan: SearchPlan) -> None:
    from recdistill.errors import UnknownName  # noqa: PLC0415
    from recdistill.runtime import Runtime  # noqa: PLC0415
    from recdistill.terms.base import FromInteractions  # noqa: PLC0415
    from recdistill.training.optim import OPTIMISERS  # noqa: PLC0415

    for asked in (plan.teacher_train, plan.search):
        FromInteractions(asked.loss)
        Runtime.of(asked.device)
    if plan.teacher_train.optimiser not in OPTIMISERS:
        raise UnknownName("optimiser", plan.teacher_train.optimiser, OPTIMISERS)


def _settings(model: str, table: Settings, *, at: str) -> Settings:
    """The settings of a sequential model among the keys of its table."""
    from recdistill.models import MODELS  # noqa: PLC0415

    entry = MODELS[model]
    if "length" not in entry.settings.model_fields:
        sequential = sorted(name for name in MODELS if "length" in MODELS[name].settings.model_fields)
        what = f"The {at} of a search reads histories, and {model!r} does not"
        raise UsageError(problem(what, allowed=sequential))
    return parse(entry.settings, table.model_extra or {}, at=at, also=tuple(type(table).model_fields))


def _hand_made(run: SearchRun, search: SearchSettings) -> Settings:
    """The small model's settings: those of the file, and below them the search's width, length and windows."""
    from recdistill.models import MODELS  # noqa: PLC0415

    model = run.student.model or run.teacher.model
    assert model is not None  # noqa: S101
    given = _settings(model, run.student, at="student").model_dump(mode="json", exclude_unset=True)
    around: dict[str, Any] = search.frame.model_dump(mode="json", include={"dim", "length", "every"})
    fields = MODELS[model].settings.model_fields
    return parse(MODELS[model].settings, {key: around[key] for key in around if key in fields} | given, at="student")
