"""The only file that knows devices and processes.

One process on the CPU or on one GPU. Many processes are not here yet: `reduce` is the one place they would change.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from recdistill.query import Rows

__all__ = ["CPU", "How", "Precision", "Runtime", "drawing", "products"]

How = Literal["mean", "sum"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where tensors live and how rows become one number."""

    device: torch.device

    @classmethod
    def of(cls, device: str = "auto") -> Runtime:
        """A runtime from "auto" (the first GPU that is visible, else the CPU), "cpu", "cuda" or "cuda:1".

        No environment variable is ever set: CUDA_VISIBLE_DEVICES is the user's.

        Raises:
            UsageError: the device is not of that form, or is not there.
        """
        visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device == "auto":
            return cls(torch.device("cuda:0" if visible else "cpu"))
        kind, _, index = device.partition(":")
        if kind not in {"cpu", "cuda"} or (index and not index.isdigit()):
            raise UsageError(problem("Unknown device", device, allowed=["auto", "cpu", "cuda", "cuda:<index>"]))
        if kind == "cuda" and int(index or 0) >= visible:
            there = f"{visible} GPU(s) visible to torch {torch.__version__}"
            msg = problem(f"The device is not there ({there})", device, remedy="Use device = 'auto' or 'cpu'")
            raise UsageError(msg)
        return cls(torch.device(device))

    def reduce(self, rows: Rows, how: How) -> Tensor:
        """(n,) rows -> one number: the sum, or the mean over all rows of all processes; 0 when there are none."""
        return rows.value.sum() / (max(rows.value.shape[0], 1) if how == "mean" else 1)


CPU = Runtime(torch.device("cpu"))


@contextmanager
def drawing(key: int | None, device: torch.device) -> Generator[None]:
    """Let torch's own draws (dropout) inside be a function of `key`, and leave its generators as they were.

    None draws from torch's generators as they stand.
    """
    if key is None:
        yield
        return
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(key)
        yield


def products(precision: Precision, device: torch.device) -> torch.autocast:
    """Compute the matrix products and convolutions inside in `precision`; "float32" leaves them as they are."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
