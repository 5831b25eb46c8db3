"""Save, open and verify a bundle: a folder of one manifest, five safetensors files, and what an encoder or index needs.

    manifest.json          schema version, kind, every file's size, sha256 and tensors, lineage, metrics, citations
    tensors.safetensors    the model's arrays
    users.safetensors      external ids of users: utf-8 bytes + offsets (or int64 ids), and their sort permutation
    items.safetensors      external ids of items
    seen.safetensors       what each user has already: indptr (U + 1,) and ascending item rows; trained (n,): which of
                           these the model learned from
    popular.safetensors    item rows for users nobody knows, best first
    encoder.onnx           of a model that reads histories: what makes a vector of one (see `bundle.encoder`)
    histories.safetensors  beside it: the last items of each user, oldest first, which new ones follow
    index.voyager          where lists are found by an approximate search (see `bundle.ann`)

Nothing in it can run, and reading it needs numpy alone. Opening checks the manifest against itself and against the
folder, then each header against the manifest, and only then maps the arrays; `verify="full"` also reads every byte.

Letters: U users, I items, n stored interactions, P popular items.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recdistill.bundle import checks
from recdistill.bundle.ann import IndexPart
from recdistill.bundle.encoder import EncoderPart
from recdistill.bundle.folder import find, held_open, identity, replaced, write_whole
from recdistill.bundle.graph import GRAPH_LIMIT, graph
from recdistill.bundle.manifest import MANIFEST_LIMIT, FileEntry, Manifest, TensorEntry, plain
from recdistill.bundle.mapped import release
from recdistill.bundle.naming import (
    ENCODER_FILES,
    FILES,
    INDEX_FILE,
    MANIFEST,
    left_by_system,
    refuse_to_replace,
    same,
    wanted,
)
from recdistill.bundle.parts import checked_tensors, id_table
from recdistill.bundle.tensors import DTYPES, Tensors, open_regular, write
from recdistill.data.csr import Csr
from recdistill.data.histories import Histories
from recdistill.errors import BundleError, UsageError, problem
from recdistill.ids import IdTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["ENCODER_FILES", "FILES", "INDEX_FILE", "Bundle", "open", "save", "verify"]

_CHUNK = 1 << 20
_ATTEMPTS = 20
"""How often a bundle is opened again because it was replaced meanwhile."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle. Arrays are mapped read-only: what is not asked for is not read."""

    path: Path
    manifest: Manifest
    arrays: dict[str, NDArray[Any]]
    """What the model's ranker is made of, by name."""
    users: IdTable
    items: IdTable
    seen: Csr
    """(U x I) what each user has already."""
    popular: NDArray[np.int64]
    """(P,) item rows, best first."""
    encoder: EncoderPart | None = None
    """What reads new histories, and those it continues."""
    flags: NDArray[np.uint8] | None = None
    """(n,) 1 where a pair of `seen` was trained on, in its order; None where nobody said."""
    index: IndexPart | None = None
    """What finds lists approximately."""

    @property
    def trained(self) -> Csr | None:
        """(U x I) what of `seen` the model was trained on; None where nobody said. Reads all of `seen`."""
        if self.flags is None:
            return None
        before = np.zeros(len(self.flags) + 1, np.int64)
        np.cumsum(self.flags, out=before[1:])
        return Csr(before[self.seen.indptr], self.seen.indices[self.flags > 0], self.seen.n_columns)

    def untrained(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(U,) users and (I,) items of whom nothing was trained on, none where nobody said; reads `seen` in chunks."""
        users, items = np.zeros(len(self.users), np.bool_), np.zeros(len(self.items), np.bool_)
        if self.flags is None:
            return users, items
        users[:], items[:] = True, True
        for a in range(0, len(self.flags), _CHUNK):
            places = a + np.flatnonzero(self.flags[a : a + _CHUNK])
            items[np.take(self.seen.indices, places)] = False
            users[np.searchsorted(self.seen.indptr, places, side="right") - 1] = False
            release(self.seen.indices[a : a + _CHUNK])
            release(self.flags[a : a + _CHUNK])
        return users, items


def save(
    path: Path | str,
    *,
    kind: str,
    arrays: Mapping[str, NDArray[Any]],
    users: IdTable,
    items: IdTable,
    seen: Csr,
    popular: NDArray[np.int64],
    model: str,
    settings: Mapping[str, Any],
    lineage: Mapping[str, Any],
    metrics: Mapping[str, Any],
    citations: Sequence[str],
    encoder: EncoderPart | None = None,
    index: IndexPart | None = None,
    trained: Csr | None = None,
    created: str | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write a bundle. It appears at `path` whole or not at all; equal input gives equal bytes.

    Args:
        path: the folder to make.
        kind: how the arrays are ranked, "vectors" (`user` (U, d), `item` (I, d), floats; or int8 with float32
            `user.scale` (U,) and `item.scale` (I,)) or "neumf".
        arrays: the model's arrays by name, of the types in `tensors.DTYPES`.
        users: external ids of the U users.
        items: external ids of the I items.
        seen: (U x I) what each user has already, left out of recommendations.
        popular: (P,) distinct item rows for unknown users, best first, P <= I.
        model: the model's registered name.
        settings: the model's settings.
        lineage: method, teacher and data fingerprints, seed; anything JSON holds.
        metrics: measured values by name, finite.
        citations: the papers behind the model and the method.
        encoder: what reads new histories, and the U that users have; `recdistill.export` makes it.
        index: what finds lists approximately; `recdistill.export` makes it.
        trained: (U x I) what of `seen` the model was trained on. Users without any get the popular list, items without
            any are not recommended: their vectors are as they were initialised. None, for a model made elsewhere,
            takes every user and item as trained.
        created: ISO 8601 time to record; None takes the present.
        overwrite: replace a bundle that is there, in one step. A folder that is no bundle is never replaced.

    Raises:
        UsageError: something is at `path` already.
        BundleError: arrays, ids, seen, popular or encoder do not fit together.
    """
    path = Path(path)
    refuse_to_replace(path, overwrite=overwrite)
    contents: dict[str, dict[str, NDArray[Any]]] = {
        "items.safetensors": items.arrays(),
        "popular.safetensors": {"items": np.asarray(popular, np.int64)},
        "seen.safetensors": {
            "indptr": np.asarray(seen.indptr, np.int64),
            "indices": np.asarray(seen.indices, np.int32),
        },
        "tensors.safetensors": dict(arrays),
        "users.safetensors": users.arrays(),
    }
    if encoder is not None:
        graph("The encoder to save", encoder.graph)
        contents["tensors.safetensors"].setdefault(encoder.entry.table, encoder.table)
        if encoder.scale is not None:
            contents["tensors.safetensors"].setdefault(f"{encoder.entry.table}.scale", encoder.scale)
        contents["histories.safetensors"] = {
            "indptr": np.asarray(encoder.histories.indptr, np.int64),
            "items": np.asarray(encoder.histories.items, np.int32),
        }
    if trained is not None:
        contents["seen.safetensors"] = {**contents["seen.safetensors"], "trained": _flags(seen, trained)}
    if seen.n_columns != len(items):
        raise BundleError(problem(f"'seen' has {seen.n_columns:,} columns for {len(items):,} items"))
    specs = {f: {n: (a.dtype, a.shape) for n, a in part.items()} for f, part in contents.items()}
    entry = None if encoder is None else encoder.entry
    checks.shapes("The bundle to save", specs, kind, (users.kind, len(users)), (items.kind, len(items)), encoder=entry)
    checks.rows("The bundle to save", seen, np.asarray(popular, np.int64), len(items))
    checks.contents("The bundle to save", seen, np.asarray(popular, np.int64))
    if encoder is not None:
        checks.histories("The bundle to save", encoder.histories, len(items), whole=True)
    with replaced(path) as folder:
        files: dict[str, FileEntry] = {}
        for name in sorted(contents):
            size, sha256, header = write(folder / name, contents[name])
            tensors = {key: TensorEntry.of(tensor) for key, tensor in sorted(header.items())}
            files[name] = FileEntry(bytes=size, sha256=sha256, tensors=tensors)
        if encoder is not None:
            write_whole(folder / "encoder.onnx", encoder.graph)
            digest = hashlib.sha256(encoder.graph).hexdigest()
            files["encoder.onnx"] = FileEntry(bytes=len(encoder.graph), sha256=digest, tensors={})
        if index is not None:
            data = index.data()
            write_whole(folder / INDEX_FILE, data)
            files[INDEX_FILE] = FileEntry(bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), tensors={})
        manifest = Manifest.signed(
            {
                "kind": kind,
                "model": model,
                "settings": plain(settings, "settings"),
                "n_users": len(users),
                "n_items": len(items),
                "user_ids": users.kind,
                "item_ids": items.kind,
                "files": {name: files[name].model_dump() for name in sorted(files)},
                **({} if entry is None else {"encoder": entry.model_dump()}),
                **({} if index is None else {"index": index.entry.model_dump()}),
                "lineage": plain(lineage, "lineage"),
                "metrics": plain(metrics, "metrics"),
                "citations": plain(citations, "citations"),
                "created": created or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )
        write_whole(folder / MANIFEST, manifest.to_json().encode())
    return manifest


def open(path: Path | str, *, verify: Literal["headers", "full"] = "headers") -> Bundle:
    """Open a bundle; nothing of an array is read or allocated before all checks have passed.

    Args:
        path: the folder.
        verify: "headers" checks the manifest, the set of files, sizes, headers, shapes, and that rows are in order;
            "full" also hashes every byte and checks every id and row. Use "full" once, when a bundle arrives.

    Raises:
        BundleError: anything is missing, extra, of the wrong size, type, shape, version or hash.
    """
    if verify not in ("headers", "full"):
        raise UsageError(problem("'verify' must be known", verify, allowed=["headers", "full"]))
    path = Path(path)
    for attempt in range(_ATTEMPTS):
        folder = find(path)
        if not folder.is_dir():
            raise BundleError(
                problem(f"There is no bundle at {path}", remedy="Give the folder that holds manifest.json")
            )
        with held_open(folder) as held:
            # A save with overwrite may replace the folder between two of its files: then read the new one.
            try:
                opened = _opened(folder, full=verify == "full")
            except BundleError:
                if attempt + 1 == _ATTEMPTS or held == identity(folder):
                    raise
                continue
            if held == identity(folder):
                return opened
    raise BundleError(problem(f"{path} was replaced {_ATTEMPTS} times while it was opened", remedy="Open it again"))


def verify(path: Path | str) -> Manifest:
    """Read every byte of a bundle and check every hash, id and row; what to do when a bundle is installed.

    Raises:
        BundleError: as `open`, and when a hash, an id table or a row of `seen` is wrong.
    """
    return open(path, verify="full").manifest


def _opened(folder: Path, *, full: bool) -> Bundle:
    where = f"{folder / MANIFEST}"
    names = {entry.name for entry in os.scandir(folder) if not left_by_system(entry.name)}
    if MANIFEST not in names:
        raise BundleError(problem(f"{folder} holds no manifest.json", remedy="Give the folder that was saved"))
    with open_regular(folder / MANIFEST) as file:
        size = os.fstat(file.fileno()).st_size
        manifest = Manifest.from_json(file.read(min(size, MANIFEST_LIMIT) + 1), where)
    needed = wanted(manifest)
    same(where, set(manifest.files), needed, "lists")
    same(f"{folder}", names - {MANIFEST}, needed, "holds")
    files = {name: entry for name, entry in manifest.files.items() if name.endswith(".safetensors")}
    opened = {name: checked_tensors(folder / name, entry) for name, entry in files.items()}
    specs = {
        file: {name: (np.dtype(DTYPES[t.dtype]), t.shape) for name, t in tensors.header.items()}
        for file, tensors in opened.items()
    }
    users, items = (manifest.user_ids, manifest.n_users), (manifest.item_ids, manifest.n_items)
    checks.shapes(f"{folder}", specs, manifest.kind, users, items, encoder=manifest.encoder)
    if full:
        for name, entry in files.items():
            _same_hash(folder / name, opened[name].sha256(), entry)
    seen = Csr(opened["seen.safetensors"]["indptr"], opened["seen.safetensors"]["indices"], manifest.n_items)
    popular = opened["popular.safetensors"]["items"]
    bundle = Bundle(
        folder,
        manifest,
        opened["tensors.safetensors"].arrays(),
        id_table(folder / "users.safetensors", manifest.user_ids, opened["users.safetensors"]),
        id_table(folder / "items.safetensors", manifest.item_ids, opened["items.safetensors"]),
        seen,
        popular,
        _encoder(folder, manifest, opened, full=full),
        opened["seen.safetensors"]["trained"] if "trained" in opened["seen.safetensors"].header else None,
        _index(folder, manifest),
    )
    checks.rows(f"{folder}", seen, popular, manifest.n_items)
    if full:
        checks.contents(f"{folder}", seen, popular)
        checks.finite(f"{folder}", bundle.arrays)
        if bundle.index is not None:
            checks.index(folder / INDEX_FILE, bundle.index, bundle.arrays)
        if bundle.flags is not None and bundle.flags.max(initial=0) > 1:
            raise BundleError(problem(f"{folder}: 'trained' holds a number that is neither 0 nor 1"))
        checks.ids(folder / "users.safetensors", bundle.users)
        checks.ids(folder / "items.safetensors", bundle.items)
    return bundle


def _encoder(folder: Path, manifest: Manifest, opened: dict[str, Tensors], *, full: bool) -> EncoderPart | None:
    if manifest.encoder is None:
        return None
    path, entry = folder / "encoder.onnx", manifest.files["encoder.onnx"]
    if entry.tensors or entry.bytes > GRAPH_LIMIT:
        raise BundleError(problem(f"{path} must be one graph of at most {GRAPH_LIMIT:,} bytes", entry.bytes))
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise BundleError(
                problem(
                    f"{path} has the wrong size: the manifest says {entry.bytes:,} bytes, the file has {size:,}",
                    remedy="It was cut short or changed; install the bundle again",
                )
            )
        data = file.read(size)
    if full:
        _same_hash(path, hashlib.sha256(data).hexdigest(), entry)
    graph(f"{path}", data)
    table = opened["tensors.safetensors"][manifest.encoder.table]
    stored = opened["histories.safetensors"]
    histories = Histories(stored["indptr"], stored["items"])
    checks.histories(f"{folder}", histories, manifest.n_items, whole=full)
    scales = f"{manifest.encoder.table}.scale"
    scale = opened["tensors.safetensors"][scales] if scales in opened["tensors.safetensors"].header else None
    return EncoderPart(data, manifest.encoder, table, histories, scale)


def _index(folder: Path, manifest: Manifest) -> IndexPart | None:
    if manifest.index is None:
        return None
    path, entry = folder / INDEX_FILE, manifest.files[INDEX_FILE]
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size != entry.bytes or entry.tensors:
        raise BundleError(
            problem(
                f"{path} has the wrong size: the manifest says {entry.bytes:,} bytes, the file has {size:,}",
                remedy="It was cut short or changed; install the bundle again",
            )
        )
    if manifest.index.built_from != manifest.files["tensors.safetensors"].sha256 or manifest.kind != "vectors":
        raise BundleError(
            problem(f"{path} was built from other vectors than the bundle's", remedy="Build it again from this bundle")
        )
    return IndexPart(path, manifest.index, entry)


def _same_hash(path: Path, sha256: str, entry: FileEntry) -> None:
    if sha256 != entry.sha256:
        raise BundleError(
            problem(
                f"{path} does not have the hash that the manifest gives it",
                remedy="It was damaged or changed; install the bundle again",
            )
        )


def _flags(seen: Csr, trained: Csr) -> NDArray[np.uint8]:
    """(n,) 1 where a pair of `seen` is in `trained`."""
    same_shape = (seen.n_rows, seen.n_columns) == (trained.n_rows, trained.n_columns)
    flags = np.isin(seen.keys, trained.keys, assume_unique=True) if same_shape else np.zeros(0, np.bool_)
    if int(flags.sum()) != len(trained):
        raise BundleError(problem("'trained' holds what 'seen' does not", remedy="Add it to 'seen'"))
    return flags.astype(np.uint8)
