"""A run's state in one safetensors file that appears by atomic rename: kill it at any moment, start it again.

Tensors are stored by slot (`model/...`, `terms/...`, `optimiser/...`, `best/...`); everything else is one JSON text in
the file's metadata. No pickle: optimiser states are named tensors and numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recdistill.errors import CheckpointError, problem
from recdistill.training.watch import Best, EpochRecord, Report

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from recdistill.training.stop import Stop

__all__ = ["Place", "load", "save"]

_VERSION = 1
Place = tuple[int, int, dict[str, float], float]
"""Epoch, steps done in it, the sums of its loss parts so far, its seconds so far."""


def save(
    path: Path,
    *,
    run: str,
    place: Place,
    modules: dict[str, nn.Module],
    optimisers: dict[str, torch.optim.Optimizer],
    stop: Stop,
    report: Report,
) -> None:
    """Write the whole state beside `path`, flush it to disk, and rename it into place.

    Raises:
        CheckpointError: the disk takes no more.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            tensors[f"{name}/{key}"] = value
    for name, optimiser in optimisers.items():
        state = optimiser.state_dict()["state"]
        for index, slots in state.items():
            for slot, value in slots.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{name}/{index}/{slot}"] = value
                else:
                    numbers[f"{name}/{index}/{slot}"] = value
    for epoch, kept in stop.states.items():
        for key, value in kept.items():
            tensors[f"best/{epoch}/{key}"] = value
    epoch, step, sums, seconds = place
    about = {
        "version": _VERSION,
        "run": run,
        "epoch": epoch,
        "step": step,
        "sums": sums,
        "seconds": seconds,
        "numbers": numbers,
        "best": {metric: asdict(best) for metric, best in stop.best.items()},
        "waited": stop.waited,
        "history": [asdict(record) for record in report.history],
        "stopped": report.stopped,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(about)
    try:
        save_file(whole, beside, metadata={"recdistill": text, "digest": _digest(text, whole)})
    except SafetensorError as error:  # a full disk, not told as an OSError
        beside.unlink(missing_ok=True)
        what = f"The checkpoint {str(path)!r} cannot be written"
        raise CheckpointError(problem(what, str(error), remedy="Make room, or give another folder")) from None
    with beside.open("rb") as written:
        os.fsync(written.fileno())
    beside.replace(path)


def load(
    path: Path,
    *,
    run: str,
    modules: dict[str, nn.Module],
    optimisers: dict[str, torch.optim.Optimizer],
    stop: Stop,
    report: Report,
) -> Place | None:
    """Put a saved state back; None when there is no file.

    Raises:
        CheckpointError: the file is broken, of another version, or of another run.
    """
    if not path.exists():
        return None
    remedy = f"Delete {path} to begin anew, or give another directory"
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            about: Any = json.loads(metadata["recdistill"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(problem(f"The checkpoint {path} cannot be read ({error})", remedy=remedy)) from error
    version = about.get("version") if isinstance(about, dict) else None
    if version != _VERSION:
        what = f"The checkpoint {path} is of another version"
        raise CheckpointError(problem(what, version, allowed=str(_VERSION), remedy=remedy))
    # earlier releases wrote none
    if "digest" in metadata and metadata["digest"] != _digest(metadata["recdistill"], tensors):
        what = f"The checkpoint {path} does not match its own digest: it was damaged or changed"
        raise CheckpointError(problem(what, remedy=remedy))
    if about["run"] != run:
        msg = problem(f"The checkpoint {path} belongs to a run with other settings or data", remedy=remedy)
        raise CheckpointError(msg)
    for name, module in modules.items():
        module.load_state_dict(_under(tensors, name))
    for name, optimiser in optimisers.items():
        slots: dict[int, dict[str, Any]] = {}
        for key, value in [*_under(tensors, name).items(), *_under(about["numbers"], name).items()]:
            index, slot = key.split("/", 1)
            slots.setdefault(int(index), {})[slot] = value
        optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
    stop.best = {metric: Best(**best) for metric, best in about["best"].items()}
    stop.waited = about["waited"]
    stop.states = {epoch: _under(tensors, f"best/{epoch}") for epoch in {best.epoch for best in stop.best.values()}}
    report.history = [EpochRecord(**record) for record in about["history"]]
    report.best, report.stopped = dict(stop.best), about["stopped"]
    return about["epoch"], about["step"], about["sums"], about["seconds"]


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    """Of everything that is kept; about a second for a gigabyte."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, value in sorted(tensors.items()):
        digest.update(f"\x00{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _under(named: dict[str, Any], prefix: str) -> dict[str, Any]:
    start = prefix + "/"
    return {name[len(start) :]: value for name, value in named.items() if name.startswith(start)}
