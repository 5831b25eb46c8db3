"""Prices measured on this device: one table for every device and shape, made once and kept.

An operator's price is the time of a folded chain with that operator on every edge, less that of one with none, over the
number of edges; so what is timed is what is served, launches and memory traffic included. A whole cell is predicted as
the sum of its edges; `agreement` says how well that orders real cells.

Letters: O operators, E edges, S cells, C width, T time, B histories, I items.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

import recdistill
from recdistill.errors import DataError, problem
from recdistill.evaluation.card import environment
from recdistill.search.cost import Costs
from recdistill.search.derive import named
from recdistill.search.fidelity import kendall
from recdistill.search.fold import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recdistill.search.cost import Shape
    from recdistill.search.derive import Design
    from recdistill.search.space import Space

    Work = Callable[[], object]

__all__ = ["Timer", "agreement", "device_of", "folder", "measured", "timed"]

_CELLS = 2
"""Cells of a chain that is timed: enough that what surrounds the edges is in every one of them."""


class Timer(Protocol):
    """Times several things beside each other."""

    def __call__(self, works: Sequence[Work], device: torch.device) -> list[float]:
        """The median milliseconds of each."""
        ...


def timed(works: Sequence[Work], device: torch.device, *, rounds: int = 31, least_ms: float = 2.0) -> list[float]:
    """The median milliseconds of each of `works`, which are called in turns, so that a slow minute slows all of them.

    Args:
        works: what is called.
        device: waited for before and after, where it is not the CPU.
        rounds: turns; a turn calls each as often as takes about `least_ms`.
        least_ms: milliseconds.
    """

    def once(work: Work, times: int) -> float:
        _wait(device)
        begin = perf_counter_ns()
        for _ in range(times):
            work()
        _wait(device)
        return (perf_counter_ns() - begin) / 1e6 / times

    for work in works:
        once(work, 3)
    often = [max(1, round(least_ms / max(once(work, 1), 1e-3))) for work in works]
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for place, work in enumerate(works):
            taken[place].append(once(work, often[place]))
    return [statistics.median(each) for each in taken]


def device_of(device: torch.device) -> dict[str, Any]:
    """What a measured time depends on: the processor, its threads, torch and its version."""
    about: dict[str, Any] = {"kind": device.type, "torch": torch.__version__, "recdistill": recdistill.__version__}
    if device.type == "cpu":
        here = environment()
        about |= {
            "name": here.cpu,
            "cpus": here.cpus,
            "threads": 1,
            "machine": platform.machine(),
        }
    else:
        about["name"] = torch.get_device_module(device).get_device_name(device)
    return about


def folder() -> Path:
    """Where tables are kept: `$XDG_CACHE_HOME/recdistill/latency`, or the same below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "recdistill" / "latency"


def measured(
    space: Space, shape: Shape, *, device: torch.device | None = None, keep: Path | None = None, timer: Timer = timed
) -> Costs:
    """The milliseconds of each operator on an edge, of a cell, and of embedding and scores.

    Args:
        space: whose operators.
        shape: width, length, items and batch that they are timed at, in float32.
        device: where; the CPU, with one thread, as the table of a search times its students.
        keep: the folder of tables; `folder()` when None. A table that is there is read, not made again.
        timer: what times.

    Raises:
        DataError: a table that is there cannot be read.
    """
    device = torch.device("cpu") if device is None else device
    asked: dict[str, Any] = {
        "device": device_of(device),
        "shape": [shape.width, shape.length, shape.batch, shape.items],
        "operators": [repr(operator) for operator in space.operators],
        "nodes": space.nodes,
    }
    text = json.dumps(asked, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    path = (folder() if keep is None else keep) / f"{space.name}-{shape.width}x{shape.length}-{digest}.json"
    table = _read(path)
    if table is None:
        table = {**asked, **_table(space, shape, device, timer)}
        _write(path, table)
    return Costs("ms", tuple(table["ms"]), table["cell_ms"], table["fixed_ms"], digest)


def agreement(space: Space, shape: Shape, costs: Costs, designs: Sequence[Design], *, timer: Timer = timed) -> float:
    """Kendall's tau between predicted and measured milliseconds of whole designs; take twenty or more.

    It is of this device and may be timed at another hour than the table: run it when the machine is quiet.
    """
    works = [_chain(design, shape, torch.device("cpu")) for design in designs]
    return kendall(_alone(timer, works, torch.device("cpu")), [costs.of(design, space) for design in designs])


def _table(space: Space, shape: Shape, device: torch.device, timer: Timer) -> dict[str, Any]:
    def filled(name: str) -> Work:
        return _chain(named(f"all-{name}", space, width=shape.width, depth=_CELLS), shape, device)

    item = torch.zeros(max(shape.items, 1), shape.width, device=device)
    history = torch.zeros(shape.batch, shape.length, dtype=torch.int64, device=device)
    state = torch.zeros(shape.batch, shape.width, device=device)

    def around() -> object:
        return item[history], state @ item.T

    works = [filled(name) for name in space.names]
    nothing = next((at for at, one in enumerate(space.operators) if not one.reads), None)
    times = _alone(timer, [*works, around], device)
    empty = min(times[:-1]) if nothing is None else times[nothing]
    edges = _CELLS * len(space.edges)
    each = [max(0.0, (time - empty) / edges) for time in times[:-1]]
    if nothing is not None:
        each[nothing] = 0.0
    return {"ms": each, "cell_ms": empty / _CELLS, "fixed_ms": times[-1] if shape.items else 0.0}


def _alone(timer: Timer, works: Sequence[Work], device: torch.device) -> list[float]:
    """With one thread: who serves gives its threads to requests, not to the layers of one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return timer(works, device)
    finally:
        torch.set_num_threads(threads)


def _chain(design: Design, shape: Shape, device: torch.device) -> Work:
    chain = fold(design.build().eval()).to(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape.batch, shape.length, shape.width, generator=generator).to(device)
    real = torch.ones(shape.batch, shape.length, dtype=torch.bool, device=device)

    def work() -> object:
        with torch.inference_mode():
            return chain(x, real)

    return work


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        table = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        if len(table["ms"]) == len(table["operators"]) and min(table["ms"]) >= 0 and table["cell_ms"] > 0:
            float(table["fixed_ms"])
            return table
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(problem(f"The table of latencies {path} cannot be read ({error!r})", remedy=_ANEW)) from error
    raise DataError(problem(f"The table of latencies {path} is of something else", remedy=_ANEW))


_ANEW = "Delete it, and it will be measured again"


def _write(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as out:
        json.dump(table, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)
