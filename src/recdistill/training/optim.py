"""Optimisers, by name.

Letters: R rows of a table, d dims, D rows that a step touches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from recdistill.errors import UnknownName
from recdistill.knowledge.table import Table, by_rows, sum_by_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

__all__ = ["OPTIMISERS", "RowwiseAdam", "optimiser"]

OPTIMISERS = ("adam", "rowwise")
_BLOCK = 1 << 16
"""Floats of a table that a thread updates at a time (256 KiB): vectors and moments stay in its cache meanwhile."""


def optimiser(
    name: str, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimiser over `parameters`; tables among them are told whether it wants gradients whole or by rows.

    Args:
        name: "adam" is Adam with coupled L2 on every parameter at every step, as DE-RRD's official code runs it: a row
            that no batch touches still shrinks and still moves by its momentum, and a step costs the whole table.
            "rowwise" is `RowwiseAdam`: a step costs the rows it touches. The two are different algorithms.
        parameters: what is trained.
        lr: the learning rate.
        weight_decay: the L2 penalty.

    Raises:
        UnknownName: no such optimiser.
    """
    if name not in OPTIMISERS:
        raise UnknownName("optimiser", name, OPTIMISERS)
    given = list(parameters)
    for parameter in given:
        if isinstance(parameter, Table):
            parameter.by_rows = name == "rowwise"
    if name == "rowwise":
        return RowwiseAdam(given, lr=lr, weight_decay=weight_decay)
    return torch.optim.Adam(given, lr=lr, weight_decay=weight_decay, fused=True)


class RowwiseAdam(torch.optim.Adam):
    """Adam in which every row of a table has a clock of its own: it ticks, decays and moves when a batch touches it.

    For a row this is Adam (Kingma & Ba, ICLR 2015, arXiv:1412.6980, algorithm 1) over the steps that touch it, bias
    correction included, with coupled L2 at those steps alone. Adam over a whole table also moves untouched rows, by
    their momentum and their decay; so results differ, most for rare rows, and a weight decay tuned for one is not tuned
    for the other. torch's SparseAdam differs too: it corrects the bias by the table's steps, so a row first touched
    late makes a step `(1 - beta1) / sqrt(1 - beta2)` = 3.2 times too long.

    A parameter whose gradient is whole (layers of a network, the tables of a graph model) gets plain Adam. Gradients of
    tables are used up by a step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)

    @override
    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update what the last backward reached."""
        del closure
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and (p.grad.is_sparse or by_rows(p)):
                    self._step_rows(p, p.grad, group)
                    p.grad = None
        super().step()

    def _step_rows(self, p: Tensor, whole: Tensor, group: dict[str, Any]) -> None:
        ids, gradient = _by_row(whole)  # (D,), (D, d)
        state = self.state[p]
        if not state:  # pages of these are touched only where rows are
            state["step"] = torch.zeros(p.shape[0], device=p.device)  # (R,) float32: exact to 2**24 steps
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p)
        beta1, beta2 = group["betas"]
        size = max(1, _BLOCK * torch.get_num_threads() // max(p.shape[1], 1))
        here, m, v = (p.new_empty(min(size, len(ids)), p.shape[1]) for _ in range(3))
        steps = state["step"].index_select(0, ids).add_(1)  # (D,)
        state["step"].index_copy_(0, ids, steps)
        # p -= lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps), as p -= m / (sqrt(v) per_root + rest)
        per_move = ((1 - beta1**steps) / group["lr"]).to(p.dtype)[:, None]  # (D, 1)
        per_root = per_move / (1 - beta2**steps).sqrt_().to(p.dtype)[:, None]
        rest = per_move * group["eps"]
        for at in range(0, len(ids), size):
            part = slice(at, at + size)
            row, g = ids[part], gradient[part]
            here, m, v = here[: len(row)], m[: len(row)], v[: len(row)]
            torch.index_select(p, 0, row, out=here)
            torch.index_select(state["exp_avg"], 0, row, out=m)
            torch.index_select(state["exp_avg_sq"], 0, row, out=v)
            if group["weight_decay"]:
                g.add_(here, alpha=group["weight_decay"])
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            state["exp_avg"].index_copy_(0, row, m)
            state["exp_avg_sq"].index_copy_(0, row, v)
            here.addcdiv_(m, torch.addcmul(rest[part], v.sqrt_(), per_root[part], out=v), value=-1)
            p.index_copy_(0, row, here)


def _by_row(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A gradient's distinct rows (D,), ascending, and their values (D, d)."""
    if not gradient.is_sparse:
        return torch.arange(gradient.shape[0], device=gradient.device), gradient
    ids, values = gradient._indices()[0], gradient._values()
    if bool((ids[1:] > ids[:-1]).all()):
        return ids, values
    return sum_by_id(ids, values)  # several terms reached the table
