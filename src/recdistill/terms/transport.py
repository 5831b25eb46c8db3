"""Which student layer learns from which teacher layer: exact transport, and masses that turn to what is cheap.

Chen et al., AdaRec, arXiv:2107.07173, as in the official code (called cost attention there); its parent BERT-EMD, Li
et al., EMNLP 2020, arXiv:2010.06133.

Letters: S student layers, T teacher layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from recdistill import rng
from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAPPINGS", "Attention", "attended", "exact_plan", "one_to_one", "one_to_one_plan"]

Attention = Literal["relative", "published", "bert-emd", "none"]
"""How masses are updated: see `attended`."""
MAPPINGS = ("left", "right", "left-jump", "right-jump", "random", "last", "skip", "uniform")
"""Of `one_to_one`."""
_SAME = {"last": "right", "skip": "left-jump", "uniform": "right-jump"}


def exact_plan(costs: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """The cheapest plan: `argmin_F sum F_ij d_ij` with rows summing to `student` and columns to `teacher`.

    A network simplex on the CPU, in double precision: at 4 x 8 it costs microseconds, and one copy from the device.

    Args:
        costs: (S, T) >= 0
        student: (S,) masses, > 0 with sum 1.
        teacher: (T,) masses, likewise.

    Returns:
        (S, T) on the device of `costs`, in its type, without a gradient: at an optimum the plan's own change does not
        change the cost (the envelope theorem).

    Raises:
        UsageError: POT is not installed.
    """
    try:
        import ot  # noqa: PLC0415 - it takes a second to import, and only a search needs it
    except ImportError:
        remedy = 'Install it: pip install "recdistill[search]", or choose a one-to-one mapping of layers'
        raise UsageError(
            problem("Exact transport between layers needs POT, which is not here", remedy=remedy)
        ) from None
    d, w, u = (np.ascontiguousarray(each.detach().double().cpu().numpy()) for each in (costs, student, teacher))
    plan = ot.emd(w / w.sum(), u / u.sum(), d)
    return torch.as_tensor(plan, dtype=costs.dtype, device=costs.device)


def attended(
    plan: Tensor, costs: Tensor, masses: Tensor, *, side: Literal["student", "teacher"], rule: Attention = "relative",
    temperature: float | None = None,
) -> Tensor:  # fmt: skip
    """New masses of one side: layers whose unit of mass travels cheaply gain.

    With `c_i = sum_j F_ij d_ij / w_i` the cost of a unit and `r_i = (sum_k c_k) / c_i`:

    * "published": `softmax(r / 10)`; r averages about the number of layers, so 10 is twice as sharp for 8 layers as
      for 4, and a cost near 0 sends the mass to one layer. A cost of exactly 0 leaves r at 0 (official code).
    * "relative": `softmax(r / mean(r) / 2)` with c clamped to a tenth of its mean: sharpness does not depend on the
      number of layers, and no layer takes all.
    * "bert-emd": `r / sum(r)`, BERT-EMD's rule.
    * "none": the masses stay.

    Args:
        plan: (S, T) the plan of this step.
        costs: (S, T) what it cost; for the teacher's side the official code takes the opposite divergence.
        masses: (S,) or (T,) of this side.
        side: whose masses.
        rule: see above.
        temperature: instead of the rule's 10 or 2.

    Returns:
        (S,) or (T,), sum 1.
    """
    if rule == "none":
        return masses
    unit = (plan * costs).sum(1 if side == "student" else 0) / masses  # c
    if rule == "relative":
        unit = unit.clamp(min=max(float(unit.mean()) / 10, 1e-30))
    ratio = torch.where(unit == 0, unit, unit.sum() / unit)  # r
    if rule == "bert-emd":
        return torch.where(ratio.sum() == 0, masses, ratio / ratio.sum())
    if rule == "published":
        return (ratio / (temperature or 10.0)).softmax(0)
    return (ratio / ratio.mean() / (temperature or 2.0)).softmax(0)


def one_to_one(name: str, students: int, teachers: int, *, seed: int = 0) -> tuple[int, ...]:
    """The teacher layer, from 0, of each student layer: the ablation baselines.

    With 4 and 8 layers "left" is 0123, "right" 4567, "left-jump" 0246, "right-jump" 1357; with 7 and 3 they are
    0000012, 0122222, 0011222, 0001122, in the order in which the official code lists them. "last", "skip" and "uniform"
    are what the field calls "right", "left-jump" and "right-jump". "random" is ordered, and distinct where there are
    enough teacher layers.

    Raises:
        UsageError: an unknown name.
    """
    if name not in MAPPINGS:
        raise UsageError(problem("Unknown mapping of layers", name, allowed=MAPPINGS))
    name = _SAME.get(name, name)
    extra, step, rest = teachers - students, teachers // students, students % teachers
    layers, run = range(students), max(students // teachers, 1)
    if name == "random":
        key = rng.key(seed, "mapping of layers")
        if extra >= 0:
            return tuple(sorted(rng.permutation(key, teachers)[:students].tolist()))
        return tuple(sorted(rng.integers(key, np.arange(students, dtype=np.int64), 1, teachers)[:, 0].tolist()))
    if extra >= 0:
        return {
            "left": tuple(layers),
            "right": tuple(extra + i for i in layers),
            "left-jump": tuple(step * i for i in layers),
            "right-jump": tuple(teachers - 1 - step * (students - 1 - i) for i in layers),
        }[name]
    return {
        "left": tuple(max(i + extra, 0) for i in layers),
        "right": tuple(min(i, teachers - 1) for i in layers),
        "left-jump": tuple(min(i // run, teachers - 1) for i in layers),
        "right-jump": tuple(max(i - rest, 0) // run for i in layers),
    }[name]


def one_to_one_plan(mapping: tuple[int, ...], teachers: int, like: Tensor) -> Tensor:
    """(S, T) with 1 / S at each pair of the mapping, in the type and on the device of `like`."""
    plan = like.new_zeros(len(mapping), teachers)
    plan[range(len(mapping)), mapping] = 1 / len(mapping)
    return plan
