"""The manifest: what a bundle says of itself, before anything else of it is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from recdistill.bundle.tensors import parse_json
from recdistill.errors import BundleError, problem

if TYPE_CHECKING:
    from recdistill.bundle.tensors import Tensor

__all__ = [
    "MANIFEST_LIMIT",
    "SCHEMA_VERSION",
    "EncoderEntry",
    "FileEntry",
    "IndexEntry",
    "Manifest",
    "TensorEntry",
    "plain",
]

SCHEMA_VERSION = 1
"""The bundle format this release writes and reads."""

MANIFEST_LIMIT = 4 << 20
"""Bytes a manifest may have."""

FILE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\.(safetensors|onnx|voyager)")

Count = Annotated[int, Field(ge=0, lt=2**48)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class TensorEntry(_Strict):
    """One tensor of a file."""

    dtype: str
    """safetensors' name of the type: "F32", "I64", ..."""
    shape: list[Count]

    @classmethod
    def of(cls, tensor: Tensor) -> TensorEntry:
        """As a header describes it."""
        return cls(dtype=tensor.dtype, shape=list(tensor.shape))


class FileEntry(_Strict):
    """One file of the folder."""

    bytes: Count
    sha256: Digest
    tensors: dict[str, TensorEntry]


class EncoderEntry(_Strict):
    """What `encoder.onnx` reads, and how it was found to answer."""

    table: Literal["input", "item"]
    """Which array of `tensors.safetensors` holds the input vectors; of a wider one, the first `width` columns."""
    width: Annotated[int, Field(ge=1, lt=2**24)]
    """d, of the input vectors."""
    gives: Annotated[int, Field(ge=1, lt=2**24)]
    """w, of the vectors that come out: the width of `item`."""
    length: Annotated[int, Field(ge=1, lt=2**24)]
    """The most items of a history that are read: its last ones."""
    precision: Literal["float32", "int8"]
    """Of its weights."""
    parameters: Count
    """Numbers in its weights, the items' tables not counted."""
    measured: dict[str, JsonValue]
    """What was found when it was exported: the parity check, and what int8 costs."""


class IndexEntry(_Strict):
    """What `index.voyager` is, and how well it was found to search: inner products of all rows of `item`."""

    built_from: Digest
    """sha256 of the `tensors.safetensors` whose vectors it holds."""
    effort: Annotated[int, Field(ge=1, le=65536)]
    """How many elements a search keeps in view (`ef`) for a list of 10."""
    recall: Annotated[float, Field(ge=0.99, le=1)]
    """Share of the exact best ten that it finds, on users of the bundle."""
    measured: dict[str, JsonValue]
    """On how many users, and milliseconds of a list beside exact search."""


class Manifest(_Strict):
    """Everything a bundle says of itself: `manifest.json`, in this order."""

    schema_version: Literal[1]
    kind: Annotated[str, Field(min_length=1, max_length=64)]
    """How the arrays are ranked: "vectors" or "neumf"."""
    model: str
    """The registered name of the model that was trained: "mf", "lightgcn", ..."""
    settings: dict[str, JsonValue]
    """The model's settings."""
    n_users: Count
    n_items: Count
    user_ids: Literal["int", "str"]
    """What the external ids are."""
    item_ids: Literal["int", "str"]
    files: dict[str, FileEntry]
    """Every file of the folder except the manifest, by name."""
    encoder: EncoderEntry | None = None
    """Of a model that reads histories, where its bundle can read new ones; left out where not."""
    index: IndexEntry | None = None
    """Where lists may be found by an approximate search; left out where not."""
    lineage: dict[str, JsonValue]
    """Where it came from: method, teacher and data fingerprints, seed, recdistill version."""
    metrics: dict[str, JsonValue]
    citations: list[str]
    """The papers of the model and the method."""
    created: str
    """When it was saved, ISO 8601 in UTC."""
    digest: Digest
    """sha256 of all of the above as canonical JSON: names this bundle, and finds a damaged manifest."""

    @property
    def total_bytes(self) -> int:
        """Of all files but the manifest."""
        return sum(entry.bytes for entry in self.files.values())

    @property
    def n_parameters(self) -> int:
        """Numbers in the model's arrays, and in its encoder."""
        entries = self.files["tensors.safetensors"].tensors.values()
        arrays = sum(int(np.prod(entry.shape, dtype=np.int64)) for entry in entries)
        return arrays + (self.encoder.parameters if self.encoder else 0)

    def to_json(self) -> str:
        """As it stands in the folder."""
        fields = self.model_dump(
            mode="json", exclude={name for name in ("encoder", "index") if getattr(self, name) is None}
        )
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def signed(cls, fields: Mapping[str, Any]) -> Manifest:
        """From its fields without `schema_version` and `digest`, which are added.

        Raises:
            BundleError: a field is missing, unknown or of the wrong type.
        """
        body = {"schema_version": SCHEMA_VERSION, **fields}
        return cls._validated({**body, "digest": _digest(body)}, "The manifest")

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Manifest:
        """Read and check a manifest; paths and sizes of its files are checked here, before any is opened.

        Raises:
            BundleError: its version, a key, a value, a file name or its digest is wrong.
        """
        if len(text) > MANIFEST_LIMIT:
            raise BundleError(problem(f"{where} is too large", f"{len(text):,} bytes", allowed=f"{MANIFEST_LIMIT:,}"))
        raw = parse_json(text, where)
        if not isinstance(raw, dict):
            raise BundleError(problem(f"{where} is not a table", type(cast("object", raw)).__name__))
        fields = cast("dict[str, Any]", raw)
        version = fields.get("schema_version")
        if type(version) is not int or version != SCHEMA_VERSION:
            newer = type(version) is int and version > SCHEMA_VERSION
            remedy = "Upgrade recdistill to read it" if newer else "Save the bundle again with this release"
            raise BundleError(
                problem(
                    f"{where} has a schema version that this release does not read",
                    version,
                    allowed=str(SCHEMA_VERSION),
                    remedy=remedy,
                )
            )
        manifest = cls._validated(fields, where)
        for name in manifest.files:
            if not FILE_NAME.fullmatch(name):
                raise BundleError(
                    problem(
                        f"{where} names a file outside the bundle's own",
                        name[:200],
                        allowed="plain names such as 'tensors.safetensors', without folders",
                    )
                )
        if _digest({key: value for key, value in fields.items() if key != "digest"}) != manifest.digest:
            raise BundleError(
                problem(
                    f"{where} does not match its own digest",
                    remedy="It was damaged or edited; install the bundle again",
                )
            )
        return manifest

    @classmethod
    def _validated(cls, fields: Mapping[str, Any], where: str) -> Manifest:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])[:200]
            raise BundleError(
                problem(
                    f"{where} is not a manifest of schema {SCHEMA_VERSION}: {place!r}: {first['msg']}",
                    remedy="Save the bundle again, or install it again",
                )
            ) from None


def plain(value: object, where: str) -> JsonValue:
    """As JSON can hold it: numpy scalars become numbers, tuples lists; anything else is refused by name.

    Raises:
        BundleError: a value is not a number, text, list or table, or it is NaN or infinite.
    """
    if isinstance(value, np.generic):
        return plain(cast("object", value.item()), where)
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not np.isfinite(value):
            raise BundleError(problem(f"{where} is not a finite number; a manifest cannot hold it", value))
        return value
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        return {str(key): plain(inner, f"{where}.{key}") for key, inner in pairs.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(inner, f"{where}[{i}]") for i, inner in enumerate(cast("Sequence[object]", value))]
    raise BundleError(
        problem(
            f"{where} cannot stand in a manifest",
            type(value).__name__,
            allowed="numbers, text, lists and tables of them",
        )
    )


def _digest(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
