"""Events over HTTP: durable before they are answered, once however often they come."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from http.client import HTTPException

import pytest

from recdistill.errors import UsageError
from recdistill.ids import text_keys
from recdistill.ledger import Ledger, keys
from recdistill.serve.http.events import Writer, batch_of
from recdistill.serve.http.limits import Limits
from recdistill.serve.http.logs import Log
from recdistill.serve.http.messages import Event
from recdistill.serve.http.metrics import Metrics
from recdistill.serve.http.recent import Recent
from recdistill.serve.http.refusal import Refusal
from recdistill.serve.http.sources import StreamSource
from recdistill.serve.http.version import opened as version_of
from recdistill.stream.answers import answer
from recdistill.stream.gates import Check, Verdict
from recdistill.stream.stream import Stream

pytest.importorskip("polars")
TEXT = "[blocks]\nevents = 1000000\nbase = 1000000\n"


@pytest.fixture
def stream(tmp_path):
    folder = tmp_path / "stream"
    Stream.create(folder, TEXT).close()
    return folder


def rule(folder):
    with Stream(folder) as opened:
        return opened.settings.rule


def ledger_of(folder):
    found = rule(folder)
    return lambda: Ledger(folder, found)


def stored(folder):
    """Event keys in the ledger, users and items by their ids."""
    with Stream(folder) as opened:
        rows = opened.ledger.rows()
        users, items = (opened.ledger.ids(side, opened.ledger.size(side)) for side in ("user", "item"))
        return rows.key.tolist(), [users[n] for n in rows.user], [items[n] for n in rows.item], rows


def key_of(*ids):
    return keys.combined(text_keys(list(ids))).tolist()


@pytest.fixture
def client(stream, app_of):
    with app_of(stream, source=StreamSource(stream), first=False, ledger=ledger_of(stream)) as client:
        yield client


def test_events_are_in_the_ledger_when_the_answer_comes(client, stream):
    events = [
        {"id": "e1", "user": "a", "item": 7, "timestamp": 100, "weight": 2.5},
        {"id": 2, "user": "b", "item": "x"},
    ]
    answer = client.post("/v1/events", json={"events": events})
    assert (answer.status_code, answer.json()) == (200, {"received": 2})
    key, users, items, rows = stored(stream)
    assert key == key_of("e1", "2")
    assert (users, items) == (["a", "b"], ["7", "x"])
    assert rows.timestamp[0] == 100
    assert rows.timestamp[1] > 1_700_000_000  # of its arrival
    assert rows.weight.tolist() == [2.5, 1.0]


def test_an_event_that_comes_again_counts_once(client, stream):
    event = {"id": "e1", "user": "a", "item": "x"}
    for _ in range(3):
        assert client.post("/v1/events", json={"events": [event, event]}).json() == {"received": 2}
    assert len(stored(stream)[0]) == 1
    assert "recdistill_events_total 1.0" in client.get("/metrics").text


def test_events_are_known_to_the_ledger_by_the_same_name_as_a_file_of_them(client, stream, tmp_path):
    client.post("/v1/events", json={"events": [{"id": "e1", "user": "a", "item": "x", "timestamp": 5}]})
    file = tmp_path / "log.csv"
    file.write_text("event_id,user,item,timestamp\ne1,a,x,5\ne2,a,y,6\n")
    with Stream(stream) as opened:
        done = opened.ingest(file)
    assert (done.new, done.repeated) == (1, 1)


def test_a_bundle_takes_no_events(tiny, app_of):
    with app_of(tiny) as client:
        answer = client.post("/v1/events", json={"events": [{"id": 1, "user": "a", "item": "x"}]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no-stream")


def test_too_many_events_in_a_post_are_refused_and_none_is_written(stream, app_of):
    with app_of(stream, first=False, ledger=ledger_of(stream), limits=Limits(events=1)) as client:
        events = [{"id": n, "user": "a", "item": "x"} for n in range(2)]
        answer = client.post("/v1/events", json={"events": events})
        assert (answer.status_code, answer.json()["error"]["limit"]) == (422, "events")
        bad = client.post("/v1/events", json={"events": [{"id": 1, "user": "a", "item": "x"}, {"id": 2}]})
        assert bad.status_code == 422
    assert stored(stream)[0] == []


def test_any_text_is_an_id(client, stream):
    odd = ["a", "a\0b", "\0", "\x01\n\u202e", "\U0010ffff"]
    for _ in range(2):
        events = [{"id": name, "user": name, "item": name} for name in odd]
        assert client.post("/v1/events", json={"events": events}).status_code == 200
    assert stored(stream)[1:3] == (odd, odd)


def event(n):
    return Event(id=n, user=f"u{n % 7}", item=f"i{n % 5}", timestamp=n)


def test_posts_that_come_together_are_one_transaction(stream):
    batches = []

    class Watched(Ledger):
        def ingest(self, events, *, now=None):
            batches.append(len(events))
            return super().ingest(events, now=now)

    async def post():
        found = rule(stream)
        writer = Writer(lambda: Watched(stream, found), waiting=1000, metrics=Metrics(), log=Log())
        await asyncio.gather(*(writer.post([event(n)]) for n in range(50)))
        await writer.close()

    asyncio.run(post())
    assert sum(batches) == 50
    assert len(batches) <= 3
    assert len(stored(stream)[0]) == 50


def test_what_cannot_be_written_is_not_acknowledged_and_can_be_posted_again(stream, tmp_path):
    tries = []

    def opens():
        tries.append(1)
        if len(tries) == 1:
            raise UsageError("Another process writes")
        return Ledger(stream, rule(stream))

    async def post():
        with (tmp_path / "log").open("w") as out:
            writer = Writer(opens, waiting=3, metrics=Metrics(), log=Log(out))
            with pytest.raises(Refusal) as refused:
                await writer.post([event(1)])
            assert refused.value.status == 503
            await writer.post([event(1)])
            with pytest.raises(Refusal) as refused:
                await writer.post([event(n) for n in range(4)])
            assert (refused.value.status, refused.value.failure.error.limit) == (429, "waiting_events")
            await writer.close()

    asyncio.run(post())
    assert stored(stream)[0] == key_of("1")
    assert "events-not-written" in (tmp_path / "log").read_text()


def test_an_event_that_nobody_waits_for_any_more_is_written_still(stream):
    async def post():
        writer = Writer(ledger_of(stream), waiting=1000, metrics=Metrics(), log=Log())
        asked = asyncio.create_task(writer.post([event(1)]))
        await asyncio.sleep(0)
        asked.cancel()
        await writer.close()

    asyncio.run(post())
    assert stored(stream)[0] == key_of("1")


def test_ids_that_are_equal_as_text_are_one():
    found = batch_of([Event(id=1, user=3, item=4), Event(id="1", user="3", item="4")], now=9.5)
    assert (found.users, found.items, found.user.tolist(), found.timestamp.tolist()) == (["3"], ["4"], [0, 0], [9, 9])
    assert found.key[0] == found.key[1]


def test_kill_9_loses_no_acknowledged_event_and_doubles_none(stream, serving):
    """The server is killed three times amid posts; whatever got no answer is posted again."""
    waiting = [[f"e{n}-{m}" for m in range(5)] for n in range(120)]
    sure: list[str] = []
    lock = threading.Lock()

    def post(client):
        while True:
            with lock:
                if not waiting:
                    return
                ids = waiting.pop()
            events = [{"id": one, "user": one[-1], "item": one[1], "timestamp": 1} for one in ids]
            try:
                answer = client.post("/v1/events", json={"events": events})
                assert answer.status_code == 200
            except (OSError, HTTPException):  # nothing came back, or half an answer
                with lock:
                    waiting.append(ids)
                return
            with lock:
                sure.extend(ids)

    kills = 0
    while waiting:
        server = serving(stream)
        threads = [threading.Thread(target=post, args=(server.client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        if kills < 3:
            before = len(sure)
            while len(sure) < before + 40 and waiting:
                pass
            os.kill(server.process.pid, signal.SIGKILL)
            kills += 1
            server.process.wait()
            # what was acknowledged up to now is there, before anything is repaired
        for thread in threads:
            thread.join()
        if kills <= 3 and server.process.poll() is not None:
            assert set(key_of(*sure)) <= set(stored(stream)[0])
    counts = Counter(stored(stream)[0])
    assert kills == 3
    assert set(counts) == set(key_of(*(f"e{n}-{m}" for n in range(120) for m in range(5))))
    assert set(counts.values()) == {1}


def test_a_stream_is_rolled_back_by_its_pointer(stream, save, serving, tmp_path):
    for n in (1, 2):
        save(stream / "versions" / f"00000{n}-aaaaaaaa", prefix=f"v{n}x")
    (stream / "serving").symlink_to("versions/000002-aaaaaaaa")
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    server = serving(stream, "--token-file", str(token))
    bearer = {"authorization": "Bearer 0123456789abcdef"}
    ask = lambda: server.client.post("/v1/recommend", json={"user": "b", "k": 1}, headers=bearer).json()  # noqa: E731
    assert (ask()["items"], ask()["version"]) == (["v2x0"], "000002-aaaaaaaa")
    told = server.client.post("/v1/rollback", json={}, headers=bearer)
    assert told.json() == {"version": "000001-aaaaaaaa"}
    assert ask()["items"] == ["v1x0"]
    assert (stream / "serving").readlink().name == "000001-aaaaaaaa"
    wrong = server.client.post("/v1/rollback", json={"to": "000009-x"}, headers=bearer)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (409, "no-version")
    assert json.loads(wrong.text)["error"]["message"].startswith("There is no such version")
    for name in ("../versions/000001-aaaaaaaa", "..", ".hidden", "/tmp", "x" * 101, "é"):  # noqa: S108
        assert server.client.post("/v1/rollback", json={"to": name}, headers=bearer).status_code == 422
    assert (stream / "serving").readlink().name == "000001-aaaaaaaa"


def test_readiness_tells_which_candidate_the_gates_refused_last_and_why(stream, save, app_of):
    def judged(cycle, stage, *checks):
        with Stream(stream) as opened:
            opened.journal().record(cycle, stage, "", Verdict(checks, {}, {}).plain(), 0.0)

    def told(client, version, gated):
        end = time.monotonic() + 20
        while ((found := client.get("/readyz").json())["version"], found["gated"]) != (version, gated):
            assert time.monotonic() < end, found

    good, bad = Check("old blocks", passed=True, why="fine"), Check("new users", passed=False, why="0.1, at least 0.2")
    why = {"why": ["new users: 0.1, at least 0.2"]}
    with app_of(stream, source=StreamSource(stream), first=False, ledger=ledger_of(stream), every=0.02) as client:
        told(client, None, None)
        judged(0, "gate", good, bad)
        told(client, None, {"cycle": 0, "candidate": "student", **why})
        save(stream / "versions" / "000001-aaaaaaaa")
        judged(1, "gate", good)
        (stream / "serving").symlink_to("versions/000001-aaaaaaaa")
        told(client, "000001-aaaaaaaa", None)
        judged(1, "gate[distil]", bad)
        told(client, "000001-aaaaaaaa", {"cycle": 1, "candidate": "distilled", **why})
        assert client.get("/readyz").status_code == 200


@pytest.fixture
def published(stream, save):
    for n in (1, 2):
        save(stream / "versions" / f"00000{n}-aaaaaaaa", lineage={"n": n})
    (stream / "serving").symlink_to("versions/000002-aaaaaaaa")
    return stream


def answered(client, until_it_says, **query):
    """The answer of a server, once what it says of why is as asked."""
    end = time.monotonic() + 20
    while (told := client.post("/v1/recommend", json=query).json())["why"] != until_it_says:
        assert time.monotonic() < end, told
        time.sleep(0.02)
    return told


def test_who_is_new_is_folded_in_from_what_the_ledger_holds(published, app_of):
    with app_of(
        published, source=StreamSource(published), first=False, ledger=ledger_of(published), every=0.02
    ) as client:
        assert answered_first(client)["why"] == "popular"
        events = [("new", "i1"), ("new", "gone"), ("new", "i4"), ("new", "i1"), ("a", "i2"), ("42", "i3")]
        posted = [{"id": n, "user": user, "item": item} for n, (user, item) in enumerate(events)]
        assert client.post("/v1/events", json={"events": posted}).status_code == 200
        told = answered(client, "folded-in", user="new")
        assert told["notes"] == []  # it is of what was sent, and that was nothing
        same = client.post("/v1/recommend", json={"history": ["i1", "i4"]}).json()
        assert (told["items"], told["scores"]) == (same["items"], same["scores"])
        with Stream(published) as opened:
            line = answer(opened, ["new"])
        assert told["items"] == line.item_id.tolist()
        assert told["scores"] == pytest.approx(line.score.tolist(), abs=1e-6)
        # what came with the request follows; numbers are the ids that they are as text
        told, same = answered(client, "folded-in", user="new", history=["i5"]), {"history": ["i1", "i4", "i5"]}
        assert told["items"] == client.post("/v1/recommend", json=same).json()["items"]
        assert "i3" not in answered(client, "folded-in", user=42)["items"]
        # the version knows a: their own vector answers, without what they did since
        assert answered(client, "known-user", user="a")["items"] == ["i4", "i3", "i1"]
        many = client.post("/v1/recommend/batch", json={"requests": [{"user": "new"}, {"user": "a"}, {"user": "x"}]})
        assert [one["why"] for one in many.json()["answers"]] == ["folded-in", "known-user", "popular"]
        with Stream(published) as opened:
            opened.forget("new")
        assert answered(client, "popular", user="new")["scores"] is None
    assert "ledger-not-read" not in client.log.read_text()


def test_what_came_since_the_version_is_read_however_many_blocks_ago_that_was(stream, save):
    with Stream(stream) as opened:
        for n, user in enumerate(("old", "new", "newer", "newest")):
            opened.ledger.ingest(batch_of([Event(id=str(n), user=user, item="i1")], now=1))
            opened.ledger.close_open(asked=True)
    recent = Recent(ledger_of(stream))
    recent.look(version_of(save(stream / "versions" / "000000-aaaaaaaa", lineage={"events": 1})))
    assert recent.items == {"new": ("i1",), "newer": ("i1",), "newest": ("i1",)}
    recent.look(version_of(save(stream / "versions" / "000001-aaaaaaaa", lineage={"events": 2})))
    assert recent.items == {"newer": ("i1",), "newest": ("i1",)}
    recent.close()


def answered_first(client):
    end = time.monotonic() + 20
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.02)
    return client.post("/v1/recommend", json={"user": "new"}).json()


def test_who_was_forgotten_does_not_come_back_with_a_rollback(published, serving):
    server = serving(published)
    assert answered(server.client, "known-user", user="b")
    with Stream(published) as opened:
        opened.versions.serve("000001-aaaaaaaa")
        server.wait_for("000001-aaaaaaaa")
        opened.ledger.ingest(batch_of([Event(id="e", user="b", item="i1")], now=1))
        opened.forget("b")
        answered(server.client, "popular", user="b")
        assert server.client.get("/readyz").json()["previous"] == "000002-aaaaaaaa"
        opened.versions.serve("000002-aaaaaaaa")
        server.wait_for("000002-aaaaaaaa")
    assert server.client.post("/v1/recommend", json={"user": "b"}).json()["why"] == "popular"
