"""How long sequential models take from a history to a list: encoder, scores of all items, what is seen left out, top K.

All are timed in turns on the same histories, so that a slow minute slows all of them; in torch, one thread, a derived
student with its norms folded (`search.fold`), as it would be served.

Letters: Q histories, T time, d dims, I items, K list, m users.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.evaluation.latency import Latency
from recdistill.query import Query
from recdistill.search.cells import States
from recdistill.search.fold import fold
from recdistill.search.model import Cells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.data.csr import Csr
    from recdistill.data.histories import Histories
    from recdistill.models.sequential import Sequential
    from recdistill.search.fold import Folded

__all__ = ["Answers", "answers", "served"]


@dataclass(frozen=True, slots=True)
class Answers:
    """What was measured of one model; wall clock."""

    latency: Latency
    """From a history to a list; `users_per_second` is of tables of `batch` histories."""
    encoder_ms: float
    """Median, of the encoder alone: from a history to the state that items are scored with."""
    batch: int

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Answers:
        """What `plain` gave."""
        return cls(Latency(**table["latency"]), table["encoder_ms"], table["batch"])


def answers(
    models: Mapping[str, Sequential],
    histories: Histories,
    users: NDArray[np.int64],
    *,
    exclude: Csr,
    k: int = 10,
    n_users: int = 300,
    batch: int = 256,
    seconds: float = 2.0,
    seed: int = 0,
) -> dict[str, Answers]:
    """Time every model on the same histories, one at a time, then in tables.

    Args:
        models: by name.
        histories: of all users.
        users: (m,) rows to choose from.
        exclude: what lists leave out.
        k: how many items a list has; at most I.
        n_users: how many single answers of each model at most.
        batch: histories a table has.
        seconds: wall clock that a model's single answers may take, and again its tables; ten answers and three tables
            are timed at least.
        seed: of the choice of users.

    Raises:
        UsageError: there is no user, or a size is less than 1.
    """
    if not len(users) or min(k, n_users, batch) < 1:
        raise UsageError(problem("Timing needs a user, and sizes of at least 1", (len(users), k, n_users, batch)))
    chosen = np.random.default_rng(seed).choice(users, max(n_users, batch))
    ready = {name: _Ready(model, histories, exclude, min(k, model.n_items)) for name, model in models.items()}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single = _turns(ready, lambda at: chosen[at : at + 1], most=n_users, least=10, seconds=seconds)
        tables = _turns(ready, lambda _: chosen[:batch], most=50, least=3, seconds=seconds)
    finally:
        torch.set_num_threads(before)
    out: dict[str, Answers] = {}
    for name in ready:
        whole, encoder = single[name]
        p50, p95, p99 = np.percentile(whole, [50, 95, 99]).tolist()
        rate = 1e3 * batch / float(np.median(tables[name][0]))
        latency = Latency(p50, p95, p99, rate, k, 1, len(whole))
        out[name] = Answers(latency, float(np.median(encoder)), batch)
    return out


def served(model: Sequential) -> Sequential:
    """A copy as it would be served: on the CPU, in evaluation, the cells of a derived student folded."""
    student = copy.deepcopy(model, {id(model.histories): model.histories}).cpu().eval()
    if isinstance(student, Cells):
        student.register_module("chain", _AsChain(fold(student.chain)))
    return student


class _AsChain(nn.Module):
    """A folded chain where a model expects a chain."""

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        self.folded = folded

    @override
    def forward(self, x: Tensor, real: Tensor, choice: object = None) -> States:
        output = self.folded(x, real)  # (Q, T, C)
        return States(output, output[None])


class _Ready:
    """A model about to be asked."""

    def __init__(self, model: Sequential, histories: Histories, exclude: Csr, k: int) -> None:
        self._model, self._histories, self._exclude, self._k = served(model), histories, exclude, k
        self._items = self._model.served_items().detach().float().T.contiguous()  # (d, I)

    def __call__(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        """Milliseconds of the whole answer, and of the encoder in it."""
        begin = perf_counter_ns()
        with torch.inference_mode():
            history = torch.from_numpy(self._histories.padded(rows, self._model.length))  # (Q, T)
            asked = Query(torch.zeros(len(rows), dtype=torch.int64), history=history)
            state = self._model.view(asked).vectors()  # (Q, d)
            encoded = perf_counter_ns()
            scores = state @ self._items  # (Q, I)
            for place, row in enumerate(rows.tolist()):
                seen = self._exclude.indices[self._exclude.indptr[row] : self._exclude.indptr[row + 1]]
                scores[place, torch.from_numpy(seen.astype(np.int64))] = -torch.inf
            scores.topk(self._k)
        end = perf_counter_ns()
        return (end - begin) / 1e6, (encoded - begin) / 1e6


def _turns(
    ready: Mapping[str, _Ready],
    rows: Callable[[int], NDArray[np.int64]],
    *,
    most: int,
    least: int,
    seconds: float,
) -> dict[str, tuple[list[float], list[float]]]:
    """Milliseconds of every model, one after the other, again and again; the first three turns warm up."""
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ready}
    for at in range(3):
        for one in ready.values():
            one(rows(at))
    limit = perf_counter_ns() + int(seconds * len(ready) * 1e9)
    for at in range(most):
        for name, one in ready.items():
            whole, encoder = one(rows(at))
            taken[name][0].append(whole)
            taken[name][1].append(encoder)
        if at + 1 >= least and perf_counter_ns() > limit:
            break
    return taken
