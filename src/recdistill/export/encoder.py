"""The encoder of a sequential model as ONNX: what its bundle reads new histories with.

The graph is traced by torch.onnx from `Sequential.ending`, with free batch and length; `bundle.encoder` says what goes
in and out. It is checked against the model on real histories before anybody gets it.

Letters: U users, I items, d dims, Q histories, T time.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch

from recdistill.bundle.encoder import Encoder, EncoderPart
from recdistill.bundle.manifest import EncoderEntry
from recdistill.errors import BundleError, UsageError, problem
from recdistill.export.parity import parity

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    from numpy.typing import NDArray

    from recdistill.models.sequential import Sequential

__all__ = ["can_export", "encoder", "input_table", "traced"]

OPSET = 20
"""Of the operators in the graph; onnxruntime reads it since 1.17."""

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def can_export() -> bool:
    """Whether everything that export needs is installed."""
    return all(find_spec(name) is not None for name in _NEEDED)


def encoder(model: Sequential, *, k: int = 10, sample: int = 256, seed: int = 0) -> EncoderPart:
    """A float32 encoder for a bundle, found to answer as the model does.

    Args:
        model: in whatever mode; it is asked in evaluation.
        k: of the lists that have to be identical.
        sample: how many of its histories are compared, besides cut and lengthened ones.
        seed: of the choice.

    Raises:
        UsageError: a package is missing, or the model is no derived one.
        BundleError: the graph does not answer as the model; see `parity`.
    """
    graph = traced(model)
    name, table = input_table(model)
    n = sum(p.numel() for p in _weights(model))
    entry = EncoderEntry(
        table=name,
        width=model.dim,
        gives=model.dim + (model.bias is not None),
        length=model.reads,
        precision="float32",
        parameters=n,
        measured={},
    )
    made = Encoder(graph, entry, table, where=f"The exported encoder of {model.source}")
    found = parity(made, model, k=k, sample=sample, seed=seed).checked()
    entry = entry.model_copy(update={"measured": {"parity": found.plain()}})
    return EncoderPart(graph, entry, table, model.histories.ends(model.reads))


def traced(model: Sequential) -> bytes:
    """The graph alone, unchecked: an ONNX file with inputs `vectors` and `real`, and output `vector`.

    Raises:
        UsageError: a package is missing.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        what = f"Exporting an encoder needs {', '.join(missing)}, which is not installed"
        raise UsageError(problem(what, remedy='Install it: pip install "recdistill[onnx]"'))
    training = model.training
    model.eval()
    try:
        ending = model.ending().eval()
        if model.item.device.type != "cpu":
            ending = copy.deepcopy(ending).cpu()
        free = torch.export.Dim.DYNAMIC
        axes = {0: free, 1: free} if model.reads > 1 else {0: free}
        asked = (torch.randn(3, min(5, model.reads), model.dim), torch.ones(3, min(5, model.reads), dtype=torch.bool))
        with torch.no_grad(), _quiet(), _explained(model.source):
            program = torch.onnx.export(
                ending,
                asked,
                dynamo=True,
                dynamic_shapes=(axes, axes),
                input_names=["vectors", "real"],
                output_names=["vector"],
                opset_version=OPSET,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    finally:
        model.train(training)
    assert program is not None  # noqa: S101 - of the exporter that is used here
    return _bare(program.model_proto)


def input_table(model: Sequential) -> tuple[Literal["input", "item"], NDArray[np.float32]]:
    """Which array of a bundle has the input vectors, and that array: "item" where they are the output vectors too."""
    if model.out is None:
        return "item", model.served_items().detach().cpu().numpy()
    return "input", model.item.detach().cpu().numpy()


def _weights(model: Sequential) -> list[torch.Tensor]:
    tables = {id(table) for table in (model.item, model.out, model.bias)}
    return [p for p in model.parameters() if id(p) not in tables]


def _bare(proto: Any) -> bytes:  # noqa: ANN401 - of an untyped library
    """Without what tells of the machine it was made on: paths and traces of source code."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    graph = proto.graph
    graph.doc_string = ""
    del graph.value_info[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    importlib.import_module("onnx.checker").check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


@contextlib.contextmanager
def _explained(source: str) -> Generator[None]:
    try:
        yield
    except Exception as error:
        first = " ".join(str(error.__cause__ or error).split())[:400]
        remedy = "Its `ending` must be made of operators that torch.onnx knows, for any batch and length"
        raise BundleError(
            problem(f"The encoder of {source} cannot be written as ONNX: {first}", remedy=remedy)
        ) from error


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the exporter's own remarks: its errors say enough."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
