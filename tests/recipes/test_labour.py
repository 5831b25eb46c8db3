"""Work that processes share: once each, in an order that can be, and nothing lost with who dies."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from recdistill.recipes.cells import Cells
from recdistill.recipes.labour import Task, work_through


class Board:
    """Tasks whose results are files."""

    def __init__(self, root):
        self.root, self.done = root, []

    def task(self, name, *needs, fails=False):
        def do():
            if fails:
                raise RuntimeError(name)
            self.done.append(name)
            (self.root / name).touch()

        def there(which):
            return (self.root / which).exists()

        return Task(name, lambda: there(name), lambda: all(map(there, needs)), do)


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path)


def never(seconds):
    raise AssertionError(seconds)


def test_what_others_need_comes_first_and_everything_once(board, tmp_path):
    tasks = [board.task("student", "teacher", "trials"), board.task("trials", "teacher"), board.task("teacher")]
    told = []
    work_through(tasks, Cells(tmp_path), told=lambda task: told.append(task.name), sleep=never)
    assert board.done == told == ["teacher", "trials", "student"]
    work_through(tasks, Cells(tmp_path), told=never, sleep=never)
    assert len(board.done) == 3


def test_what_another_process_is_at_is_left_to_it_and_waited_for(board, tmp_path):
    cells, slept = Cells(tmp_path), []
    tasks = [board.task("a"), board.task("b"), board.task("c", "a")]
    other = cells.claim("task-a", "task")
    assert other.__enter__()

    def sleep(seconds):
        slept.append((seconds, list(board.done)))
        (tmp_path / "a").touch()  # it finishes
        other.__exit__(None, None, None)

    work_through(tasks, cells, told=lambda task: None, sleep=sleep)
    assert board.done == ["b", "c"]
    assert [done for _, done in slept] == [["b"]]
    assert slept[0][0] >= 0.5, "it looks now and then, it does not spin"


def test_what_a_process_was_at_when_it_died_is_done_by_others(board, tmp_path):
    code = f"""
        import os, pathlib, signal
        from recdistill.recipes.cells import Cells
        with Cells(pathlib.Path({str(tmp_path)!r})).claim("task-a", "task") as mine:
            assert mine
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode < 0
    work_through([board.task("a")], Cells(tmp_path), told=lambda task: None, sleep=never)
    assert board.done == ["a"]


def test_a_task_that_fails_frees_what_it_had(board, tmp_path):
    cells = Cells(tmp_path)
    with pytest.raises(RuntimeError, match="a"):
        work_through([board.task("a", fails=True)], cells, told=never, sleep=never)
    work_through([board.task("a")], cells, told=lambda task: None, sleep=never)
    assert board.done == ["a"]
