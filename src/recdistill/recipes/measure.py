"""`rd.evaluate`: one system on held-out data, whether it was trained here or elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from recdistill.data.interactions import HeldOut, Interactions, Split
from recdistill.data.matching import same_tables
from recdistill.errors import UsageError, problem
from recdistill.evaluation.conventions import convention
from recdistill.evaluation.evaluate import evaluate as measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.evaluation.conventions import Convention
    from recdistill.evaluation.evaluate import Cold, Evaluation, Held, Negatives
    from recdistill.evaluation.metrics import Metric
    from recdistill.evaluation.ranking import Ranker
    from recdistill.recipes.trained import Trained

__all__ = ["as_seen_by", "check_held", "evaluate", "fits"]


def evaluate(
    system: Trained | Ranker,
    held: Held,
    metrics: str | Sequence[str | Metric] = ("recall@10", "ndcg@10"),
    *,
    protocol: str = "full",
    candidates: Negatives | None = None,
    cold: Cold = "zero",
    like: str | Convention | None = None,
) -> Evaluation:
    """Measure a system on held-out data.

    Args:
        system: what `fit` or `distill` returned, or any ranker over the rows of the log.
        held: the test (or validation) part of a split.
        metrics: a name with a cut-off, "ndcg@10", or several.
        protocol: "full" ranks all items outside `held.seen`; "sampled(499)" ranks the one target among 499 candidates.
        candidates: of the sampled protocol, one row a user; the other held-out item is not among them.
        cold: users the ranker cannot serve count 0 ("zero"), or are left out ("drop").
        like: another library's convention of metrics, "rectools", "lenskit", ... (docs/metrics.md).

    Raises:
        UnknownName: a metric or convention that does not exist.
        UsageError: training data given to be measured on, a system trained on other users or items, a protocol that
            does not exist or does not fit the candidates or the targets.
        DataError: nothing to measure: no user has a target (or none is served, with `cold="drop"`).
    """
    from recdistill.recipes.trained import Trained  # noqa: PLC0415 - rankers from files need no torch

    check_held(held)
    ranker = system.ranker() if isinstance(system, Trained) else system
    if isinstance(system, Trained):
        fits(f"The model {system.name!r}", system, held)
    return measured(ranker, held, metrics, protocol=protocol, candidates=candidates, cold=cold, like=like)


def fits(what: str, system: Trained, held: Held) -> None:
    """Refuse to measure a trained model on held-out data of other users or items."""
    if isinstance(held, HeldOut):
        remedy = "Measure it on the split it was trained on; a saved bundle is matched by ids: `recdistill evaluate`"
        same_tables(what, system.train, f"the {held.name} data", held, remedy=remedy)


def as_seen_by(like: str | Convention | None, held: HeldOut, valid: HeldOut) -> HeldOut:
    """The held-out part as another library ranks it: KDs lets validation items compete at the test.

    Args:
        like: the convention; None for ours.
        held: the part that is measured.
        valid: the validation part of the same split, which leaves out training items alone.
    """
    if like is None or held.name != "test" or convention(like).seen != "train":
        return held
    return replace(held, seen=valid.seen)


def check_held(held: object) -> None:
    """Refuse what nothing is held out of."""
    if isinstance(held, Interactions | Split):
        remedy = "Give the test (or valid) part: `split(log).test`"
        what = "A system is measured on the held-out part of a split"
        raise UsageError(problem(what, type(held).__name__, remedy=remedy))
