"""The encoder that goes into a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from recdistill.errors import UnknownName, UsageError, problem
from recdistill.export.encoder import can_export
from recdistill.export.encoder import encoder as exported
from recdistill.export.quantise import measured, quantised
from recdistill.models.sequential import Sequential

if TYPE_CHECKING:
    from recdistill.bundle.encoder import EncoderPart
    from recdistill.data.interactions import HeldOut
    from recdistill.models.base import Recommender

__all__ = ["Asked", "Precision", "can_export", "encoder"]

Precision = Literal["float32", "int8"]
Asked = Literal["auto", "none", "float32", "int8"]


def encoder(model: Recommender, precision: Precision = "float32", *, valid: HeldOut | None = None) -> EncoderPart:
    """What a bundle of `model` reads new histories with; checked, and in int8 measured.

    Args:
        model: a sequential one.
        precision: of the weights.
        valid: held-out data that the loss of int8 is measured on.

    Raises:
        UsageError: the model reads no histories, packages are missing, or int8 is asked without `valid`.
        UnknownName: no such precision.
        BundleError: the encoder does not answer as the model does.
    """
    if precision not in ("float32", "int8"):
        raise UnknownName("precision of an encoder", precision, ["auto", "none", "float32", "int8"])
    if not isinstance(model, Sequential):
        what = f"A {type(model).__name__} reads no histories, so it has no encoder"
        raise UsageError(problem(what, remedy="Leave `encoder` out"))
    if precision == "int8" and valid is None:
        what = "An encoder in int8 loses some quality, and it is to be measured how much"
        raise UsageError(problem(what, remedy="Give `valid`, the held-out validation data"))
    part = exported(model)
    if precision == "float32" or valid is None:
        return part
    return measured(part, quantised(part), model, valid)
