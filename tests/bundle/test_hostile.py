"""Bundles that somebody broke, or built to break us: each is refused, with its reason, before an array exists."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recdistill import bundle
from recdistill.errors import BundleError, UsageError
from recdistill.serve.service import Service

from .conftest import Broken, contents

T = "tensors.safetensors"
Change = Callable[[Broken], object]


def fields(**new: object) -> Change:
    return lambda b: b.sign(b.manifest() | new)


def entry(name: str, **new: object) -> Change:
    """Change a file's entry in the manifest."""

    def change(b: Broken) -> None:
        whole = b.manifest()
        whole["files"][name] |= new
        b.sign(whole)

    return change


def tensor(key: str, **new: object) -> Change:
    """Change a tensor's description in the header of the model's file."""

    def change(b: Broken) -> None:
        header = b.header(T)
        header[key] |= new
        b.write(T, header)

    return change


def renamed(old: str, new: str) -> Change:
    def change(b: Broken) -> None:
        whole = b.manifest()
        whole["files"][new] = whole["files"].pop(old)
        b.sign(whole)

    return change


def linked(b: Broken) -> None:
    target = b.path.parent / "elsewhere"
    b.file(T).rename(target)
    b.file(T).symlink_to(target)


def zipped(b: Broken) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("archive/data.pkl", b"x" * 64)
    b.put(T, data.getvalue())


def hard_link_to_pipe(b: Broken) -> None:
    b.file(T).unlink()
    os.mkfifo(b.file(T))


def folder(b: Broken) -> None:
    b.file(T).unlink()
    b.file(T).mkdir()


def npy(b: Broken) -> None:
    data = io.BytesIO()
    np.save(data, np.zeros(9))
    b.put(T, data.getvalue())


def cut(name: str, keep: int) -> Change:
    return lambda b: b.file(name).write_bytes(b.file(name).read_bytes()[:keep])


def cut_and_signed(keep: int) -> Change:
    return lambda b: b.put(T, b.file(T).read_bytes()[:keep])


def both(name: str, key: str, shape: list[int], dtype: str = "F32") -> Change:
    """A shape that header and manifest agree on."""

    def change(b: Broken) -> None:
        header = b.header(name)
        header[key] |= {"shape": shape, "dtype": dtype}
        b.write(name, header)
        whole = b.manifest()
        whole["files"][name]["tensors"][key] |= {"shape": shape, "dtype": dtype}
        b.sign(whole)

    return change


def text(value: str) -> Change:
    return lambda b: b.file("manifest.json").write_text(value)


def compact(scale: np.ndarray | None, user: str = "int8") -> Change:
    """Users in int8, with these scales beside them."""

    def change(b: Broken) -> None:
        more = {} if scale is None else {"user.scale": scale}
        b.arrays(T, user=np.zeros((4, 3), user), item=np.zeros((6, 3), "f"), **more)

    return change


def indexed(b: Broken, data: bytes = b"x" * 200, **entry: object) -> None:
    """An approximate index that the manifest lists, of the size and hash it gives."""
    whole = b.manifest()
    b.file("index.voyager").write_bytes(data)
    whole["files"]["index.voyager"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "tensors": {}}
    made = {"built_from": whole["files"][T]["sha256"], "effort": 16, "recall": 1.0, "measured": {}}
    b.sign(whole | {"index": made | entry})


HOSTILE: dict[str, tuple[Change, str]] = {
    # the manifest
    "manifest missing": (lambda b: b.file("manifest.json").unlink(), "holds no manifest.json"),
    "manifest empty": (text(""), "is not valid JSON"),
    "manifest not utf-8": (lambda b: b.file("manifest.json").write_bytes(b"\xff\xfe{}"), "is not valid JSON"),
    "manifest a list": (text("[]"), "is not a table; got 'list'"),
    "manifest nested without end": (text("[" * 200_000), "is not valid JSON"),
    "manifest with a repeated key": (text('{"schema_version": 1, "schema_version": 1}'), "a key is repeated"),
    "manifest with NaN": (text('{"schema_version": 1, "metrics": {"a": NaN}}'), "NaN is not JSON"),
    "manifest with infinity by overflow": (text('{"schema_version": 1, "metrics": {"a": 1e999}}'), "1e999 is not JSON"),
    "manifest with a number of 5,000 digits": (text('{"schema_version": ' + "9" * 5000 + "}"), "is not valid JSON"),
    "manifest oversized": (text(" " * (5 << 20)), "is too large"),
    "manifest a symlink": (
        lambda b: (
            b.file("manifest.json").rename(b.path.parent / "m")
            and b.file("manifest.json").symlink_to(b.path.parent / "m")
        ),
        "is a symbolic link",
    ),
    "manifest edited": (
        lambda b: b.file("manifest.json").write_text(json.dumps(b.manifest() | {"model": "other"})),
        "does not match its own digest",
    ),
    "schema of tomorrow": (
        fields(schema_version=2),
        "schema version that this release does not read; got 2. Allowed: 1",
    ),
    "schema missing": (text("{}"), "schema version that this release does not read"),
    "schema true": (fields(schema_version=True), "schema version that this release does not read; got True"),
    "unknown key": (fields(code="print(1)"), "'code': Extra inputs are not permitted"),
    "wrong type": (fields(n_users="4"), "'n_users': Input should be a valid integer"),
    "negative count": (fields(n_users=-4), "'n_users': Input should be greater than or equal to 0"),
    "count beyond any machine": (fields(n_items=2**60), "'n_items': Input should be less than"),
    "hash of another kind": (entry(T, sha256="0" * 32), r"'files.tensors.safetensors.sha256': String should match"),
    # compact tables and indexes
    "int8 without scales": (compact(None), r"'user' needs float32 scales of shape \[4\].*got 'absent'"),
    "scales of another length": (compact(np.ones(5, "f")), r"'user' needs float32 scales of shape \[4\]"),
    "scales of integers": (compact(np.ones(4, np.int32)), r"got 'int32 \[4\]'"),
    "scales of floats": (compact(np.ones(4, "f"), "float32"), "'user' needs no scales, for it is not int8"),
    "an index unlisted": (
        lambda b: b.file("index.voyager").write_bytes(b"x"),
        "holds what is not a bundle's: index.voy",
    ),
    "an index of other vectors": (lambda b: indexed(b, built_from="0" * 64), "was built from other vectors"),
    "an index of low recall": (
        lambda b: indexed(b, recall=0.5),
        "'index.recall': Input should be greater than or equal",
    ),
    "an index of any effort": (
        lambda b: indexed(b, effort=10**9),
        "'index.effort': Input should be less than or equal",
    ),
    "an index cut short": (
        lambda b: (indexed(b), b.file("index.voyager").write_bytes(b"x" * 9)),
        "index.voyager has the wrong size: the manifest says 200 bytes, the file has 9",
    ),
    "an index elsewhere": (
        lambda b: (
            indexed(b),
            b.file("index.voyager").rename(b.path.parent / "i"),
            b.file("index.voyager").symlink_to(b.path.parent / "i"),
        ),
        "index.voyager is a symbolic link",
    ),
    # names
    "path traversal": (renamed(T, "../tensors.safetensors"), "names a file outside the bundle's own"),
    "absolute path": (renamed(T, "/etc/passwd"), "names a file outside the bundle's own; got '/etc/passwd'"),
    "backslashes": (renamed(T, "..\\tensors.safetensors"), "names a file outside the bundle's own"),
    "file not listed": (lambda b: b.sign(b.manifest() | {"files": {}}), "lists no items.safetensors"),
    "file listed that no bundle has": (
        lambda b: b.sign(
            b.manifest() | {"files": b.manifest()["files"] | {"more.safetensors": b.manifest()["files"][T]}}
        ),
        "lists what is not a bundle's: more.safetensors",
    ),
    "file missing": (lambda b: b.file("seen.safetensors").unlink(), "holds no seen.safetensors"),
    "extra file": (lambda b: b.file("model.pkl").write_bytes(b""), "holds what is not a bundle's: model.pkl"),
    "extra folder": (lambda b: b.file("__pycache__").mkdir(), "holds what is not a bundle's: __pycache__"),
    # kinds of file
    "symlink": (linked, "is a symbolic link"),
    "pipe": (hard_link_to_pipe, "is not a plain file"),
    "folder for a file": (folder, "is not a plain file"),
    "pickle renamed": (lambda b: b.put(T, pickle.dumps({"user": list(range(40))}, 4)), "is a pickle, not safetensors"),
    "zip renamed": (zipped, "is a zip file .perhaps of torch or numpy., not safetensors"),
    "npy renamed": (npy, "is an npy file, not safetensors"),
    # sizes
    "truncated": (cut(T, 100), "has the wrong size"),
    "grown": (lambda b: b.file(T).write_bytes(b.file(T).read_bytes() + b"\0"), "has the wrong size"),
    "truncated and signed": (cut_and_signed(200), "The tensors of .* fill 120 bytes; the file holds"),
    "cut in the header": (cut_and_signed(20), "was cut short: its header says"),
    "cut before the header": (cut_and_signed(4), "is too short to be safetensors: 4 bytes"),
    "empty file": (cut_and_signed(0), "is too short to be safetensors: 0 bytes"),
    "header without end": (
        lambda b: b.put(T, struct.pack("<Q", 2**63) + b"{}"),
        "says it has 9,223,372,036,854,775,808",
    ),
    # headers
    "header a list": (lambda b: b.write(T, []), "is not a table of tensors"),
    "header not JSON": (lambda b: b.write(T, b"{'user': 1}"), "is not valid JSON"),
    "header nested without end": (lambda b: b.write(T, b'{"a":' * 100_000), "is not valid JSON"),
    "header with a repeated tensor": (lambda b: b.write(T, b'{"a": 1, "a": 2}'), "a key is repeated"),
    "tensor a number": (lambda b: b.write(T, {"user": 3}), "'user' of .* is badly described"),
    "tensor with a key too many": (tensor("user", code="x"), "is badly described"),
    "tensor with a name without end": (lambda b: b.write(T, {"n" * 999: {}}), "has a name of 999 characters"),
    "dtype unknown": (tensor("user", dtype="OBJECT"), "has a type that a bundle cannot hold; got 'OBJECT'"),
    "dtype a list": (tensor("user", dtype=["F32"]), "has a type that a bundle cannot hold"),
    "shape negative": (tensor("user", shape=[-4, -3]), r"has a bad shape; got '\[-4, -3\]'"),
    "shape a float": (tensor("user", shape=[4.0, 3]), "has a bad shape"),
    "shape true": (tensor("user", shape=[True, 12]), "has a bad shape"),
    "shape of nine dimensions": (tensor("user", shape=[1] * 9), "has a bad shape"),
    "shape that overflows": (tensor("user", shape=[2**62, 2**62]), "has a shape beyond any machine"),
    "shape that overflows around a zero": (tensor("user", shape=[0, 2**62]), "has a shape beyond any machine"),
    "shape larger than its bytes": (tensor("user", shape=[4, 300]), "4,800 bytes, but its offsets hold 48"),
    "offsets past the end": (tensor("user", data_offsets=[72, 10**9]), "but its offsets hold 999,999,928"),
    "offsets descending": (tensor("user", data_offsets=[120, 72]), "has bad offsets"),
    "offsets negative": (tensor("user", data_offsets=[-48, 0]), "has bad offsets"),
    "offsets overlapping": (
        tensor("user", data_offsets=[24, 72]),
        "'item' of .* begins|'user' of .* begins at byte 24",
    ),
    "offsets with a hole": (tensor("user", data_offsets=[80, 128]), "begins at byte 80; the one before ends at 72"),
    "bytes nobody owns": (lambda b: b.put(T, b.file(T).read_bytes() + b"code"), "fill 120 bytes; the file holds 124"),
    # the manifest against the headers
    "manifest with another shape": (
        entry(T, tensors={"item": {"dtype": "F32", "shape": [6, 3]}, "user": {"dtype": "F32", "shape": [3, 4]}}),
        r"'user' of .* is not what the manifest says: F32 \[4, 3\], not F32 \[3, 4\]",
    ),
    "manifest with another dtype": (
        entry(T, tensors={"item": {"dtype": "F32", "shape": [6, 3]}, "user": {"dtype": "I32", "shape": [4, 3]}}),
        r"F32 \[4, 3\], not I32 \[4, 3\]",
    ),
    "manifest with a tensor too few": (entry(T, tensors={"item": {"dtype": "F32", "shape": [6, 3]}}), "not absent"),
    # what belongs together
    "vectors of another count": (both(T, "user", [3, 4]), r"'user' of kind 'vectors' must be floats of shape \(4, d\)"),
    "vectors of integers": (both(T, "user", [4, 3], "I32"), "must be floats of shape .4, d.; got 'int32"),
    "vectors of two widths": (
        lambda b: b.arrays(T, user=np.zeros((4, 2), "f"), item=np.zeros((6, 3), "f")),
        "'user' has 2 dimensions and 'item' has 3",
    ),
    "vectors absent": (lambda b: b.arrays(T, user=np.zeros((4, 2), "f")), "'item' of kind 'vectors' .*got 'absent'"),
    "more users than the id table": (
        fields(n_users=5),
        r"users.safetensors must hold bytes uint8 \[8\], offsets int64 \[6\], order int64 \[5\]",
    ),
    "ids of another kind": (fields(user_ids="int"), r"users.safetensors must hold ids int64 \[4\]"),
    "id offsets outside the bytes": (
        lambda b: b.arrays(
            "users.safetensors",
            bytes=np.zeros(8, np.uint8),
            offsets=np.array([0, 2, 4, 6, 10**12]),
            order=np.arange(4),
        ),
        "The id table .* is broken",
    ),
    "indptr descending": (
        lambda b: b.arrays("seen.safetensors", indptr=np.array([0, 3, 2, 3, 3]), indices=np.array([0, 1, 2], np.int32)),
        "the rows of 'seen' are not in order",
    ),
    "indptr past the end": (
        lambda b: b.arrays("seen.safetensors", indptr=np.array([0, 3, 3, 3, 9]), indices=np.array([0, 1, 2], np.int32)),
        "the rows of 'seen' are not in order; got '0 ... 9'. Allowed: 0 ascending to 3",
    ),
    "indptr of another length": (
        lambda b: b.arrays("seen.safetensors", indptr=np.array([0, 3]), indices=np.array([0, 1, 2], np.int32)),
        r"seen.safetensors must hold indices int32 \[3\], indptr int64 \[5\]",
    ),
    "seen in two dimensions": (
        lambda b: b.arrays("seen.safetensors", indptr=np.zeros(5, np.int64), indices=np.zeros((1, 1), np.int32)),
        "seen.safetensors must hold",
    ),
    "popular that is no item": (
        lambda b: b.arrays("popular.safetensors", items=np.array([6])),
        "holds a row that is no item",
    ),
    "popular that is negative": (
        lambda b: b.arrays("popular.safetensors", items=np.array([-1])),
        "holds a row that is no item",
    ),
    "popular longer than the catalogue": (
        lambda b: b.arrays("popular.safetensors", items=np.zeros(7, np.int64)),
        "the popular list is longer than the 6 items",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_with_its_reason(broken: Broken, name: str):
    change, reason = HOSTILE[name]
    change(broken)
    with pytest.raises(BundleError, match=reason):
        bundle.open(broken.path)


def test_there_are_enough_of_them():
    assert len(HOSTILE) + len(ON_FULL) >= 30


@pytest.mark.parametrize("name", HOSTILE)
def test_a_refusal_takes_little_memory(broken: Broken, name: str):
    HOSTILE[name][0](broken)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            bundle.open(broken.path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20  # the manifest may have 4 MiB; no size that a file claims is ever allocated


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("name", [T, "items.safetensors", "seen.safetensors", "popular.safetensors", "index.voyager"])
@pytest.mark.parametrize("verify", ["headers", "full"])
def test_a_pickle_is_never_loaded_whatever_its_name(broken: Broken, name: str, verify: str):
    trap = pickle.dumps(Trap(broken.path.parent / "sprung"))
    if name == "index.voyager":
        indexed(broken, trap + b"\0" * 200)
        if verify == "headers":  # nothing of an index is read until a search asks for it
            bundle.open(broken.path)
            with pytest.raises((BundleError, UsageError), match=r"no index of voyager|needs voyager"):
                Service.from_bundle(broken.path, search="approximate")
            assert not (broken.path.parent / "sprung").exists()
            return
    else:
        broken.put(name, trap)
    with pytest.raises(BundleError):
        bundle.open(broken.path, verify=verify)
    assert not (broken.path.parent / "sprung").exists()


ON_FULL: dict[str, tuple[Change, str]] = {
    "vectors that are not numbers": (
        lambda b: b.arrays(T, user=np.full((4, 3), np.nan, "f"), item=np.zeros((6, 3), "f")),
        "the array 'user' holds a number that is not finite",
    ),
    "vectors without end": (
        lambda b: b.arrays(T, user=np.zeros((4, 3), "f"), item=np.full((6, 3), np.inf, "f")),
        "the array 'item' holds a number that is not finite",
    ),
    "scales that are not numbers": (compact(np.full(4, np.nan, "f")), "'user.scale' holds a number that is not finite"),
    "scales below zero": (compact(np.full(4, -1, "f")), "the scales 'user.scale' hold a negative number"),
    "an index that is none": (indexed, "is refused, and was not given to the library: it has no index of voyager"),
    "a byte of a vector": (lambda b: flip(b.file(T), -3), "does not have the hash that the manifest gives it"),
    "seen that is no item": (
        lambda b: b.arrays("seen.safetensors", indptr=np.array([0, 1, 1, 1, 1]), indices=np.array([6], np.int32)),
        "'seen' holds a row that is no item",
    ),
    "seen not ascending": (
        lambda b: b.arrays("seen.safetensors", indptr=np.array([0, 2, 2, 2, 2]), indices=np.array([4, 1], np.int32)),
        "the items of a row of 'seen' are not ascending and distinct",
    ),
    "popular twice": (lambda b: b.arrays("popular.safetensors", items=np.array([1, 1])), "names an item twice"),
    "ids out of order": (
        lambda b: b.arrays("items.safetensors", ids=np.arange(100, 106), order=np.array([5, 4, 3, 2, 1, 0])),
        "does not find its own ids",
    ),
    "order that is no row": (
        lambda b: b.arrays("items.safetensors", ids=np.arange(100, 106), order=np.array([0, 1, 2, 3, 4, 10**9])),
        "does not find its own ids",
    ),
    "ids that are no text": (
        lambda b: b.arrays(
            "users.safetensors", bytes=np.full(4, 255, np.uint8), offsets=np.arange(5), order=np.arange(4)
        ),
        "does not find its own ids",
    ),
    "id offsets descending": (
        lambda b: b.arrays(
            "users.safetensors", bytes=np.full(8, 65, np.uint8), offsets=np.array([0, 6, 4, 6, 8]), order=np.arange(4)
        ),
        "does not find its own ids",
    ),
}


@pytest.mark.parametrize("name", ON_FULL)
def test_what_only_reading_every_byte_can_find_is_found_on_full(broken: Broken, name: str):
    change, reason = ON_FULL[name]
    change(broken)
    bundle.open(broken.path)
    with pytest.raises(BundleError, match=reason):
        bundle.verify(broken.path)


def flip(path: Path, at: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(bytes(data))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("original") / "b"
    bundle.save(path, **contents())
    return {file.name: file.read_bytes() for file in path.iterdir()}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_are_refused_or_change_nothing(tmp_path: Path, original: dict[str, bytes], data: st.DataObject):
    path = tmp_path / "fuzzed"
    path.mkdir(exist_ok=True)
    changed = {name: bytearray(content) for name, content in original.items()}
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(changed)))
        # half of the flips go to where lengths and headers stand
        last = len(changed[name]) - 1
        at = data.draw(st.integers(0, min(last, 200)) | st.integers(0, last))
        changed[name][at] ^= data.draw(st.integers(1, 255))
    for name, content in changed.items():
        (path / name).write_bytes(content)
    try:
        opened = bundle.open(path, verify=data.draw(st.sampled_from(["headers", "full"])))
    except BundleError:
        return
    assert opened.manifest == bundle.Manifest.from_json(original["manifest.json"], "")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["dtype", "shape", "data_offsets", "user", "item", "__metadata__"]), inner, max_size=3
            )
        ),
        max_leaves=12,
    )
)
def test_any_header_is_refused_or_read(tmp_path: Path, header: object):
    from recdistill.bundle.tensors import read

    path = tmp_path / "t.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 16)
    try:
        read(path)
    except BundleError:
        return
