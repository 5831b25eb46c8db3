"""The one training loop, as every stage calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recdistill.continual.snapshot import Snapshot
from recdistill.evaluation.evaluate import evaluate
from recdistill.knowledge.table import Table
from recdistill.runtime import CPU
from recdistill.training.optim import RowwiseAdam, optimiser
from recdistill.training.stop import Stop
from recdistill.training.trainer import Keep, fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from recdistill.continual.settings import Training
    from recdistill.data.csr import Csr
    from recdistill.data.interactions import HeldOut
    from recdistill.models.base import Recommender
    from recdistill.objective import Pass
    from recdistill.runtime import Runtime
    from recdistill.training.watch import Report, Watch

__all__ = ["METRIC", "Learned", "Run", "learn", "sized"]

METRIC = "recall@20"
"""What chooses the epoch, always."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a stage is told of its run, and that its result does not depend on (the seed aside)."""

    seed: int = 0
    """Of weights, order and draws."""
    checkpoint: Path | None = None
    """A file that lets a killed stage go on; the caller removes it when the stage is done."""
    name: str = ""
    """The fingerprint of the stage and its inputs: a checkpoint of another one is refused."""
    watch: Sequence[Watch] = ()
    """Told of every epoch."""
    runtime: Runtime = CPU
    """Where it trains. Only on the CPU are two runs the same to the last bit."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What a stage came to."""

    snapshot: Snapshot
    report: Report
    """Every epoch: losses by pass and term, the mean over that pass's steps; validation recall@20."""
    steps: Mapping[str, int]
    """Of an epoch, by pass."""

    @property
    def replay_share(self) -> float:
        """Of the loss of the last epoch, all steps of every pass together; 0 where nothing was learned."""
        last = self.report.history[-1].losses if self.report.history else {}
        only = next(iter(self.steps.values()))  # a single pass is not named
        whole = {name: abs(v) * self.steps.get(name.partition(".")[0], only) for name, v in last.items()}
        return sum(v for name, v in whole.items() if "replay" in name) / max(sum(whole.values()), 1e-12)


def learn(
    start: Snapshot,
    model: Recommender,
    passes: Sequence[Pass],
    training: Training,
    *,
    train: Csr,
    valid: HeldOut | None,
    run: Run,
    whole: bool = False,
) -> Learned:
    """Train `model`, which began as `start`, and take its snapshot at the best epoch.

    Args:
        start: what it began as.
        model: what it is now.
        passes: what it learns.
        training: how.
        train: U x I, who is met from now on.
        valid: chooses the epoch; None runs them all.
        run: seed, checkpoint, watches, device.
        whole: a term reaches every row at every step, so that an optimiser by rows would let all of them decay; the
            decay is then a term of the base pass, see `plain.base_pass`.
    """
    tables = any(isinstance(p, Table) for p in model.parameters())
    by_rows = training.decay == "touched" and tables and not whole
    decay = training.weight_decay if by_rows or training.decay == "all" else 0.0
    made: list[torch.optim.Optimizer] = []

    def optimise(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        own = optimiser("rowwise" if by_rows else "adam", parameters, lr=training.lr, weight_decay=decay)
        if training.moments == "carried":
            _remember(own, model, start)
        made.append(own)
        return own

    stop = Stop()
    if valid is not None and len(valid.queries):
        stop = Stop(
            lambda: evaluate(model.ranker(), valid, (METRIC,)).means,
            (METRIC,),
            patience=training.patience,
            every=training.every,
        )
    report = fit(
        model,
        passes,
        epochs=training.epochs,
        optimise=optimise,
        runtime=run.runtime,
        stop=stop,
        watch=run.watch,
        keep=None if run.checkpoint is None else Keep(run.checkpoint, run.name),
    )
    weights = {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}
    degrees, other = train.degrees, np.bincount(train.indices, minlength=train.n_columns)
    snapshot = Snapshot(
        start.spec,
        weights,
        start.met_users | (degrees > 0),
        start.met_items | (other > 0),
        start.context,
        _moments(made[0], model) if training.moments == "carried" else {},
    )
    return Learned(snapshot, report, {each.name: len(each.batches) for each in passes})


def sized(training: Training, interactions: int) -> int:
    """Steps an epoch."""
    return -(-interactions // training.batch)


def _moments(own: torch.optim.Optimizer, model: Recommender) -> dict[str, np.ndarray]:
    """`<parameter>/<slot>` of what the optimiser knows of the model; a run that made no step has nothing."""
    out: dict[str, np.ndarray] = {}
    for name, parameter in model.named_parameters():
        for slot, value in own.state.get(parameter, {}).items():
            out[f"{name}/{slot}"] = np.array(value.detach().cpu().numpy(), np.float32)
    return out


def _remember(own: torch.optim.Optimizer, model: Recommender, start: Snapshot) -> None:
    for name, parameter in model.named_parameters():
        slots = {
            slot.partition("/")[2]: value for slot, value in start.moments.items() if slot.partition("/")[0] == name
        }
        if slots:
            step = slots["step"]
            if isinstance(own, RowwiseAdam) and isinstance(parameter, Table):  # a clock for each row
                slots["step"] = np.broadcast_to(step, len(parameter))
            elif step.ndim:  # one for all, as of the row that was touched most
                slots["step"] = step.max(initial=0)
            own.state[parameter] = {
                slot: torch.from_numpy(np.array(value)).to(parameter.device) for slot, value in slots.items()
            }
