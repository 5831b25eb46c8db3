"""DE's mixture of experts, one step forward and backward: a plain form, ours dense, ours routed, over the temperature.

    python benchmarks/experts.py [--data ../shared/data] [--threads 2] [--repeat 5] [--warm 10] [--json FILE]
                                 [--taus 1 .5 .3 .2 .1 .05 .03 .01] [--dropped 1e-2 1e-3] [--quick]

Teacher (200 dims), student (20) and experts are trained for `--warm` epochs on CiteULike first, so that vectors, gates
and losses are those of a run; `--quick` takes a small made-up log and small widths. For one batch of users and items:

    plain    every expert for itself, results stacked to (n, t, M) and weighted, by autograd: the official form
    dense    every expert in two products, in float32 and bfloat16
    routed   only pairs of an entity and an expert that carry weight, at each `--dropped`

and for each temperature: pairs kept, relative change of the loss and of the gradient of the gates' logits against the
float32 dense form, seconds, GFLOP/s. The floor is the step's arithmetic at the measured rate of large products.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from recdistill import rng
from recdistill.data.batches import InteractionBatches
from recdistill.data.sources import read
from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.evaluation.card import environment
from recdistill.methods import METHODS, Setting
from recdistill.models.mf import MF
from recdistill.recipes.train import TrainSettings, fit
from recdistill.runtime import Runtime
from recdistill.settings import parse
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions
from recdistill.terms.expert_match import ExpertMatch
from recdistill.terms.mixture import Experts, Scratch, mixture
from recdistill.training.optim import optimiser
from recdistill.training.trainer import fit as loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Side:
    """One side of a batch: vectors, gates and experts as a run has them."""

    def __init__(self, term: ExpertMatch, target: Tensor, x: Tensor, share: Tensor, noise: Tensor) -> None:
        self.target, self.x, self.share = target.detach(), x.detach().clone().requires_grad_(), share
        self.experts = Experts(*(p.detach().clone().requires_grad_() for p in (term.w1, term.b1, term.w2, term.b2)))
        choice = torch.addmm(term.gate_bias, self.target, term.gate_weight.T).softmax(1)
        self.logits = ((choice + 1e-10).log() + noise).detach().requires_grad_()  # (n, M)
        self.scratch = Scratch()

    @property
    def gflop(self) -> float:
        """Forward and backward of the two layers of every expert."""
        (n, s), t = self.x.shape, self.target.shape[1]
        return 6e-9 * n * len(self.experts.w1) * (s + t)

    def loss(self, tau: float, form: Callable[[Side, Tensor], Tensor]) -> Tensor:
        """Summed over entities."""
        rebuilt = form(self, (self.logits / tau).softmax(1))
        return (self.share * (self.target - rebuilt).square().sum(1)).sum()

    def clear(self) -> None:
        """Forget gradients."""
        for leaf in (self.x, self.logits, *self.experts):
            leaf.grad = None


def plain(side: Side, weights: Tensor) -> Tensor:
    """The official form."""
    m, e = weights.shape[1], side.experts
    h = len(e.w1) // m
    parts = [slice(k * h, (k + 1) * h) for k in range(m)]
    outputs = [torch.relu(side.x @ e.w1[o].T + e.b1[o]) @ e.w2[o] + e.b2[k] for k, o in enumerate(parts)]
    stacked = torch.stack(outputs, 2)  # (n, t, M)
    return (stacked * weights[:, None, :].expand_as(stacked)).sum(2)


def ours(**how: float | str) -> Callable[[Side, Tensor], Tensor]:
    """`mixture` with options."""
    return lambda side, weights: mixture(side.x, weights, side.experts, scratch=side.scratch, **how)  # type: ignore[arg-type]


def step(sides: list[Side], tau: float, form: Callable[[Side, Tensor], Tensor]) -> tuple[float, Tensor]:
    """The loss, and the gradients of the gates' logits, flattened."""
    for side in sides:
        side.clear()
    total = torch.stack([side.loss(tau, form) for side in sides]).sum()
    total.backward()
    return total.item(), torch.cat([side.logits.grad.flatten() for side in sides if side.logits.grad is not None])


def rate(low: torch.dtype, *, repeat: int) -> float:
    """GFLOP/s of large products."""
    n = 1536
    a, b = (torch.randn(n, n).to(low) for _ in range(2))
    out = torch.empty(n, n, dtype=low)
    return max(2e-9 * n**3 / seconds(lambda: torch.mm(a, b, out=out)) for _ in range(repeat))


def seconds(run: Callable[[], object]) -> float:
    """Of one call."""
    begin = perf_counter()
    run()
    return perf_counter() - begin


def prepare(data: Path | None, warm: int) -> list[Side]:
    """Train teacher, student and experts for a while; one batch of both sides."""
    if data is None:
        parts = split(planted(users=400, items=300, interactions=8_000, seed=1), "leave-random-out")
        wide, narrow, experts = 40, 8, 10
    else:
        parts, wide, narrow, experts = split(read(data, echo=None), "given"), 200, 20, 30
    train, device = parts.train, torch.device("cpu")
    teacher = Live(
        fit("mf", train, dim=wide, training=TrainSettings(epochs=2 * warm, device="cpu")).model, seen=train.csr()
    )
    student = MF(train.n_users, train.n_items, dim=narrow, seed=1)
    batches = InteractionBatches(train, size=1024, seed=1, device=device)
    setting = Setting(student, batches, FromInteractions(), batches.taken, train.n_users, 1, teacher)
    still = {"experts": experts, "precision": "bfloat16"}
    passes = METHODS["de"].build(parse(METHODS["de"].settings, still), setting)
    loop(
        student,
        passes,
        epochs=warm,
        optimise=lambda parameters: optimiser("adam", parameters, lr=1e-3, weight_decay=1e-3),
        runtime=Runtime(device),
    )
    batch = next(iter(batches.epoch(warm)))
    view, theirs = student.view(batch.query), teacher.view(batch.query)
    sides: list[Side] = []
    for name, term in passes[0].objective.named_terms():
        if isinstance(term, ExpertMatch):
            side, who = ("user", batch.users) if name == "de_users" else ("item", batch.items)
            noise = rng.gumbel(rng.key(1, f"benchmark {side}"), who.ids, experts)
            sides.append(Side(term, theirs.entities(side, who.ids), view.entities(side, who.ids), who.share, noise))
    return sides


def main() -> None:
    """Measure and print."""
    default = os.environ.get("RECDISTILL_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--warm", type=int, default=10)
    parser.add_argument("--taus", type=float, nargs="+", default=[1, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.01])
    parser.add_argument("--dropped", type=float, nargs="+", default=[1e-2, 1e-3])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    sides = prepare(None if asked.quick else asked.data / "citeulike_derrd", asked.warm)
    gflop = sum(side.gflop for side in sides)
    rates = {str(low): rate(low, repeat=asked.repeat) for low in (torch.float32, torch.bfloat16)}
    floor = gflop / rates["torch.float32"]
    print(
        f"{' + '.join(str(len(side.x)) for side in sides)} entities, {gflop:.1f} GFLOP dense, products at "
        + ", ".join(f"{name.removeprefix('torch.')} {r:.0f} GFLOP/s" for name, r in rates.items())
        + f"; float32 floor {floor * 1e3:.1f} ms"
    )
    forms = {"plain": plain, "dense float32": ours(), "dense bfloat16": ours(precision="bfloat16")}
    forms |= {f"routed {dropped:g}": ours(dropped=dropped) for dropped in asked.dropped}
    rows: list[dict[str, float | str]] = []
    print(
        f"{'tau':>5} {'form':16} {'kept':>7} {'loss':>9} {'gates':>9} "
        f"{'ms':>8} {'x floor':>8} {'x dense':>8} {'GFLOP/s':>8}"
    )
    for tau in asked.taus:
        loss, gates = step(sides, tau, forms["dense float32"])
        best = dict.fromkeys(forms, math.inf)
        for _ in range(asked.repeat):
            for name, form in forms.items():
                best[name] = min(best[name], seconds(partial(step, sides, tau, form)))
        for name, form in forms.items():
            found, of_gates = step(sides, tau, form)
            dropped = float(name.split()[1]) if name.startswith("routed") else 0.0
            kept = [(side.logits / tau).softmax(1) >= dropped / side.logits.shape[1] for side in sides]
            row: dict[str, float | str] = {
                "tau": tau,
                "form": name,
                "kept": sum(int(k.sum()) for k in kept) / sum(k.numel() for k in kept),
                "loss_change": abs(found - loss) / loss,
                "gates_change": float((of_gates - gates).norm() / gates.norm()),
                "seconds": best[name],
                "of_floor": best[name] / floor,
                "of_dense": best[name] / best["dense float32"],
                "gflops": gflop / best[name],
            }
            rows.append(row)
            print(
                f"{tau:5g} {name:16} {row['kept']:7.1%} {row['loss_change']:9.1e} {row['gates_change']:9.1e} "
                f"{best[name] * 1e3:8.1f} {row['of_floor']:8.2f} {row['of_dense']:8.2f} {row['gflops']:8.0f}"
            )
    where = environment(seed=1).model_dump()
    print(f"{asked.threads} threads, {where['cpu']}, torch {where['torch']}")
    if asked.json:
        asked.json.write_text(
            json.dumps({"rows": rows, "rates": rates, "gflop": gflop, "environment": where}, indent=2)
        )


if __name__ == "__main__":
    main()
