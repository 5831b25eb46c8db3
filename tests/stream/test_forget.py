"""Forgetting a person: nothing of the id is left on disk, and what deletion cannot remove has a date."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from recdistill import bundle
from recdistill.cli.app import app
from recdistill.errors import UsageError
from recdistill.stream.status import status
from recdistill.stream.stream import Stream

NAME = "zoë-4711-forget-me"


@pytest.fixture
def theirs(tmp_path, log, write_csv, settings, toy):
    """A stream of three cycles in which u7 has a name that occurs nowhere else."""
    path = write_csv(log, tmp_path / "named.csv")
    path.write_text(path.read_text().replace("\nu7,", f"\n{NAME},"))
    with Stream.create(tmp_path / "named", settings) as stream:
        stream.ingest(path, now=0.0)
        yield stream, path


def places(folder, text=NAME):
    """The files that hold the text, in utf-8 or utf-16, whole or without its accents' bytes split."""
    wanted = [text.encode(), text.encode("utf-16-le"), text.split("-", 1)[1].encode()]
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert files
    return [str(file.relative_to(folder)) for file in files if any(one in file.read_bytes() for one in wanted)]


def test_nothing_of_the_id_is_left_in_the_folder_nor_in_free_pages_of_the_index(theirs, toy):
    stream, _ = theirs
    stream.step(stages=toy.Toy())
    assert {place.split("/")[0] for place in places(stream.folder)} == {"ledger", "versions"}
    manifests = {file.name for file in (stream.folder / "ledger" / "blocks").iterdir()}
    assert len(manifests) == 3
    done = stream.forget(NAME, now=5.0)
    assert places(stream.folder) == []
    after = {file.name for file in (stream.folder / "ledger" / "blocks").iterdir()}
    assert len(after) == 3
    assert not after & manifests, "of segments that held the person"
    assert done["versions"] == 3
    assert done["objects"] > 10
    assert stream.ledger.index.value("PRAGMA freelist_count") == 0
    assert (stream.folder / "ledger" / "index.sqlite-wal").stat().st_size == 0


def test_no_row_of_theirs_is_left_in_events_tables_lists_proxies_and_holdouts(theirs, toy):
    stream, _ = theirs
    stream.step(stages=toy.Toy())
    row = stream.ledger.row_of(NAME)
    keys = stream.ledger.rows().key[stream.ledger.rows().user == row].tolist()
    assert keys
    stream.forget(NAME)
    assert not (stream.ledger.rows().user == row).any()
    assert not {key for (key,) in stream.ledger.index.rows("SELECT key FROM event")} & set(keys)
    for key in stream.objects.names():
        stored = stream.objects.get(key, full=True)
        for name, array in stored.arrays.items():
            if name in stored.about["personal"]["rows"]:
                assert not np.isin(array[row], [0, -1], invert=True).any(), name
            elif name.endswith("_user"):
                assert not (array == row).any(), name
    for name in stream.versions.names():
        version = bundle.open(stream.versions.path(name), verify="full")
        assert NAME not in version.users.external(np.arange(len(version.users))).tolist()
        assert len(version.users) == len(version.arrays["user"]) == version.seen.n_rows


def test_everyone_else_is_answered_as_before(theirs, toy):
    stream, _ = theirs
    stream.step(stages=toy.Toy())
    before = bundle.open(stream.versions.path(stream.versions.serving()))
    others = [one for one in before.users.external(np.arange(len(before.users))).tolist() if one != NAME]
    old = (
        before.arrays["user"][before.users.rows(others)].copy(),
        [before.seen.row(r) for r in before.users.rows(others)],
    )
    stream.forget(NAME)
    after = bundle.open(stream.versions.path(stream.versions.serving()))
    rows = after.users.rows(others)
    assert (after.arrays["user"][rows] == old[0]).all()
    assert all((after.seen.row(r) == was).all() for r, was in zip(rows, old[1], strict=True))


def test_what_they_did_before_is_refused_from_then_on_and_they_may_come_back(theirs, toy):
    stream, path = theirs
    stream.step(stages=toy.Toy())
    stream.forget(NAME)
    again = stream.ingest(path)
    assert again.new == 0
    assert again.refused > 0
    assert places(stream.folder) == []
    latest = stream.ledger.index.value("SELECT max(high) FROM block")
    fresh = io.StringIO(f'{{"user": "{NAME}", "item": "i1", "timestamp": {latest + 1}}}\n')
    done = stream.ingest_lines(fresh)
    assert (done.new, done.refused) == (1, 0)
    assert stream.ledger.row_of(NAME) == stream.ledger.size("user") - 1  # a new row, nothing of the old one


def test_the_proxies_begin_anew_and_the_teachers_are_trained_from_scratch_when_it_is_due(theirs, toy):
    stream, _ = theirs
    method = toy.Toy()
    stream.step(stages=method, blocks=1)
    done = stream.forget(NAME)
    assert (done["proxies"], done["retrain"]) == (1, 4)
    stream.ledger.index.run("UPDATE due SET cycle = 2 WHERE what = 'retrain'")
    method.calls.clear()
    stream.step(stages=method)
    assert [call for call in method.calls if call[0] == "proxies"] == [("proxies", 1, True), ("proxies", 2, True)]
    teachers = [call for call in method.calls if call[0] == "teacher"]
    assert teachers == [
        ("teacher", 1, 0, False, [1]),
        ("teacher", 1, 1, False, [1]),
        ("teacher", 2, 0, True, [0, 1, 2]),
        ("teacher", 2, 1, True, [0, 1, 2]),
    ]
    assert stream.ledger.index.value("SELECT count(*) FROM due WHERE NOT done") == 0


class Retraining:
    """Keeps what the stages of a retrain are given; what it distils is refused in the cycles that it is told."""

    def __init__(self, toy, refused=()):
        self.inner, self.refused, self.given = toy, refused, {}

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def teacher(self, job, member, **given):
        self.given["teacher", job.cycle] = given
        return self.inner.teacher(job, member, **given)

    def distil(self, job, **given):
        self.given["distil", job.cycle] = {**given, "blocks": [block.number for block in job.blocks]}
        out = self.inner.distil(job, **given)
        if job.cycle in self.refused:
            out.arrays["user"][:] = np.nan
        return out


def test_nothing_that_was_learned_before_comes_into_a_retrain(theirs, toy):
    stream, _ = theirs
    method = Retraining(toy.Toy())
    stream.step(stages=method, blocks=1)
    stream.forget(NAME)
    stream.ledger.index.run("UPDATE due SET cycle = 1")
    stream.step(stages=method, blocks=1)
    taught, distilled = method.given["teacher", 1], method.given["distil", 1]
    assert taught == dict.fromkeys(("start", "student", "proxies", "ensemble"))
    assert [distilled[name] for name in ("student", "proxies", "before")] == [None, None, None]
    assert distilled["blocks"] == [0, 1]
    assert stream.ledger.index.value("SELECT count(*) FROM due WHERE NOT done") == 0


def test_a_retrain_stays_due_until_the_student_distilled_from_it_goes_on(theirs, toy):
    stream, _ = theirs
    method = Retraining(toy.Toy(), refused=(1,))
    stream.step(stages=method, blocks=1)
    stream.forget(NAME)
    stream.ledger.index.run("UPDATE due SET cycle = 1")
    stream.step(stages=method, blocks=1)
    assert stream.ledger.index.rows("SELECT what FROM due WHERE NOT done") == [("retrain",)]
    stream.step(stages=method, blocks=1)
    assert method.given["teacher", 2]["start"] is None
    assert method.given["distil", 2]["blocks"] == [0, 1, 2]
    assert stream.ledger.index.value("SELECT count(*) FROM due WHERE NOT done") == 0


def test_a_retrain_sees_no_pair_of_the_holdouts(theirs, toy):
    stream, _ = theirs
    stream.step(stages=toy.Toy(), blocks=2)
    stream.forget(NAME)
    stream.ledger.index.run("UPDATE due SET cycle = 2 WHERE what = 'retrain'")
    seen = []

    class Looking(toy.Toy):
        def teacher(self, job, member, **given):
            seen.extend(job.blocks)
            return super().teacher(job, member, **given)

    stream.step(stages=Looking())
    for block in seen[:3]:
        told = stream.journal().find(block.number, "holdout")
        held = stream.objects.get(told.object).arrays
        pairs = set(zip(held["test_user"].tolist(), held["test_item"].tolist(), strict=True))
        assert pairs
        assert not pairs & set(zip(block.user.tolist(), block.item.tolist(), strict=True))


def test_a_person_may_be_forgotten_in_the_middle_of_a_cycle(theirs, toy):
    stream, _ = theirs

    class Cut(BaseException):
        pass

    class Watch:
        def on_stage(self, cycle, stage, what, about):
            if (cycle, stage, what) == (1, "teacher[1]", "begins"):
                raise Cut

    with pytest.raises(Cut):
        stream.step(stages=toy.Toy(), watch=Watch())
    stream.forget(NAME)
    assert places(stream.folder) == []
    assert stream.step(stages=toy.Toy()) == [1, 2]
    assert places(stream.folder) == []
    version = bundle.open(stream.folder / "serving", verify="full")
    assert version.users.rows([NAME]).tolist() == [-1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_forgetting_that_is_killed_is_finished_by_the_next_step(theirs, toy, run_toy):
    stream, _ = theirs
    stream.step(stages=toy.Toy(), blocks=2)
    stream.close()
    assert int(run_toy(stream.folder, "forget", NAME, "5")) > 0, "killed at least once"
    assert places(stream.folder) == []
    with Stream(stream.folder) as again:
        assert again.ledger.index.rows("SELECT * FROM forgetting") == []
        assert [what for what, _ in again.ledger.index.rows("SELECT what, cycle FROM due")] == ["proxies", "retrain"]
        assert again.step(stages=toy.Toy()) == [2]


def test_several_people_are_forgotten_at_once_and_the_index_is_rebuilt_once(theirs, toy, monkeypatch):
    stream, _ = theirs
    stream.step(stages=toy.Toy(), blocks=1)
    rows = [stream.ledger.row_of(user) for user in (NAME, "u8", "u9")]
    scrubbed, scrub = [], stream.ledger.index.scrub
    monkeypatch.setattr(stream.ledger.index, "scrub", lambda: (scrubbed.append(1), scrub()))
    with pytest.raises(UsageError, match="There is no user of that id; got 'nobody'"):
        stream.forget(NAME, "nobody")
    assert stream.ledger.row_of(NAME) is not None, "all of them or none"
    stream.forget(NAME, "u8", "u9")
    assert len(scrubbed) == 1
    assert places(stream.folder) == []
    assert not np.isin(stream.ledger.rows().user, rows).any()
    assert [stream.ledger.row_of(user) for user in (NAME, "u8", "u9")] == [None] * 3
    version = bundle.open(stream.versions.path(stream.versions.serving()))
    assert (version.users.rows([NAME, "u8", "u9", "u10"]) >= 0).tolist() == [False, False, False, True]
    assert "the proxies begin anew (a person was forgotten, 3 times)" in " ".join(status(stream, now=0.0).due)
    stream.forget("u10")
    stream.ledger.index.run("DELETE FROM due WHERE rowid > 2")
    assert "the proxies begin anew (a person was forgotten)" in " ".join(status(stream, now=0.0).due)


def test_the_command_takes_ids_and_files_of_ids(theirs, tmp_path):
    stream, _ = theirs
    (tmp_path / "ids.txt").write_text("u8\n\nu9\n")
    assert (
        CliRunner().invoke(app, ["stream", "forget", str(stream.folder), NAME, f"@{tmp_path / 'ids.txt'}"]).exit_code
        == 0
    )
    assert [stream.ledger.row_of(user) for user in (NAME, "u8", "u9")] == [None] * 3


def test_an_unknown_person_is_an_error_and_so_is_one_who_is_forgotten_already(theirs):
    stream, _ = theirs
    with pytest.raises(UsageError, match="There is no user of that id; got 'nobody'"):
        stream.forget("nobody")
    stream.forget(NAME)
    with pytest.raises(UsageError, match="who was forgotten already is not known any more"):
        stream.forget(NAME)
