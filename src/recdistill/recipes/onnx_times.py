"""What sequential models cost to serve in onnxruntime: body, head and end to end, all in turns.

Time does not depend on the weights, so models need not be trained. Letters: B histories, T time, d dims, I items.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recdistill import bundle
from recdistill.bundle.encoder import Encoder
from recdistill.errors import BundleError, problem
from recdistill.evaluation.ranking import VectorRanker
from recdistill.recipes.encoder import encoder
from recdistill.search.latency import timed
from recdistill.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recdistill.data.interactions import Interactions
    from recdistill.models.sequential import Sequential

__all__ = ["PARTS", "onnx_times", "times_of_bundles"]

PARTS = ("body", "head", "end to end")
"""The encoder with the rows of its table gathered; scores of all items and the best K; a service's whole answer."""

Times = dict[str, dict[str, dict[str, float]]]


def onnx_times(
    models: Mapping[str, Sequential],
    train: Interactions,
    *,
    batches: Sequence[int] = (1, 256),
    length: int = 50,
    rounds: int = 31,
    threads: int = 1,
) -> Times:
    """Export models that may be untrained, and time them as `times_of_bundles` does.

    Raises:
        BundleError: an exported encoder does not answer as its model does.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Path] = {}
        for name, model in models.items():
            paths[name] = Path(folder) / str(len(paths))
            model.eval()
            bundle.save(
                paths[name],
                kind=model.kind,
                arrays=model.arrays(),
                users=train.users,
                items=train.items,
                seen=train.csr(),
                popular=np.arange(min(10, train.n_items)),
                model="untrained",
                settings={},
                lineage={},
                metrics={},
                citations=[],
                encoder=encoder(model),
            )
        return times_of_bundles(paths, batches=batches, length=length, rounds=rounds, threads=threads)


def times_of_bundles(
    paths: Mapping[str, Path],
    *,
    batches: Sequence[int] = (1, 256),
    length: int = 50,
    rounds: int = 31,
    threads: int = 1,
) -> Times:
    """Median milliseconds of batches of histories, all bundles in turns, so that a slow minute slows all.

    Args:
        paths: bundles with encoders, by name.
        batches: B, how many histories are answered at once.
        length: T, items of a history.
        rounds: turns.
        threads: of the encoder and of the scores.

    Returns:
        Name -> B as text -> `PARTS`.

    Raises:
        BundleError: a bundle has no encoder.
    """
    out: Times = {name: {} for name in paths}
    services = {name: Service.from_bundle(path, threads=threads) for name, path in paths.items()}
    for size in batches:
        works: dict[tuple[str, str], Callable[[], object]] = {}
        for name, path in paths.items():
            for what, work in _works(path, services[name], size, length, threads).items():
                works[name, what] = work
        taken = timed(list(works.values()), torch.device("cpu"), rounds=rounds)
        for (name, what), ms in zip(works, taken, strict=True):
            out[name].setdefault(str(size), {})[what] = round(ms, 4)
    return out


def _works(path: Path, service: Service, size: int, length: int, threads: int) -> dict[str, Callable[[], object]]:
    """What is timed of one bundle, on histories that are the same for every bundle of as many items."""
    part, ranker = bundle.open(path).encoder, service.ranker
    if part is None or not isinstance(ranker, VectorRanker):
        remedy = "Save it with an encoder: Trained.save(..., encoder='float32')"
        raise BundleError(problem(f"The bundle {path} holds no encoder", remedy=remedy))
    reads = Encoder(part.graph, part.entry, part.table, threads=threads)
    rows = np.random.default_rng(0).integers(0, len(service.items), (size, length))  # (B, T)
    clicks: list[Any] = [service.items.external(row).tolist() for row in rows]
    vectors, places = reads.vectors(rows), np.arange(size)  # (B, d)
    return {
        "body": lambda: reads.vectors(rows),
        "head": lambda: ranker.asked_by(vectors).top_k(places, 10),
        "end to end": lambda: service.recommend_after(clicks, 10),
    }
