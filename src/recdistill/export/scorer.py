"""A whole recommender as one ONNX graph: rows in, the best items out.

Of factor models: `user` (Q,) int64 rows. Of sequential models, whose bundles hold an encoder: `history` (Q, T) int64
item rows, oldest first, -1 = padding on the left. Both take `k` (1,) int64, and give `items` (Q, k) int64 rows and
`scores` (Q, k) float32. The tables are inside; ids stand beside the graph, in row order.

Letters: U users, I items, d dims, Q queries, T time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.bundle.encoder import runtime
from recdistill.errors import BundleError, UsageError, problem
from recdistill.evaluation.tables import taken
from recdistill.export.agreement import Agreement, K, compared
from recdistill.export.tables import vectors_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.bundle import Bundle
    from recdistill.evaluation.vectors import VectorRanker

__all__ = ["scorer", "scorer_agreement"]

_OPSET, _IR = 20, 9
_LIMIT = (1 << 31) - (1 << 24)
"""Bytes of tables: protobuf holds less than 2 GiB."""
_AT_ONCE = 64

Proto = Any  # of an untyped library


def scorer(opened: Bundle) -> bytes:
    """The graph, unchecked.

    Raises:
        UsageError: onnx is missing, the model scores by other things than vectors, or its tables are too large.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError:
        remedy = 'Install it: pip install "recdistill[onnx]"'
        raise UsageError(problem("Writing a graph needs onnx, which is not installed", remedy=remedy)) from None
    user, item = vectors_of(opened)
    make: Any = onnx.helper.make_node
    nodes, weights = _queries(onnx, opened, user) if opened.encoder is None else _histories(onnx, opened)
    weights["item_by_dim"] = np.ascontiguousarray(item.T)
    if sum(array.nbytes for array in weights.values()) > _LIMIT:
        remedy = "Export vectors, or float16 or int8 for recdistill itself"
        raise UsageError(
            problem("The tables are too large for one ONNX file", allowed="less than 2 GiB", remedy=remedy)
        )
    nodes += [
        make("MatMul", ["vector", "item_by_dim"], ["all_scores"]),
        make("TopK", ["all_scores", "k"], ["scores", "items"], axis=1),
    ]
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto
    asked = value("user", kind.INT64, ["Q"]) if opened.encoder is None else value("history", kind.INT64, ["Q", "T"])
    graph = onnx.helper.make_graph(
        nodes,
        "recommender",
        [asked, value("k", kind.INT64, [1])],
        [value("items", kind.INT64, ["Q", "K"]), value("scores", kind.FLOAT, ["Q", "K"])],
        [onnx.numpy_helper.from_array(array, name) for name, array in sorted(weights.items())],
    )
    opset = onnx.helper.make_opsetid("", _OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR, producer_name="recdistill")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _queries(onnx: Proto, opened: Bundle, user: NDArray[np.float32]) -> tuple[list[Proto], dict[str, NDArray[Any]]]:
    del opened
    return [onnx.helper.make_node("Gather", ["users", "user"], ["vector"])], {"users": user}


def _histories(onnx: Proto, opened: Bundle) -> tuple[list[Proto], dict[str, NDArray[Any]]]:
    """What looks the items of a history up, and the bundle's own encoder behind it."""
    part: Any = opened.encoder
    inner: Proto = onnx.load_from_string(part.graph)
    make: Any = onnx.helper.make_node
    table = taken(part.table, part.scale, slice(None))[:, : part.entry.width]
    weights: dict[str, NDArray[Any]] = {
        "inputs": np.ascontiguousarray(table),
        "first_row": np.array(0, np.int64),
        "last_axis": np.array([2], np.int64),
    }
    nodes: list[Proto] = [
        make("GreaterOrEqual", ["history", "first_row"], ["real"]),
        make("Max", ["history", "first_row"], ["rows"]),
        make("Gather", ["inputs", "rows"], ["looked_up"]),
        make("Cast", ["real"], ["real_number"], to=onnx.TensorProto.FLOAT),
        make("Unsqueeze", ["real_number", "last_axis"], ["real_column"]),
        make("Mul", ["looked_up", "real_column"], ["vectors"]),
    ]
    weights |= {one.name: onnx.numpy_helper.to_array(one) for one in inner.graph.initializer}
    return [*nodes, *inner.graph.node], weights


def scorer_agreement(graph: Path, opened: Bundle, exact: VectorRanker, rows: NDArray[np.int64]) -> Agreement:
    """The written graph, run by onnxruntime, beside the bundle's own lists of the same users.

    Of sequential models the histories are those that the bundle holds; the vectors its users were saved with, by the
    model itself, are what the graph has to arrive at.

    Raises:
        UsageError: onnxruntime is not installed.
        BundleError: the graph cannot be run.
    """
    run: Any = runtime()
    try:
        session = run.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its errors have no common class
        raise BundleError(problem(f"The exported graph cannot be loaded: {error}")) from None
    part, k = opened.encoder, np.array([min(K, exact.n_items)])
    items, scores = [], []
    for at in range(0, len(rows), _AT_ONCE):
        some = rows[at : at + _AT_ONCE]
        asked = {"user": some} if part is None else {"history": part.histories.padded(some, part.entry.length)}
        found = session.run(["items", "scores"], {**asked, "k": k})
        items.append(found[0])
        scores.append(found[1])
    other, theirs = np.concatenate(items), np.concatenate(scores)  # (Q, K)
    one = exact.top_k(rows, int(k[0]))
    # scores are compared place by place: the greatest k of both, best first
    return compared(one, other, exact.scores_of(rows, one), theirs)
