"""What training gives: a model that recommends, is measured and is saved.

Letters: P popular items.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import bundle
from recdistill.data.matching import same_tables
from recdistill.errors import UsageError, problem
from recdistill.methods import METHODS
from recdistill.models import MODELS
from recdistill.recipes.evaluate import AFTER_TRAINING
from recdistill.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from recdistill.bundle.manifest import Manifest
    from recdistill.data.interactions import Interactions
    from recdistill.evaluation.ranking import Ranker
    from recdistill.knowledge.view import Knows
    from recdistill.models.base import Recommender
    from recdistill.serve.arguments import Ids
    from recdistill.serve.recommendations import Recommendations
    from recdistill.teachers.stored import Files
    from recdistill.training.stop import Stop
    from recdistill.training.watch import Report

__all__ = ["Trained"]

_POPULAR = 1000
"""Items kept for users nobody knows."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and how it came to be."""

    model: Recommender
    name: str
    """The model's registered name."""
    method: str
    train: Interactions
    report: Report
    settings: Mapping[str, Any]
    """Everything that was set, as plain values: what makes the run repeatable."""
    stop: Stop = field(repr=False)
    notes: tuple[str, ...] = ()
    """What was worth knowing before training, one sentence each."""
    teacher: Trained | Files | Knows | None = field(default=None, repr=False)
    """Who taught it: asked what it had seen of held-out data, never saved."""

    def ranker(self) -> Ranker:
        """What is evaluated and served."""
        return self.model.ranker()

    def at_best(self, metric: str) -> Ranker:
        """The ranker of the best epoch of one validation metric (DE-RRD reports each cut-off at its own best epoch).

        Raises:
            UsageError: training did not stop by that metric.
        """
        state = self.stop.state_of(metric)
        if state is None:
            raise UsageError(problem("There is no best epoch of that metric", metric, allowed=self.stop.metrics))
        model = deepcopy(self.model)
        model.load_state_dict(state)
        return model.ranker()

    def recommend(
        self,
        users: Ids,
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Ids | Mapping[Any, Ids] | None = None,
        candidates: Ids | None = None,
    ) -> Recommendations:
        """The best items for users by external id; arguments and errors as in `Service.recommend`."""
        return self._service.recommend(users, k, filter_seen=filter_seen, exclude=exclude, candidates=candidates)

    def save(
        self,
        path: Path | str,
        *,
        seen: Interactions | None = None,
        lineage: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        overwrite: bool = False,
    ) -> Manifest:
        """Write a bundle: what `recommend` and a server load, without the teacher, without torch to read it.

        Args:
            path: the folder; it appears whole or not at all.
            seen: the log before it was split: what its users have already is not recommended to them. None leaves out
                the training data alone, so that what was held out can be recommended, as it is while measuring; give
                the log when the bundle is to be served.
            lineage: where it came from, beside method and seed.
            metrics: what was measured of it.
            overwrite: replace a bundle that is there.

        Raises:
            UsageError: something is there and `overwrite` is off, or is no bundle; `seen` is of other users or items.
        """
        train = self.train.csr()
        if seen is not None:
            remedy = "Give the log that was split into train, valid and test"
            same_tables("`seen`", seen, "the training data", self.train, remedy=remedy)
        return bundle.save(
            Path(path),
            kind=self.model.kind,
            arrays=self.model.arrays(),
            users=self.train.users,
            items=self.train.items,
            seen=train if seen is None else train.union(seen.csr()),
            trained=train,
            popular=self._popular,
            model=self.name,
            settings=dict(self.settings),
            lineage={
                "method": self.method,
                "seed": self.settings["seed"],
                **({"users": AFTER_TRAINING} if self.model.ordered else {}),
                **(lineage or {}),
            },
            metrics=dict(metrics or {}),
            citations=self.citations,
            overwrite=overwrite,
        )

    @property
    def citations(self) -> tuple[str, ...]:
        """The papers of model and method."""
        paper = METHODS[self.method].paper
        return tuple(dict.fromkeys([MODELS[self.name].paper, paper.bibtex()]))

    @cached_property
    def _service(self) -> Service:
        seen = self.train.csr()
        return Service(self.ranker(), self.train.users, self.train.items, seen, self._popular, trained=seen)

    @cached_property
    def _popular(self) -> NDArray[np.int64]:
        often = np.bincount(self.train.item, minlength=self.train.n_items)
        popular = np.argsort(-often, kind="stable")[:_POPULAR].astype(np.int64)  # (P,)
        return popular[often[popular] > 0]
