"""Matrix factorisation: two tables and an inner product, no biases. Rendle et al., UAI 2009, arXiv:1205.2618.

Letters: U users, I items, d dims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from recdistill.knowledge.table import Table
from recdistill.knowledge.vectors import VectorView
from recdistill.knowledge.view import Kind
from recdistill.models.base import Recommender, model
from recdistill.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recdistill.data.interactions import Interactions
    from recdistill.query import Query

__all__ = ["MF", "MFSettings", "table"]

PAPER = "Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009, arXiv:1205.2618"


class MFSettings(Settings):
    """Matrix factorisation."""

    dim: int = Field(default=64, ge=1)
    """Width of the user and item vectors."""
    init_std: float = Field(default=0.01, gt=0)
    """Standard deviation of the initial vectors (DE-RRD's official code: 0.01)."""


class MF(Recommender):
    """Score `<p_u, q_i>`."""

    provides: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES, Kind.RANKS, Kind.VECTORS})
    kind: ClassVar[str] = "vectors"

    def __init__(self, n_users: int, n_items: int, *, dim: int, init_std: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        self.n_users, self.n_items, self.dim = n_users, n_items, dim
        generator = torch.Generator().manual_seed(seed)
        self.user = table(n_users, dim, std=init_std, generator=generator)
        self.item = table(n_items, dim, std=init_std, generator=generator)

    @override
    def view(self, query: Query) -> VectorView:
        return VectorView(self.user, self.item, query, source="the matrix factorisation")

    @override
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {"user": self.user.detach().cpu().numpy(), "item": self.item.detach().cpu().numpy()}


def table(rows: int, dim: int, *, std: float, generator: torch.Generator) -> Table:
    """(rows, dim) vectors drawn from N(0, std^2)."""
    return Table(torch.empty(rows, dim).normal_(0, std, generator=generator))


@model("mf", settings=MFSettings, paper=PAPER)
def build(settings: MFSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> MF:
    """MF needs no graph: `train` is not used."""
    del train
    return MF(n_users, n_items, dim=settings.dim, init_std=settings.init_std, seed=seed)
