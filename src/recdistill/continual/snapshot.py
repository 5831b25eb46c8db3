"""A model between two blocks: plain arrays and what they stand on, so that a stage is a function of its inputs.

Letters: U users, I items, d dims, n pairs.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recdistill.continual.settings import ModelSpec
from recdistill.data.csr import Csr
from recdistill.errors import CheckpointError, problem
from recdistill.models.growth import SIDES, grow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.evaluation.ranking import Ranker
    from recdistill.models.base import Recommender
    from recdistill.query import Side

__all__ = ["Snapshot"]

_VERSION = 1


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A model's weights, who of its rows was ever trained, and the interactions it reads."""

    spec: ModelSpec
    weights: Mapping[str, NDArray[np.float32]]
    """By parameter."""
    met_users: NDArray[np.bool_]
    """(U,) who had a training interaction in any block so far."""
    met_items: NDArray[np.bool_]
    """(I,)"""
    context: Csr
    """U x I: the graph of LightGCN, the rows that Mult-VAE encodes; empty for MF, which reads nothing."""
    moments: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, "NDArray[np.float32]"])
    """Adam's state, `<parameter>/<slot>`, where it is carried from block to block."""

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.met_users)

    @property
    def n_items(self) -> int:
        """I."""
        return len(self.met_items)

    def model(self, *, seed: int = 0) -> Recommender:
        """The model, on the CPU, with these weights; `seed` is of what it draws while it learns."""
        net = build(self.spec, self.context, seed=seed)
        net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in self.weights.items()})
        return net

    def ranker(self) -> Ranker:
        """What it serves."""
        return self.model().ranker()

    def standing_on(self, train: Csr) -> Snapshot:
        """The same weights over other interactions of the same users and items; over these too if it reads all."""
        return replace(self, context=_context(self.spec, train, self.context))

    def grown(self, train: Csr, *, seed: int) -> Snapshot:
        """With rows for all users and items of `train` (U' x I'), over its interactions.

        Old rows keep their numbers; new ones are drawn at random, and nobody of them is met. Adam's state grows by
        zeros: a new row has no past.
        """
        rows: dict[Side, int] = {"user": train.n_rows, "item": train.n_columns}
        sides = SIDES[self.spec.name]
        context = _context(self.spec, train, self.context)
        fresh = build(self.spec, context, seed=seed).state_dict()
        weights = {
            name: grow(value, fresh[name].numpy(), sides.get(name), rows) for name, value in self.weights.items()
        }
        moments: dict[str, NDArray[np.float32]] = {}
        for slot, value in self.moments.items():
            name = slot.partition("/")[0]
            blank = np.zeros((len(fresh[name]), *value.shape[1:]), np.float32) if value.ndim else value
            moments[slot] = grow(value, blank, sides.get(name) if value.ndim else None, rows)
        return replace(
            self,
            weights=weights,
            met_users=_longer(self.met_users, rows["user"]),
            met_items=_longer(self.met_items, rows["item"]),
            context=context,
            moments=moments,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the spec, by name, as `from_arrays` takes it."""
        return {
            **{f"weights/{name}": value for name, value in self.weights.items()},
            **{f"moments/{name}": value for name, value in self.moments.items()},
            "met/user": self.met_users,
            "met/item": self.met_items,
            "context/indptr": self.context.indptr,
            "context/indices": self.context.indices,
        }

    @classmethod
    def from_arrays(cls, spec: ModelSpec, arrays: Mapping[str, NDArray[Any]]) -> Snapshot:
        """What `arrays` gave; they may be mapped and read-only."""
        under = {
            part: {name.partition("/")[2]: value for name, value in arrays.items() if name.startswith(part + "/")}
            for part in ("weights", "moments")
        }
        items = arrays["met/item"]
        context = Csr(arrays["context/indptr"], arrays["context/indices"], len(items))
        return cls(spec, under["weights"], arrays["met/user"], items, context, under["moments"])

    @property
    def digest(self) -> str:
        """32 hex digits of all it holds."""
        digest = hashlib.blake2b(self.spec.model_dump_json().encode(), digest_size=16)
        for name, value in sorted(self.arrays().items()):
            digest.update(f" {name} {value.dtype.str} {value.shape} ".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def save(self, path: Path, *, about: Mapping[str, Any] | None = None) -> None:
        """Write one safetensors file, which appears whole or not at all; `about` is kept with it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = {"version": _VERSION, "spec": self.spec.model_dump(mode="json"), "about": dict(about or {})}
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        arrays = {name: np.asarray(value, order="C") for name, value in self.arrays().items()}
        save_file(arrays, beside, metadata={"recdistill": json.dumps(text, sort_keys=True)})
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> tuple[Snapshot, dict[str, Any]]:
        """What `save` wrote, and its `about`.

        Raises:
            CheckpointError: the file is broken or of another version.
        """
        try:
            with safe_open(path, "np") as opened:
                text = json.loads((opened.metadata() or {})["recdistill"])
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
            if text["version"] == _VERSION:
                return cls.from_arrays(ModelSpec(**text["spec"]), arrays), text["about"]
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            remedy = "Delete it, and the stage that made it runs again"
            raise CheckpointError(problem(f"The snapshot {path} cannot be read ({error})", remedy=remedy)) from error
        raise CheckpointError(problem(f"The snapshot {path} has another version", text["version"]))


def build(spec: ModelSpec, context: Csr, *, seed: int) -> Recommender:
    """A model of a spec over the interactions it reads, drawn at random."""
    from recdistill.models.lightgcn import LightGCN  # noqa: PLC0415
    from recdistill.models.mf import MF  # noqa: PLC0415
    from recdistill.models.vae import VAE  # noqa: PLC0415

    if spec.name == "mf":
        return MF(context.n_rows, context.n_columns, dim=spec.dim, init_std=spec.init_std, seed=seed)
    if spec.name == "lightgcn":
        return LightGCN(context, dim=spec.dim, layers=spec.layers, init_std=spec.init_std, seed=seed)
    return VAE(context, dim=spec.dim, bias_std=spec.bias_std, seed=seed)


def blank(spec: ModelSpec, train: Csr, *, past: Csr | None = None, seed: int) -> Snapshot:
    """A model drawn at random, which nobody trained; one that reads all blocks reads `past` too."""
    context = _context(spec, train, past)
    weights = {name: value.numpy().copy() for name, value in build(spec, context, seed=seed).state_dict().items()}
    return Snapshot(spec, weights, np.zeros(train.n_rows, np.bool_), np.zeros(train.n_columns, np.bool_), context)


def _context(spec: ModelSpec, train: Csr, past: Csr | None) -> Csr:
    """What a model reads once it learns from `train`, of what it read before."""
    if spec.name == "mf":
        return Csr.empty(train.n_rows, train.n_columns)
    if spec.reads is None or past is None:
        return train
    return train.union(past.widened(train.n_rows, train.n_columns))


def _longer(met: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    return np.concatenate([met, np.zeros(n - len(met), np.bool_)])
