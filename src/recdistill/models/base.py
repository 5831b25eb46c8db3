"""What every recommender answers, and the table of them all.

Letters: U users, I items, d dims.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from torch import nn

from recdistill.data.batches import InteractionBatches
from recdistill.evaluation.ranking import ranker
from recdistill.objective import Batches
from recdistill.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from recdistill.data.draws import Taken
    from recdistill.data.interactions import Interactions
    from recdistill.evaluation.ranking import Ranker
    from recdistill.knowledge.view import Kind, View
    from recdistill.query import Query
    from recdistill.runtime import Precision
    from recdistill.settings import Settings

    S = TypeVar("S", bound=Settings)
    Build = Callable[[S, int, int, int, Interactions], "Recommender"]

__all__ = ["MODELS", "LearningBatches", "ModelEntry", "Recommender", "model"]


class LearningBatches(Batches, Protocol):
    """Batches that know what every user already has."""

    taken: Taken


class Recommender(nn.Module, ABC):
    """A model over rows 0..U-1 of users and 0..I-1 of items."""

    provides: ClassVar[frozenset[Kind]]
    """What its views can answer."""
    kind: ClassVar[str]
    """Which ranker serves its arrays: "vectors", "neumf"."""
    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)
    """What the products of its layers can be computed in while it is in training."""
    precision: Precision = "float32"
    """What they are computed in. Parameters, losses, evaluation and what is served are float32 always."""
    ordered: ClassVar[bool] = False
    """Whether the order of a user's interactions matters to it."""
    n_users: int
    n_items: int

    @abstractmethod
    def view(self, query: Query) -> View:
        """What it knows of a batch of queries; lazy, and part of the graph while gradients are on."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """What a bundle stores and a ranker reads; shares memory with the parameters where they are on the CPU."""

    def batches(
        self, train: Interactions, *, size: int, negatives: int, seed: int, device: torch.device
    ) -> LearningBatches:
        """What it learns from: `size` interactions a step; a model of another kind says otherwise."""
        return InteractionBatches(train, size=size, negatives=negatives, seed=seed, device=device)

    def ranker(self) -> Ranker:
        """The numpy ranker of what the model is now: what is evaluated is what will be served."""
        return ranker(self.kind, self.arrays())

    @property
    def n_parameters(self) -> int:
        """Numbers the model holds, frozen or not."""
        return sum(p.numel() for p in self.parameters())


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A registered model: its settings, its paper, and the function that builds it."""

    name: str
    settings: type[Settings]
    paper: str
    build: Build[Any]


MODELS: Registry[ModelEntry] = Registry("model")


def model(name: str, *, settings: type[S], paper: str) -> Callable[[Build[S]], Build[S]]:
    """Register `build(settings, n_users, n_items, seed, train) -> Recommender` under `name`."""

    def register(build: Build[S]) -> Build[S]:
        MODELS.add(name, ModelEntry(name, settings, paper, build))
        return build

    return register
