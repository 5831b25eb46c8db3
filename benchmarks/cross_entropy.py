"""Exact cross-entropy over a large catalogue: time and peak memory of one forward and backward.

    python benchmarks/cross_entropy.py [--items 1000000] [--batch 256] [--length 50] [--dim 64] [--threads 1]
                                       [--device cpu] [--rows N]

Every position of the batch is a row: 256 x 50 = 12,800 rows x 1,000,000 items would be 51 GB of scores, and as much
again for their gradient. The bar is 8 GB in all, tables and gradients included. With `--rows` fewer rows are computed,
for a quick look at the time; memory is then not that of the bar. The plain form runs beside it on as many items as fit.
"""

from __future__ import annotations

import argparse
import resource
import sys
from time import perf_counter, process_time

import torch
import torch.nn.functional as F

from recdistill.evaluation.card import environment
from recdistill.losses.cross_entropy import cross_entropy

LIMIT = 8.0
PLAIN = 1 << 26  # scores that the plain form may hold


def peak(device: torch.device) -> float:
    """GB resident at most so far; of a GPU, allocated."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def step(vectors: torch.Tensor, items: torch.Tensor, target: torch.Tensor, *, plain: bool) -> float:
    """Forward and backward -> the mean loss."""
    vectors.grad = items.grad = None
    if plain:
        value = F.cross_entropy(vectors @ items.T, target, reduction="none")
    else:
        value = cross_entropy(vectors, items, target)
    value.mean().backward()
    return float(value.mean().detach())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device, rows = torch.device(asked.device), asked.rows or asked.batch * asked.length
    generator = torch.Generator(device).manual_seed(0)

    def drawn(n: int) -> torch.Tensor:
        return torch.randn(n, asked.dim, generator=generator, device=device).mul_(0.1).requires_grad_()

    vectors, items = drawn(rows), drawn(asked.items)
    target = torch.randint(asked.items, (rows,), generator=generator, device=device)
    began, spent = perf_counter(), process_time()
    loss = step(vectors, items, target, plain=False)
    seconds, cpu = perf_counter() - began, process_time() - spent
    print(f"{rows:,} rows x {asked.items:,} items, d = {asked.dim}: loss {loss:.4f}, {seconds:.1f} s, {cpu:.1f} CPU s")
    print(
        f"peak {peak(device):.2f} GB (bar {LIMIT:g}); the scores alone would be {rows * asked.items * 4 / 1e9:.1f} GB"
    )
    few = min(asked.items, max(1, PLAIN // rows))
    part = items[:few].detach().requires_grad_()
    for plain in (False, True, False, True):
        spent = process_time()
        step(vectors, part, target % few, plain=plain)
        print(f"{'plain' if plain else 'chunked':8} {few:,} items: {process_time() - spent:.2f} CPU s")
    where = environment(seed=0).model_dump()
    print(f"{asked.threads} threads, {where['cpu']}, torch {where['torch']}")


if __name__ == "__main__":
    main()
