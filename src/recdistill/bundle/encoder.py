"""The encoder of a bundle: histories in, vectors out, in onnxruntime; no torch.

`encoder.onnx` takes `vectors` (Q, T, d) float32, the input vectors of a history's items, oldest first, on the right,
0 at padding; and `real` (Q, T) bool, what is no padding; Q >= 1 and 1 <= T <= `length`. It gives `vector` (Q, w), whose
dot products with the rows of `item` (I, w) are the scores. The table of items is not in the graph: it stands once in
`tensors.safetensors`, mapped, and a history touches its own rows alone. So the graph is small, does not depend on the
catalogue, and reads a table of any float type.

Letters: U users, I items, d dims of the input, w of the output, m rows asked, Q histories, T time.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import BundleError, UsageError, problem

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from recdistill.bundle.manifest import EncoderEntry
    from recdistill.data.histories import Histories

__all__ = ["Encoder", "EncoderPart", "runtime"]

_AT_ONCE = 1 << 14
"""Positions encoded at a time."""
_NARROW = 8
"""Histories are encoded in groups of at most 8, 16, 32 ... items, so that short ones do not pay for long ones."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderPart:
    """What a bundle holds of an encoder."""

    graph: bytes
    """The ONNX file."""
    entry: EncoderEntry
    """What the manifest says of it."""
    table: NDArray[Any]
    """(I, d or more) the input vectors."""
    histories: Histories
    """U rows: the last items of each user, which new ones follow."""
    scale: NDArray[np.float32] | None = None
    """(I,) of an int8 table: what the integers of each row are multiplied with."""


class Encoder:
    """Makes vectors of histories; several threads may ask it.

    The runtime is loaded when the first history is encoded.
    """

    def __init__(
        self,
        graph: bytes,
        entry: EncoderEntry,
        table: NDArray[Any],
        *,
        scale: NDArray[np.float32] | None = None,
        threads: int = 1,
        where: str = "The encoder",
    ) -> None:
        """Nothing is loaded yet.

        Args:
            graph: an ONNX file that `bundle.graph` has looked through.
            entry: what it reads.
            table: (I, d or more) input vectors, may be memory-mapped.
            scale: (I,) of an int8 table.
            threads: of one call.
            where: how errors call it.
        """
        self._graph, self.entry, self._table, self._threads, self._where = graph, entry, table, threads, where
        self._scale = scale
        self._lock = Lock()

    def encode(self, histories: Histories, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m,) rows of histories -> (m, w) the vectors of their ends.

        Raises:
            UsageError: onnxruntime is not installed.
            BundleError: it cannot load or run the graph.
        """
        length = self.entry.length
        kept = np.minimum(histories.lengths[rows], length)  # (m,)
        group = np.zeros(len(rows), np.int64)  # widths 8, 16, 32 ... length
        width = _NARROW
        while width < length:
            group += kept > width
            width *= 2
        order = np.argsort(group, kind="stable")
        out = np.empty((len(rows), self.entry.gives), np.float32)
        at = 0
        while at < len(order):
            width = min(_NARROW << int(group[order[at]]), length)
            stop = min(at + max(1, _AT_ONCE // width), int(np.searchsorted(group[order], group[order[at]], "right")))
            some = order[at:stop]
            out[some] = self.vectors(histories.padded(rows[some], length))
            at = stop
        return out

    def vectors(self, history: NDArray[np.int64]) -> NDArray[np.float32]:
        """(Q, T) item rows, oldest first, padded on the left with -1 -> (Q, w); longer ones are read from their end.

        Raises:
            UsageError: onnxruntime is not installed, or a row is no item's.
            BundleError: it cannot load or run the graph.
        """
        history = history[:, -self.entry.length :]
        if not history.size:
            history = np.full((len(history), 1), -1, np.int64)
        if not len(history):
            return np.empty((0, self.entry.gives), np.float32)
        if history.min() < -1 or history.max() >= len(self._table):
            wrong = int(history.max() if history.max() >= len(self._table) else history.min())
            raise UsageError(problem("A history holds a row that is no item", wrong, allowed="rows, -1 = padding"))
        real = history >= 0  # (Q, T)
        vectors = np.take(self._table, history, axis=0, mode="clip")[..., : self.entry.width]  # (Q, T, d)
        if self._scale is not None:
            vectors = vectors * np.take(self._scale, history, mode="clip")[..., None]
        vectors = np.where(real[..., None], vectors, 0).astype(np.float32, copy=False)
        session = self._session
        try:
            (found,) = session.run(None, {"vectors": vectors, "real": real})
        except Exception as error:  # noqa: BLE001 - its errors have no common class
            raise BundleError(problem(f"{self._where} cannot be run: {error}", remedy=_ANEW)) from None
        if found.shape != (len(history), self.entry.gives) or found.dtype != np.float32:
            raise BundleError(problem(f"{self._where} gave {found.dtype} {found.shape}", remedy=_ANEW))
        return found

    @cached_property
    def _session(self) -> Any:  # noqa: ANN401 - of an untyped library
        with self._lock:
            if (made := self.__dict__.get("_session")) is not None:
                return made
            run, entry = runtime(), self.entry
            options = run.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
            options.log_severity_level = 4
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                session = run.InferenceSession(self._graph, options, providers=["CPUExecutionProvider"])
                inputs = {one.name: (one.type, len(one.shape)) for one in session.get_inputs()}
                outputs = [(one.type, one.shape[1:]) for one in session.get_outputs()]
            except Exception as error:  # noqa: BLE001 - its errors have no common class
                raise BundleError(problem(f"{self._where} cannot be loaded: {error}", remedy=_ANEW)) from None
            wanted = {"vectors": ("tensor(float)", 3), "real": ("tensor(bool)", 2)}
            if inputs != wanted:
                raise BundleError(problem(f"{self._where} has other inputs", inputs, allowed=f"{wanted}", remedy=_ANEW))
            if outputs != [("tensor(float)", [entry.gives])]:
                what = f"{self._where} does not give one table of width {entry.gives}"
                raise BundleError(problem(what, outputs, remedy=_ANEW))
            self.__dict__["_session"] = session
            return session


_ANEW = "Install the bundle again, or export the encoder again"


def runtime() -> ModuleType:
    """The library that runs graphs, onnxruntime.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError:
        what = "Reading a new history needs onnxruntime, which is not installed"
        remedy = 'Install it: pip install "recdistill[onnx]"; users of the bundle are answered without it'
        raise UsageError(problem(what, remedy=remedy)) from None
