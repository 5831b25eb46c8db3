"""What other libraries mean by their metrics, as data over our one implementation: `like="rectools"`.

Each was compared with the library's real output on a small case with ties, users without targets, more targets than K
and lists shorter than K (tests/golden/peers, a maker script a library). What a library has no name for is refused, so
that no figure is called by a name it does not have there.

Letters: Q users, P users of a mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UsageError, problem
from recdistill.evaluation.metrics import Discount, Over, Rules
from recdistill.evaluation.protocol import sampled
from recdistill.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from recdistill.evaluation.metrics import Metric

__all__ = ["CONVENTIONS", "Convention", "Users", "convention", "settled"]


class Users(StrEnum):
    """Whom a mean runs over."""

    WITH_TARGET = "users with a target; one without a list counts 0"
    ANSWERED = "users with a target and a list"
    LISTED = "users with a list; one without a target counts 0"
    EVERY_ROW = "all users of the log; one without a target counts 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """One library's meaning of the metrics."""

    name: str
    """As in `--like`."""
    library: str
    """With the version, or the commit, it was compared with."""
    metrics: Mapping[str, str]
    """Our name of each metric it has -> its own."""
    users: Users = Users.WITH_TARGET
    users_of: Mapping[str, Users] = field(default_factory=dict[str, Users])
    """Metrics whose mean runs over other users."""
    rules: Rules = field(default_factory=Rules)
    decimals: int | None = None
    """To how many it rounds means; figures here keep all."""
    samples: bool = False
    """Whether it ranks one target among sampled items, not all items."""
    seen: str = "train and valid"
    """What its ranking for the test leaves out: "train and valid", or "train"."""
    ties: str = ""
    """Which of equal scores it puts first; lists here put the smaller item row first."""

    def counted(self, metric: str) -> Users:
        """Whom the mean of one metric runs over."""
        return self.users_of.get(metric, self.users)

    def check(self, metrics: Sequence[Metric], protocol: str) -> None:
        """Refuse what the library does not measure.

        Raises:
            UsageError: a metric it does not have, or a protocol that is not its own.
        """
        wrong = next((metric for metric in metrics if metric.name not in self.metrics), None)
        if wrong is not None:
            what = f"{self.library} does not have this metric"
            raise UsageError(problem(what, str(wrong), allowed=[f"{name}@{wrong.k}" for name in self.metrics]))
        if (sampled(protocol) is None) == self.samples:
            remedy = f"Write the protocol {'sampled(499)' if self.samples else 'full'}"
            what = f"The protocol is not that of {self.library}"
            raise UsageError(problem(what, protocol, remedy=remedy))

    def words(self, metrics: Sequence[Metric]) -> str:
        """One sentence for below a table: whose figures these are, and whom they run over."""
        by_users: dict[Users, list[str]] = {}
        for metric in metrics:
            by_users.setdefault(self.counted(metric.name), []).append(str(metric))
        if len(by_users) == 1:
            over = next(iter(by_users)).value
        else:
            over = "; ".join(f"{', '.join(names)}: {users.value}" for users, names in by_users.items())
        theirs = ", ".join(dict.fromkeys(self.metrics[metric.name] for metric in metrics))
        return f"like {self.library} ({theirs}), over {over}"


CONVENTIONS: Registry[Convention] = Registry("convention of metrics")
"""Name -> what the library means."""

for _one in (
    Convention(
        name="recbole",
        library="RecBole 1.2.1",
        metrics={
            "recall": "Recall",
            "precision": "Precision",
            "hr": "Hit",
            "mrr": "MRR",
            "map": "MAP",
            "ndcg": "NDCG",
        },
        decimals=4,
        ties="as torch.topk leaves them",
    ),
    Convention(
        name="replay",
        library="RePlay 0.22.0",
        metrics={
            "recall": "Recall",
            "precision": "Precision",
            "hr": "HitRate",
            "mrr": "MRR",
            "map": "MAP",
            "ndcg": "NDCG",
        },
        ties="by the recommendations' score",
    ),
    Convention(
        name="rectools",
        library="RecTools 0.19.0",
        metrics={
            "recall": "Recall",
            "precision": "Precision",
            "hr": "HitRate",
            "mrr": "MRR",
            "map": "MAP",
            "ndcg": "NDCG",
        },
        rules=Rules(map=Over.TARGETS, ideal=Over.CUTOFF),
        ties="by the recommendations' rank, which has none",
    ),
    Convention(
        name="recommenders",
        library="recommenders 1.2.1",
        metrics={"recall": "recall_at_k", "precision": "precision_at_k", "map": "map_at_k", "ndcg": "ndcg_at_k"},
        users=Users.ANSWERED,
        users_of={"ndcg": Users.WITH_TARGET},
        ties="by the predictions' order",
    ),
    Convention(
        name="implicit",
        library="implicit 0.7.3",
        metrics={"precision": "precision", "map": "map", "ndcg": "ndcg"},
        rules=Rules(precision=Over.POOLED),
        ties="as its heap leaves them",
    ),
    Convention(
        name="lenskit",
        library="LensKit 2025.8.1",
        metrics={
            "recall": "Recall",
            "recall_min": "Recall",
            "precision": "Precision",
            "hr": "Hit",
            "mrr": "RecipRank",
            "ndcg": "NDCG",
        },
        users=Users.LISTED,
        rules=Rules(recall=Over.ACHIEVABLE, precision=Over.LISTED, discount=Discount.AT_LEAST_1),
        ties="by the lists' order",
    ),
    Convention(
        name="kds",
        library="KDs a3a7a64",
        metrics={"recall": "Recall", "ndcg": "NDCG"},
        users=Users.EVERY_ROW,
        seen="train",
        ties="as torch.topk leaves them",
    ),
    Convention(
        name="de-rrd",
        library="DE-RRD 97b6bf6",
        metrics={"hr": "H", "ndcg": "N", "mrr": "M"},
        decimals=4,
        samples=True,
        ties="as an unstable sort leaves them; here the middle of the tied ranks",
    ),
):
    CONVENTIONS.add(_one.name, _one)


def convention(like: str | Convention) -> Convention:
    """A convention by its name.

    Raises:
        UnknownName: no such convention; the message offers the nearest.
    """
    return like if isinstance(like, Convention) else CONVENTIONS[like]


def settled(
    found: Convention,
    metrics: Sequence[Metric],
    values: Sequence[NDArray[np.float64]],
    *,
    targeted: NDArray[np.bool_],
    listed: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], list[NDArray[np.float64]]]:
    """Values of users -> the users of the library's means, and values whose mean is the library's figure.

    Where the means of several metrics run over different users (recommenders), all get the users of the widest; a
    narrower one has 0 for those it leaves out and the others weighted up by P / (how many it counts).

    Args:
        found: the convention.
        metrics: what was measured.
        values: for each metric (Q,) values; whatever stands where a user has no target counts 0.
        targeted: (Q,) who has a target.
        listed: (Q,) who has a list that is not empty.

    Returns:
        (Q,) who is counted, and for each metric (P,) values.
    """
    masks = {
        Users.WITH_TARGET: targeted,
        Users.ANSWERED: targeted & listed,
        Users.LISTED: listed,
        Users.EVERY_ROW: np.ones_like(targeted),
    }
    each = [masks[found.counted(metric.name)] for metric in metrics]
    kept = np.logical_or.reduce(each)
    out: list[NDArray[np.float64]] = []
    for mask, value in zip(each, values, strict=True):
        weight = kept.sum() / max(int(mask.sum()), 1)
        out.append((np.where(mask & targeted, value, 0.0) * weight)[kept])
    return kept, out
