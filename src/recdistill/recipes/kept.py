"""Outputs of the stages of CCD in a folder: each is made once, under what it was made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import rng
from recdistill.continual.ensemble import Lists
from recdistill.continual.learning import Run
from recdistill.continual.snapshot import Snapshot
from recdistill.recipes.cells import Cells, digest
from recdistill.runtime import CPU, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recdistill.continual.learning import Learned
    from recdistill.training.watch import Watch

__all__ = ["Kept"]

_VERSION = 1
"""Of the stages' code: kept outputs of another one are made again."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Outputs of stages in a folder, each made once; several processes may share it."""

    cells: Cells
    watch: Callable[[str], Sequence[Watch]] = lambda _: ()
    runtime: Runtime = CPU
    """Where stages train."""
    loaded: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def at(cls, work: Path, watch: Callable[[str], Sequence[Watch]] = lambda _: (), *, runtime: Runtime = CPU) -> Kept:
        """In `work`, which is made where it is not there."""
        return cls(Cells(work / "stages"), watch, runtime)

    def snapshot(self, name: str, about: dict[str, Any], seed: int, make: Callable[[Run], Learned]) -> Snapshot:
        """The output of a stage that trains, made or read."""
        found = self._snapshot(name, about, seed, make, wait=True)
        assert found is not None  # noqa: S101 - it was waited for
        return found

    def unheld(self, name: str, about: dict[str, Any], seed: int, make: Callable[[Run], Learned]) -> Snapshot | None:
        """Likewise; None while another process is at it."""
        return self._snapshot(name, about, seed, make, wait=False)

    def _snapshot(
        self, name: str, about: dict[str, Any], seed: int, make: Callable[[Run], Learned], *, wait: bool
    ) -> Snapshot | None:
        about = {**about, "stage": name, "version": _VERSION, "seed": seed}
        path = self.cells.path(name, about, ".safetensors")
        if path.name not in self.loaded:
            if not path.exists():
                with self.cells.claim(name, about, wait=wait) as mine:
                    if not mine:
                        return None
                    if not path.exists():  # whoever held it may have finished it
                        checkpoint = self.cells.path(name, about, ".running")
                        run = Run(rng.key(seed, name), checkpoint, digest(about), self.watch(name), self.runtime)
                        _save(make(run), path, about)
                        checkpoint.unlink(missing_ok=True)
            self.loaded[path.name] = Snapshot.load(path)[0]
        return self.loaded[path.name]

    def lists(self, name: str, about: dict[str, Any], make: Callable[[], Lists]) -> Lists:
        """The lists of an ensemble, made or read."""
        about = {**about, "stage": name, "version": _VERSION}
        path = self.cells.path(name, about, ".npz")
        if path.name not in self.loaded:
            if not path.exists():
                with self.cells.claim(name, about, wait=True):
                    if not path.exists():
                        made, beside = make(), path.with_name(f".{path.name}")
                        with beside.open("wb") as out:
                            np.savez(out, items=made.items, users=made.users)
                        beside.replace(path)
            with np.load(path, allow_pickle=False) as found:
                self.loaded[path.name] = Lists.from_arrays({key: found[key] for key in ("items", "users")})
        return self.loaded[path.name]


def _save(learned: Learned, path: Path, about: dict[str, Any]) -> None:
    report = learned.report
    told = {
        "epochs": len(report.history),
        "seconds": report.seconds,
        "best": {metric: best.value for metric, best in report.best.items()},
        "losses": report.history[-1].losses if report.history else {},
    }
    learned.snapshot.save(path, about={"told": told, "of": about})
