"""Erasures that are cut on a file system without an exchange of folders lose nothing and leave nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from recdistill import bundle
from recdistill.bundle import folder as replacing
from recdistill.data.csr import Csr
from recdistill.errors import DataError
from recdistill.ids import IdTable
from recdistill.ledger import Objects, Versions, segments
from recdistill.ledger.objects import Personal
from recdistill.ledger.segments import Rows

KEY = "ab" * 16
NAME = "000000-deadbeef"


class Cut(BaseException):
    """A process that ends."""


@pytest.fixture(params=["between the renames", "before the old one is removed"])
def cut(request, monkeypatch):
    """Ends the next replacement of a folder."""
    monkeypatch.setattr(replacing, "_exchange", lambda a, b: False)
    renames, real = [], Path.rename

    def rename(self, to):
        renames.append(self)
        if len(renames) == 2 and request.param == "between the renames":
            raise Cut
        return real(self, to)

    def remove(path, **how):
        if path.name.endswith(".replaced") and len(renames) == 2:
            raise Cut

    def arm():
        monkeypatch.setattr(Path, "rename", rename)
        if request.param != "between the renames":
            monkeypatch.setattr(replacing.shutil, "rmtree", remove)

    yield arm
    monkeypatch.undo()


def test_an_object_whose_erasure_was_cut_is_there_again(tmp_path, cut, monkeypatch):
    objects = Objects(tmp_path / "objects")
    made = {"personal": Personal(rows=("user",)), "measured": {}, "made": {}}
    objects.put(KEY, {"user": np.ones((3, 2), np.float32)}, **made)
    cut()
    with pytest.raises(Cut):
        objects.erase(KEY, 1)
    monkeypatch.undo()
    objects.tidy()
    assert [place.name for place in objects.folder.iterdir()] == [KEY]
    objects.erase(KEY, 1)
    assert objects.get(KEY, full=True).arrays["user"].tolist() == [[1, 1], [0, 0], [1, 1]]


def test_a_version_whose_erasure_was_cut_holds_nobody_who_was_erased(tmp_path, cut, monkeypatch):
    versions = Versions(tmp_path)
    bundle.save(
        versions.path(NAME),
        kind="vectors",
        arrays={"user": np.ones((2, 2), np.float32), "item": np.ones((3, 2), np.float32)},
        users=IdTable.from_ids(["ann", "zoe-4711"]),
        items=IdTable.from_ids(["x", "y", "z"]),
        seen=Csr.empty(2, 3),
        popular=np.arange(3),
        model="mf",
        settings={},
        lineage={},
        metrics={},
        citations=[],
        created="2026-01-01T00:00:00Z",
    )
    cut()
    with pytest.raises(Cut):
        versions.erase(NAME, "zoe-4711")
    monkeypatch.undo()
    versions.tidy()
    assert versions.names() == [NAME]
    versions.erase(NAME, "zoe-4711")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not any(b"zoe-4711" in file.read_bytes() for file in files)
    assert versions.open(NAME).users.external(np.arange(1)).tolist() == ["ann"]


def test_what_cannot_be_made_again_is_not_promised(tmp_path):
    with pytest.raises(DataError, match=r"no stage output abab.*from a copy.*not what a finished one has left"):
        Objects(tmp_path).get(KEY)


def test_the_name_of_a_new_segment_and_of_what_is_served_is_on_disk(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    one = np.zeros(1, np.int32)
    segments.write(tmp_path / "segments", Rows(np.arange(1), one, one, None, None, np.arange(1)))
    assert synced[-1] == (tmp_path / "segments").stat().st_ino
    (tmp_path / "versions" / NAME).mkdir(parents=True)
    Versions(tmp_path).serve(NAME)
    assert synced[-1] == tmp_path.stat().st_ino
