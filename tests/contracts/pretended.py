"""A device that is not there: tensors that say they are elsewhere, and refuse to meet those of the CPU.

No GPU is needed to find a tensor that was made on the wrong one. Their numbers lie on the CPU, in a tensor that torch
sees through `__torch_dispatch__`; every operation that would fail on a GPU, since its arguments are on two devices,
fails here with the same words. The device is called "meta", the only one that torch lets be without hardware.

What a GPU allows is allowed: CPU tensors of no dimensions, CPU indices into a tensor there, copies between devices.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

import torch
from torch.optim import adam, adamw, optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

from recdistill.recipes import search
from recdistill.runtime import CPU, Runtime
from recdistill.training import checkpoint

DEVICE = torch.device("meta")
ATEN = torch.ops.aten
INDEXING = {ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default, ATEN._index_put_impl_.default}
READ = {"item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__format__", "__repr__"}


class Elsewhere(torch.Tensor):
    """A tensor on `DEVICE`."""

    @staticmethod
    def __new__(cls, here):
        about = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        return torch.Tensor._make_wrapper_subclass(
            cls, here.size(), **about, layout=here.layout, device=torch.device("cpu"), dispatch_device=True
        )

    def __init__(self, here):
        self.here = here

    def tolist(self):  # in a backward pass, where `_Calls` is not asked
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    """An operation of which at least one argument is elsewhere."""
    if func is torch.ops.prim.device.default:
        return DEVICE
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    here = [each for each in given if not isinstance(each, Elsewhere) and each.dim()]
    indexed = func in INDEXING and isinstance(args[0], Elsewhere)
    if here and func is not ATEN.copy_.default and not indexed:
        shapes = [f"{'there' if isinstance(each, Elsewhere) else 'cpu'} {tuple(each.shape)}" for each in given]
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {', '.join(shapes)}")
    to = kwargs.get("device")
    out = func(*tree_map(_here, args), **tree_map(_here, _on_cpu(kwargs)))
    if func is ATEN.copy_.default:
        return args[0]
    if func is ATEN._to_copy.default and to is not None and not _is_there(to):
        return out
    return return_and_correct_aliasing(func, args, kwargs, tree_map(_there, out))


class _Factories(TorchDispatchMode):
    """What torch's own code makes on the device, in a backward pass for example."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(isinstance(each, Elsewhere) for each in tree_flatten((args, kwargs))[0]):
            return _run(func, args, kwargs)
        if _is_there(kwargs.get("device")):
            return tree_map(_there, func(*args, **_on_cpu(kwargs)))
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """What our code asks for by name: `torch.arange(..., device=...)`, `x.to(...)`, `x.item()`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        first = args[0] if args else None
        if func is torch.device or name == "_parse_to":
            return func(*args, **kwargs)
        if isinstance(first, Elsewhere) and (asked := _asked(func, name)):
            return asked(func, *args, **kwargs)
        if not any(map(_is_there, (*args, *kwargs.values()))):
            return func(*args, **kwargs)
        if name == "to" and isinstance(first, Elsewhere):
            dtypes = [each for each in (*args[1:], *kwargs.values()) if isinstance(each, torch.dtype)]
            return func(first, *dtypes) if dtypes else first
        out = func(*("cpu" if _is_there(each) else each for each in args), **_on_cpu(kwargs))
        return _Moved.apply(out) if out.requires_grad and not out.is_leaf else _there(out.detach())


def _asked(func, name):
    """How what cannot be left to torch is done for a tensor that is elsewhere; None for all else."""
    if func == torch.Tensor.is_meta.__get__:  # who asks wants to know whether there are numbers
        return lambda func, x, *rest, **kwargs: False
    if name in READ:
        return lambda func, x, *rest, **kwargs: func(x.here, *rest, **kwargs)
    if name == "new_tensor":
        return lambda func, x, *rest, **kwargs: Elsewhere(x.here.new_tensor(*rest, **kwargs))
    if name == "where":  # torch would make its numbers on the device, behind our back
        return lambda func, x, *rest: func(x, *_as_tensors(*rest)) if rest else func(x)
    return None


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return Elsewhere(x.detach().clone())

    @staticmethod
    def backward(ctx, *grads):
        return grads[0].here


def _here(x):
    return x.here if isinstance(x, Elsewhere) else x


def _there(x):
    return Elsewhere(x) if isinstance(x, torch.Tensor) and not isinstance(x, Elsewhere) else x


def _is_there(x):
    return x == DEVICE.type if isinstance(x, str) else isinstance(x, torch.device) and x == DEVICE


def _on_cpu(kwargs):
    return {key: torch.device("cpu") if _is_there(each) else each for key, each in kwargs.items()}


def _as_tensors(*values):
    like = next((each for each in values if isinstance(each, torch.Tensor)), None)
    dtypes = [None if like is None else torch.result_type(like, each) for each in values]
    pairs = zip(values, dtypes, strict=True)
    return [each if isinstance(each, torch.Tensor) else torch.tensor(each, dtype=dtype) for each, dtype in pairs]


def _move(module):
    """As `module.to` does on a GPU: parameters stay the objects that they are."""
    for part in module.modules():
        for name, each in list(part._parameters.items()):
            if each is None or isinstance(each.data, Elsewhere):
                continue
            moved = torch.nn.Parameter(Elsewhere(each.detach()), requires_grad=each.requires_grad)
            moved.__dict__.update(each.__dict__)
            if hasattr(each, "by_rows"):  # of `knowledge.table.Table`
                moved.by_rows = each.by_rows
            try:
                torch.utils.swap_tensors(each, moved)
            except RuntimeError:  # a recurrent layer holds weak references
                part._parameters[name] = moved
        for name, each in part._buffers.items():
            part._buffers[name] = _there(each)
    return module


@contextmanager
def pretended():
    """Everything that would choose a device for itself chooses `DEVICE`, unless it asks for the CPU."""
    to, fork, autocast, save = torch.nn.Module.to, torch.random.fork_rng, torch.autocast, checkpoint.save_file

    def module_to(self, *args, **kwargs):
        return _move(self) if any(map(_is_there, (*args, *kwargs.values()))) else to(self, *args, **kwargs)

    def saved(tensors, *args, **kwargs):  # safetensors reads what is on a GPU, but asks where it lies
        return save({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, *args, **kwargs)

    changes = [
        mock.patch.object(Runtime, "of", lambda device="auto": CPU if device == "cpu" else Runtime(DEVICE)),
        mock.patch.object(torch.nn.Module, "to", module_to),
        mock.patch.object(torch.random, "fork_rng", lambda devices=(), **kwargs: fork(devices=[], **kwargs)),
        mock.patch.object(torch, "autocast", lambda _, *args, **kwargs: autocast("cpu", *args, **kwargs)),
        *(mock.patch.object(each, "save_file", saved) for each in (checkpoint, search)),
        *(
            mock.patch.object(each, "_get_fused_kernels_supported_devices", return_value=["cpu", DEVICE.type])
            for each in (optimizer, adam, adamw)
            if hasattr(each, "_get_fused_kernels_supported_devices")
        ),
    ]
    for each in changes:
        each.start()
    try:
        with _Factories(), _Calls():
            yield
    finally:
        for each in changes:
            each.stop()
