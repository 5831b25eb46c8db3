"""Lines of a pipe that a killed process has left are removed; those of a living one are not."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from recdistill.ledger import Ledger
from recdistill.ledger.blocks import Rule
from recdistill.ledger.pipe import chunks
from recdistill.ledger.spool import spooled, sweep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
LINE = '{"user": "a", "item": "x"}\n'
KILLED = """
import sys
from pathlib import Path
from recdistill.ledger.pipe import chunks
for part in chunks(sys.stdin, Path(sys.argv[1]), size=1):
    print(part.path, flush=True)
    import time; time.sleep(600)
"""


def test_lines_left_under_the_number_of_a_process_that_runs_are_removed(tmp_path):
    with closing(Ledger.create(tmp_path / "s", Rule(base=4, events=3))) as ledger:
        left = ledger.folder / "spool" / str(os.getpid()) / "lines-000003.jsonl"
        left.parent.mkdir(parents=True)
        left.write_text(LINE)
        ledger.tidy()
        assert list((ledger.folder / "spool").iterdir()) == []


def test_a_living_pipe_keeps_its_lines_and_leaves_none(tmp_path):
    parts = chunks(io.StringIO(LINE * 2), tmp_path / "spool", size=1)
    place = next(parts).path
    sweep(tmp_path / "spool")
    assert place.read_text() == LINE
    parts.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_a_killed_pipe_left_goes_with_the_next_sweep(tmp_path):
    words = [sys.executable, "-c", KILLED, str(tmp_path / "spool")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        child.stdin.write(LINE)
        child.stdin.flush()
        place = Path(child.stdout.readline().strip())
        sweep(tmp_path / "spool")
        assert place.exists()
        os.kill(child.pid, signal.SIGKILL)
    assert place.exists()
    with spooled(tmp_path / "spool") as mine:
        sweep(tmp_path / "spool")
        assert list((tmp_path / "spool").iterdir()) == [mine]
