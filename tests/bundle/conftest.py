"""A small bundle, and the means to break it."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recdistill import bundle
from recdistill.bundle.manifest import _digest
from recdistill.data.csr import Csr
from recdistill.ids import IdTable


def contents(seed: int = 0, *, n_users: int = 4, n_items: int = 6, dim: int = 3) -> dict[str, Any]:
    """Arguments of `bundle.save`: users 'u0'.. 'u3', items 100, 101, ...; user 0 has seen items 1 and 4."""
    chance = np.random.default_rng(seed)
    return {
        "kind": "vectors",
        "arrays": {
            "user": chance.normal(size=(n_users, dim)).astype(np.float32),
            "item": chance.normal(size=(n_items, dim)).astype(np.float32),
        },
        "users": IdTable.from_ids([f"u{i}" for i in range(n_users)]),
        "items": IdTable.from_ids(np.arange(100, 100 + n_items)),
        "seen": Csr.from_pairs([0, 0, 1], [1, 4, 0], n_users, n_items),
        "popular": np.array([3, 1, 0]),
        "model": "mf",
        "settings": {"dim": dim},
        "lineage": {"method": "plain", "seed": seed, "teacher": None},
        "metrics": {"recall@10": 0.25},
        "citations": ["Someone et al., Somewhere 2020"],
        "created": "2026-01-02T03:04:05Z",
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    bundle.save(path, **contents())
    return path


class Broken:
    """A saved bundle that can be changed, with the manifest signed again so that only the change is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> Path:
        return self.path / name

    def manifest(self) -> dict[str, Any]:
        return json.loads(self.file("manifest.json").read_text())

    def sign(self, fields: dict[str, Any]) -> None:
        fields = {key: value for key, value in fields.items() if key != "digest"}
        self.file("manifest.json").write_text(json.dumps({**fields, "digest": _digest(fields)}))

    def header(self, name: str) -> dict[str, Any]:
        data = self.file(name).read_bytes()
        return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])

    def write(self, name: str, header: object, payload: bytes | None = None) -> None:
        """Another header (and payload) in a file; sizes and hashes of the manifest follow."""
        data = self.file(name).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        self.put(name, struct.pack("<Q", len(text)) + text + (data[8 + length :] if payload is None else payload))

    def put(self, name: str, data: bytes) -> None:
        self.file(name).write_bytes(data)
        fields = self.manifest()
        fields["files"][name] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.sign(fields)

    def arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Other arrays in a file, sound in form: manifest and header agree on them."""
        from recdistill.bundle.manifest import TensorEntry
        from recdistill.bundle.tensors import write

        self.file(name).unlink()
        size, sha256, header = write(self.file(name), arrays)
        fields = self.manifest()
        tensors = {n: TensorEntry.of(t).model_dump() for n, t in header.items()}
        fields["files"][name] = {"bytes": size, "sha256": sha256, "tensors": tensors}
        self.sign(fields)


@pytest.fixture
def broken(saved: Path) -> Broken:
    return Broken(saved)
