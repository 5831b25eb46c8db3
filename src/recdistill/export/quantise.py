"""Encoders with weights of 8 bits, and what they cost in quality.

Dynamic quantisation: weights are held as int8, a scale for each output channel; what enters a product is brought to 8
bits when it is there, one scale a tensor (Jacob et al., CVPR 2018, arXiv:1712.05877, as in onnxruntime). Convolutions
are first written as one product of the items side by side, for int8 products are the ones that processors are fast at.
Embeddings, norms and softmax stay in float32. Seven of the eight bits are used: with all of them, processors without
VNNI saturate sums, and answer otherwise than the one this was measured on.

Letters: Q histories, T time, C channels in, D channels out, k kernel.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.bundle.encoder import Encoder
from recdistill.errors import UsageError, problem
from recdistill.evaluation.encoded import EncodedRanker
from recdistill.evaluation.evaluate import evaluate
from recdistill.export.parity import parity

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from recdistill.bundle.encoder import EncoderPart
    from recdistill.data.interactions import HeldOut
    from recdistill.models.sequential import Sequential

__all__ = ["measured", "quantised"]

Proto = Any  # of an untyped library


def quantised(part: EncoderPart) -> EncoderPart:
    """The same encoder in int8, not measured yet.

    Raises:
        UsageError: nothing in it is a product with weights.
    """
    onnx, tools = importlib.import_module("onnx"), importlib.import_module("onnxruntime.quantization")
    model: Proto = onnx.load_from_string(part.graph)
    _as_products(model)
    weights = {one.name for one in model.graph.initializer}
    if not any(node.op_type == "MatMul" and node.input[1] in weights for node in model.graph.node):
        what = "This encoder has no products with weights, so there is nothing to hold in int8"
        raise UsageError(problem(what, remedy="Keep it in float32"))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        out = Path(folder) / "encoder.onnx"
        tools.quantize_dynamic(
            model,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=tools.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        small: Proto = onnx.load_from_string(out.read_bytes())
    del small.metadata_props[:]
    entry = part.entry.model_copy(update={"precision": "int8"})
    return replace(part, graph=small.SerializeToString(deterministic=True), entry=entry)


def measured(
    before: EncoderPart,
    after: EncoderPart,
    model: Sequential,
    held: HeldOut,
    *,
    metrics: Sequence[str] = ("recall@10", "ndcg@10"),
) -> EncoderPart:
    """`after`, with what it loses against `before` on held-out data in its entry.

    Args:
        before: in float32.
        after: in int8.
        model: what both came from.
        held: whose histories are asked; the validation part, so that the test is still unseen.
        metrics: of full ranking.
    """
    item = model.served_items().detach().cpu().numpy()  # (I, d)
    stored = model.histories if held.histories is None else held.histories

    def found(part: EncoderPart) -> dict[str, float]:
        encode = Encoder(part.graph, part.entry, part.table).encode
        return evaluate(EncodedRanker(encode, item, stored), held, metrics).means

    one, other = found(before), found(after)
    near = parity(Encoder(after.graph, after.entry, after.table), model)
    table: dict[str, Any] = {
        "held": held.name,
        "users": len(held.queries),
        "float32": one,
        "int8": other,
        "lost": {name: one[name] - other[name] for name in one},
        "bytes": [len(before.graph), len(after.graph)],
        "identical_lists": near.identical / near.histories,
        "difference": near.difference,
    }
    entry = after.entry.model_copy(update={"measured": {**before.entry.measured, "int8": table}})
    return replace(after, entry=entry)


def _as_products(model: Proto) -> None:
    """Write every plain convolution as a product, in place."""
    onnx = importlib.import_module("onnx")
    weights = {one.name: one for one in model.graph.initializer}
    nodes: list[Proto] = []
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in weights:
            nodes.append(node)
            continue
        attribute = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        kernel = onnx.numpy_helper.to_array(weights[node.input[1]])  # (D, C, k)
        plain = (
            kernel.ndim == 3
            and attribute.get("group", 1) == 1
            and list(attribute.get("strides", [1])) == [1]
            and attribute.get("auto_pad", b"NOTSET") == b"NOTSET"
        )
        nodes.extend(_product(model, node, kernel, attribute) if plain else [node])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [one for one in model.graph.initializer if one.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _product(model: Proto, node: Proto, kernel: np.ndarray[Any, Any], attribute: dict[str, Any]) -> list[Proto]:
    """(Q, C, T) -> (Q, D, T'): the items that a position reads side by side, times (k C, D)."""
    onnx = importlib.import_module("onnx")
    name, (_, _, k) = node.output[0], kernel.shape
    apart, (left, right) = attribute.get("dilations", [1])[0], attribute.get("pads", [0, 0])
    out: list[Proto] = []

    def fixed(label: str, value: np.ndarray[Any, Any]) -> str:
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}.{label}"))
        return f"{name}.{label}"

    def step(operator: str, inputs: list[str], label: str, **attributes: Any) -> str:  # noqa: ANN401 - onnx's
        out.append(onnx.helper.make_node(operator, inputs, [label], name=label, **attributes))
        return label

    x = step("Transpose", [node.input[0]], f"{name}.by_time", perm=[0, 2, 1])  # (Q, T, C)
    if left or right:
        x = step("Pad", [x, fixed("pads", np.array([0, left, 0, 0, right, 0]))], f"{name}.padded")
    if k > 1:
        axis, span = fixed("axis", np.array([1])), (k - 1) * apart
        views: list[str] = []
        for place in range(k):
            begin, end = place * apart, place * apart - span
            bounds = fixed(f"from{place}", np.array([begin])), fixed(f"to{place}", np.array([end or 2**62]))
            views.append(step("Slice", [x, *bounds, axis], f"{name}.view{place}"))
        x = step("Concat", views, f"{name}.beside", axis=2)  # (Q, T', k C)
    flat = np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, kernel.shape[0]))  # (k C, D)
    x = step("MatMul", [x, fixed("weight", flat)], f"{name}.product")
    if len(node.input) > 2:
        x = step("Add", [x, node.input[2]], f"{name}.sum")
    step("Transpose", [x], name, perm=[0, 2, 1])
    return out


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the tool's advice to prepare a model that is prepared."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
