"""`recdistill demo`: no network, no file, under a minute: a teacher, four students, a table and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recdistill.data.synthetic import planted
from recdistill.recipes.distill import students
from recdistill.recipes.listener import Silent
from recdistill.recipes.runfile import RunSettings
from recdistill.recipes.study import Study, load_log
from recdistill.settings import parse

if TYPE_CHECKING:
    from recdistill.recipes.distill import Outcome
    from recdistill.recipes.listener import Listener

__all__ = ["METHODS", "demo", "settings"]

METHODS = ("plain", "de", "rrd", "de-rrd")
"""The students, in the order of the table."""


def settings(data: Path | None, out: Path, *, seed: int = 7) -> RunSettings:
    """The demonstration as a run file."""
    return parse(
        RunSettings,
        {
            "data": {"path": str(data or "planted"), "split": "leave-last-out"},
            "teacher": {"model": "mf", "dim": 64},
            "student": {"model": "mf", "dim": 8},
            "method": {"name": "de-rrd"},
            "train": {"seed": seed, "epochs": 60, "patience": 5, "every": 2, "device": "auto"},
            "evaluate": {"metrics": ["recall@10", "ndcg@10"]},
            "output": {"dir": str(out)},
        },
    )


def demo(*, data: Path | None = None, out: Path, seed: int = 7, listener: Listener | None = None) -> Outcome:
    """Teacher and four students on a log with planted structure, or on a log of yours.

    Args:
        data: a log that `read` understands; None makes one up.
        out: where everything is written.
        seed: of the made-up log and of training.
        listener: told of what goes on.
    """
    listener = listener if listener is not None else Silent()
    run = settings(data, out, seed=seed)
    listener.begin("Making up a log with planted structure" if data is None else f"Reading {data}")
    if data is None:
        log = planted(seed=seed)
        listener.say(log.describe())
    else:
        log = load_log(run.data, listener)
    study = Study(run, log, listener, seed)
    title = "recdistill demo" if data is None else data.stem
    return students(study, dict.fromkeys(METHODS), best=None, text="", command="recdistill demo", title=title)
