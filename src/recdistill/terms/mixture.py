"""A mixture of two-layer experts as a few large matrix products.

Letters: n rows, M experts, h hidden, s input width, t output width, P pairs of a row and an expert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["Experts", "Precision", "Scratch", "mixture"]

Precision = Literal["float32", "bfloat16"]
_ROUTE_BELOW: dict[Precision, float] = {"float32": 0.85, "bfloat16": 0.45}
"""Share of the pairs under which gathering them beats asking every expert (measured: benchmarks/experts.py)."""


class Experts(NamedTuple):
    """M two-layer networks of one shape."""

    w1: Tensor
    """(M * h, s)"""
    b1: Tensor
    """(M * h,)"""
    w2: Tensor
    """(M * h, t)"""
    b2: Tensor
    """(M, t)"""


class Scratch:
    """Buffers that are used again step after step: fresh ones would cost more in page faults than their arithmetic.

    One for each mixture that is in flight at a time: the backward reads what the forward left in it.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, like: Tensor, dtype: torch.dtype, *shape: int) -> Tensor:
        """A tensor of `shape` with anything in it, on the device of `like`."""
        size = torch.Size(shape).numel()
        key = (name, dtype, like.device)
        found = self._buffers.get(key)
        if found is None or found.numel() < size:
            found = self._buffers[key] = torch.empty(size + size // 8, dtype=dtype, device=like.device)
        return found[:size].view(shape)


def mixture(
    x: Tensor,
    weights: Tensor,
    experts: Experts,
    *,
    dropped: float = 0.0,
    precision: Precision = "float32",
    scratch: Scratch | None = None,
) -> Tensor:
    """`sum_m weights_m (relu(x W1_m^T + b1_m) W2_m + b2_m)`, with gradients for everything.

    Args:
        x: (n, s)
        weights: (n, M), each row >= 0 with sum 1.
        experts: M networks.
        dropped: how much of a row's weight may be left out: experts under `dropped / M` are not asked for that row,
            and get no gradient from it. 0 asks all of them.
        precision: of the two large products and their backward when every expert is asked; sums are float32.
        scratch: buffers to use again; a call may not reuse those of another whose backward is still to come.

    Returns:
        (n, t)
    """
    scratch = scratch if scratch is not None else Scratch()
    keep = weights >= dropped / weights.shape[1]  # (n, M)
    routed = dropped > 0 and float(keep.float().mean()) < _ROUTE_BELOW[precision]
    if routed:
        return _Routed.apply(x, weights, *experts, keep, scratch)  # pyright: ignore[reportReturnType]
    low = torch.bfloat16 if precision == "bfloat16" else x.dtype
    return _Dense.apply(x, weights, *experts, low, scratch)  # pyright: ignore[reportReturnType]


class _Dense(torch.autograd.Function):
    """Every expert for every row: with Z the hidden layer scaled by the weights, Y = Z W2 + weights b2."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,  # noqa: ANN401 - untyped in torch
        x: Tensor,
        weights: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        low: torch.dtype,
        scratch: Scratch,
    ) -> Tensor:
        n, m = weights.shape
        hidden = scratch.take("hidden", x, low, n, w1.shape[0])  # (n, M * h)
        scaled = scratch.take("scaled", x, low, n, w1.shape[0])
        x_low, w1_low, w2_low = x.to(low), w1.to(low), w2.to(low)
        torch.addmm(b1.to(low), x_low, w1_low.T, out=hidden).relu_()
        torch.mul(hidden.view(n, m, -1), weights.to(low)[:, :, None], out=scaled.view(n, m, -1))
        ctx.save_for_backward(x_low, weights, w1_low, w2_low, b2)
        ctx.low, ctx.scratch, ctx.hidden, ctx.scaled = low, scratch, hidden, scaled
        return torch.mm(scaled, w2_low).to(x.dtype).addmm_(weights, b2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weights, w1, w2, b2 = ctx.saved_tensors
        hidden, scaled, of_y = ctx.hidden, ctx.scaled, grads[0]  # (n, M * h) twice, (n, t)
        (n, m), full, g = weights.shape, of_y.dtype, of_y.to(ctx.low)
        of_w2 = torch.mm(scaled.T, g).to(full)  # (M * h, t)
        back = torch.mm(g, w2.T, out=ctx.scratch.take("back", g, ctx.low, n, w1.shape[0]))  # (n, M * h)
        product = torch.mul(back, hidden, out=ctx.scratch.take("product", g, ctx.low, n, w1.shape[0]))
        of_weights = product.view(n, m, -1).sum(2, dtype=full).addmm_(of_y, b2.T)
        torch.sign(hidden, out=product)  # relu's gradient: 1 where it let through, 0 elsewhere
        back.mul_(product).view(n, m, -1).mul_(weights.to(ctx.low)[:, :, None])
        of_w1, of_b1 = torch.mm(back.T, x).to(full), back.sum(0, dtype=full)
        return torch.mm(back, w1).to(full), of_weights, of_w1, of_b1, of_w2, weights.T @ of_y, None, None


class _Routed(torch.autograd.Function):
    """Only the pairs that carry weight, sorted by expert: M small products instead of one large one."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any,  # noqa: ANN401 - untyped in torch
        x: Tensor,
        weights: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        keep: Tensor,
        scratch: Scratch,
    ) -> Tensor:
        expert, row = keep.T.nonzero(as_tuple=True)  # (P,), (P,) by expert, then by row
        counts: list[int] = torch.bincount(expert, minlength=weights.shape[1]).tolist()
        pair_weight, pair_x = weights[row, expert], x.index_select(0, row)  # (P,), (P, s)
        h = w1.shape[0] // weights.shape[1]
        hidden = scratch.take("hidden pairs", x, x.dtype, len(row), h)
        out = scratch.take("pairs", x, x.dtype, len(row), w2.shape[1])
        for m, pairs in _segments(counts):
            own = slice(m * h, (m + 1) * h)
            torch.addmm(b1[own], pair_x[pairs], w1[own].T, out=hidden[pairs]).relu_()
            torch.addmm(b2[m], hidden[pairs], w2[own], out=out[pairs])
        out.mul_(pair_weight[:, None])
        ctx.save_for_backward(pair_x, pair_weight, w1, w2, b2, expert, row, weights)
        ctx.counts, ctx.scratch, ctx.hidden = counts, scratch, hidden
        return out.new_zeros(x.shape[0], w2.shape[1]).index_add_(0, row, out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        pair_x, pair_weight, w1, w2, b2, expert, row, weights = ctx.saved_tensors
        of_y, hidden = grads[0], ctx.hidden  # (n, t), (P, h)
        pairs_t = ctx.scratch.take("pairs", of_y, of_y.dtype, len(row), w2.shape[1])
        g = torch.index_select(of_y, 0, row, out=pairs_t)  # (P, t)
        back = ctx.scratch.take("back pairs", of_y, of_y.dtype, *hidden.shape)  # (P, h)
        of_x = pair_x.new_empty(pair_x.shape)  # (P, s)
        of_w1, of_b1, of_w2, of_b2 = (torch.empty_like(w) for w in (w1, w1[:, 0], w2, b2))
        of_pair = torch.empty_like(pair_weight)
        h = hidden.shape[1]
        for m, pairs in _segments(ctx.counts):
            own = slice(m * h, (m + 1) * h)
            if pairs.start == pairs.stop:  # nobody asked this expert; products over nothing leave it untouched
                for gradient, part in ((of_w1, own), (of_b1, own), (of_w2, own), (of_b2, m)):
                    gradient[part] = 0
                continue
            weight = pair_weight[pairs, None]
            torch.mm(g[pairs], w2[own].T, out=back[pairs])
            of_pair[pairs] = (back[pairs] * hidden[pairs]).sum(1).addmv_(g[pairs], b2[m])
            of_b2[m] = weight[:, 0] @ g[pairs]
            back[pairs].mul_(weight).mul_(hidden[pairs] > 0)
            torch.mm((hidden[pairs] * weight).T, g[pairs], out=of_w2[own])
            torch.mm(back[pairs].T, pair_x[pairs], out=of_w1[own])
            of_b1[own] = back[pairs].sum(0)
            torch.mm(back[pairs], w1[own], out=of_x[pairs])
        whole_x = of_x.new_zeros(weights.shape[0], of_x.shape[1]).index_add_(0, row, of_x)
        of_weights = torch.zeros_like(weights)
        of_weights[row, expert] = of_pair
        return whole_x, of_weights, of_w1, of_b1, of_w2, of_b2, None, None


def _segments(counts: list[int]) -> Iterator[tuple[int, slice]]:
    """The pairs of every expert."""
    begin = 0
    for m, count in enumerate(counts):
        yield m, slice(begin, begin + count)
        begin += count
