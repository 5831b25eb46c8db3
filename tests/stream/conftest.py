"""A small stream with a method of plain numpy."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recdistill.data.synthetic import planted
from recdistill.stream.stream import Stream

TOY = Path(__file__).with_name("toy.py")
SETTINGS = """
seed = 3
[blocks]
base = 1500
events = 500
least = 5
[gates]
worse = 1.0
forgetting = 1.0
new_users = false
overlap = [0.0, 1.0]
coverage = [0.0, 100.0]
"""


@pytest.fixture(scope="session")
def toy():
    spec = importlib.util.spec_from_file_location("toy", TOY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def log():
    """2,600 events of 90 users: a base block, two more, and an open one."""
    return planted(users=90, items=120, interactions=3000, dim=4, seed=1)


@pytest.fixture
def events(log, tmp_path):
    """The log as a file."""
    return write(log, tmp_path / "events.csv")


def write(log, path, part=slice(None)):
    rows = zip(log.users.external(log.user)[part], log.items.external(log.item)[part], log.timestamp[part], strict=True)
    path.write_text("user,item,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    return path


@pytest.fixture
def stream(tmp_path, events):
    """Three closed blocks, nothing stepped."""
    with Stream.create(tmp_path / "s", SETTINGS) as opened:
        opened.ingest(events, now=0.0)
        yield opened


def content_of(folder: Path) -> dict[str, str]:
    """Everything that a step makes, by path: hashes of files, targets of links."""
    found = {}
    for part in ("objects", "versions"):
        for file in sorted((folder / part).rglob("*")):
            if file.is_file():
                found[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    if (folder / "serving").is_symlink():
        found["serving"] = str((folder / "serving").readlink())
    return found


def program(folder: Path, *words: str) -> str:
    """The program of `toy.py`, in a process of its own."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(TOY), str(folder), *words], check=False, capture_output=True, text=True, env=quiet
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def content():
    """`content(folder)`: what a step has made."""
    return content_of


@pytest.fixture(scope="session")
def run_toy():
    """`run_toy(folder, "boundaries")`"""
    return program


@pytest.fixture(scope="session")
def settings():
    """Gates that let everything pass; three blocks of `events`."""
    return SETTINGS


@pytest.fixture(scope="session")
def write_csv():
    """`write_csv(log, path, part)`: a log as CSV."""
    return write


@pytest.fixture
def begun(tmp_path, events, settings):
    """`begun(more, 250)`: a stream of its events, blocks of so many; after the settings of the blocks `more`."""

    def begin(more, events_a_block=500):
        text = settings.replace("events = 500", f"events = {events_a_block}") + more
        with Stream.create(tmp_path / "s", text) as stream:
            stream.ingest(events, now=0.0)
        return tmp_path / "s"

    return begin


@pytest.fixture(scope="session")
def edit():
    """`edit(folder, old, new)`: a text in a stream's settings."""

    def edited(folder, old, new):
        file = folder / "stream.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return edited
