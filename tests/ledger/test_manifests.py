"""Each closed block has a manifest that says what the index says, whoever kills what."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from recdistill.ledger import Ledger, manifests
from recdistill.ledger.blocks import Rule

KILLED = """
import os, signal, sys
from pathlib import Path
import polars as pl
from recdistill.ledger import Ledger, manifests
from recdistill.ledger.blocks import Rule
from recdistill.ledger.events import gathered
def cut_off(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def renamed(path, place):
    cut_off() if path.name.startswith(".manifest") else os.replace(path, place)
ledger = Ledger(Path(sys.argv[1]), Rule(base=4, events=3))
where, does = sys.argv[2:]
if where == "written":  # the file is whole, but not yet under its name
    Path.replace = renamed
else:
    manifests.settle = cut_off
if does == "ingest":
    events = pl.DataFrame({"user": ["c"] * 4, "item": list("stuv"), "timestamp": [7, 8, 9, 10]})
    ledger.ingest(gathered(events), now=3.0)
elif does == "close":
    ledger.close_open(now=3.0, asked=True)
elif does == "compact":
    ledger.compact()
else:
    with ledger.writing():
        ledger.erase([0], now=3.0)
"""


def files(ledger):
    """The manifests, by name; each name is of the block and of the bytes."""
    found = {file.name: file.read_bytes() for file in (ledger.folder / "blocks").iterdir()}
    for name, text in found.items():
        number, _, digest = name.removesuffix(".json").partition("-")
        assert hashlib.sha256(text).hexdigest().startswith(digest)
        assert json.loads(text)["number"] == int(number)
    return found


def manifest(ledger, number):
    (text,) = (text for name, text in files(ledger).items() if name.startswith(f"{number:06d}-"))
    return json.loads(text)


def holds(ledger):
    """Whether manifests name the segments that are there, and those hold the blocks' events."""
    there = {file.name for file in (ledger.folder / "segments").iterdir()}
    told = [manifest(ledger, block.number) for block in ledger.blocks()]
    assert len(told) == len(files(ledger))
    assert {name for one in told for name in one["segments"]} <= there
    recorded = "SELECT name FROM segment WHERE first < ? AND last > ? ORDER BY first"
    for one in told:
        assert one["segments"] == [name for (name,) in ledger.index.rows(recorded, one["last"], one["first"])]


def test_a_block_that_closes_gets_its_manifest_and_an_open_one_has_none(ledger, batch):
    ledger.ingest(batch(("a", "x", 1), ("b", "x", 2), ("b", "y", 3)), now=1.0)
    assert files(ledger) == {}
    ledger.ingest(batch(("a", "z", 5), ("d", "x", 6), ("a", "w", 9)), now=2.0)
    (segment, next_one) = sorted(file.name for file in (ledger.folder / "segments").iterdir())
    assert manifest(ledger, 0) == {
        **{"number": 0, "why": "count", "opened": 1.0, "closed": 2.0, "first": 0, "last": 4, "events": 4, "late": 0},
        **{"low": 1, "high": 5, "users": 2, "items": 3, "new_users": 2, "new_items": 3},
        "segments": [segment, next_one],
    }
    assert len(files(ledger)) == 1
    ledger.close_open(now=3.0, asked=True)
    second = manifest(ledger, 1)
    assert (second["why"], second["events"], second["new_users"], second["new_items"]) == ("asked", 2, 1, 1)
    assert second["segments"] == [next_one]


def test_a_block_that_nothing_happens_to_keeps_its_very_file(ledger, batch):
    ledger.ingest(batch(*[("a", f"x{n}", n) for n in range(4)]), now=1.0)
    (before,) = (ledger.folder / "blocks").iterdir()
    was = before.stat()
    for n in range(8):
        ledger.ingest(batch(("b", f"y{n}", n)), now=2.0)
    ledger.tidy()
    assert before.stat().st_ino == was.st_ino
    assert before.stat().st_mtime_ns == was.st_mtime_ns


def test_manifests_stay_true_when_segments_are_merged_dropped_and_a_person_is_forgotten(ledger, batch):
    for n in range(9):
        ledger.ingest(batch(("ab"[n % 2], f"x{n}", n)), now=1.0)
    holds(ledger)
    assert len(manifest(ledger, 0)["segments"]) == 4
    before = manifest(ledger, 0)
    ledger.compact()
    holds(ledger)
    assert len(manifest(ledger, 0)["segments"]) == 1
    assert manifest(ledger, 0) | {"segments": 0} == before | {"segments": 0}
    old = files(ledger)
    with ledger.writing():
        ledger.erase([ledger.row_of("b")], now=5.0)
    holds(ledger)
    assert not set(old) & set(files(ledger)), "the hash of what held the person is gone too"
    assert np.unique(ledger.rows().user).tolist() == [0]
    ledger.drop(4)
    holds(ledger)
    assert manifest(ledger, 0)["segments"] == []


def test_a_ledger_from_before_there_were_manifests_gets_them(ledger, batch):
    ledger.ingest(batch(*[("a", f"x{n}", n) for n in range(8)]), now=1.0)
    expected = files(ledger)
    assert len(expected) == 2
    shutil.rmtree(ledger.folder / "blocks")
    ledger.close_open(now=2.0)
    assert files(ledger) == expected


def test_where_they_could_not_be_written_the_next_command_writes_them(ledger, batch, monkeypatch):
    ledger.ingest(batch(*[("a", f"x{n}", n) for n in range(8)]), now=1.0)
    expected = files(ledger)
    shutil.rmtree(ledger.folder / "blocks")

    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(manifests, "write_whole", full)
        with pytest.raises(OSError, match="No space"):
            ledger.close_open(now=2.0)
    assert files(ledger) == {}
    ledger.close_open(now=2.0)
    assert files(ledger) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("does", "where", "after"),
    list(product(["ingest", "close", "compact", "erase"], ["settled", "written"], ["ingest", "step"])),
)
def test_a_kill_between_the_index_and_the_manifest_is_healed_by_the_next_command(ledger, batch, does, where, after):
    """To the same names and the same bytes as of a ledger that nobody disturbed."""
    for n in range(5):
        ledger.ingest(batch(("a", f"x{n}", n)), now=1.0)
    ledger.ingest(batch(("b", "x", 6)), now=2.0)
    ledger.index.settle()
    folder = ledger.folder.parent
    shutil.copytree(folder, folder.with_name("whole"))
    whole = Ledger(folder.with_name("whole"), Rule(base=4, events=3))
    match does:
        case "ingest":
            whole.ingest(batch(*[("c", item, 7 + n) for n, item in enumerate("stuv")]), now=3.0)
        case "close":
            whole.close_open(now=3.0, asked=True)
        case "compact":
            whole.compact()
        case _:
            with whole.writing():
                whole.erase([0], now=3.0)
    ledger.close()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), where, does], check=False)
    assert killed.returncode == -signal.SIGKILL
    again = Ledger(folder, Rule(base=4, events=3))
    if does == "erase":  # `forget` goes on with it
        with again.writing():
            again.erase([0], now=3.0)
    for one in (whole, again):
        if after == "ingest":
            one.ingest(batch(("e", "x", 20)), now=4.0)
        else:
            one.close_open(now=4.0)
            one.compact()
    assert files(again) == files(whole)
    holds(again)
    whole.close()
    again.close()


def test_half_a_manifest_under_its_own_process_number_is_in_nobodys_way(tmp_path):
    folder = tmp_path / "blocks"
    folder.mkdir()
    (folder / f".manifest.{os.getpid()}").write_bytes(b"half")
    manifests.settle(folder, {0: b"whole"}, only=True)
    assert [file.read_bytes() for file in folder.iterdir()] == [b"whole"]
