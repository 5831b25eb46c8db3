"""The one training loop: CF, sequential, search and continual updates differ in models, batches and passes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from recdistill.clock import Clock
from recdistill.errors import TrainingError, UsageError, problem
from recdistill.training import checkpoint
from recdistill.training.stop import Stop
from recdistill.training.watch import EpochRecord, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from recdistill.models.base import Recommender
    from recdistill.objective import Pass
    from recdistill.query import Batch
    from recdistill.runtime import Runtime
    from recdistill.training.watch import Watch

__all__ = ["Group", "Keep", "fit"]


@dataclass(frozen=True, slots=True)
class Keep:
    """Where a run's state is kept, and how often."""

    path: Path
    """One file."""
    run: str
    """The fingerprint of settings and data: a checkpoint of another run is refused."""
    seconds: float = 30.0
    """Least time between two writes; it changes nothing but how much a killed run repeats."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Parameters with an optimiser of their own."""

    parameters: Sequence[nn.Parameter]
    optimise: Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def fit(
    learner: Recommender,
    passes: Sequence[Pass],
    *,
    epochs: int,
    optimise: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    runtime: Runtime,
    groups: Mapping[str, Group] | None = None,
    stop: Stop | None = None,
    watch: Sequence[Watch] = (),
    keep: Keep | None = None,
) -> Report:
    """Train `learner` and everything the passes' terms own, in place; it ends at the best epoch of the first metric.

    The order of steps, the batches and every draw are functions of (seed, epoch, step), so with `keep` a run that is
    killed and started again ends bit-identical on a CPU.

    `optimise` is for the group "weights": all parameters that are in none of `groups`. A step updates the groups that
    its pass names, from one backward pass, and no other parameter gets a gradient from it.

    Raises:
        UsageError: there is no pass, or fewer than 0 epochs, or a pass updates a group that is not there.
        MissingKnowledge: a term asks what the student or the teacher cannot give; all such problems at once.
        TrainingError: the loss or a validation metric is not a finite number.
        CheckpointError: the file in `keep` is broken or belongs to another run.
    """
    groups = {} if groups is None else groups
    _check(learner, passes, epochs, groups=["weights", *groups])
    learner.to(runtime.device)
    for each in passes:
        each.objective.to(runtime.device)
        if each.learner is not None:
            each.learner.to(runtime.device)
    loop = _Loop(
        learner,
        passes,
        groups={"weights": Group((), optimise), **groups},
        runtime=runtime,
        stop=stop if stop is not None else Stop(),
        report=Report(epochs),
        keep=keep,
    )
    first = loop.resume()
    for each in watch:
        each.on_start(loop.report)
    for epoch in range(first, 0 if loop.report.stopped else epochs):
        record = loop.epoch(epoch)
        for each in watch:
            each.on_epoch(record, loop.report)
        if loop.report.stopped:
            break
    loop.end()
    for each in watch:
        each.on_end(loop.report)
    return loop.report


class _Loop:
    """A run under way."""

    def __init__(
        self,
        learner: Recommender,
        passes: Sequence[Pass],
        *,
        groups: Mapping[str, Group],
        runtime: Runtime,
        stop: Stop,
        report: Report,
        keep: Keep | None,
    ) -> None:
        self.learner, self.passes, self.runtime = learner, passes, runtime
        self.stop, self.report, self.keep = stop, report, keep
        self.modules: dict[str, nn.Module] = {"model": learner}
        for each in passes:  # an objective of several passes is kept once
            if not any(each.objective is module for module in self.modules.values()):
                self.modules[f"terms/{each.name}"] = each.objective
            if each.learner is not None and not any(each.learner is module for module in self.modules.values()):
                self.modules[f"learner/{each.name}"] = each.learner
        self.learners = {id(m): m for m in (learner, *(p.learner for p in passes if p.learner is not None))}
        every = {id(p): p for module in self.modules.values() for p in module.parameters() if p.requires_grad}
        elsewhere = {id(p) for group in groups.values() for p in group.parameters}
        self.parameters = {name: list(group.parameters) for name, group in groups.items()}
        self.parameters["weights"] = [p for key, p in every.items() if key not in elsewhere]
        self.optimisers = {name: group.optimise(self.parameters[name]) for name, group in groups.items()}
        self.kept = {
            "optimiser" if name == "weights" else f"optimiser-{name}": o for name, o in self.optimisers.items()
        }
        self.saved = time.monotonic()
        self.done: tuple[int, dict[str, float], float] = (0, {}, 0.0)  # of a half epoch: steps, sums, seconds

    def resume(self) -> int:
        """The epoch to begin with: 0, or where a killed run stood."""
        if self.keep is None:
            return 0
        place = checkpoint.load(
            self.keep.path,
            run=self.keep.run,
            modules=self.modules,
            optimisers=self.kept,
            stop=self.stop,
            report=self.report,
        )
        if place is None:
            return 0
        self.done = place[1:]
        return place[0]

    def epoch(self, epoch: int) -> EpochRecord:
        """Train and validate once."""
        start, sums, spent = self.done
        began = time.perf_counter() - spent
        parts = {name: torch.tensor(value, dtype=torch.float64) for name, value in sums.items()}
        self._learning(self.learner)
        for step, (each, batch) in enumerate(_steps(self.passes, epoch, start=start), start=start):
            for name, value in self._step(each, batch, Clock(epoch, step)).items():
                full = f"{each.name}.{name}" if len(self.passes) > 1 else name
                parts[full] = parts[full] + value if full in parts else value.double()
            self._save(epoch, step + 1, parts, began)
        steps = {each.name: len(each.batches) for each in self.passes}
        only = next(iter(steps.values()))
        losses = {name: float(value) / steps.get(name.split(".")[0], only) for name, value in parts.items()}
        _check_finite(losses, epoch)
        metrics: dict[str, float] = {}
        if self.stop.due(epoch) and self.stop.validate is not None:
            self.learner.eval()
            metrics = dict(self.stop.validate())
            if self.stop.see(epoch, metrics, lambda: _copy(self.learner)):
                self.report.stopped = f"no validation metric improved in {self.stop.patience} validations"
        if epoch + 1 == self.report.epochs and not self.report.stopped:
            self.report.stopped = f"all {self.report.epochs} epochs"
        self.report.best = dict(self.stop.best)
        record = EpochRecord(epoch, self.report.epochs, time.perf_counter() - began, losses, metrics)
        self.report.history.append(record)
        self.done = (0, {}, 0.0)
        self._save(epoch + 1, 0, {}, time.perf_counter(), now=bool(self.report.stopped))
        return record

    def end(self) -> None:
        """Leave the learner at the best epoch of the first metric."""
        if self.stop.metrics and (best := self.stop.state_of(self.stop.metrics[0])) is not None:
            self.learner.load_state_dict(best)
        self.learner.eval()

    def _step(self, each: Pass, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        if each.begin is not None:
            each.begin(clock)
        learner = self.learner if each.learner is None else each.learner
        if len(self.learners) > 1:
            self._learning(learner)
        student = learner.view(batch.query)
        with torch.no_grad():
            teacher = None if each.teacher is None else each.teacher.view(batch.query)
        total, parts = each.objective(student, teacher, batch, clock, self.runtime)
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()
        updates = [name for name in each.updates if clock.epoch >= each.begins.get(name, 0)]
        if len(updates) == len(self.optimisers):
            total.backward()
        elif updates:
            total.backward(inputs=[p for name in updates for p in self.parameters[name]])
        for name in updates:
            self.optimisers[name].step()
        return parts

    def _learning(self, learner: Recommender) -> None:
        """Let one learn; who is asked meanwhile answers as it will be served."""
        for each in self.learners.values():
            each.train(each is learner)

    def _save(self, epoch: int, step: int, parts: dict[str, Tensor], began: float, *, now: bool = False) -> None:
        if self.keep is None or not (now or time.monotonic() - self.saved > self.keep.seconds):
            return
        sums = {name: float(value) for name, value in parts.items()}
        checkpoint.save(
            self.keep.path,
            run=self.keep.run,
            place=(epoch, step, sums, time.perf_counter() - began),
            modules=self.modules,
            optimisers=self.kept,
            stop=self.stop,
            report=self.report,
        )
        self.saved = time.monotonic()


def _check(learner: Recommender, passes: Sequence[Pass], epochs: int, *, groups: Sequence[str]) -> None:
    if not passes:
        raise UsageError(problem("There is nothing to train with: no pass was given"))
    if epochs < 0:
        raise UsageError(problem("The number of epochs must be at least 0", epochs))
    for each in passes:
        unknown = [name for name in each.updates if name not in groups]
        if unknown or not each.updates:
            what = f"The pass {each.name!r} updates what is not there"
            raise UsageError(problem(what, unknown or None, allowed=groups))
    missing = [each for one in passes for each in one.check(learner.provides)]
    if len(missing) == 1:
        raise missing[0]
    if missing:
        raise UsageError("\n".join(str(each) for each in missing))


def _steps(passes: Sequence[Pass], epoch: int, *, start: int) -> Iterator[tuple[Pass, Batch]]:
    """The steps of an epoch from step `start` on: passes dealt evenly, then those that run after."""
    order = sorted(
        (each.interleave == "epoch", (step + 0.5) / len(each.batches) if each.interleave == "step" else at, at, step)
        for at, each in enumerate(passes)
        for step in range(len(each.batches))
    )
    skipped = [sum(1 for *_, at, _ in order[:start] if at == wanted) for wanted in range(len(passes))]
    running = [each.batches.epoch(epoch, start=skip) for each, skip in zip(passes, skipped, strict=True)]
    for *_, at, _ in order[start:]:
        yield passes[at], next(running[at])


def _check_finite(losses: dict[str, float], epoch: int) -> None:
    for name, value in losses.items():
        if not abs(value) < float("inf"):
            remedy = "Lower the learning rate or the weight of that term, and look for extreme values in the data"
            raise TrainingError(problem(f"The loss {name!r} is not finite in epoch {epoch}", value, remedy=remedy))


def _copy(learner: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in learner.state_dict().items()}
