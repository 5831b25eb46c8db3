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
from recdistill.errors import RecdistillError, UsageError, problem
from recdistill.methods import METHODS
from recdistill.models import MODELS
from recdistill.models.sequential import Sequential
from recdistill.recipes.encoder import Asked, can_export, encoder
from recdistill.recipes.evaluate import AFTER_TRAINING
from recdistill.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from recdistill.bundle.encoder import EncoderPart
    from recdistill.bundle.manifest import Manifest
    from recdistill.data.interactions import HeldOut, Interactions
    from recdistill.evaluation.ranking import Ranker
    from recdistill.knowledge.view import Knows
    from recdistill.models.base import Recommender
    from recdistill.serve.arguments import Ids
    from recdistill.serve.recommendations import Recommendations
    from recdistill.teachers.ensemble import Members
    from recdistill.teachers.stored import Elsewhere
    from recdistill.teachers.trajectory import Steps
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
    teacher: Trained | Elsewhere | Members | Steps | Knows | None = field(default=None, repr=False)
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

    def recommend_after(
        self,
        histories: Mapping[Any, Ids] | Sequence[Ids],
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Ids | Mapping[Any, Ids] | None = None,
        candidates: Ids | None = None,
    ) -> Recommendations:
        """The best items to follow histories; arguments and errors as in `Service.recommend_after`."""
        asked = self._service
        return asked.recommend_after(histories, k, filter_seen=filter_seen, exclude=exclude, candidates=candidates)

    def save(
        self,
        path: Path | str,
        *,
        seen: Interactions | None = None,
        lineage: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        encoder: Asked = "auto",
        valid: HeldOut | None = None,
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
            encoder: of a sequential model, the part that reads new histories: "float32", "int8", or "none"; "auto" is
                "float32" where the extra `onnx` is installed. Where an automatic one fails, the bundle is saved
                without, and its lineage says why.
            valid: held-out data that the loss of "int8" is measured on.
            overwrite: replace a bundle that is there.

        Raises:
            UsageError: something is there and `overwrite` is off, or is no bundle; `seen` is of other users or items;
                an encoder is asked of a model that has none, or its packages are missing.
            BundleError: the encoder does not answer as the model does.
        """
        train = self.train.csr()
        if seen is not None:
            remedy = "Give the log that was split into train, valid and test"
            same_tables("`seen`", seen, "the training data", self.train, remedy=remedy)
        part, why = self._encoder(encoder, valid)
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
                **({"encoder": why} if why else {}),
                **(lineage or {}),
            },
            metrics=dict(metrics or {}),
            citations=self.citations,
            encoder=part,
            overwrite=overwrite,
        )

    @property
    def citations(self) -> tuple[str, ...]:
        """The papers of model and method."""
        paper = METHODS[self.method].paper
        return tuple(dict.fromkeys([MODELS[self.name].paper, paper.bibtex()]))

    def _encoder(self, asked: Asked, valid: HeldOut | None) -> tuple[EncoderPart | None, str | None]:
        """What goes into the bundle, and why it does not where it was not asked for by name."""
        if asked == "none":
            return None, None
        if asked != "auto" or not isinstance(self.model, Sequential):
            return (None, None) if asked == "auto" else (encoder(self.model, asked, valid=valid), None)
        if not can_export():
            return None, "not exported: the extra 'onnx' is not installed"
        try:
            return encoder(self.model, "float32"), None
        except RecdistillError as error:  # a trained model is not lost to what can be done again
            return None, f"not exported: {error}"

    @cached_property
    def _service(self) -> Service:
        model, train = self.model, self.train.csr()
        parts = self.train.users, self.train.items, train, self._popular
        if not isinstance(model, Sequential):
            return Service(self.ranker(), *parts, trained=train)
        return Service(self.ranker(), *parts, trained=train, encode=model.encode, histories=model.histories)

    @cached_property
    def _popular(self) -> NDArray[np.int64]:
        often = np.bincount(self.train.item, minlength=self.train.n_items)
        popular = np.argsort(-often, kind="stable")[:_POPULAR].astype(np.int64)  # (P,)
        return popular[often[popular] > 0]
