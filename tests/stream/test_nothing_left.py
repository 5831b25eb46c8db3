"""After `stream forget` nothing of the id is in the folder, whatever killed processes have left there."""

from __future__ import annotations

import os

from recdistill.stream.stream import Stream

NAME = "zoë-4711-forget-me"


def holding(folder, text=NAME):
    """The files under a folder that hold the text."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    return [str(file.relative_to(folder)) for file in files if text.encode() in file.read_bytes()]


def named(tmp_path, log, write_csv, settings):
    """A stream in which u7 has a name that occurs nowhere else."""
    path = write_csv(log, tmp_path / "named.csv")
    path.write_text(path.read_text().replace("\nu7,", f"\n{NAME},"))
    stream = Stream.create(tmp_path / "named", settings)
    stream.ingest(path, now=0.0)
    return stream


def test_lines_of_a_killed_pipe_go_though_another_process_has_its_number(tmp_path, log, write_csv, settings):
    with named(tmp_path, log, write_csv, settings) as stream:
        left = stream.folder / "ledger" / "spool" / str(os.getpid()) / "lines-000003.jsonl"
        left.parent.mkdir(parents=True)
        left.write_text(f'{{"user": "{NAME}", "item": "i1"}}\n')
        stream.forget(NAME)
        assert holding(stream.folder) == []
