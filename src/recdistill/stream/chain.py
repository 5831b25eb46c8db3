"""Where a stream goes on from, as its journal tells it: the student that passed, what stands in whose place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recdistill.stream.journal import Journal, Told

__all__ = ["distilled", "of", "start"]


def of(stage: str, what: str) -> str:
    """The stage "gate" or "publish" of an output of "student" or "distil"."""
    return stage if what == "student" else f"{stage}[{what}]"


def start(journal: Journal, cycle: int) -> Told | None:
    """The student that a cycle goes on from: the newest, updated or distilled, that its own gate let through.

    As long as none has passed it is the newest there is; what could not be trained is none.
    """
    found = _students(journal, cycle)
    return next((told for told in found if _passed(journal, told)), found[0] if found else None)


def distilled(journal: Journal, cycle: int) -> Told | None:
    """The student distilled last before a cycle that its gate let through."""
    found = (told for told in _students(journal, cycle) if told.stage == "distil")
    return next((told for told in found if _passed(journal, told)), None)


def _students(journal: Journal, cycle: int) -> list[Told]:
    """Of all cycles before, the newest first; what was distilled in a cycle comes after what was updated in it."""
    told = (line for line in journal.lines() if line.stage in ("student", "distil") and line.cycle < cycle)
    made = [line for line in told if "failed" not in line.measured]
    return sorted(made, key=lambda line: (-line.cycle, line.stage))


def _passed(journal: Journal, told: Told) -> bool:
    """Whether the gate let it through; a stream that began without the gate of what is distilled had none."""
    verdict = journal.find(told.cycle, of("gate", told.stage))
    return verdict is None or verdict.measured["passed"]
