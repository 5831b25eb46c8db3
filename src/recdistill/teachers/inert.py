"""Pickles as plain data: an interpreter that has no way to run, import or look up anything.

A pickle is a program for a stack machine whose instructions may call what it names. Here its instructions are listed by
`pickletools.genops`, which runs nothing, and those that make plain values are followed; a name stays a `Global`, a call
of it stays a `Made` with its arguments. Names that are not on the list are refused, with their name, so that a file
that is more than it says is not half read. Instructions that are not needed are refused too.
"""

from __future__ import annotations

import pickletools
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Step = Callable[["_Machine", Any], None]

__all__ = ["Global", "Made", "Stored", "interpreted"]

_NAMES = {
    "builtins.bytearray",
    "builtins.complex",
    "builtins.frozenset",
    "builtins.getattr",
    "builtins.list",
    "builtins.object",
    "builtins.set",
    "builtins.slice",
    "_codecs.encode",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "copyreg._reconstructor",
    "functools.partial",
    "logging.getLogger",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.Size",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.device",
    "yaml.loader.FullLoader",
    "yaml.loader.Loader",
}
_UNDER = ("recbole.", "pandas.", "scipy.sparse.")
"""Classes of a configuration and a data set: kept as names, as all others."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name a pickle asks for; it is never looked up."""

    name: str
    """With its module: "torch._utils._rebuild_tensor_v2"."""


@dataclass(eq=False, slots=True)
class Made:
    """What a pickle would have called, and what it would have given to it; nothing is called."""

    of: object
    """A `Global`, as a rule."""
    args: tuple[Any, ...]
    state: Any = None
    """What BUILD gave."""
    items: dict[Any, Any] = field(default_factory=dict[Any, Any])
    """What was set by key."""
    values: list[Any] = field(default_factory=list[Any])
    """What was appended."""

    @property
    def name(self) -> str:
        """Of what would have been called; "" where that is no name."""
        return self.of.name if isinstance(self.of, Global) else ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A persistent id: torch's reference to a file of the archive."""

    id: Any


def interpreted(path: Path, data: bytes) -> object:
    """The value of a pickle, with `Global`, `Made` and `Stored` where it would have run something.

    Args:
        path: how errors call the file.
        data: a pickle of protocol 2 to 5.

    Raises:
        DataError: no pickle, a name that is not allowed, or an instruction that is not needed.
    """
    machine = _Machine(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # an odd escape in a text is no concern of the caller's
            for instruction, argument, _ in pickletools.genops(data):
                if instruction.name == "STOP":
                    return machine.stack[-1]
                machine.step(instruction.name, argument)
    except DataError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise DataError(problem(f"{path} is no pickle that can be read ({error or type(error).__name__})")) from None
    raise DataError(problem(f"{path} is a pickle that does not end"))


class _Machine:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.marks: list[int] = []  # how high the stack stood
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: object) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _NOTHING:
            raise DataError(problem(f"{self.path} holds the pickle instruction {name}, which is not read"))

    def marked(self) -> list[Any]:
        """What stands above the last mark; both are taken away."""
        at = self.marks.pop()
        taken = self.stack[at:]
        del self.stack[at:]
        return taken

    def named(self, module: object, name: object) -> None:
        whole = f"{module}.{name}"
        if isinstance(module, str) and isinstance(name, str) and _allowed(whole):
            self.stack.append(Global(whole))
            return
        what = f"{self.path} names {whole!r}, which no checkpoint of vectors needs; nothing was run"
        remedy = "Do not load this file elsewhere unless you trust it; write the vectors as npz or safetensors"
        raise DataError(problem(what, remedy=remedy))

    def call(self, arguments: Iterable[Any]) -> None:
        made = Made(self.stack[-1], tuple(arguments))
        self.stack[-1] = _text(made) if made.name.endswith("multiarray.scalar") else made

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state

    def set(self, pairs: list[Any]) -> None:
        into = self.stack[-1].items if isinstance(self.stack[-1], Made) else self.stack[-1]
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            into[key if isinstance(key, str | int | float | bytes | None) else id(key)] = value

    def extend(self, values: list[Any]) -> None:
        into = self.stack[-1].values if isinstance(self.stack[-1], Made) else self.stack[-1]
        into.extend(values)


def _text(made: Made) -> object:
    """Numpy's scalar of text is text: the tokens of RecBole are; other scalars stay what they are."""
    kind, data = made.args
    if isinstance(kind, Made) and kind.args and str(kind.args[0]).startswith("U") and isinstance(data, bytes):
        return data.decode("utf-32-le").rstrip("\0")
    return made


def _allowed(name: str) -> bool:
    if name in _NAMES or name.startswith(_UNDER):
        return True
    module, _, last = name.rpartition(".")
    return module == "torch" and (last.endswith("Storage") or last in _DTYPES)


_DTYPES = {"float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool"}
_NOTHING = {"PROTO", "FRAME"}
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}


def _tuple(size: int) -> Step:
    def step(m: _Machine, _: object) -> None:
        m.stack[-size:] = [tuple(m.stack[-size:])]

    return step


def _memoize(m: _Machine, at: int | None) -> None:
    m.memo[len(m.memo) if at is None else at] = m.stack[-1]


def _reduce(m: _Machine, _: object) -> None:
    m.call(m.stack.pop())


def _new_with_keywords(m: _Machine, _: object) -> None:
    keywords = m.stack.pop()
    m.call((*m.stack.pop(), keywords))


def _global(m: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")  # genops joins the two by a blank
    m.named(module, name)


def _stack_global(m: _Machine, _: object) -> None:
    name = m.stack.pop()
    m.named(m.stack.pop(), name)


def _two(m: _Machine) -> list[Any]:
    taken = m.stack[-2:]
    del m.stack[-2:]
    return taken


_STEPS: dict[str, Step] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.marked())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": lambda m, _: m.stack.append(m.marked()),
    "FROZENSET": lambda m, _: m.stack.append(tuple(m.marked())),
    "MEMOIZE": _memoize,
    "BINPUT": _memoize,
    "LONG_BINPUT": _memoize,
    "BINGET": lambda m, at: m.stack.append(m.memo[at]),
    "LONG_BINGET": lambda m, at: m.stack.append(m.memo[at]),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_keywords,
    "BUILD": lambda m, _: m.build(),
    "SETITEM": lambda m, _: m.set(_two(m)),
    "SETITEMS": lambda m, _: m.set(m.marked()),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.marked()),
    "ADDITEMS": lambda m, _: m.stack.append((m.marked(), m.stack.pop())[0]),
    "BINPERSID": lambda m, _: m.stack.append(Stored(m.stack.pop())),
    "POP": lambda m, _: m.stack.pop(),
}
