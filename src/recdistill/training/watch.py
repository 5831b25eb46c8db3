"""What follows a training run: progress bars, logs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Best", "EpochRecord", "JsonLines", "Report", "Watch"]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch came to."""

    epoch: int
    epochs: int
    """The most there can be."""
    seconds: float
    """Training and validation, without the writing of checkpoints."""
    losses: dict[str, float]
    """Each term's weighted part of the loss, mean per step: `pass.term`, or `term` when there is one pass."""
    metrics: dict[str, float]
    """On validation data; empty when there are none."""


@dataclass(frozen=True, slots=True)
class Best:
    """Where a validation metric was at its best."""

    epoch: int
    value: float


@dataclass(slots=True)
class Report:
    """What a run came to."""

    epochs: int
    history: list[EpochRecord] = field(default_factory=list["EpochRecord"])
    best: dict[str, Best] = field(default_factory=dict[str, "Best"])
    """By validation metric."""
    stopped: str = ""
    """Why it ended; empty while it runs."""

    @property
    def seconds(self) -> float:
        """Training and validation in all, over every time it was resumed."""
        return sum(record.seconds for record in self.history)


class Watch(Protocol):
    """Told of a run as it goes; it must not change it."""

    def on_start(self, report: Report) -> None:
        """Before the first epoch; `report.history` is not empty when the run resumes."""
        ...

    def on_epoch(self, record: EpochRecord, report: Report) -> None:
        """After an epoch and its validation."""
        ...

    def on_end(self, report: Report) -> None:
        """After the last epoch."""
        ...


class JsonLines:
    """Every epoch as one JSON line: epoch, seconds, losses, metrics. A resumed run writes the file anew."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_start(self, report: Report) -> None:
        """Write what a resumed run already has."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("".join(_line(record) for record in report.history), encoding="utf-8")

    def on_epoch(self, record: EpochRecord, report: Report) -> None:
        """Append one line."""
        del report
        with self._path.open("a", encoding="utf-8") as out:
            out.write(_line(record))

    def on_end(self, report: Report) -> None:
        """Nothing is held back, so nothing is left to write."""


def _line(record: EpochRecord) -> str:
    return json.dumps(asdict(record), sort_keys=True) + "\n"
