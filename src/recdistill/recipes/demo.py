"""`recdistill demo`: no network, no file, under a minute: a teacher, four students, a table and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.data.synthetic import planted
from recdistill.recipes.distill import students
from recdistill.recipes.folder import held
from recdistill.recipes.listener import Silent
from recdistill.recipes.runfile import RunSettings, resolve
from recdistill.recipes.study import Study, load_log
from recdistill.settings import parse

if TYPE_CHECKING:
    from recdistill.recipes.distill import Outcome
    from recdistill.recipes.folder import held
from recdistill.recipes.listener import Listener

__all__ = ["METHODS", "demo", "settings"]

_EXPERTS: dict[str, Any] = {"experts": 8, "tau_epochs": 40}
_RANKING: dict[str, Any] = {"weight": 1e-2}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "de": _EXPERTS,
    "rrd": _RANKING,
    "de-rrd": {"de": _EXPERTS, "rrd": _RANKING},
}
"""The students, in the order of the table, with settings for a small log and few epochs: fewer experts, a temperature
that falls within the run, and the weight of RRD that was best on validation data of 1e-3, 1e-2, 1e-1."""


def settings(data: Path | None, out: Path, *, seed: int = 7, on_bad_rows: str = "error") -> RunSettings:
    """The demonstration as a run file."""
    return parse(
        RunSettings,
        {
            "data": {"path": str(data or "planted"), "split": "leave-last-out", "on_bad_rows": on_bad_rows},
            "teacher": {"model": "mf", "dim": 128},
            "student": {"model": "mf", "dim": 16},
            "method": {"name": "de-rrd"},
            "train": {"seed": seed, "epochs": 20, "lr": 5e-3, "patience": 4, "every": 2},
            "evaluate": {"metrics": ["recall@10", "ndcg@10"]},
            "output": {"dir": str(out)},
        },
    )


def demo(
    *,
    data: Path | None = None,
    out: Path,
    seed: int = 7,
    on_bad_rows: str = "error",
    listener: Listener | None = None,
) -> Outcome:
    """Teacher and four students on a log with planted structure, or on a log of yours.

    Args:
        data: a log that `read` understands; None makes one up.
        out: where everything is written.
        seed: of the made-up log and of training.
        on_bad_rows: "error", or "skip" to count them and show the first ten.
        listener: told of what goes on.
    """
    listener = listener if listener is not None else Silent()
    run = settings(data, out, seed=seed, on_bad_rows=on_bad_rows)
    listener.begin("Making up a log with planted structure" if data is None else f"Reading {data}")
    if data is None:
        log = planted(seed=seed)
        listener.say(log.describe())
    else:
        log = load_log(run.data, listener)
    study = Study(run, resolve(run), log, listener, seed)
    title = "recdistill demo" if data is None else data.stem
    with held(run, overwrite=True):  # it is made to be played with
        return students(study, METHODS, best=None, text="", command="recdistill demo", title=title)
