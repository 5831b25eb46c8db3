"""The Python surface of training: `fit` a model, `distil` a teacher into a student.

Letters: U users, I items.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

import recdistill
import recdistill.search.model  # pyright: ignore[reportUnusedImport] - registers "cells"
from recdistill import rng
from recdistill.data.batches import crowded_note
from recdistill.data.interactions import HeldOut, Interactions
from recdistill.data.matching import same_tables
from recdistill.errors import UsageError, problem
from recdistill.evaluation.evaluate import evaluate
from recdistill.evaluation.metrics import MetricName
from recdistill.evaluation.protocol import ProtocolName
from recdistill.knowledge.view import Knows, fingerprint_of
from recdistill.methods import METHODS, Setting
from recdistill.models import MODELS
from recdistill.recipes.leaks import leaks
from recdistill.recipes.teaching import Teacher, check_capable, check_logits, known
from recdistill.recipes.trained import Trained
from recdistill.runtime import Precision, Runtime
from recdistill.settings import Settings, parse
from recdistill.teachers.ensemble import Members
from recdistill.teachers.joined import Joined
from recdistill.teachers.stored import Files, Stored
from recdistill.teachers.trajectory import Steps
from recdistill.terms.base import FromInteractions, check_negatives
from recdistill.training.optim import optimiser
from recdistill.training.stop import Stop
from recdistill.training.trainer import Keep
from recdistill.training.trainer import fit as run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from recdistill.data.candidates import Candidates
    from recdistill.models.base import LearningBatches, Recommender
    from recdistill.training.watch import Watch

__all__ = ["TrainSettings", "check_data", "distill", "fit", "known"]


S = TypeVar("S", bound=Settings)
_OF_MEMORY = re.compile(r"memory|alloc|Storage size|overflow", re.IGNORECASE)
"""What torch says of an allocation that fails."""


class TrainSettings(Settings):
    """How a model is trained; the defaults are those of DE-RRD's official code."""

    epochs: int = Field(default=1000, ge=0)
    """The most epochs there can be; early stopping usually ends sooner."""
    batch: int = Field(default=1024, ge=1)
    """Interactions a step; of a sequential model, histories."""
    loss: str = "bpr"
    """The base loss, summed over the batch: "bpr", "bce", "softmax" over the positive and the sampled items,
    "sampled-softmax" corrected for how they were sampled, or "cross-entropy" over all items."""
    negatives: int = Field(default=1, ge=0)
    """Sampled items an interaction, uniform over all items the user does not have in training; only "cross-entropy"
    needs none."""
    optimiser: str = "adam"
    """ "adam" with coupled weight decay, or a row-wise one for large tables."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """L2 penalty; "adam" applies it to every parameter at every step."""
    metrics: tuple[MetricName, ...] = Field(default=("ndcg@10",), min_length=1)
    """Validation metrics; training stops when none of them improves, and ends at the best epoch of the first."""
    protocol: ProtocolName = "full"
    """ "full" ranking, or e.g. "sampled(499)"."""
    patience: int = Field(default=20, ge=1)
    """Validations in a row without improvement before training stops."""
    every: int = Field(default=1, ge=1)
    """Epochs between validations."""
    device: str = "auto"
    """ "auto", "cpu", "cuda" or "cuda:<index>"."""
    precision: Precision = "float32"
    """Of the products in a sequential model's layers: "bfloat16" is for wide ones, on a processor that has it.
    Parameters, losses, the teacher, validation and what is served stay float32."""

    @field_validator("negatives")
    @classmethod
    def _enough(cls, negatives: int, info: ValidationInfo) -> int:
        return check_negatives(info.data.get("loss"), negatives)


def fit(
    model: str,
    train: Interactions,
    *,
    dim: int | None = None,
    valid: HeldOut | None = None,
    candidates: Candidates | None = None,
    seed: int = 7,
    settings: Mapping[str, Any] | None = None,
    training: TrainSettings | Mapping[str, Any] | None = None,
    checkpoint: Path | str | None = None,
    watch: Sequence[Watch] = (),
    echo: Callable[[str], object] | None = print,
) -> Trained:
    """Train a model on its own: a teacher, or a plain student.

    Args:
        model: a registered name: "mf", "neumf", "lightgcn", "sasrec", "nextitnet", "bert4rec", "gru4rec".
        train: the interactions to learn from; held-out data is another type and is refused.
        dim: width of the vectors; short for `settings={"dim": ...}`.
        valid: held-out data for early stopping; without it every epoch is run.
        candidates: the recorded negatives of a sampled protocol.
        seed: of the initial weights, the order and the draws.
        settings: the model's settings.
        training: how it is trained: `TrainSettings`, or its keys as a mapping.
        checkpoint: a file; a run that is killed and started again with it ends the same.
        watch: told of every epoch.
        echo: what to call with the notes, which also stand in `notes` of what comes back; None for silence.

    Raises:
        UnknownName: no such model, loss, metric ...
        UsageError: held-out data given as training data, or unusable settings.
    """
    return distill(
        None,
        model,
        train,
        method="plain",
        dim=dim,
        valid=valid,
        candidates=candidates,
        seed=seed,
        model_settings=settings,
        training=training,
        checkpoint=checkpoint,
        watch=watch,
        echo=echo,
    )


def distill(
    teacher: Teacher | None,
    model: str,
    train: Interactions,
    *,
    method: str = "de-rrd",
    dim: int | None = None,
    valid: HeldOut | None = None,
    candidates: Candidates | None = None,
    seed: int = 7,
    settings: Mapping[str, Any] | None = None,
    model_settings: Mapping[str, Any] | None = None,
    training: TrainSettings | Mapping[str, Any] | None = None,
    checkpoint: Path | str | None = None,
    watch: Sequence[Watch] = (),
    echo: Callable[[str], object] | None = print,
) -> Trained:
    """Train a student from a teacher.

    Args:
        teacher: what `fit` returned, or anything that can give views: `recdistill.teacher(...)`, or several as one by
            `recdistill.ensemble(...)` and `recdistill.trajectory(...)`.
        model: the student: a registered name.
        train: the interactions to learn from.
        method: a registered name: "plain", "de-rrd", "ir-rrd", "htd", ... (`docs/methods.md`).
        dim: width of the student's vectors.
        valid: held-out data for early stopping.
        candidates: the recorded negatives of a sampled protocol.
        seed: of the initial weights, the order and the draws.
        settings: the method's settings.
        model_settings: the student's settings.
        training: how it is trained: `TrainSettings`, or its keys as a mapping.
        checkpoint: a file that lets a killed run go on.
        watch: told of every epoch.
        echo: what to call with the notes, which also stand in `notes` of what comes back; None for silence.

    Raises:
        UnknownName: no such model, method, loss, metric ...
        UsageError: held-out data given as training data, or unusable settings.
        MissingKnowledge: the method asks what the teacher cannot give.
    """
    check_data(train, valid)
    seed = rng.check_seed(seed)
    entry, how = MODELS[model], METHODS[method]
    training = training if isinstance(training, TrainSettings) else _settings(TrainSettings, training, at="training")
    of_model = dict(model_settings or {})
    if dim is not None and of_model.setdefault("dim", dim) != dim:
        what = f"The width is said twice: dim={dim} and settings {{'dim': {of_model['dim']}}}"
        raise UsageError(problem(what, remedy="Say it once"))
    built_with = parse(entry.settings, of_model, at="student" if teacher is not None else "model")
    of_method = _settings(how.settings, settings, at="method")
    everything = {
        "model": {"name": model, **built_with.model_dump(mode="json")},
        "method": {"name": method, **of_method.model_dump(mode="json")},
        "train": training.model_dump(mode="json"),
        "seed": seed,
    }
    knows = known(teacher, train)
    check_logits(knows, method, how.asks(of_method))
    if echo is not None and isinstance(knows, Stored | Joined):
        echo(str(knows.coverage))
    runtime = Runtime.of(training.device)
    with allocating(model, of_model.get("dim"), train):
        learner = entry.build(built_with, train.n_users, train.n_items, rng.key(seed, "weights"), train)
        learner.to(runtime.device)
    if training.precision not in learner.precisions:
        what = f"A {model!r} is not trained in that precision"
        raise UsageError(problem(what, training.precision, allowed=learner.precisions))
    learner.precision = training.precision

    def batches_of(of: Recommender) -> LearningBatches:
        return of.batches(train, size=training.batch, negatives=training.negatives, seed=seed, device=runtime.device)

    batches = batches_of(learner)
    setting = Setting(
        student=learner,
        batches=batches,
        base=FromInteractions(training.loss),
        taken=batches.taken,
        n_users=train.n_users,
        seed=seed,
        teacher=knows,
        batches_of=batches_of,
    )
    passes = how.build(of_method, setting)
    check_capable([each for one in passes for each in one.check(learner.provides)], knows)

    def validate() -> dict[str, float]:
        assert valid is not None  # noqa: S101 - only called then
        ranker = learner.ranker()
        return evaluate(ranker, valid, training.metrics, protocol=training.protocol, candidates=candidates).means

    stop = Stop(
        None if valid is None else validate,
        () if valid is None else training.metrics,
        patience=training.patience,
        every=training.every,
    )
    keep = None
    if checkpoint is not None:
        run_of = _fingerprint(
            everything, train=train, learner=learner, teacher=knows, valid=valid, candidates=candidates
        )
        keep = Keep(Path(checkpoint), run_of)
    notes = tuple(_notes(train, training, teacher, knows, valid))
    if echo is not None:
        for note in notes:
            echo(note)
    report = run(
        learner,
        passes,
        epochs=training.epochs,
        optimise=lambda parameters: optimiser(
            training.optimiser, parameters, lr=training.lr, weight_decay=training.weight_decay
        ),
        runtime=runtime,
        stop=stop,
        watch=watch,
        keep=keep,
    )
    return Trained(learner, model, method, train, report, everything, stop, notes, teacher)


def _settings(model: type[S], given: Mapping[str, Any] | None, *, at: str) -> S:
    """Settings from a mapping of their keys."""
    if given is not None and not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        remedy = "For example {'epochs': 50}" if at == "training" else None
        raise UsageError(problem(f"{at!r} takes a mapping of settings", type(given).__name__, remedy=remedy))
    return parse(model, dict(given or {}), at=at)


def _notes(
    train: Interactions,
    training: TrainSettings,
    teacher: Teacher | None,
    knows: Knows | None,
    valid: HeldOut | None,
) -> Iterator[str]:
    """What is worth knowing of a run before it begins."""
    if training.epochs == 0:
        yield "Nothing is trained: epochs = 0, so the model stays as it was initialised"
    if training.negatives > 0 and (note := crowded_note(train)):
        yield note
    if valid is not None:
        own = teacher if isinstance(teacher, Trained | Members | Steps) else knows
        yield from leaks("the teacher", own, valid)
        if isinstance(teacher, Files) and (path := teacher.paths.get("bundle")) is not None:
            yield from leaks("the teacher", Files({"bundle": path}), valid)


@contextmanager
def allocating(model: str, dim: object, train: Interactions) -> Generator[None]:
    """Say what a model would need where it does not fit into memory.

    Raises:
        UsageError: its item vectors alone are larger than this machine's memory, or an allocation fails.
    """
    remedy = "Take a smaller dim, or keep fewer items"
    least = train.n_items * dim * 4 if isinstance(dim, int) else 0
    there = 1 << 62 if sys.platform == "win32" else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    what = f"A {model!r} of dim {dim} for {train.n_items:,} items does not fit into memory"
    if least > there:
        allowed = f"{there:,} bytes on this machine"
        raise UsageError(
            problem(f"{what}: its item vectors alone take {least:,} bytes", allowed=allowed, remedy=remedy)
        )
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        said = str(error).splitlines()[0] if str(error) else "out of memory"
        if not isinstance(error, MemoryError | OverflowError) and not _OF_MEMORY.search(said):
            raise
        raise UsageError(
            problem(f"{what}: item vectors of {least:,} bytes and what it needs beside them ({said})", remedy=remedy)
        ) from None


def check_data(train: Interactions, valid: HeldOut | None) -> None:
    """Refuse held-out data to train on, and validation data of another log.

    Raises:
        UsageError: `train` holds valid or test rows, or is no log; `valid` is not of the same split.
    """
    if isinstance(train, HeldOut) or not isinstance(train, Interactions):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = problem("Training takes Interactions", type(train).__name__, remedy="Give `split(log).train`")
        raise UsageError(msg)
    if train.split is not None and (held := int((train.split != 0).sum())):
        what = f"This log carries its own split, and {held:,} of its {len(train):,} rows are not for training"
        raise UsageError(problem(what, remedy="Divide it: train, valid, test = rd.split(log, 'given')"))
    if valid is not None and (not isinstance(valid, HeldOut) or valid.name != "valid"):  # pyright: ignore[reportUnnecessaryIsInstance]
        what = valid.name if isinstance(valid, HeldOut) else type(valid).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = problem("Early stopping takes the validation part of a split", what, remedy="Give `split(log).valid`")
        raise UsageError(msg)
    if valid is not None:
        remedy = "Take both from one split: train, valid, test = rd.split(log)"
        same_tables("The validation part", valid, "the training data", train, remedy=remedy)
        new = valid.targets.keys[~np.isin(valid.targets.keys, valid.seen.keys)]  # a repeat may be on both sides
        if leaked := int(np.isin(new, train.csr().keys).sum()):
            what = f"The training data hold {leaked:,} of the {len(valid):,} validation targets"
            raise UsageError(problem(what, remedy="Train on `split(log).train`, not on the log"))


def _fingerprint(
    everything: Mapping[str, Any],
    *,
    train: Interactions,
    learner: Recommender,
    teacher: Knows | None,
    valid: HeldOut | None,
    candidates: Candidates | None,
) -> str:
    """A digest of all that a run's result depends on."""
    trained = {k: v for k, v in everything["train"].items() if (k, v) != ("precision", "float32")}  # it came later
    digest = hashlib.blake2b(json.dumps({**everything, "train": trained}, sort_keys=True).encode(), digest_size=16)
    digest.update(recdistill.__version__.encode())
    arrays: list[Any] = [train.user, train.item, [train.n_users, train.n_items]]
    if learner.ordered:
        arrays.append(train.histories().items)
    if valid is not None:
        arrays += [valid.targets.indptr, valid.targets.indices]
    if candidates is not None:
        arrays.append(candidates.items)
    if teacher is not None:
        digest.update(fingerprint_of(teacher).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
