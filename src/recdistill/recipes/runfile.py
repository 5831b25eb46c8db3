"""The run file: one TOML file says what a run reads, trains, measures and writes.

The tables [teacher], [student], [method] and [train] also hold keys that belong to a model, a method or the trainer;
they are checked against those settings by `resolve`, which is the first to import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, field_validator, model_validator

from recdistill.errors import SettingsError, UnknownName, problem
from recdistill.evaluation.conventions import convention
from recdistill.evaluation.metrics import parse as parse_metric
from recdistill.evaluation.protocol import ProtocolName
from recdistill.settings import Settings, load, overlay, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.knowledge.view import Kind
    from recdistill.recipes.train import TrainSettings

__all__ = ["Plan", "RunSettings", "check_kinds", "read", "resolve", "written"]

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


class Source(Settings):
    """Where one teacher's knowledge is: a model to train, or files. Other keys go to the model."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    """A model to train: "mf", "neumf", "lightgcn", "sasrec", "nextitnet", "bert4rec", "gru4rec"."""
    lists: Path | None = None
    """A file of ranked lists: user_id, item_id, score or rank."""
    scores: Path | None = None
    """A file of scores: user_id, item_id, score."""
    vectors: Path | None = None
    """A file of user and item vectors."""
    bundle: Path | None = None
    """A bundle, as `recdistill distill` writes it."""
    train: dict[str, Any] = Field(default_factory=dict[str, Any])
    """[teacher.train]: keys of [train] that differ for the teacher."""

    @property
    def given(self) -> bool:
        """Whether there is anything at all."""
        return self.model is not None or bool(self.files)

    @property
    def files(self) -> dict[str, Path]:
        """The files that are given, by kind."""
        kinds = {"lists": self.lists, "scores": self.scores, "vectors": self.vectors, "bundle": self.bundle}
        return {kind: path for kind, path in kinds.items() if path is not None}


class Combine(Settings):
    """[teacher.combine]: how several members are one teacher."""

    by: Literal["ranks", "scores"] = "ranks"
    """What is averaged."""
    worth: Literal["power", "exponential", "reciprocal"] = "reciprocal"
    """By ranks, what rank r is worth: r^-rate, e^(-r / rate), or 1 / (rate + r)."""
    rate: float = Field(default=60.0, gt=0)
    """Of `worth`."""
    normalise: Literal["minmax", "zscore", "none"] = "zscore"
    """By scores, what makes those of members comparable: [0, 1] over a list, mean 0 and deviation 1, or nothing."""
    depth: int = Field(default=500, ge=1)
    """Of the members' lists."""


class Member(Source):
    """[[teacher.members]]: one of several teachers."""

    weight: float = Field(default=1.0, ge=0)
    """How much it counts; weights are made to sum to 1."""

    @model_validator(mode="after")
    def _one_kind(self) -> Member:
        if (self.model is None) == (not self.files):
            msg = 'a member is either a model to train (model = "mf") or files (lists, scores, vectors, bundle)'
            raise ValueError(msg)
        return self


class Teacher(Source):
    """[teacher]: a model to train, files that hold what a teacher elsewhere knows, or several of either."""

    members: tuple[Member, ...] = ()
    """[[teacher.members]]: several teachers that are one, each a model to train or files."""
    combine: Combine = Combine()
    """[teacher.combine]: how."""

    @property
    def given(self) -> bool:
        """Whether there is a teacher at all."""
        return super().given or bool(self.members)


class Student(Settings):
    """[student]: the model that is trained and shipped. Other keys go to the model."""

    model_config = ConfigDict(extra="allow")

    model: str
    """ "mf", "neumf", "lightgcn", "sasrec", "nextitnet", "bert4rec", "gru4rec"."""
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

    metrics: tuple[str, ...] = Field(default=("recall@10", "ndcg@10"), min_length=1)
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
    method: Method
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    output: Output

    @field_validator("teacher")
    @classmethod
    def _one_kind(cls, teacher: Teacher) -> Teacher:
        kinds = [teacher.model is not None, bool(teacher.files), bool(teacher.members)]
        if sum(kinds) != 1 and teacher != Teacher():
            msg = (
                'a teacher is either a model to train (model = "mf"), files (lists, scores, vectors, bundle), or '
                "members ([[teacher.members]])"
            )
            raise ValueError(msg)
        if teacher.combine != Combine() and not teacher.members:
            msg = "[teacher.combine] says how members are one teacher, and there are none: add [[teacher.members]]"
            raise ValueError(msg)
        return teacher

    @model_validator(mode="after")
    def _taught_by(self) -> RunSettings:
        if not self.teacher.given and self.method.name != "plain":
            msg = (
                f"the method {self.method.name!r} needs a [teacher]: a model to train, or files (lists, scores, "
                'vectors, bundle); without one, the method is "plain"'
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
    members: tuple[tuple[Settings | None, TrainSettings], ...] = ()
    """Of each member its model's settings, None where it comes from files, and how it is trained."""


def read(path: Path, assign: Sequence[str] = ()) -> RunSettings:
    """A run file, with `--set` assignments over it.

    Raises:
        SettingsError: the file is missing or not TOML, or a key or value is wrong.
    """
    return parse(RunSettings, overlay(load(path), assign))


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
        members=tuple(
            (
                None if each.model is None else _inline(MODELS[each.model].settings, each, at=f"teacher.members.{at}"),
                parse(TrainSettings, {**(run.train.model_extra or {}), **each.train}, at=f"teacher.members.{at}.train"),
            )
            for at, each in enumerate(teacher.members)
        ),
    )
    check_kinds(run, run.method.name, METHODS[run.method.name].asks(plan.method))
    for training in (
        plan.train,
        plan.teacher_train,
        *(training for _, training in plan.members),
    ):  # before a long log is read, not after
        for metric in training.metrics:
            parse_metric(metric)
        FromInteractions(training.loss)
        if training.optimiser not in OPTIMISERS:
            raise UnknownName("optimiser", training.optimiser, OPTIMISERS)
        Runtime.of(training.device)
    return plan


def check_kinds(run: RunSettings, method: str, asks: frozenset[Kind]) -> None:
    """Refuse, before a long log is read, what files of such kinds never hold, and models of such a kind never know.

    Raises:
        SettingsError: the teacher cannot give what the method asks.
    """
    from recdistill.knowledge.view import GIVES, Kind  # noqa: PLC0415
    from recdistill.methods.base import served_by  # noqa: PLC0415

    teacher = run.teacher
    if teacher.model is not None or not teacher.given:
        return
    can = {Kind.RANKS, Kind.SCORES}  # lists may have a column of scores
    if not teacher.members and {"vectors", "bundle"} & teacher.files.keys():
        can.add(Kind.VECTORS)
    if lacking := sorted(asks - can):
        what = "The members of an ensemble together" if teacher.members else f"[teacher] {' and '.join(teacher.files)}"
        allowed = "; ".join(f"{kind} come from {GIVES[kind]}" for kind in lacking)
        remedy = f"Or choose a method that such a teacher can serve: {', '.join(served_by(frozenset(can)))}"
        raise SettingsError(
            problem(
                f"{what} cannot give {' and '.join(lacking)}, which the method {method!r} asks for",
                allowed=allowed,
                remedy=remedy,
            )
        )


def _inline(model: type[S], table: Settings, *, at: str) -> S:
    """The settings of a model or method among the keys of a table; the table's own keys are allowed names too."""
    return parse(model, table.model_extra or {}, at=at, also=tuple(type(table).model_fields))
