"""The machine: what is published, what is not, what is served, what is kept."""

from __future__ import annotations

import io
import json
import re
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from recdistill import bundle
from recdistill.errors import SettingsError, UnknownName, UsageError
from recdistill.ledger.locks import held
from recdistill.recipes.stream import TEMPLATE, begin, settings_text, table
from recdistill.report.stream import StreamPage
from recdistill.stream.answers import answer
from recdistill.stream.chain import stage_names
from recdistill.stream.collect import block_data
from recdistill.stream.finetune import FinetuneSettings
from recdistill.stream.gates import untrained
from recdistill.stream.settings import StreamSettings
from recdistill.stream.settings import read as read_settings
from recdistill.stream.status import status
from recdistill.stream.stream import Stream


def test_every_stage_of_a_cycle_runs_once_in_order(stream, toy):
    told = []

    class Watch:
        def on_stage(self, cycle, stage, what, about):
            if what == "done":
                told.append((cycle, stage))

    assert stream.step(stages=toy.Toy(), blocks=1, watch=Watch()) == [0]
    names = stage_names(members=2, teachers=True)
    assert told == [(0, name) for name in names]
    assert stream.step(stages=toy.Toy()) == [1, 2]
    assert stream.step(stages=toy.Toy()) == []


def test_the_student_goes_on_from_the_one_that_was_distilled_last(stream, toy):
    method = toy.Toy()
    stream.step(stages=method)
    nothing_before = [call[2:] for call in method.calls if call[0] == "student"]
    assert nothing_before == [(True, True, True), (False, False, False), (False, False, False)]
    made = stream.objects.get(stream.journal().find(2, "student").object).about["made"]
    assert made["inputs"]["start"] == stream.journal().find(1, "distil").object


def test_with_two_clocks_the_student_goes_on_from_itself_and_teachers_learn_from_all_since(
    tmp_path, events, settings, toy
):
    text = settings.replace("events = 500", "events = 250") + "[teacher]\nevery = 2\n"
    method = toy.Toy()
    with Stream.create(tmp_path / "s", text) as stream:
        stream.ingest(events, now=0.0)
        assert stream.step(stages=method) == [0, 1, 2, 3, 4, 5]
        made = stream.objects.get(stream.journal().find(4, "student").object).about["made"]
        assert made["inputs"]["start"] == stream.journal().find(3, "student").object
        assert stream.journal().find(3, "teacher[0]") is None
    assert [call[4] for call in method.calls if call[:3:2] == ("teacher", 0)] == [[0], [1, 2], [3, 4]]


def test_what_is_held_out_is_each_users_last_and_never_trained_on(stream, toy):
    stream.step(stages=toy.Toy(), blocks=1)
    stored = stream.objects.get(stream.journal().find(0, "collect").object)
    a, block = stored.arrays, stream.ledger.block(0)
    rows = stream.ledger.rows(block.first, block.last)
    parts = {
        n: list(zip(a[f"{n}_user"].tolist(), a[f"{n}_item"].tolist(), strict=True)) for n in ("train", "valid", "test")
    }
    assert sorted(pair for part in parts.values() for pair in part) == sorted(
        zip(rows.user.tolist(), rows.item.tolist(), strict=True)
    )
    when = dict(zip(zip(rows.user.tolist(), rows.item.tolist(), strict=True), rows.timestamp.tolist(), strict=True))
    for user in np.unique(a["test_user"]).tolist():
        times = [[when[pair] for pair in parts[n] if pair[0] == user] for n in ("train", "valid", "test")]
        assert len(times[1]) == len(times[2]) == max(int(0.1 * sum(map(len, times))), 1)
        assert max(times[0], default=0) <= min(times[1])
        assert max(times[1]) <= min(times[2])
    data = block_data(stored)
    assert (data.n_users, data.n_items) == (block.users, block.items)
    assert len(data.train) == len(parts["train"])
    assert len(data.valid) == len(parts["valid"])


class Worse:
    """From cycle 1 on, a student that ranks by nothing; it lists nothing where `value` is -50."""

    def __init__(self, toy, value=-50.0):
        self.inner, self.value = toy, value

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def ranked(self, stage, arrays, users, k, without):
        if stage == "student" and arrays["user"][0, 0] == -50.0:
            return np.full((len(users), k), -1, np.int64)
        return self.inner.ranked(stage, arrays, users, k, without)

    def student(self, job, **given):
        out = self.inner.student(job, **given)
        if job.cycle == 0:
            return out
        user = out.arrays["user"].copy()
        user[:, 0] = self.value
        return replace(out, arrays={**out.arrays, "user": user})


def test_a_failed_gate_keeps_the_version_says_why_and_stops_neither_ingest_nor_the_cycle(
    tmp_path, events, settings, toy
):
    text = settings.replace("worse = 1.0", "worse = 0.1")
    with Stream.create(tmp_path / "s", text) as stream:
        stream.ingest(events, now=0.0)
        method = Worse(toy.Toy())
        assert stream.step(stages=method) == [0, 1, 2]
        assert [name[:7] for name in stream.versions.names()] == ["000000d", "000001d", "000002d"]
        gate = stream.journal().find(1, "gate").measured
        (failed,) = [check for check in gate["checks"] if not check["passed"]]
        assert failed["name"] == "newest block"
        assert failed["why"].startswith("recall@20 on the newest block 0.0000, at least 0.")
        assert "(serving version 0." in failed["why"]
        # a student that failed teaches nobody: the teachers were given the one it began from
        made = stream.objects.get(stream.journal().find(1, "teacher[0]").object).about["made"]
        assert made["inputs"]["student"] == stream.journal().find(0, "distil").object
        found = status(stream, now=0.0)
        assert [cycle.passed for cycle in found.cycles] == [True, False, False]
        assert failed["why"] in found.cycles[1].why
        # LA, RA and H tell of that student, `served` of what people got
        assert found.cycles[1].newest == 0
        assert found.cycles[1].served == pytest.approx(stream.journal().find(1, "gate[distil]").measured["recall"]["1"])
        assert stream.ingest(events).repeated > 0


class Refusing(Worse):
    """What it distils lists nothing either."""

    def distil(self, job, **given):
        out = self.inner.distil(job, **given)
        return (
            out
            if job.cycle == 0
            else replace(out, arrays={**out.arrays, "user": np.full_like(given["student"]["user"], np.nan)})
        )


def test_where_all_is_refused_what_is_told_as_served_is_the_version_that_goes_on(tmp_path, events, settings, toy):
    with Stream.create(tmp_path / "s", settings.replace("worse = 1.0", "worse = 0.1")) as stream:
        stream.ingest(events, now=0.0)
        stream.step(stages=Refusing(toy.Toy()))
        first, *others = status(stream, now=0.0).cycles
        assert first.served == pytest.approx(stream.journal().find(0, "gate[distil]").measured["recall"]["0"])
        for cycle in others:
            (check,) = [c for c in stream.journal().find(cycle.cycle, "gate").measured["checks"] if not c["passed"]]
            assert f"(serving version {cycle.served:.4f})" in check["why"]
            assert cycle.served > cycle.newest == 0
        page = StreamPage(status(stream, now=0.0)).render()
        assert f"<td>0.0000</td><td>{others[0].served:.4f}</td>" in page


class WorseDistilled:
    """From cycle 1 on, what is distilled lists nothing."""

    def __init__(self, toy, value):
        self.inner, self.value, self.starts, self.averaged = toy, value, {}, {}

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def student(self, job, **given):
        self.starts[job.cycle] = given["start"]
        return self.inner.student(job, **given)

    def distil(self, job, **given):
        out = self.inner.distil(job, **given)
        if job.cycle == 0:
            return out
        return replace(out, arrays={**out.arrays, "user": np.full_like(out.arrays["user"], self.value)})

    def ranked(self, stage, arrays, users, k, without):
        if stage == "distil" and arrays["user"][0, 0] == -1:
            return np.full((len(users), k), -1, np.int64)
        return self.inner.ranked(stage, arrays, users, k, without)

    def proxies(self, job, *, distilled, before):
        self.averaged[job.cycle] = distilled["user"].copy()
        return self.inner.proxies(job, distilled=distilled, before=before)


@pytest.mark.parametrize(("value", "why"), [(-1.0, "recall@20 on the newest block 0.0000"), (np.nan, "user hold NaN")])
def test_a_distilled_student_that_fails_is_not_served_nor_gone_on_from_nor_remembered(  # noqa: PLR0917
    tmp_path, events, settings, toy, value, why
):
    with Stream.create(tmp_path / "s", settings.replace("worse = 1.0", "worse = 0.9")) as stream:
        stream.ingest(events, now=0.0)
        method = WorseDistilled(toy.Toy(), value)
        assert stream.step(stages=method) == [0, 1, 2]
        assert [name[:7] for name in stream.versions.names()] == ["000000d", "000001-", "000002-"]
        assert stream.versions.serving() == stream.versions.names()[-1]
        updated = stream.objects.get(stream.journal().find(1, "student").object).arrays["user"]
        np.testing.assert_array_equal(method.starts[2]["user"], updated)
        np.testing.assert_array_equal(method.averaged[1], updated)
        found = status(stream, now=0.0)
        assert [cycle.distilled for cycle in found.cycles] == [True, False, False]
        assert any(line.startswith(f"distilled: {why}") for line in found.cycles[1].why)


def test_a_student_that_is_not_a_number_is_never_served(stream, toy):
    stream.step(stages=Worse(toy.Toy(), np.nan))
    assert not [name for name in stream.versions.names() if name.startswith(("000001-", "000002-"))]
    (check,) = stream.journal().find(1, "gate").measured["checks"]
    assert check["name"] == "trained"
    assert check["why"].startswith("user hold NaN or infinity")


class Refused:
    """In some cycles the student, in some what is distilled, holds no number; tells what stages were given."""

    def __init__(self, toy, students=(), distilled=()):
        self.inner, self.students, self.refused, self.given = toy, students, distilled, {}

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def _out(self, job, cycles, out):
        nothing = np.full_like(out.arrays["user"], np.nan)
        return replace(out, arrays={**out.arrays, "user": nothing}) if job.cycle in cycles else out

    def student(self, job, **given):
        self.given["student", job.cycle] = given
        return self._out(job, self.students, self.inner.student(job, **given))

    def teacher(self, job, member, **given):
        self.given["teacher", job.cycle] = given
        return self.inner.teacher(job, member, **given)

    def distil(self, job, **given):
        return self._out(job, self.refused, self.inner.distil(job, **given))


def user_of(stream, cycle, stage):
    return stream.objects.get(stream.journal().find(cycle, stage).object).arrays["user"]


def test_a_student_that_was_refused_is_not_gone_on_from_between_two_teacher_updates(tmp_path, events, settings, toy):
    text = settings.replace("events = 500", "events = 250") + "[teacher]\nevery = 2\n"
    with Stream.create(tmp_path / "s", text) as stream:
        stream.ingest(events, now=0.0)
        method = Refused(toy.Toy(), students=(1,))
        stream.step(stages=method, blocks=3)
        good = user_of(stream, 0, "distil")
        np.testing.assert_array_equal(method.given["student", 2]["start"]["user"], good)
        assert [one.passed for one in status(stream, now=0.0).cycles] == [True, False, True]


def test_a_student_that_was_refused_is_not_gone_on_from_though_what_was_distilled_was_refused_too(stream, toy):
    method = Refused(toy.Toy(), students=(1,), distilled=(1,))
    stream.step(stages=method)
    for given in (method.given["student", 2]["start"], method.given["teacher", 1]["student"]):
        np.testing.assert_array_equal(given["user"], user_of(stream, 0, "distil"))
    np.testing.assert_array_equal(method.given["student", 2]["distilled"]["user"], user_of(stream, 0, "distil"))


def test_what_is_gone_on_from_is_kept_however_long_ago_it_passed(tmp_path, events, settings, toy):
    text = settings.replace("base = 1500", "base = 400").replace("events = 500", "events = 300")
    with Stream.create(tmp_path / "s", text + "[disk]\ncycles = 2\nbudget = 1\n") as stream:
        stream.ingest(events, now=0.0)
        method = Refused(toy.Toy(), students=range(1, 99), distilled=range(1, 99))
        last = stream.step(stages=method)[-1]
        assert last > 5
        np.testing.assert_array_equal(method.given["student", last]["start"]["user"], user_of(stream, 0, "distil"))


@pytest.mark.parametrize(
    ("setting", "check"),
    [
        ("overlap = [0.9, 1.0]", "overlap"),
        ("coverage = [0.5, 2.0]", "coverage"),
        ("forgetting = 0.0", "old blocks"),
    ],
)
def test_each_gate_can_keep_a_student_back(tmp_path, events, settings, toy, setting, check):  # noqa: PLR0917
    name = setting.split()[0]
    text = "\n".join(setting if line.startswith(name) else line for line in settings.splitlines())
    with Stream.create(tmp_path / "s", text) as stream:
        stream.ingest(events, now=0.0)
        stream.step(stages=Worse(toy.Toy()), blocks=2)
        failed = [c["name"] for c in stream.journal().find(1, "gate").measured["checks"] if not c["passed"]]
        assert check in failed


def test_new_users_must_be_ranked_better_than_by_popularity_once_somebody_is_old(
    tmp_path, log, write_csv, settings, toy
):
    text = settings.replace("new_users = false", "new_users = true\nnew_users_least = 10")

    class Last(toy.Toy):
        def ranked(self, stage, arrays, users, k, without):
            return np.full((len(users), k), -1, np.int64)

    with Stream.create(tmp_path / "s", text) as stream:
        stream.ingest(write_csv(log, tmp_path / "old.csv", slice(1500)), now=0.0)
        newcomers = write_csv(log, tmp_path / "new.csv", slice(1500, 2000))
        newcomers.write_text(newcomers.read_text().replace("\nu", "\nnew-u"))
        stream.ingest(newcomers, now=1.0)
        stream.step(stages=Last(), blocks=2)
        first, second = (stream.journal().find(cycle, "gate").measured["checks"] for cycle in (0, 1))
        (check,) = [c for c in first if c["name"] == "new users"]
        assert (check["passed"], check["judged"]) == (True, False)
        assert check["why"].startswith("not judged: everybody is new to a first version; recall@20 0.0000, popularity")
        (cycle, _) = status(stream, now=0.0).cycles
        assert cycle.notes == (f"new users {check['why']}", f"distilled: new users {check['why']}")
        failed = [c for c in second if not c["passed"]]
        assert [c["name"] for c in failed] == ["new users"]
        assert "new users 0.0000, at least popularity's 0." in failed[0]["why"]
        assert [name.split("-")[0] for name in stream.versions.names()] == ["000000", "000000d"]


def test_where_every_student_was_refused_whoever_asks_is_told_why(stream):
    stream.journal().record(0, "gate", "", untrained("the loss is NaN").plain(), 0.0)
    refused = r"published yet: the gates refused every .* in cycle 0 by the check 'trained': the loss is NaN.* status`"
    for ask in (stream.rollback, lambda: answer(stream, ["u1"])):
        with pytest.raises(UsageError, match=refused):
            ask()


def test_where_nothing_was_stepped_a_step_is_the_remedy(stream):
    for ask in (stream.rollback, lambda: answer(stream, ["u1"])):
        with pytest.raises(UsageError, match=r"No version has been published yet\. Run `recdistill stream step`"):
            ask()


def test_rollback_is_a_pointer_and_the_next_version_replaces_it(stream, toy):
    stream.step(stages=toy.Toy(), blocks=1)
    one, two = stream.versions.names()
    assert stream.versions.serving() == two
    before = bundle.open(stream.folder / "serving").manifest.digest
    assert stream.rollback(now=1.0) == one
    assert bundle.open(stream.folder / "serving").manifest.digest != before
    with pytest.raises(UsageError, match="There is no version before the serving one"):
        stream.rollback()
    with pytest.raises(UsageError, match="There is no such version; got 'none'"):
        stream.rollback("none")
    assert stream.rollback(two) == two
    stream.rollback(one)
    stream.step(stages=toy.Toy())
    assert stream.versions.serving() == stream.versions.names()[-1]
    assert status(stream, now=0.0).rollbacks == 3


def test_a_version_that_was_rolled_back_is_not_served_again_by_a_step_that_was_killed(stream, toy):
    stream.step(stages=toy.Toy(), blocks=2)
    one = stream.versions.names()[0]
    stream.rollback(one)
    again = "DELETE FROM stage WHERE cycle = 1 AND stage IN ('publish', 'publish[distil]', 'proxies')"
    stream.ledger.index.run(again)
    stream.step(stages=toy.Toy(), blocks=1)
    assert stream.versions.serving() == one


def test_two_steps_at_once_are_refused_and_ingest_goes_on(stream, toy, events):
    with held(stream.folder / "step.lock", "steps it"):
        with pytest.raises(UsageError, match=r"is in use: process .* steps it"):
            stream.step(stages=toy.Toy())
        with pytest.raises(UsageError, match="is in use"):
            stream.forget("u1")
        assert stream.ingest(events).repeated > 0


def test_new_people_are_answered_by_a_fold_in_and_marked_so(stream, toy):
    stream.step(stages=toy.Toy())
    stream.ingest_lines(io.StringIO('{"user": "nina", "item": "i3", "timestamp": 1999999999}\n'))
    found = answer(stream, ["nobody", "u1", "nina", "omar", "u1"], 5, clicks={"omar": ["i3", "i5", "unknown"]})
    assert [found.source_of(user) for user, _ in found] == ["popular", "model", "fold-in", "fold-in"]
    lists = found.to_dict()
    assert all(len(items) == 5 for items in lists.values())
    assert "i3" not in [item.id for item in lists["nina"]]
    assert not {"i3", "i5"} & {item.id for item in lists["omar"]}


def test_who_is_new_is_folded_in_from_all_that_came_since_the_version_that_is_served(stream, toy):
    """However many blocks ago that was: gates may have refused every student since."""
    stream.step(stages=toy.Toy(), blocks=1)
    stream.ingest_lines(io.StringIO('{"user": "nina", "item": "i3", "timestamp": 1999999999}\n'))
    for _ in range(2):
        stream.ledger.close_open(asked=True)
        stream.ingest_lines(io.StringIO('{"user": "u2", "item": "i4", "timestamp": 1999999999}\n'))
    assert answer(stream, ["nina"], 5).source_of("nina") == "fold-in"


def test_what_a_known_person_did_since_is_left_out(stream, toy):
    stream.step(stages=toy.Toy())
    first, second = (item.id for item in answer(stream, ["u1"], 2).to_dict()["u1"])
    stream.ingest_lines(io.StringIO(json.dumps({"user": "u1", "item": first, "timestamp": 1999999999}) + "\n"))
    found = answer(stream, ["u1"], 5, clicks={"u1": [second, "unknown"]})
    assert found.source_of("u1") == "model"
    assert not {first, second} & {item.id for item in found.to_dict()["u1"]}
    assert found.notes == ()


def test_old_outputs_go_and_holdouts_and_the_latest_versions_stay(tmp_path, events, settings, toy):
    text = settings.replace("base = 1500", "base = 400").replace("events = 500", "events = 300")
    text += "[disk]\nversions = 2\ncycles = 2\n"
    with Stream.create(tmp_path / "s", text) as stream:
        stream.ingest(events, now=0.0)
        done = stream.step(stages=toy.Toy())
        last = done[-1]
        kept = {(line.cycle, line.stage) for line in stream.journal().lines() if stream.objects.has(line.object)}
        assert {cycle for cycle, stage in kept if stage == "holdout"} == set(done)
        assert {cycle for cycle, stage in kept if stage == "teacher[0]"} == {last - 1, last}
        assert len(stream.versions.names()) == 2
        assert len(stream.objects.names()) == len(
            {line.object for line in stream.journal().lines()} & set(stream.objects.names())
        )


def test_status_tells_where_it_stands_as_a_table_as_json_and_as_a_page(stream, toy):
    from rich.console import Console

    fresh = status(stream, now=50.0)
    assert fresh.due[0] == "cycle 0: collect (count, 1,500 events)"
    stream.step(stages=toy.Toy(), blocks=2)
    found = status(stream, now=50.0)
    assert [cycle.done for cycle in found.cycles] == [True, True]
    assert found.cycles[1].replay == 0.25
    a = [line.measured["recall"] for line in stream.journal().lines() if line.stage == "gate"]
    la, ra = (a[0]["0"] + a[1]["1"]) / 2, (a[1]["0"] + a[1]["1"]) / 2
    assert found.cycles[1].student == pytest.approx({"LA": la, "RA": ra, "H": 2 * la * ra / (la + ra)})
    assert found.due[0].startswith("cycle 2: collect")
    assert json.loads(json.dumps(found.plain()))["serving"] == found.serving
    said = Console(width=80, file=io.StringIO())
    said.print(table(found))
    lines = said.file.getvalue().splitlines()
    assert any("recall@20 on holdouts" in line for line in lines)
    assert any(line.split()[:4] == ["cycle", "events", "newest", "served"] for line in lines)
    (row,) = [line for line in lines if line.startswith("    1 ")]
    assert row.rstrip().endswith("yes/yes"), "whole in 80 columns"
    assert any(line.startswith("cycle 1 took ") for line in lines)
    page = StreamPage(found, settings="seed = 3 <&>").render()
    assert "<svg" in page
    assert "seed = 3 &lt;&amp;&gt;" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_the_template_is_valid_and_says_the_defaults(tmp_path):
    path = tmp_path / "stream.toml"
    path.write_text(TEMPLATE)
    found, default = read_settings(path), StreamSettings()
    assert found.model_dump(exclude={"method"}) == default.model_dump(exclude={"method"})
    again = tmp_path / "again.toml"
    again.write_text(settings_text(path, ["blocks.events=7", "method.update={epochs=3}"]))
    changed = read_settings(again)
    assert (changed.blocks.events, changed.method["update"]) == (7, {"epochs": 3})
    assert changed.gates == default.gates


def test_the_template_has_every_setting_and_says_the_defaults():
    said = tomllib.loads(re.sub(r"^# (?=\w+ = )", "", TEMPLATE, flags=re.MULTILINE))
    settings = StreamSettings()
    assert set(said) == set(StreamSettings.model_fields)
    for part in set(StreamSettings.model_fields) - {"seed", "device", "method"}:
        assert set(said[part]) == set(type(getattr(settings, part)).model_fields), part
    method = FinetuneSettings()
    assert said["method"] == method.model_dump()


def test_a_stream_begins_in_a_new_folder_with_settings_that_can_be_used(tmp_path):
    with pytest.raises(SettingsError, match=r"Did you mean 'blocks.events'"):
        begin(tmp_path / "s", assign=["blocks.event=5"])
    with pytest.raises(UnknownName, match=r"Unknown method on a stream 'finetun'. Did you mean 'finetune'"):
        begin(tmp_path / "s", assign=["method.name=finetun"])
    with pytest.raises(SettingsError, match=r"Did you mean 'method.teacher_dim'"):
        begin(tmp_path / "s", assign=["method.teacherdim=5"])
    with pytest.raises(SettingsError, match=r"'device' must be .*; got 'gpu'"):
        begin(tmp_path / "s", assign=["device=gpu"])
    begin(tmp_path / "s").close()
    with pytest.raises(UsageError, match="is there, and not empty"):
        begin(tmp_path / "s")
    (tmp_path / "s" / "stream.toml").rename(tmp_path / "s" / ".stream.toml")  # as `init` leaves it when it is killed
    begin(tmp_path / "s").close()
    with pytest.raises(UsageError, match=r"There is no stream at .*none"):
        Stream(tmp_path / "none")
