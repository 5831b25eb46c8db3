"""CCD as the stages of a stream: cut anywhere it ends in the same bytes, and forgets people."""

from __future__ import annotations

import tomllib
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

from recdistill.continual.settings import PRESETS, settings_of
from recdistill.errors import SettingsError
from recdistill.recipes.stream import begin, settings_text
from recdistill.stream import ccd as stream_ccd
from recdistill.stream import cycle
from recdistill.stream.settings import StreamSettings
from recdistill.stream.stream import Stream, method_of
from recdistill.training import trainer

METHOD = """
[method]
name = "ccd"
student = { name = "STUDENT", dim = 4 }
teachers = [{ name = "mf", dim = 6 }, { name = "lightgcn", dim = 6 }, { name = "vae", dim = 6 }]
base = { epochs = 2, batch = 256, every = 1 }
plain = { epochs = 2, batch = 256, every = 1 }
distil = { near = 10, training = { epochs = 2, batch = 256, every = 1 } }
update = { training = { epochs = 2, batch = 256, every = 1 }, replay = { depth = 20 } }
teach = { training = { epochs = 2, batch = 256, every = 1 }, replay = { depth = 20 } }
"""


class Cut(BaseException):
    """A process that ends."""


class Cutter:
    """Ends a step at each event that it has not ended one at."""

    def __init__(self):
        self.cuts = set()

    def on_stage(self, cycle, stage, what, about):
        if what != "begins" and (cycle, stage, what) not in self.cuts:
            self.cuts.add((cycle, stage, what))
            raise Cut


def text_of(settings, student="mf", **changes):
    text = settings + METHOD.replace("STUDENT", student)
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@pytest.fixture
def begun(tmp_path, events, settings):
    """`begun(name, text)`: a stream with its events."""

    def begin(name, text=None):
        with Stream.create(tmp_path / name, text or text_of(settings)) as stream:
            stream.ingest(events, now=0.0)
        return tmp_path / name

    return begin


def stored(stream, cycle, stage):
    return stream.objects.get(stream.journal().find(cycle, stage).object)


def test_a_stream_cut_at_every_boundary_ends_in_the_same_bytes(begun, content):
    whole, cut = begun("whole"), begun("cut")
    with Stream(whole) as stream:
        stream.step(blocks=3)
    watch, last = Cutter(), -1
    while len(watch.cuts) > last:
        last = len(watch.cuts)
        with Stream(cut) as stream:
            done = {line.cycle for line in stream.journal().lines() if line.stage == "proxies"}
            try:
                stream.step(blocks=3 - len(done), watch=watch)
            except Cut:
                continue
    with Stream(whole) as stream:
        stages = {(line.cycle, line.stage) for line in stream.journal().lines()}
    assert {(cycle, stage) for cycle, stage, _ in watch.cuts} == stages
    assert content(cut) == content(whole)


@pytest.mark.parametrize("times", ["", ", times = 2"])
def test_a_stage_cut_between_two_epochs_ends_in_the_same_bytes(begun, settings, content, monkeypatch, times):
    """Training is resumed from its checkpoint, with the pairs that were being replayed."""
    text = text_of(settings, **{"{ depth = 20 } }\nteach": f"{{ depth = 20 }}{times} }}\nteach"})
    whole, cut = begun("whole", text), begun("cut", text)
    with Stream(whole) as stream:
        stream.step(blocks=2)
    real, saves = trainer.checkpoint.save, []

    def save(path, **given):
        real(path, **given)
        saves.append(path)
        if len(saves) % 3 == 1:
            raise Cut

    monkeypatch.setattr(trainer.checkpoint, "save", save)
    monkeypatch.setattr("recdistill.continual.learning.Keep", partial(trainer.Keep, seconds=-1.0))
    for _ in range(200):
        with Stream(cut) as stream:
            done = {line.cycle for line in stream.journal().lines() if line.stage == "proxies"}
            try:
                stream.step(blocks=2 - len(done))
            except Cut:
                continue
        break
    assert len(saves) > 10
    assert content(cut) == content(whole)


def test_the_slow_proxy_averages_what_was_distilled_once(begun, settings):
    folder = begun("s", text_of(settings) + 'proxies = { mode = "weights", stability = 0.75 }\n')
    with Stream(folder) as stream:
        stream.step(blocks=2)
        first, second = (stored(stream, k, "distil").arrays for k in (0, 1))
        proxy = stored(stream, 1, "proxies").arrays
        for name in ("weights/user", "weights/item"):
            old = first[name]
            expected = 0.75 * old + 0.25 * second[name][: len(old)]
            np.testing.assert_allclose(proxy[f"slow/{name}"][: len(old)], expected, atol=1e-6)
            np.testing.assert_array_equal(proxy[f"slow/{name}"][len(old) :], second[name][len(old) :])
            np.testing.assert_array_equal(proxy[f"fast/{name}"], second[name])  # it keeps nothing of itself
        before = stream.journal().find(1, "proxies").object
        stream.ledger.index.run("DELETE FROM stage WHERE cycle = 1 AND stage = 'proxies'")
        stream.step(blocks=1)
        assert stream.journal().find(1, "proxies").object == before


def test_a_student_that_no_proxy_can_be_made_of_is_refused_before_a_stream_begins(tmp_path, settings):
    text = text_of(settings, "vae") + 'proxies = { mode = "aligned" }\n'
    with pytest.raises(SettingsError, match=r"'method': student\.name = \"vae\" and proxies\.mode = \"aligned\""):
        Stream.create(tmp_path / "s", text)
    assert not list((tmp_path / "s").iterdir())


@pytest.mark.parametrize("student", ["mf", "vae"])
def test_the_proxies_replay_in_the_second_cycle(begun, settings, student):
    with Stream(begun("s", text_of(settings, student))) as stream:
        stream.step(blocks=2)
        lines = {(line.cycle, line.stage): line.measured for line in stream.journal().lines()}
        assert lines[0, "student"]["replay_share"] == 0
        assert lines[1, "student"]["replay_share"] > 0
        assert lines[1, "teacher[0]"]["replay_share"] > 0
        assert set(lines[1, "gate"]["recall"]) == {"0", "1"}
        assert lines[1, "distil"]["recall"]
        assert lines[1, "ensemble"]["recall"]


def test_the_share_of_replay_hardly_depends_on_the_size_of_its_steps(begun, settings):
    """The same pairs in few steps or in many: a mean over each pass's own steps would tell how many there are."""
    short = text_of(settings, **{'{ name = "lightgcn", dim = 6 }, { name = "vae", dim = 6 }': ""})
    shares = []
    for size in (8, 32_768):
        one = short.replace("replay = { depth = 20 } }\nteach", f"replay = {{ depth = 20, batch = {size} }} }}\nteach")
        with Stream(begun(f"s{size}", one)) as stream:
            stream.step(blocks=2)
            shares.append(stream.journal().find(1, "student").measured["replay_share"])
    assert shares[0] == pytest.approx(shares[1], rel=0.1)
    assert 0.05 < shares[0] < 0.95


@pytest.mark.parametrize("student", ["mf", "lightgcn"])
def test_a_forgotten_person_is_in_no_row_of_any_output(begun, settings, student):
    text = text_of(settings, student) + 'proxies = { mode = "weights" }\n'
    with Stream(begun("s", text)) as stream:
        stream.step(blocks=2)
        user = "u3"
        row = stream.ledger.row_of(user)
        outputs = [stream.objects.get(key) for key in stream.objects.names()]
        assert any(a[row].any() for o in outputs for n, a in o.arrays.items() if n == "slow/weights/user")
        stream.forget(user)
        seen = set()
        for key in stream.objects.names():
            for name, array in stream.objects.get(key).arrays.items():
                if name.endswith(("weights/user", "met/user")):
                    assert not array[row].any(), name
                    seen.add(name)
                elif name.endswith("context/indptr") and len(array) > 1:
                    assert array[row] == array[row + 1], name
                elif name == "items":
                    assert (array[row] == -1).all()
                elif name == "users":
                    assert not (array == row).any()
                    seen.add(name)
        assert {"weights/user", "slow/weights/user", "fast/weights/user", "users"} <= seen
        assert stream.step(blocks=1) == [2]  # and it goes on


def test_what_was_distilled_and_published_can_be_rolled_back_to(begun):
    with Stream(begun("s")) as stream:
        stream.step()
        newest = stream.versions.serving()
        older = stream.rollback()
        assert older < newest
        assert stream.versions.open(older).manifest.citations[0].startswith("@inproceedings{lee2024ccd")


def test_a_block_is_learned_in_several_updates_one_after_the_other_in_time(begun, settings, monkeypatch):
    seen = []
    real = stream_ccd.update_student

    def update(block, before, student, sources, how, *, part, run, **given):
        learned = real(block, before, student, sources, how, part=part, run=run, **given)
        seen.append((student, part, learned.snapshot, run.name))
        return learned

    monkeypatch.setattr(stream_ccd, "update_student", update)
    thrice = text_of(settings, **{"replay = { depth = 20 } }\nteach": "replay = { depth = 20 }, times = 3 }\nteach"})
    with Stream(begun("s", thrice)) as stream:
        stream.step(blocks=2)
        student = stored(stream, 1, "student").arrays
        block = stored(stream, 1, "collect").arrays
    assert len(seen) == len({name for *_, name in seen}) == 3
    times = [part.timestamp for _, part, *_ in seen]
    assert all(early.max() <= late.min() for early, late in pairwise(times))
    assert sorted(np.concatenate(times).tolist()) == sorted(block["train_timestamp"].tolist())
    assert seen[1][0] is seen[0][2]
    assert seen[2][0] is seen[1][2]
    np.testing.assert_array_equal(student["weights/user"], seen[2][2].weights["user"])


def test_the_template_of_another_method_brings_none_of_the_first_ones_keys():
    text = settings_text(None, ["method.name=ccd", "method.student={ dim = 3 }", "blocks.base=9"])
    assert tomllib.loads(text)["method"] == {"name": "ccd", "student": {"dim": 3}}
    assert tomllib.loads(text)["blocks"]["base"] == 9
    assert tomllib.loads(settings_text(None, ["method.dim=3"]))["method"]["members"] == 2


def test_a_preset_is_what_the_settings_of_a_stream_lie_over(tmp_path):
    assert set(get_args(stream_ccd.CCDStreamSettings.model_fields["preset"].annotation)) == set(PRESETS)
    own = {"teach": {"replay": {"depth": 7}}, "update": {"margin": 0.5}}
    begin(tmp_path / "s", assign=["method.name=ccd", "method.preset=quick", "method.update.margin=0.5"]).close()
    for name in PRESETS:
        found = StreamSettings(method={"name": "ccd", "preset": name, **own})
        whole = {key: value for key, value in method_of(found).identity("x").items() if key not in ("stage", "code")}
        assert whole == {"name": "ccd", **settings_of(name, own | {"depth": 500}).model_dump(mode="json")}
    with pytest.raises(SettingsError, match=r"'method\.preset' has no such choice; got 'quik'\. Did you mean 'quick'"):
        begin(tmp_path / "other", assign=["method.name=ccd", "method.preset=quik"])


def test_a_warm_start_takes_no_weights_from_the_student_that_a_retrain_replaces(begun, settings, monkeypatch):
    seen = []
    real = stream_ccd.distil

    def distil(block, spec, lists, how, *, warm, **given):
        seen.append((warm is None, len(block.train)))
        return real(block, spec, lists, how, warm=warm, **given)

    monkeypatch.setattr(stream_ccd, "distil", distil)
    text = text_of(settings, **{"distil = { near = 10,": 'distil = { near = 10, start = "warm",'})
    with Stream(begun("s", text)) as stream:
        stream.step(blocks=2)
        stream.forget("u3")
        stream.ledger.index.run("UPDATE due SET cycle = 2")
        stream.step(blocks=1)
        assert [none for none, _ in seen] == [True, False, True]
        assert seen[2][1] > seen[0][1], "on all that is kept"
        assert stream.ledger.index.value("SELECT count(*) FROM due WHERE NOT done") == 0


def test_a_student_that_reads_all_blocks_keeps_the_past_where_the_first_distilled_one_was_refused(
    begun, settings, monkeypatch
):
    asked = []
    gate, judge = cycle.Cycle._gate, cycle.judge

    def gated(self, block, student, what="student"):
        asked.append((self.k, what))
        return gate(self, block, student, what)

    def judged(*args, **given):
        verdict = judge(*args, **given)
        refused = asked[-1] == (0, "distil")
        return SimpleNamespace(plain=lambda: verdict.plain() | ({"passed": False} if refused else {}))

    monkeypatch.setattr(cycle.Cycle, "_gate", gated)
    monkeypatch.setattr(cycle, "judge", judged)
    reads = {'{ name = "lightgcn", dim = 4 }': '{ name = "lightgcn", dim = 4, reads = "all" }'}
    with Stream(begun("s", text_of(settings, "lightgcn", **reads))) as stream:
        learned = set()
        for k in range(3):
            stream.step(blocks=1)
            block = stored(stream, k, "collect").arrays
            learned |= set(zip(block["train_user"].tolist(), block["train_item"].tolist(), strict=True))
            for stage in ("student", "distil"):
                found = stored(stream, k, stage).arrays
                begin, items = found["context/indptr"], found["context/indices"]
                users = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
                assert set(zip(users.tolist(), items.tolist(), strict=True)) == learned, (k, stage)
    assert (0, "distil") in asked


@pytest.mark.parametrize("depth", ["", "depth = 40\n"])
def test_nobody_who_was_forgotten_is_in_the_ensembles_lists(begun, settings, depth):
    text = text_of(settings).replace('name = "ccd"\n', 'name = "ccd"\n' + depth)
    with Stream(begun("s", text)) as stream:
        stream.step(blocks=2)
        rows = [stream.ledger.row_of(f"u{n}") for n in range(30)]
        gone = [row for row in rows if row is not None and row < stream.ledger.block(1).users]
        for row in gone:
            stream.forget(stream.ledger.id_of("user", row))
        stream.step(blocks=1)
        lists = stored(stream, 2, "ensemble").arrays
    assert len(gone) > 20
    assert not np.isin(lists["users"], gone).any()
    assert (lists["items"][gone] == -1).all()
    assert (lists["users"] >= 0).any()
