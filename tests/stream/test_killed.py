"""kill -9 at any point, any number of times, then a step: the same bytes as a run that nobody disturbed."""

from __future__ import annotations

import shutil
import sys

import pytest

from recdistill.stream.stream import Stream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")


@pytest.fixture
def undisturbed(stream, tmp_path, toy, content):
    """The content of a run that nobody disturbed; `stream` is as it was before."""
    folder = tmp_path / "undisturbed"
    stream.ledger.index.run("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(stream.folder, folder)
    with Stream(folder) as other:
        assert other.step(stages=toy.Toy()) == [0, 1, 2]
    return content(folder)


def journal(folder):
    with Stream(folder) as stream:
        return [(line.cycle, line.stage, line.object, line.measured) for line in stream.journal().lines()]


def test_a_stream_killed_at_every_event_of_every_stage_ends_in_the_same_bytes(
    stream, undisturbed, tmp_path, content, run_toy
):
    run_toy(stream.folder, "boundaries")
    assert content(stream.folder) == undisturbed
    assert journal(stream.folder) == journal(tmp_path / "undisturbed")
    assert not (stream.folder / "work").exists()


@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_stream_killed_at_random_moments_ends_in_the_same_bytes(stream, undisturbed, seed, content, run_toy):
    assert int(run_toy(stream.folder, "random", seed)) > 0, "killed at least once"
    assert content(stream.folder) == undisturbed


def test_what_is_due_is_done_once_though_the_step_that_does_it_is_killed_right_after(stream, tmp_path, toy, content):
    """Killed when the last stage of the cycle is on record: nobody comes back to that cycle."""

    class Cut(BaseException):
        pass

    class Watch:
        def on_stage(self, cycle, stage, what, about):
            if (cycle, stage, what) == (1, "proxies", "done"):
                raise Cut

    rows = [("proxies", 1), ("retrain", 1)]
    stream.ledger.index.many("INSERT INTO due (what, cycle, why) VALUES (?, ?, 'somebody was forgotten')", rows)
    stream.ledger.index.run("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(stream.folder, tmp_path / "whole")
    with Stream(tmp_path / "whole") as whole:
        whole.step(stages=toy.Toy())
    with pytest.raises(Cut):
        stream.step(stages=toy.Toy(), watch=Watch())
    assert stream.ledger.index.value("SELECT count(*) FROM due WHERE NOT done") == 0
    stream.step(stages=toy.Toy())
    assert content(stream.folder) == content(tmp_path / "whole")


def test_a_power_cut_in_the_middle_of_a_write_leaves_nothing_that_counts(stream, undisturbed, toy, content):
    """Half a file under a temporary name, half a version, a link that was not renamed: all are swept away."""
    (stream.folder / "objects").mkdir()
    (stream.folder / "objects" / ".0123.abc.partial").mkdir()
    (stream.folder / "objects" / ".0123.abc.partial" / "tensors.safetensors").write_bytes(b"half")
    (stream.folder / "versions").mkdir()
    (stream.folder / "versions" / ".000000-1.gone").mkdir()
    (stream.folder / ".serving.1").symlink_to("versions/none")
    (stream.folder / "ledger" / "segments" / ".segment.7").write_bytes(b"half")
    stream.step(stages=toy.Toy())
    assert content(stream.folder) == undisturbed
    assert not list(stream.folder.glob(".serving*"))


def test_an_output_that_was_damaged_before_the_journal_knew_of_it_is_made_again(stream, undisturbed, toy, content):
    class Cut(BaseException):
        pass

    class Watch:
        def on_stage(self, cycle, stage, what, about):
            if (stage, what) == ("student", "made"):
                raise Cut

    with pytest.raises(Cut):
        stream.step(stages=toy.Toy(), watch=Watch())
    (key,) = [key for key in stream.objects.names() if stream.objects.get(key).about["made"]["stage"] == "student"]
    file = stream.objects.folder / key / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    stream.step(stages=toy.Toy())
    assert content(stream.folder) == undisturbed


def test_a_proxy_is_averaged_once_however_often_its_stage_is_asked_for(stream, toy):
    stream.step(stages=toy.Toy(), blocks=2)
    told = stream.journal().find(1, "proxies")
    before = stream.objects.get(told.object).arrays["user"].copy()
    first = stream.objects.get(stream.journal().find(0, "proxies").object).arrays["user"]
    distilled = stream.objects.get(stream.journal().find(1, "distil").object).arrays["user"]
    expected = 0.9 * first + 0.1 * distilled[: len(first)]
    assert abs(before[: len(first)] - expected).max() < 1e-6
    stream.ledger.index.run("DELETE FROM stage WHERE cycle = 1 AND stage = 'proxies'")  # killed before the journal knew
    stream.step(stages=toy.Toy(), blocks=1)
    assert stream.journal().find(1, "proxies").object == told.object
    assert (stream.objects.get(told.object).arrays["user"] == before).all()


def test_the_stages_of_matrix_factorisation_end_in_the_same_bytes_too(tmp_path, events, settings, content):
    """Real training, cut after every output and once before each line of the journal."""
    text = settings + (
        "[method]\nname = 'finetune'\ndim = 4\nteacher_dim = 8\nmembers = 1\ndepth = 20\n"
        "base = { epochs = 2, batch = 512 }\n"
        "update = { epochs = 1, batch = 256 }\ndistil = { epochs = 1, batch = 512 }\n"
    )

    class Cut(BaseException):
        pass

    class Watch:
        def __init__(self):
            self.cuts = set()

        def on_stage(self, cycle, stage, what, about):
            if what != "begins" and (cycle, stage, what) not in self.cuts:
                self.cuts.add((cycle, stage, what))
                raise Cut

    for name in ("whole", "cut"):
        with Stream.create(tmp_path / name, text) as stream:
            stream.ingest(events, now=0.0)
    with Stream(tmp_path / "whole") as stream:
        stream.step(blocks=2)
    watch, last = Watch(), -1
    while len(watch.cuts) > last:
        last = len(watch.cuts)
        with Stream(tmp_path / "cut") as stream:
            done = {line.cycle for line in stream.journal().lines() if line.stage == "proxies"}
            try:
                stream.step(blocks=2 - len(done), watch=watch)
            except Cut:
                continue
    assert len(watch.cuts) == 2 * 11 * 2  # cycles, stages, events
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
