"""The Python surface of the search: find cells while distilling, train what was found, judge the search.

    found = search(teacher, train, valid=valid)
    student = retrain(found, teacher, train, valid=valid)

Chen et al., AdaRec, arXiv:2107.07173. Its official code trains what it found from the supernet's weights and without
distillation: `retrain(..., preset="compat")`; the default is fresh weights, distilled.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from recdistill.errors import UnknownName, UsageError, problem
from recdistill.evaluation.evaluate import evaluate
from recdistill.recipes.train import TrainSettings, check_data, distill, known
from recdistill.search.fidelity import Fidelity
from recdistill.search.model import of_design
from recdistill.search.run import Found
from recdistill.search.run import search as run
from recdistill.search.settings import PRESETS, RETRAINING, RetrainSettings, SearchSettings
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from recdistill.data.candidates import Candidates
    from recdistill.data.interactions import HeldOut, Interactions
    from recdistill.knowledge.view import Knows
    from recdistill.recipes.trained import Trained
    from recdistill.search.derive import Design
    from recdistill.teachers.stored import Elsewhere
    from recdistill.training.watch import Watch

__all__ = ["Found", "fidelity", "inherited", "retrain", "retraining_of", "search", "settings_of", "training_of"]


def settings_of(
    preset: str = "default", settings: Mapping[str, Any] | None = None, *, also: Sequence[str] = ()
) -> SearchSettings:
    """The settings of a preset, "default" or "compat", with others over them, key by key in tables too.

    Args:
        preset: by name.
        settings: over those of the preset.
        also: keys of the same table that others have read, see `settings.parse`.

    Raises:
        UnknownName: no such preset.
        SettingsError: unknown keys or unusable values.
    """
    if preset not in PRESETS:
        raise UnknownName("preset of a search", preset, PRESETS)
    return parse(SearchSettings, _over(PRESETS[preset], settings or {}), at="search", also=also)


def retraining_of(
    preset: str = "default", settings: Mapping[str, Any] | None = None, *, also: Sequence[str] = ()
) -> RetrainSettings:
    """The settings of what follows a search; arguments and errors as for `settings_of`."""
    if preset not in RETRAINING:
        raise UnknownName("preset of a retraining", preset, RETRAINING)
    return parse(RetrainSettings, _over(RETRAINING[preset], settings or {}), at="retrain", also=also)


def training_of(search: SearchSettings, how: RetrainSettings) -> TrainSettings:
    """How a design is trained after a search: what the retraining does not say is as it was in the search."""
    return TrainSettings(
        epochs=how.epochs,
        batch=how.batch,
        negatives=search.negatives,
        loss=search.loss,
        lr=how.lr,
        weight_decay=how.weight_decay,
        metrics=search.metrics,
        protocol=search.protocol,
        patience=how.patience,
        device=search.device,
    )


def search(
    teacher: Trained | Elsewhere | Knows | None,
    train: Interactions,
    *,
    valid: HeldOut,
    preset: str = "default",
    settings: Mapping[str, Any] | None = None,
    candidates: Candidates | None = None,
    seed: int = 7,
    checkpoint: Path | None = None,
    watch: Sequence[Watch] = (),
) -> Found:
    """Find the cells of a student for this teacher and this data.

    Args:
        teacher: a sequential model, or None where the weight of distillation is 0.
        train: the interactions to learn from.
        valid: held-out data, which chooses the epoch.
        preset: "default", or "compat" for what the official code does.
        settings: over those of the preset, see `SearchSettings`.
        candidates: the recorded negatives of a sampled protocol.
        seed: of everything that is drawn.
        checkpoint: a file that lets a killed search go on.
        watch: told of every epoch.

    Raises:
        UsageError: unusable settings, a space that leaks, a budget that nothing keeps, no teacher.
        MissingKnowledge: the teacher is not sequential.
    """
    check_data(train, valid)
    knows, c = known(teacher, train), settings_of(preset, settings)
    return run(knows, train, c, valid=valid, candidates=candidates, seed=seed, checkpoint=checkpoint, watch=watch)


def retrain(
    found: Found,
    teacher: Trained | Elsewhere | Knows | None,
    train: Interactions,
    *,
    preset: str = "default",
    settings: Mapping[str, Any] | None = None,
    design: Design | None = None,
    folder: Path | None = None,
    valid: HeldOut | None = None,
    candidates: Candidates | None = None,
    seed: int = 7,
    training: TrainSettings | None = None,
    checkpoint: Path | None = None,
    watch: Sequence[Watch] = (),
    echo: Callable[[str], object] | None = print,
) -> Trained:
    """Train the student that was found, or another design in its place.

    Args:
        found: what `search` returned.
        teacher: who is distilled, by the search's own distillation; not asked where `distilled` is off.
        train: the interactions to learn from.
        preset: "default" is fresh weights, distilled; "compat" inherited ones, without distillation (official code).
        settings: over those of the preset, see `RetrainSettings`.
        design: instead of the one that was found: a control.
        folder: where the supernet's weights are written to be inherited; their name holds their digest.
        valid: held-out data for early stopping.
        candidates: the recorded negatives of a sampled protocol.
        seed: of the initial weights, the order and the draws.
        training: in place of all that the settings say of training.
        checkpoint: a file that lets a killed run go on.
        watch: told of every epoch.
        echo: what to call with the notes; None for silence.

    Raises:
        UsageError: inherited weights without a folder, or no teacher to distil.
        UnknownName: no such preset.
        SettingsError: unknown keys or unusable values.
    """
    how = retraining_of(preset, settings)
    start = None
    if how.weights == "inherited":
        if folder is None:
            what = "Inherited weights are read from a file"
            raise UsageError(problem(what, remedy="Give `folder`, where it is written, or take weights = 'fresh'"))
        start = inherited(found, folder)
    c = found.settings
    training = training_of(c, how) if training is None else training
    student = of_design(found.design if design is None else design, c.frame, start=start)
    return distill(
        teacher if how.distilled else None,
        "cells",
        train,
        method="adarec" if how.distilled else "plain",
        valid=valid,
        candidates=candidates,
        seed=seed,
        settings=c.distillation.model_dump(mode="json") if how.distilled else {},
        model_settings=student.model_dump(mode="json"),
        training=training,
        checkpoint=checkpoint,
        watch=watch,
        echo=echo,
    )


def fidelity(
    found: Found,
    teacher: Trained | Elsewhere | Knows | None,
    train: Interactions,
    *,
    designs: Mapping[str, Design],
    valid: HeldOut,
    candidates: Candidates | None = None,
    metric: str | None = None,
    seed: int = 7,
    training: TrainSettings | None = None,
) -> Fidelity:
    """Validation scores of designs with the supernet's weights, beside those of the same designs trained alone.

    Args:
        found: what `search` returned.
        teacher: as for `retrain`; every design is trained alike, from fresh weights; None trains without one.
        train: the interactions to learn from.
        designs: by name; a rank correlation wants ten or more.
        valid: held-out data.
        candidates: the recorded negatives of a sampled protocol.
        metric: which validation metric; the search's first one when None.
        seed: of the trainings.
        training: how each is trained.
    """
    c = found.settings
    metric = c.metrics[0] if metric is None else metric
    shared, retrained = list[float](), list[float]()
    for design in designs.values():
        shared.append(found.score(design)[metric])
        alone = retrain(
            found,
            teacher,
            train,
            settings={"distilled": teacher is not None},
            design=design,
            valid=valid,
            candidates=candidates,
            seed=seed,
            training=training,
        )
        measured = evaluate(alone.ranker(), valid, (metric,), protocol=c.protocol, candidates=candidates)
        retrained.append(measured.means[metric])
    return Fidelity(tuple(designs), tuple(shared), tuple(retrained))


def inherited(found: Found, folder: Path) -> Path:
    """The supernet's weights as a file, named by what it holds, that is there whole or not at all."""
    weights = {name: value.detach().cpu().contiguous() for name, value in found.supernet.state_dict().items()}
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(weights.items()):
        digest.update(name.encode() + value.numpy().tobytes())
    path = folder / f"supernet-{digest.hexdigest()}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(weights, beside)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    return path


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of both, `above` first; tables are merged."""
    out = dict(below)
    for key, value in above.items():
        there = out.get(key)
        out[key] = _over(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return out
