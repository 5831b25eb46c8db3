"""What designs are held to after the last epoch: what they may cost, and the search's own loss on held-out data.

Letters: I items, m users with a target, n targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from recdistill.data.interactions import HeldOut
    from recdistill.evaluation.encoded import EncodedRanker
    from recdistill.search.cost import Costs
    from recdistill.search.derive import Design
    from recdistill.search.sampling import Architecture
    from recdistill.search.settings import SearchSettings
    from recdistill.search.space import Space

__all__ = ["allowed", "cross_entropy", "loss"]

_SCORES = 1 << 24
"""At a time."""


@torch.no_grad()
def allowed(architecture: Architecture, costs: Costs, *, dearer: float) -> float:
    """What cells may cost that alpha would choose among: its mean cost, and a share more of what is not fixed.

    The cost of the arg-max would be that of an accident as long as alpha is nearly uniform.
    """
    depth = architecture.depth_probabilities()
    mean = float(costs.expected(architecture.probabilities(), depth, architecture.cells))
    return costs.fixed + (mean - costs.fixed) * (1 + dearer)


def loss(
    ranker: EncodedRanker, design: Design, valid: HeldOut, *, settings: SearchSettings, costs: Costs, space: Space
) -> float:
    """What the search minimises but the distillation: `(1 - g) CE + b price`, in nats; a budget has no price.

    Args:
        ranker: of a student of that design.
        design: whose cells have a price.
        valid: where the cross-entropy is asked.
        settings: of the search.
        costs: its price list.
        space: of the design.
    """
    task = (1 - settings.distillation.weight) * cross_entropy(ranker, valid)
    if settings.budget is not None:
        return task
    cost = costs.of(design, space) - costs.fixed
    whole = design.depth if costs.unit == "price" else costs.dearest(settings.cells, len(space.edges))  # as `Price` has
    return task + settings.price_weight * cost / whole


def cross_entropy(ranker: EncodedRanker, valid: HeldOut) -> float:
    """Of what is held out among all items, after the histories of its stage: a mean over (n,) targets."""
    if valid.histories is not None:
        ranker = ranker.following(valid.histories)
    users, targets = valid.queries, valid.targets
    full = ranker.settled()
    some, total, n = max(1, _SCORES // len(full.item)), 0.0, 0
    for at in range(0, len(users), some):
        asked = users[at : at + some]
        scores = full.user[asked] @ full.item.T  # (m, I)
        top = scores.max(axis=1, keepdims=True)
        of_all = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1, dtype=np.float64))  # (m,)
        held = targets.select(asked)
        row = np.repeat(np.arange(len(asked)), held.degrees)
        total += float((of_all[row] - scores[row, held.indices]).sum())
        n += len(row)
    return total / n
