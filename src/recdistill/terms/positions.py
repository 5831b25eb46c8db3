"""Which positions of histories a term compares, and what its rows are.

Letters: Q histories, T time, P asked positions, n compared positions, L layers, d dims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from recdistill.query import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.query import Query
    from recdistill.runtime import How

__all__ = ["Per", "Positions", "rows", "taken"]

Positions = Literal["asked", "all"]
""" "asked": those the query names (`at`), or the end of each history; "all": every one, padding too."""
Per = Literal["position", "history"]
""" "position": a row a position, so that a mean is over positions; "history": its positions summed (AdaRec's code)."""


def taken(states: Tensor, query: Query, positions: Positions) -> Tensor:
    """(L, Q, T, d) -> (L, n, d)."""
    if positions == "all":
        return states.flatten(1, 2)
    if query.at is None:
        return states[:, :, -1]
    return states[:, query.at[:, 0], query.at[:, 1]]


def rows(value: Tensor, query: Query, positions: Positions, per: Per, how: How) -> Rows:
    """(n,) one value per compared position -> a row for each, or for each history.

    Where rows are to be summed, beside a base loss that is summed over the asked positions, they are scaled so that
    their sum is their mean times the number of asked positions: the ratio of the two is that of their means.
    """
    asked = len(query) if query.at is None else len(query.at)
    if per == "history" and positions == "all":
        value = value.view(len(query), -1).sum(1)
    elif per == "history" and query.at is not None:
        value = torch.zeros_like(value[:1]).expand(len(query)).index_add(0, query.at[:, 0], value)
    if how == "sum" and len(value) not in {0, asked}:
        value = value * (asked / len(value))
    return Rows(value, of="queries")
