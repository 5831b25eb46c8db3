"""Lines of a pipe: good ones before a bad one count, bad ones are told by their number, and a signal loses nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from threading import Event

import pytest
from typer.testing import CliRunner

from recdistill.cli.app import app
from recdistill.errors import DataError, UsageError
from recdistill.ledger.pipe import batches, chunks
from recdistill.recipes.stream import begin
from recdistill.stream.stream import Stream


def line(user, **more):
    return json.dumps({"user": user, "item": "x", **more}) + "\n"


@pytest.fixture
def folder(tmp_path):
    begin(tmp_path / "s").close()
    return tmp_path / "s"


def taken(text, tmp_path, *, size=100, **how):
    """The users of each batch, what was said, and the error."""
    source = io.TextIOWrapper(io.BytesIO(text if isinstance(text, bytes) else text.encode()))
    users, said, failed = [], [], None
    try:
        for events in batches(source, tmp_path / "spool", size=size, echo=said.append, **how):
            users.append(events.users)
    except DataError as error:
        failed = str(error)
    assert list((tmp_path / "spool").iterdir()) == []
    return users, said, failed


BAD = {
    "json": ("{broken", "'{broken' is no JSON object"),
    "bytes": (b'{"user": "\xe9", "item": "x"}', r"""'not UTF-8: {"user": "\\xe9", "item": "x"}' is no JSON object"""),
    "escaped": (b'"\\\xff"', r"""'not UTF-8: "\\\\xff"' is no JSON object"""),
    "zero": (b'{"user": "a\0", "item": "x"}', "'zero bytes: {"),
    "missing": ('{"user": "a"}', "column 'item': is missing"),
    "bool": ('{"user": true, "item": "x"}', "column 'user': 'true' is no id: give a whole number or text"),
    "list": ('{"user": ["x"], "item": "x"}', """column 'user': '["x"]' is no id: give a whole number or text"""),
    "object": ('{"user": {"id": 1}, "item": "x"}', "column 'user': '{\"id\": 1}' is no id"),
    "item": ('{"user": "a", "item": ["x"]}', """column 'item': '["x"]' is no id"""),
    "half": (r'{"user": "a\ud800", "item": "x"}', "is no id: give a whole number or text"),
}


@pytest.mark.parametrize("kind", BAD)
def test_the_lines_before_a_bad_one_are_taken_and_the_error_names_its_number(tmp_path, kind):
    bad, why = BAD[kind]
    bad = bad if isinstance(bad, bytes) else bad.encode()
    text = (line("a") + line("b") + "\n" + line("c")).encode() + bad + b"\n" + line("d").encode()
    for size, wanted in ((100, [["a", "b", "c"]]), (2, [["a", "b"], ["c"]])):
        users, said, failed = taken(text, tmp_path, size=size)
        assert users == wanted
        assert "standard input, line 5" in failed
        assert why in failed
        assert said == []


@pytest.mark.parametrize("kind", BAD)
def test_bad_lines_that_are_skipped_are_counted_and_said(tmp_path, kind):
    bad, why = BAD[kind]
    bad = bad if isinstance(bad, bytes) else bad.encode()
    text = line("a").encode() + bad + b"\n" + line("d").encode()
    users, said, failed = taken(text, tmp_path, on_bad_rows="skip")
    assert (users, failed) == ([["a", "d"]], None)
    assert len(said) == 1
    assert said[0].startswith("standard input: skipped 1 bad row: line 2"), said
    assert why in said[0]


def test_a_batch_of_bad_lines_alone_does_not_end_a_pipe_that_skips_them(tmp_path):
    text = line("a") + '{"foo": 1}\n' + "broken\n" + line("b")
    users, said, failed = taken(text, tmp_path, size=1, on_bad_rows="skip")
    assert (users, failed) == ([["a"], ["b"]], None)
    assert ["skipped 1 lines" in one for one in said] == [True, True]
    users, _, failed = taken('{"foo": 1}\n' + line("b"), tmp_path, size=1, on_bad_rows="skip")
    assert users == []
    assert "standard input: no column is recognised as the user" in failed, "the first lines tell of wrong columns"
    with pytest.raises(UsageError, match="on_bad_rows must say"):
        next(batches(io.StringIO(""), tmp_path, size=1, on_bad_rows="skp"))


def test_each_line_says_whether_it_has_an_id_though_another_is_broken(tmp_path):
    text = line("a") + line("b", event_id="e1") + "{broken\n" + line("c", event_id="")
    source = io.StringIO(text + line("d", event_id="e1"))
    (events,) = batches(source, tmp_path / "spool", size=9, on_bad_rows="skip")
    assert len(events) == 4
    assert events.key[1] == events.key[3]
    assert len(set(events.key.tolist())) == 3


def test_a_line_without_a_time_among_lines_with_times_is_told_so(tmp_path):
    _, _, failed = taken(line("a", timestamp=5) + line("b"), tmp_path)
    assert "standard input, line 2, column 'timestamp': is missing" in failed
    _, _, failed = taken(line("a", timestamp=5) + line("b", timestamp=-1), tmp_path)
    assert "standard input, line 2, column 'timestamp': '-1' is not a time, 0 or later" in failed


def test_what_is_said_of_columns_is_what_ingest_takes(tmp_path):
    _, _, failed = taken('{"user": "a", "itm": "x"}\n', tmp_path)
    assert "standard input: no column is recognised as the item" in failed
    assert failed.endswith("Say which column holds it: columns={'item': ...} (--column item=NAME).")
    with pytest.raises(
        UsageError, match=r"got 'itm'. Did you mean 'item'\? Allowed: user, item, timestamp, weight, event"
    ):
        next(batches(io.StringIO(line("a")), tmp_path / "spool", size=1, columns={"itm": "x"}))


def test_a_pipe_that_breaks_is_an_error_after_what_came_before(tmp_path):
    class Breaking(io.StringIO):
        def __iter__(self):
            yield line("a")
            raise OSError("gone")

    parts = chunks(Breaking(), tmp_path / "spool", size=9)
    assert list(next(parts).lines) == [1]
    with pytest.raises(
        DataError, match=r"standard input cannot be read on \(gone\). What came before is in the ledger"
    ):
        list(parts)


def test_every_batch_is_told_and_then_all_of_them(folder, monkeypatch):
    monkeypatch.setitem(Stream.ingest_lines.__kwdefaults__, "size", 2)
    text = line("a") + line("b") + line("a") + line("c") + "broken\n" + line("d")
    told = CliRunner().invoke(app, ["stream", "ingest", str(folder), "--on-bad-rows", "skip"], input=text)
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines() == [
        "standard input: 2 new of 2 events",
        "standard input: 1 new of 2 events, 1 repeated",
        "standard input: 1 new of 1 events",
        "standard input, 3 batches: 4 new of 5 events, 1 repeated",
    ]
    assert "standard input: skipped 1 bad row: line 5: 'broken' is no JSON object" in told.stderr
    told = CliRunner().invoke(app, ["stream", "ingest", str(folder)], input=line("a"))
    assert told.stdout == "standard input: 0 new of 1 events, 1 repeated\n"
    assert (
        CliRunner().invoke(app, ["stream", "ingest", str(folder)], input="").stdout == "standard input: nothing came\n"
    )


def test_bytes_that_are_no_text_are_told_whatever_the_locale(folder):
    text = line("a").encode() + b'{"user": "\xe9", "item": "x"}\n'
    for locale in ("C.UTF-8", "C"):
        words = [sys.executable, "-m", "recdistill", "stream", "ingest", str(folder)]
        env = {**os.environ, "LC_ALL": locale}
        done = subprocess.run(words, input=text, capture_output=True, check=False, env=env)
        said = done.stderr.decode()
        assert done.returncode == 2, said
        assert "Traceback" not in said
        assert "standard input, line 2: 'not UTF-8:" in " ".join(said.split())
        assert b"of 1 events" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_pipe_and_has_its_usual_way_after_what_was_read(tmp_path, number):
    class Interrupted(io.StringIO):
        def __iter__(self):
            yield line("a")
            yield line("b")
            os.kill(os.getpid(), number)
            forever.wait(20)

    forever, came = Event(), []
    usual = signal.signal(number, handler := lambda *_: came.append(number))
    try:
        users = []
        for events in batches(Interrupted(), tmp_path / "spool", size=9):
            users += events.users
            assert came == []
        assert users == ["a", "b"]
        assert came == [number]
        assert signal.getsignal(number) is handler
    finally:
        forever.set()
        signal.signal(number, usual)


OPEN = """
import sys
from pathlib import Path
from recdistill.stream.stream import Stream
with Stream(Path(sys.argv[1])) as stream:
    stream.ingest_lines(sys.stdin, size=2)
"""


def test_a_process_that_ends_while_its_pipe_is_open_ends_in_order(folder):
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, str(folder)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        child.stdin.write(line("a").encode() + b"broken\n")
        child.stdin.flush()
        said = child.stderr.read().decode()
        assert child.wait() == 1
    assert "standard input, line 2: 'broken' is no JSON object" in said
    assert "Fatal" not in said
    with Stream(folder) as stream:
        assert len(stream.ledger.rows()) == 1
