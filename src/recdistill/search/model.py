"""Cells as sequential models: the supernet that a search trains, and the student that is derived from it.

Chen et al., AdaRec, arXiv:2107.07173, as in the official code: embedded histories (with learned positions), a chain of
cells, an output layer. There padding has a vector that is learned and that convolutions read (`pads`), and a class of
its own that is never a target; the class is left out here.

Letters: U users, I items, C width, Q histories, T time, L most positions, S cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.errors import CheckpointError, RecdistillError, SettingsError, problem
from recdistill.methods.adarec import ADAREC
from recdistill.models.base import model
from recdistill.models.sequence_view import SequenceView
from recdistill.models.sequential import Ending, Sequential
from recdistill.query import Query
from recdistill.runtime import drawing
from recdistill.search.batches import PartBatches
from recdistill.search.cells import Chain, States
from recdistill.search.derive import Design, inherit, named
from recdistill.search.fold import fold
from recdistill.search.norm import Over
from recdistill.search.packing import Packing
from recdistill.search.space import SPACES, Scored
from recdistill.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.histories import Histories
    from recdistill.data.interactions import Interactions
    from recdistill.models.base import LearningBatches
    from recdistill.search.sampling import Architecture, Choice

__all__ = ["Cells", "CellsSettings", "Frame", "Supernet", "SupernetView", "of_design"]


class Frame(Settings):
    """What stands around the cells, of supernet and student alike."""

    dim: int = Field(default=64, ge=1)
    """C, width of item vectors and states."""
    length: int = Field(default=50, ge=1)
    """L, the most items of a history that are read."""
    positions: bool = True
    """Whether a learned vector of its place, counted from the end, is added to each item's."""
    norm: bool = True
    """Whether embedded histories go through a layer norm before the first cell, as in SASRec (official code: no)."""
    tied: bool = True
    """Whether the output vectors are the input vectors."""
    bias: bool = False
    """Whether items have a bias."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of the embedded histories and of the last states."""
    pads: bool = False
    """Whether padding has a learned vector that its neighbours read (official code), or is nothing."""
    over: Over = "real"
    """Which positions make the statistics of norms: "real", or "all" (official code)."""
    every: bool = False
    """Learn from all of a long history, cut into windows, rather than from its last `length` + 1 items."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial vectors: small, for Adam moves each by about `lr` a step."""
    scored: Scored = "every"
    """Where the next item is predicted in training: at "every" position, or the "last" of a history alone."""
    leak: Literal["refuse", "allow"] = "refuse"
    """What is done about operators that read their own label: "allow" is for comparison with the official code."""


class CellsSettings(Frame):
    """A chain of cells: what a search has found, or one by name. Its loss is "cross-entropy"."""

    space: str = "causal"
    """The search space that the operators are of."""
    cell: str = "nextitnet"
    """ "all-none", "all-skip", "all-<operator>", "random-<seed>", "nextitnet" or "sasrec" (where there is
    attention); unless `operators` says more."""
    cells: int = Field(default=4, ge=1)
    """S, how many there are."""
    operators: tuple[tuple[str, ...], ...] = ()
    """Names of operators, one for each edge; one row for all cells, or one for each."""
    exit: bool = False
    """Whether the last cell ends in a norm of its own, as where depth was searched."""
    start: Path | None = None
    """A safetensors file of a supernet's weights to begin with; fresh ones when left out."""
    design: Path | None = Field(default=None, exclude=True)
    """A `cell.json` that a search wrote, in place of `space`, `cells`, `operators` and `exit`. It is read at once into
    these, and `dim` where that is left out; then nothing depends on the file."""

    @model_validator(mode="after")
    def _of_file(self) -> CellsSettings:
        if self.design is None:
            return self
        given = self.model_fields_set
        if twice := sorted(given & {"space", "cell", "cells", "operators", "exit"}):
            what = f"The design {str(self.design)!r} says all of its cells, and {' and '.join(twice)} too is given"
            raise SettingsError(problem(what, remedy=f"Take out 'design', or {' and '.join(twice)}"))
        design = _read(self.design)
        found = _of(design) | ({} if "dim" in given else {"dim": design.width}) | {"design": None}
        for name, value in found.items():  # the settings are frozen from here on
            object.__setattr__(self, name, value)
        given.update(found)
        return self

    def designed(self) -> Design:
        """The design that these settings are."""
        space = SPACES[self.space]
        if not self.operators:
            return named(self.cell, space, width=self.dim, depth=self.cells)
        return Design.of(space, self.operators, width=self.dim, depth=self.cells, exit=self.exit)


def _read(path: Path) -> Design:
    """A design from a file, with an error that names it."""
    try:
        return Design.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        what = f"The design {str(path)!r} cannot be read ({error})"
    except RecdistillError as error:
        what = f"{str(path)!r} is not a design: {error}"
    raise SettingsError(problem(what, remedy="Give the cell.json of a search, or one of its cells/*.json")) from None


def _of(design: Design) -> dict[str, Any]:
    """The settings that say a design's cells."""
    names = design.operators if len(design.cells) > 1 else design.operators[:1]
    return {"space": design.space, "cells": design.depth, "operators": names, "exit": design.exit}


class Cells(Sequential):
    """A chain of derived cells between item vectors."""

    source: ClassVar[str] = "the model of cells"

    def __init__(self, histories: Histories, n_items: int, chain: Chain, frame: Frame, *, seed: int = 0) -> None:
        """Build around `chain`, of width `frame.dim`."""
        with drawing(seed, torch.device("cpu")):
            super().__init__(
                histories,
                n_items,
                dim=frame.dim,
                length=frame.length,
                tied=frame.tied,
                bias=frame.bias,
                every=frame.every,
                init_std=frame.init_std,
            )
            places = torch.empty(frame.length, frame.dim).normal_(0, frame.init_std) if frame.positions else None
            padding = torch.empty(frame.dim).normal_(0, frame.init_std) if frame.pads else None
        self.frame, self.chain = frame, chain
        self.position = None if places is None else nn.Parameter(places)  # (L, C)
        self.padding = None if padding is None else nn.Parameter(padding)  # (C,)
        self.norm = nn.LayerNorm(frame.dim, eps=1e-8) if frame.norm else nn.Identity()

    @property
    @override
    def body(self) -> nn.Module:
        return self.chain

    @override
    def batches(
        self, train: Interactions, *, size: int, negatives: int, seed: int, device: torch.device
    ) -> LearningBatches:
        if self.frame.scored == "every":
            return super().batches(train, size=size, negatives=negatives, seed=seed, device=device)
        return PartBatches(
            train,
            length=self.length,
            size=size,
            scored="last",
            negatives=negatives,
            every=self.every,
            seed=seed,
            device=device,
        )

    @override
    def parts(self, history: Tensor) -> list[tuple[Tensor | None, int]]:
        """In training norms are of the whole batch, and where padding is read it must be there."""
        whole = self.training or self.frame.pads
        return [(None, history.shape[1])] if whole else super().parts(history)

    @override
    def layers(self, vectors: Tensor, real: Tensor, *, both_ways: bool) -> list[Tensor]:
        del both_ways  # there is no such cell here; a space says which way it reads
        time = vectors.shape[1]
        if self.padding is not None:  # as many as there can be: convolutions read them
            vectors = F.pad(vectors + ~real[:, :, None] * self.padding, (0, 0, self.length - time, 0))
            vectors[:, : self.length - time] = self.padding
            real = F.pad(real, (self.length - time, 0))
        if self.position is not None:
            vectors = vectors + self.position[self.length - vectors.shape[1] :]
        vectors = self.norm(vectors)
        x = self._dropped(vectors if self.frame.pads else vectors * real[:, :, None])
        states = self._states(x, real)
        return [each[:, -time:] for each in (x, *states.layers, self._dropped(states.output))]

    @override
    def ending(self) -> Ending:
        """With norms folded into convolutions.

        Raises:
            UsageError: it is a supernet.
        """
        return _FoldedEnding(self)

    def _states(self, x: Tensor, real: Tensor) -> States:
        choice = self._choice()
        packs = self.training and self.frame.over == "real" and not self.frame.pads
        packing = Packing.of(real, self.chain.gap(choice)) if packs else None
        if packing is None:
            return self.chain(x, real, choice)
        states = self.chain(packing.packed(x), packing.real, choice)
        layers = torch.stack([packing.unpacked(layer, x) for layer in states.layers])
        return States(packing.unpacked(states.output, x), layers)

    def _choice(self) -> Choice | None:
        return None

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.frame.dropout, training=self.training)


class _FoldedEnding(Ending):
    """With the norms of the cells folded into their convolutions."""

    def __init__(self, model: Cells) -> None:
        super().__init__(model)
        self.folded = fold(model.chain)
        self.length, self.pads = model.length, model.frame.pads
        self.position, self.padding, self.norm = model.position, model.padding, model.norm

    @override
    def states(self, vectors: Tensor, real: Tensor) -> Tensor:
        time = vectors.shape[1]
        if self.padding is not None:  # as many as there can be: convolutions read them
            wide = F.pad(real, (self.length - time, 0))  # (Q, L)
            vectors = F.pad(vectors, (0, 0, self.length - time, 0)) + ~wide[:, :, None] * self.padding
            real = wide
        if self.position is not None:
            vectors = vectors + self.position[self.length - vectors.shape[1] :]
        vectors = self.norm(vectors)
        return self.folded(vectors if self.pads else vectors * real[:, :, None], real)


class Supernet(Cells):
    """All operators on every edge, and the architecture: what is sampled in training, its arg-max otherwise."""

    source: ClassVar[str] = "the supernet"

    def __init__(
        self, histories: Histories, n_items: int, architecture: Architecture, frame: Frame, *, seed: int = 0
    ) -> None:
        """Build the cells of `architecture`."""
        chain = Chain.supernet(
            architecture.space,
            cells=architecture.cells,
            width=frame.dim,
            over=frame.over,
            pads=frame.pads,
            depth=architecture.depth is not None,
            seed=seed,
        )
        super().__init__(histories, n_items, chain, frame, seed=seed)
        self.architecture = architecture
        self.choice: Choice | None = None

    def sample(self, clock: Clock, *, paths: int) -> None:
        """Draw the architecture of the next step."""
        self.choice = self.architecture.sample(clock, paths=paths)

    @override
    def view(self, query: Query) -> SupernetView:
        return SupernetView(self, query, self._choice())

    def derived(self, design: Design) -> Cells:
        """A student of `design` with these weights, statistics included; a copy.

        Raises:
            SettingsError: the supernet has no weights for it.
        """
        chain = design.build(over=self.frame.over, pads=self.frame.pads)
        student = Cells(self.histories, self.n_items, chain, self.frame).to(self.item.device)
        inherit(chain, self.chain)
        _copy_frame(student, {name: value.detach() for name, value in self.named_parameters()})
        return student.eval()

    @override
    def _choice(self) -> Choice:
        if self.training:
            assert self.choice is not None  # noqa: S101 - a pass samples before each of its steps
            return self.choice
        return self.architecture.best()


class SupernetView(SequenceView):
    """What a supernet makes of a query with one choice."""

    def __init__(self, model: Supernet, query: Query, choice: Choice) -> None:
        """`choice` is what the view is of."""
        super().__init__(model, query)
        self.choice = choice
        self.architecture = model.architecture
        self.cells = model.architecture.cells


def of_design(design: Design, frame: Frame, *, start: Path | None = None) -> CellsSettings:
    """The settings of a student of `design` inside `frame`."""
    around: dict[str, Any] = frame.model_dump(include=set(Frame.model_fields)) | {"dim": design.width}
    return CellsSettings(**around, **_of(design), start=start)


@model("cells", settings=CellsSettings, paper=f"{ADAREC.authors}, {ADAREC.title}, {ADAREC.year}, {ADAREC.url}")
def build(settings: CellsSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> Cells:
    """A user is the history of the training interactions.

    Raises:
        UsageError: an operator reads the future and every position is scored.
    """
    del n_users
    design = settings.designed()
    if settings.leak == "refuse":
        SPACES[design.space].check(settings.scored, {name for row in design.operators for name in row})
    chain = design.build(over=settings.over, pads=settings.pads, seed=rng.key(seed, "cells"))
    student = Cells(train.histories(), n_items, chain, settings, seed=seed)
    if settings.start is not None:
        _begin(student, settings.start)
    return student


def _begin(student: Cells, path: Path) -> None:
    try:
        there = load_file(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(problem(f"The weights to begin with cannot be read ({error})", str(path))) from error
    wanted = dict(student.state_dict())
    for name, value in wanted.items():
        if name not in there or there[name].shape != value.shape:
            has = tuple(there[name].shape) if name in there else "nothing"
            what = f"The weights {path} have {has} for {name!r}, and the student needs {tuple(value.shape)}"
            raise CheckpointError(problem(what, remedy="Begin with fresh weights, or with those of its own search"))
    student.load_state_dict({name: there[name] for name in wanted})


@torch.no_grad()
def _copy_frame(student: Cells, have: dict[str, Tensor]) -> None:
    for name, value in student.named_parameters():
        if not name.startswith("chain."):
            value.copy_(have[name])
