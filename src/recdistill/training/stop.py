"""When to stop, and which epoch was best.

DE-RRD (official code): stop after 20 evaluations in a row in which none of validation H@5, H@10, H@20, rounded to four
decimals, is strictly above its own best; each metric keeps its own best epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recdistill.errors import TrainingError, problem
from recdistill.training.watch import Best

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

__all__ = ["Stop"]


@dataclass(slots=True)
class Stop:
    """Early stopping on validation metrics; with no `validate` every epoch is run and the last one is kept."""

    validate: Callable[[], Mapping[str, float]] | None = None
    """Called after every `every` epochs; all metrics are greater-is-better."""
    metrics: tuple[str, ...] = ()
    """Which of them count; the first is the one whose best epoch the learner ends with."""
    patience: int = 20
    """Validations in a row without any improvement before it stops."""
    every: int = 1
    """Epochs between validations."""
    begins: int = 0
    """The first epoch that may be validated, from 0: where what is validated is not learned before."""
    decimals: int | None = 4
    """Rounding before values are compared; None compares them as they are."""
    best: dict[str, Best] = field(default_factory=dict[str, Best])
    """The best of each metric so far."""
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict[int, "dict[str, Tensor]"])
    """The learner's state at the epochs in `best`."""
    waited: int = 0
    """Validations since the last improvement."""

    def due(self, epoch: int) -> bool:
        """Whether epoch `epoch` (from 0) ends with a validation."""
        return self.validate is not None and epoch >= self.begins and (epoch + 1) % self.every == 0

    def see(self, epoch: int, values: Mapping[str, float], state: Callable[[], dict[str, Tensor]]) -> bool:
        """Take in one validation; True when it is time to stop.

        Raises:
            TrainingError: a metric that counts is missing or is not a number.
        """
        better = False
        for name in self.metrics:
            value = values.get(name, float("nan"))
            if value != value:  # noqa: PLR0124 - NaN
                raise TrainingError(problem(f"The validation metric {name!r} is not a number", value))
            rounded = round(value, self.decimals) if self.decimals is not None else value
            if name not in self.best or rounded > self.best[name].value:
                self.best[name] = Best(epoch, rounded)
                if epoch not in self.states:
                    self.states[epoch] = state()
                better = True
        wanted = {best.epoch for best in self.best.values()}
        self.states = {at: kept for at, kept in self.states.items() if at in wanted}
        self.waited = 0 if better else self.waited + 1
        return self.waited >= self.patience

    def state_of(self, metric: str) -> dict[str, Tensor] | None:
        """The learner's state at the best epoch of `metric`; None before any validation."""
        return self.states[self.best[metric].epoch] if metric in self.best else None
