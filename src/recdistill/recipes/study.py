"""The study of a run file: its log, its teacher, and one student by several methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recdistill.data.sources import read
from recdistill.methods import METHODS
from recdistill.recipes.bench import Bench
from recdistill.recipes.lessons import Lesson
from recdistill.settings import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recdistill.data.interactions import Interactions
    from recdistill.recipes.listener import Listener
    from recdistill.recipes.runfile import Data, Plan, RunSettings
    from recdistill.settings import Settings

__all__ = ["Study", "load_log"]


@dataclass(frozen=True)
class Study(Bench):
    """A run file, read and checked: a teacher, and one student by several methods."""

    run: RunSettings
    plan: Plan

    def lesson_by(self, method: str, settings: Mapping[str, Any] | None = None) -> Lesson:
        """The student of the run file by one method; "plain" is the same student without a teacher.

        Args:
            method: a registered name; also the name of the row, the bundle and the log.
            settings: the method's; those of the run file where it is the run's method.
        """
        of_run = self.how(method) if settings is None else None
        chosen = of_run or parse(METHODS[method].settings, dict(settings or {}), at="method")
        return Lesson(
            bench=self,
            name=method,
            model=self.run.student.model,
            settings=self.plan.student.model_dump(mode="json"),
            method=method,
            how=chosen.model_dump(mode="json"),
            training=self.plan.train,
        )

    def how(self, method: str) -> Settings:
        """What a method is set to: by the run file where it is the run's, else its defaults."""
        return self.plan.method if method == self.run.method.name else METHODS[method].settings()


def load_log(data: Data, listener: Listener) -> Interactions:
    """The log of a run file, filtered: repeats, then ratings, then the k-core."""
    log = read(
        data.path,
        columns={name: column for name, column in data.columns.items()} or None,
        on_bad_rows=data.on_bad_rows,
        echo=None,
    )
    if data.dedup is not None:
        log = log.deduplicated(keep=data.dedup)
    if data.min_rating is not None:
        log = log.at_least(data.min_rating)
    if data.k_core:
        log = log.k_core(users=data.k_core, items=data.k_core)
    for note in log.notes:
        listener.say(note)
    return log
