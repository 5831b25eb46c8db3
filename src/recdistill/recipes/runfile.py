"""The run file: one TOML file says what a run reads, trains, measures and writes.

The tables [teacher], [student], [method] and [train] also hold keys that belong to a model, a method or the trainer;
they are checked against those settings by `resolve`, which is the first to import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import ConfigDict, Field, model_validator

from recdistill.errors import SettingsError, UnknownName, problem
from recdistill.evaluation.conventions import convention
from recdistill.evaluation.metrics import MetricName
from recdistill.evaluation.metrics import parse as parse_metric
from recdistill.evaluation.protocol import ProtocolName
from recdistill.recipes.teacherfile import ELSEWHERE, Teacher, check_kinds
from recdistill.settings import Settings, load, overlay, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.recipes.train import TrainSettings

__all__ = ["Plan", "RunSettings", "read", "resolve", "written"]

S = TypeVar("S", bound=Settings)
Column = Literal["user", "item", "timestamp", "weight", "split"]


class Data(Settings):
    """[data]: the log and how it is divided."""

    path: Path
    """The interaction log: CSV, TSV, Parquet, JSONL (plain, gz, zst), MovieLens, RecBole, or `user item item` lines."""
    split: Literal["given", "leave-last-out", "leave-random-out", "ratio", "time"] = "leave-last-out"
    """How train, valid and test are made."""
    seed: int = Field(default=0, ge=0)
    """Of a random split."""
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Share held out for validation, for the splits "ratio" and "time"."""
    test: float = Field(default=0.1, gt=0, lt=1)
    """Share held out for the test, for the splits "ratio" and "time"."""
    columns: dict[Column, str] = Field(default_factory=dict[Column, str])
    """Names of the log's columns where they are not recognised: { user = "member", item = "sku" }."""
    min_rating: float | None = None
    """Keep interactions of at least this weight."""
    k_core: int = Field(default=0, ge=0)
    """Keep users and items with at least so many interactions, repeatedly; 0 keeps all."""
    dedup: Literal["last", "first", "max"] | None = None
    """Which of a user's repeated interactions with one item stays; left out, all do."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be read."""


class StudentModel(Settings):
    """[[students]]: another model that `recdistill compare` trains beside [student]. Other keys go to the model."""

    model_config = ConfigDict(extra="allow")

    model: str
    """ "mf", "neumf", "lightgcn", "sasrec", "nextitnet", "bert4rec", "gru4rec"."""
    name: str = Field(default="", pattern="^([a-z0-9][a-z0-9_]{0,39})?$")  # a "-" parts it from its method, in files
    """What tells its rows from those of other students; its model when left out."""


class Student(StudentModel):
    """[student]: the model that is trained and shipped. Other keys go to the model."""

    baseline: bool = True
    """Train the same student without a teacher too, so that the table shows what distillation is worth."""


class Method(Settings):
    """[method]: how the student learns from the teacher. Other keys are the method's own settings."""

    model_config = ConfigDict(extra="allow")

    name: str
    """ "de", "rrd", "de-rrd", ..."""


class Train(Settings):
    """[train]: how both are trained. Other keys are those of `TrainSettings`."""

    model_config = ConfigDict(extra="allow")

    seed: int = Field(default=7, ge=0)
    """Of the initial weights, the order of the interactions and every draw."""


class Evaluate(Settings):
    """[evaluate]: what is measured on the held-out data."""

    metrics: tuple[MetricName, ...] = Field(default=("recall@10", "ndcg@10"), min_length=1)
    """ "recall@10", "ndcg@10", "precision@5", "map@10", "mrr@10", "hr@10"."""
    protocol: ProtocolName = "full"
    """ "full" ranks every item; "sampled(499)" ranks the target among 499 random ones."""
    like: str | None = None
    """Another library's meaning of the metrics: "recbole", "replay", "rectools", "recommenders", "implicit", "lenskit",
    "kds", "de-rrd"."""
    seed: int = Field(default=0, ge=0)
    """Of the sampled items."""
    latency: bool = True
    """Measure how long one user's top-10 takes here."""

    def check(self) -> None:
        """Refuse metrics that do not exist, or not in the convention.

        Raises:
            UnknownName: no such metric or convention.
            UsageError: a metric or protocol that the convention does not have.
        """
        metrics = [parse_metric(metric) for metric in self.metrics]
        if self.like is not None:
            convention(self.like).check(metrics, self.protocol)


class Output(Settings):
    """[output]: where everything is written."""

    dir: Path
    """One folder a run; the same folder and the same settings resume it."""


class RunSettings(Settings):
    """A run file."""

    data: Data
    teacher: Teacher = Teacher()
    """Left out, there is none: the method "plain" trains the student alone."""
    student: Student
    students: tuple[StudentModel, ...] = ()
    """More students, which only a comparison trains."""
    method: Method
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    output: Output

    @model_validator(mode="after")
    def _taught_by(self) -> RunSettings:
        if not self.teacher.given and self.method.name != "plain":
            msg = (
                f"the method {self.method.name!r} needs a [teacher]: a model to train, or files ({ELSEWHERE}); "
                'without one, the method is "plain"'
            )
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Plan:
    """What belongs to models, methods and the trainer, read by their own settings."""

    teacher: Settings | None
    """The teacher model's; None when the teacher comes from files or members, or there is none."""
    student: Settings
    """The student model's."""
    method: Settings
    """The method's."""
    train: TrainSettings
    """The student's training."""
    teacher_train: TrainSettings
    """The teacher's: [train], and [teacher.train] over it."""
    students: tuple[Settings, ...] = ()
    """Of each further student its model's."""
    members: tuple[tuple[Settings | None, TrainSettings], ...] = ()
    """Of each member its model's settings, None where it comes from files, and how it is trained."""


def read(path: Path, assign: Sequence[str] = ()) -> RunSettings:
    """A run file, with `--set` assignments over it.

    Raises:
        SettingsError: the file is missing or not TOML, is that of a search, or a key or value is wrong.
    """
    table = overlay(load(path), assign)
    if alien := [f"[{name}]" for name in ("search", "retrain") if name in table]:
        what = f"{path} is the run file of a search: it has {' and '.join(alien)}"
        remedy = (
            f"Run `recdistill search {path}`; or take {' and '.join(alien)} out, and say by which [method] to distil"
        )
        raise SettingsError(problem(what, remedy=remedy))
    return parse(RunSettings, table)


def written(path: Path, assign: Sequence[str] = ()) -> str:
    """The run file as it was written, with the assignments of this run below it as comments."""
    text = path.read_text(encoding="utf-8")
    return text if not assign else text.rstrip("\n") + "\n\n# and --set " + "\n# and --set ".join(assign) + "\n"


def resolve(run: RunSettings) -> Plan:
    """Check every key that belongs to a model, a method or the trainer. Imports torch.

    Raises:
        UnknownName: no such model, method or metric.
        SettingsError: a key or value they do not have.
    """
    from recdistill.methods import METHODS  # noqa: PLC0415
    from recdistill.models import MODELS  # noqa: PLC0415
    from recdistill.recipes.train import TrainSettings  # noqa: PLC0415
    from recdistill.runtime import Runtime  # noqa: PLC0415
    from recdistill.terms.base import FromInteractions  # noqa: PLC0415
    from recdistill.training.optim import OPTIMISERS  # noqa: PLC0415

    run.evaluate.check()
    teacher = run.teacher
    for where, source in (("teacher", teacher), *(("teacher.members", each) for each in teacher.members)):
        if source.model is None and (keys := sorted(source.model_extra or {})):
            who = "An ensemble" if source is teacher and teacher.members else "A teacher from files"
            what = f"{who} is not trained, so [{where}] has no {' and no '.join(keys)}"
            raise SettingsError(problem(what, remedy="Remove the key, or name a model to train"))
    plan = Plan(
        teacher=None if teacher.model is None else _inline(MODELS[teacher.model].settings, teacher, at="teacher"),
        student=_inline(MODELS[run.student.model].settings, run.student, at="student"),
        method=_inline(METHODS[run.method.name].settings, run.method, at="method"),
        train=_inline(TrainSettings, run.train, at="train"),
        teacher_train=parse(TrainSettings, {**(run.train.model_extra or {}), **teacher.train}, at="teacher.train"),
        students=tuple(
            _inline(MODELS[each.model].settings, each, at=f"students.{at}") for at, each in enumerate(run.students)
        ),
        members=tuple(
            (
                None if each.model is None else _inline(MODELS[each.model].settings, each, at=f"teacher.members.{at}"),
                parse(TrainSettings, {**(run.train.model_extra or {}), **each.train}, at=f"teacher.members.{at}.train"),
            )
            for at, each in enumerate(teacher.members)
        ),
    )
    check_kinds(run.teacher, run.method.name, METHODS[run.method.name].asks(plan.method))
    for training in (
        plan.train,
        plan.teacher_train,
        *(training for _, training in plan.members),
    ):  # before a long log is read, not after
        FromInteractions(training.loss)
        if training.optimiser not in OPTIMISERS:
            raise UnknownName("optimiser", training.optimiser, OPTIMISERS)
        Runtime.of(training.device)
    return plan


def _inline(model: type[S], table: Settings, *, at: str) -> S:
    """The settings of a model or method among the keys of a table; the table's own keys are allowed names too."""
    return parse(model, table.model_extra or {}, at=at, also=tuple(type(table).model_fields))
