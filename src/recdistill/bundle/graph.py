"""ONNX graphs, looked through before any runtime parses them.

A model file of ONNX (onnx.proto, github.com/onnx/onnx) may name other files to read, carry functions, control flow and
operators of other vendors. What a bundle may hold is arithmetic alone: standard operators, no subgraph, every weight
inside. This reads protobuf's wire format (protobuf.dev, "Encoding"), field by field, without a copy of any weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recdistill.errors import BundleError, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GRAPH_LIMIT", "graph"]

GRAPH_LIMIT = 1 << 30
"""Bytes a graph may have."""

_NODES = 100_000
_STANDARD = (b"", b"ai.onnx")

# numbers of fields in onnx.proto
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14

Value = int | memoryview


def graph(where: str, data: bytes) -> None:
    """Refuse a file that is not one graph of standard operators with all its weights inside.

    Args:
        where: how errors call it.
        data: the whole file.

    Raises:
        BundleError: it is that, or no ONNX at all.
    """
    try:
        _model(where, memoryview(data))
    except (IndexError, ValueError):
        raise BundleError(
            problem(f"{where} is not an ONNX model", remedy="It was damaged; install the bundle again")
        ) from None


def _model(where: str, data: memoryview) -> None:
    graphs = 0
    for field, value in _fields(data):
        if field == _MODEL_GRAPH:
            graphs += 1
            _graph(where, _bytes(value))
        elif field in (_MODEL_FUNCTIONS, _MODEL_TRAINING):
            raise BundleError(_refused(where, "functions or training steps of its own"))
    if graphs != 1:
        raise ValueError


def _graph(where: str, data: memoryview) -> None:
    nodes = 0
    for field, value in _fields(data):
        if field == _GRAPH_NODE:
            nodes += 1
            _node(where, _bytes(value))
        elif field == _GRAPH_INITIALIZER:
            _tensor(where, _bytes(value))
        elif field == _GRAPH_SPARSE:
            raise BundleError(_refused(where, "sparse weights"))
    if not 0 < nodes <= _NODES:
        raise ValueError


def _node(where: str, data: memoryview) -> None:
    operator = ""
    for field, value in _fields(data):
        if field == _NODE_OPERATOR:
            operator = bytes(_bytes(value)).decode()
        elif field == _NODE_DOMAIN and bytes(_bytes(value)) not in _STANDARD:
            raise BundleError(_refused(where, f"an operator of {bytes(_bytes(value))[:80].decode()!r}"))
        elif field == _NODE_ATTRIBUTE:
            for inner, part in _fields(_bytes(value)):
                if inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                    raise BundleError(_refused(where, "a graph within the graph"))
                if inner in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                    _tensor(where, _bytes(part))
    if not operator:
        raise ValueError


def _tensor(where: str, data: memoryview) -> None:
    for field, value in _fields(data):
        if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
            raise BundleError(_refused(where, "weights in another file"))


def _refused(where: str, what: str) -> str:
    allowed = "standard operators, without subgraphs, with all weights inside"
    return problem(f"{where} holds {what}, which is refused", allowed=allowed, remedy="Export the encoder again")


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of one message: number, and a number or bytes. `ValueError`, `IndexError` where it is none."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if not field:
            raise ValueError
        if wire == 0:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError
        if at + size > len(data):
            raise ValueError
        yield field, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError  # noqa: TRY004 - the file is wrong, not the caller
    return value
