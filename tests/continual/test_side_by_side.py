"""Several who share a folder of stages: teachers are trained side by side, each once, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from recdistill.continual.settings import settings_of
from recdistill.recipes import cells, lineage
from recdistill.recipes.kept import Kept

from .conftest import SETTINGS

THREE = SETTINGS | {"teachers": [{"dim": 3}, {"dim": 4}, {"dim": 5}]}


def members(stream, folder):
    """Digests of the teachers after block 1."""
    settings = settings_of(settings=THREE)
    line = lineage.Lineage(stream, "teacher", lambda _: settings, seed=1, keep=Kept.at(folder), taught=False)
    return [each.digest for each in line.members(1)]


def test_members_are_trained_side_by_side_and_each_once(stream, tmp_path, monkeypatch):
    real, both, begun = lineage.plain.base, Barrier(2, timeout=60), []

    def base(block, spec, *rest, **more):
        begun.append(spec.dim)
        if len(begun) < 3:
            both.wait()  # broken where the second waits for the first to be through
        return real(block, spec, *rest, **more)

    monkeypatch.setattr(cells, "_WAIT", 0.01)
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(lineage.plain, "base", base)
        found = list(pool.map(lambda _: members(stream, tmp_path / "shared"), range(2)))
    assert sorted(begun) == [3, 4, 5]
    assert found == [members(stream, tmp_path / "alone")] * 2


def test_what_a_killed_process_was_at_goes_on_in_another(stream, tmp_path):
    """A real process dies by SIGKILL inside a stage, after a checkpoint; another, which waits for it, ends it."""
    shared, alone = tmp_path / "shared", members(stream, tmp_path / "alone")
    code = f"""
        import sys, time, pathlib
        sys.path[:0] = {[str(Path(__file__).parent.parent)]!r}
        from continual.conftest import made
        from continual.test_side_by_side import members
        from recdistill.recipes import cells
        from recdistill.training import trainer
        cells._WAIT = 0.05
        real, done = trainer.checkpoint.save, []
        def save(path, *rest, **more):
            real(path, *rest, **more)
            done.append(path)
            if sys.argv[1] == "dies" and len(done) == 5:
                pathlib.Path({str(tmp_path)!r}, "there").touch()
                time.sleep(600)
        trainer.checkpoint.save = save
        print(*members(made(), pathlib.Path({str(shared)!r})))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    holder = subprocess.Popen([*command, "dies"])
    try:
        while not (tmp_path / "there").exists():
            assert holder.poll() is None, "it ended before its fifth checkpoint"
            time.sleep(0.02)
        assert list((shared / "stages").glob("*.running")), "the stage it is at is unfinished"
        other = subprocess.Popen([*command, "waits"], stdout=subprocess.PIPE, text=True)
        while len(list((shared / "stages").glob("teacher-base-*.safetensors"))) < 2:
            time.sleep(0.02)  # it ends another member, and waits for the one that is held
        time.sleep(0.2)
        assert other.poll() is None
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert other.communicate(timeout=300)[0].split() == alone
    assert other.returncode == 0
    assert not list((shared / "stages").glob("*.running"))
