"""A new version takes the old one's place between requests; a broken one never does."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from recdistill import bundle
from recdistill.errors import BundleError, UsageError
from recdistill.serve.http import shelf as shelves
from recdistill.serve.http.inspecting import inspected
from recdistill.serve.http.messages import Query
from recdistill.serve.http.shelf import Shelf, load
from recdistill.serve.http.sources import BundleSource, StreamSource
from recdistill.serve.http.version import opened

TOKEN = {"authorization": "Bearer 0123456789abcdef"}


@pytest.fixture
def unchecked(monkeypatch):
    """Versions are opened without a process that checks them: faster, where the check is not what is tested."""
    from recdistill.serve.http import watching

    monkeypatch.setattr(watching, "load", lambda seen, **how: shelves.load(seen, **how, check=False))


def prefix_of(client):
    told = client.post("/v1/recommend", json={"user": "b", "k": 1}).json()
    return told["items"][0].rstrip("0123456789"), told["version"]


def until(check):
    end = time.monotonic() + 30
    while not (found := check()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_a_replaced_bundle_is_served_and_the_old_one_is_a_rollback_away(tiny, save, app_of, unchecked):
    with app_of(tiny, every=0.02, token=TOKEN["authorization"][7:], headers=TOKEN) as client:
        assert prefix_of(client)[0] == "i"
        first = prefix_of(client)[1]
        assert client.post("/v1/rollback", json={}).json()["error"]["code"] == "no-version"
        save(tiny, prefix="new", overwrite=True)
        until(lambda: prefix_of(client)[0] == "new")
        second = prefix_of(client)[1]
        assert client.get("/readyz").json()["previous"] == first
        assert client.post("/v1/rollback", json={"to": "another"}).status_code == 409
        assert client.post("/v1/rollback", json={}).json() == {"version": first}
        time.sleep(0.1)  # the folder still holds what was rolled back from: it is not loaded again
        assert prefix_of(client) == ("i", first)
        assert client.post("/v1/rollback", json={"to": second}).json() == {"version": second}
        save(tiny, prefix="third", overwrite=True)
        until(lambda: prefix_of(client)[0] == "third")
        assert "recdistill_swaps_total 5.0" in client.get("/metrics").text


def test_a_link_that_is_moved_is_a_new_version(tmp_path, save, app_of, unchecked):
    one, two = save(tmp_path / "one", prefix="x"), save(tmp_path / "two", prefix="y")
    link = tmp_path / "link"
    link.symlink_to(one)
    with app_of(link, every=0.02) as client:
        assert prefix_of(client)[0] == "x"
        beside = tmp_path / "beside"
        beside.symlink_to(two)
        beside.replace(link)
        until(lambda: prefix_of(client)[0] == "y")


def test_no_request_fails_and_none_sees_two_versions_while_versions_change(tiny, save, app_of, unchecked):
    faults, seen, stop = [], {}, threading.Event()

    def ask(client):
        while not stop.is_set():
            told = client.post("/v1/recommend/batch", json={"requests": [{"user": "b"}, {"history": [], "user": "a"}]})
            if told.status_code != 200:
                faults.append(told.text)
                continue
            found = told.json()
            prefixes = {item.rstrip("0123456789") for one in found["answers"] for item in one["items"]}
            prefixes |= {seen.setdefault(one["version"], min(prefixes)) for one in found["answers"]}
            if len(prefixes) != 1:
                faults.append(told.text)

    with app_of(tiny, every=0.01) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(8):
            save(tiny, prefix=f"p{n}x", overwrite=True)
            until(lambda n=n: prefix_of(client)[0] == f"p{n}x")
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert len(seen) >= 8


def test_a_request_that_waits_while_versions_change_keeps_its_own(tiny, save):
    async def change():
        shelf = Shelf(wait=0.1)
        shelf.swap(opened(tiny))
        taken = shelf.current
        asked = asyncio.create_task(taken.batcher.ask([Query(user="b", k=1)]))
        await asyncio.sleep(0)
        save(tiny, prefix="new", overwrite=True)
        shelf.swap(opened(tiny))
        assert (await asked)[0].answer.items == ["i0"]
        (new,) = await shelf.current.batcher.ask([Query(user="b", k=1)])
        assert new.answer.items == ["new0"]
        await shelf.close()

    asyncio.run(change())


def test_rollback_needs_something_to_go_back_to(tiny):
    async def back():
        shelf = Shelf()
        with pytest.raises(UsageError, match="No version is served yet"):
            shelf.back()
        shelf.swap(opened(tiny))
        with pytest.raises(UsageError, match="There is no version before the serving one"):
            shelf.back()
        await shelf.close()

    asyncio.run(back())


# what is refused


def test_a_broken_bundle_is_refused_with_its_reason_and_the_old_one_serves_on(tiny, save, app_of):
    with app_of(tiny, every=0.02) as client:
        before = prefix_of(client)
        item = np.arange(6, dtype=np.float32)[:, None]
        item[3] = np.nan
        save(tiny, arrays={"user": np.ones((3, 1), np.float32), "item": item}, overwrite=True)
        refused = until(lambda: client.get("/readyz").json()["refused"])
        assert "the array 'item' holds a number that is not finite" in refused["reason"]
        assert client.get("/readyz").status_code == 200
        assert prefix_of(client) == before
        assert "recdistill_versions_refused_total 1.0" in client.get("/metrics").text
        (told,) = [
            line for line in map(json.loads, client.log.read_text().splitlines()) if line["event"] == "version-refused"
        ]
        assert told["reason"] == refused["reason"]
        assert str(Path(tiny).parent) not in refused["reason"]
        save(tiny, prefix="mended", overwrite=True)
        until(lambda: prefix_of(client)[0] == "mended")
        assert client.get("/readyz").json()["refused"] is None


def test_why_a_version_was_refused_is_told_to_who_has_the_token(tiny, save, app_of):
    with app_of(tiny, token="x" * 20, every=0.02) as client:
        item = np.full((6, 1), np.nan, np.float32)
        save(tiny, arrays={"user": np.ones((3, 1), np.float32), "item": item}, overwrite=True)
        trusted = {"authorization": "Bearer " + "x" * 20}
        assert until(lambda: client.get("/readyz", headers=trusted).json()["refused"])
        open_to_all = client.get("/readyz").json()
        assert (open_to_all["ready"], open_to_all["refused"], open_to_all["gated"]) == (True, None, None)
        assert client.get("/readyz", headers={"authorization": "Bearer y"}).json()["refused"] is None


def cut(path):
    with (path / "tensors.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 4)


def flip(path):
    with (path / "tensors.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        byte = file.read(1)
        file.seek(-3, 2)
        file.write(bytes([byte[0] ^ 1]))


def pickled(path):
    (path / "tensors.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/recdistill-was-here'\ntR.")


def linked(path):
    target = path.parent / "outside"
    (path / "users.safetensors").rename(target)
    (path / "users.safetensors").symlink_to(target)


def without(path):
    (path / "seen.safetensors").unlink()


def unsigned(path):
    place = path / "manifest.json"
    place.write_text(place.read_text().replace('"n_users": 3', '"n_users": 4'))


BROKEN = [
    (cut, "size"),
    (flip, "sha256|hash"),
    (pickled, "size"),
    (linked, "link|regular"),
    (without, "holds"),
    (unsigned, "digest"),
]


@pytest.mark.parametrize(("breaks", "reason"), BROKEN, ids=lambda one: getattr(one, "__name__", one))
def test_every_byte_is_checked_in_a_process_of_its_own(tiny, breaks, reason):
    breaks(tiny)
    verdict = inspected(tiny)
    assert verdict.reason is not None
    import re

    assert re.search(reason, verdict.reason), verdict.reason
    assert not Path("/tmp/recdistill-was-here").exists()  # noqa: S108
    with pytest.raises(BundleError, match=reason):
        load(BundleSource(tiny).look())


def test_the_check_survives_whatever_happens_to_its_process(tiny, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert inspected(tiny).reason.startswith("The check ended with code 1")
    sound = shutil.copytree(tiny, tiny.parent / "sound")
    monkeypatch.undo()
    verdict = inspected(sound)
    assert verdict.reason is None
    assert verdict.digest == bundle.open(sound).manifest.digest
    assert verdict.users == (0, 1, 2)
    assert verdict.lists[0][:6] == (5, 4, 3, 2, 1, 0)


def test_a_bundle_that_is_replaced_while_it_is_checked_is_not_served(tiny, save, monkeypatch):
    from recdistill.serve.http import shelf

    verdict = inspected(tiny)
    save(tiny, prefix="other", overwrite=True)
    monkeypatch.setattr(shelf, "inspected", lambda *_: verdict)
    with pytest.raises(BundleError, match="replaced while it was checked"):
        load(BundleSource(tiny).look())


def test_a_version_that_answers_otherwise_than_when_it_was_checked_is_not_served(tiny, monkeypatch):
    from recdistill.serve.http import shelf

    verdict = inspected(tiny)
    monkeypatch.setattr(shelf, "inspected", lambda *_: type(verdict)(**{**vars(verdict), "lists": ((0,),) * 3}))
    with pytest.raises(BundleError, match="does not answer as it did when it was checked"):
        load(BundleSource(tiny).look())


def test_whatever_a_loader_or_a_source_raises_the_watch_goes_on(tiny, save, app_of, monkeypatch):
    from recdistill.serve.http import watching

    def load(seen, **how):
        if asked := faults and faults.pop():
            raise asked
        return shelves.load(seen, **how, check=False)

    class Source(BundleSource):
        def look(self):
            if asked := blind and blind.pop():
                raise asked
            return super().look()

    faults, blind = [], []
    monkeypatch.setattr(watching, "load", load)
    monkeypatch.setattr(watching, "_AGAIN", 0.05)
    with app_of(tiny, every=0.01, source=Source(tiny)) as client:
        blind += [PermissionError("b"), PermissionError("b"), PermissionError("b")]
        until(lambda: not blind)
        faults += [KeyError("b"), OSError("b")]
        save(tiny, prefix="new", overwrite=True)
        until(lambda: prefix_of(client)[0] == "new")  # tried again, though nothing changed
        assert client.get("/readyz").json()["refused"] is None
        assert "recdistill_versions_refused_total 2.0" in client.get("/metrics").text
    told = [json.loads(line) for line in client.log.read_text().splitlines()]
    assert [line["error"] for line in told if line["event"] == "source-not-seen"] == ["PermissionError"]
    assert [line["error"] for line in told if line["event"] == "version-not-loaded"] == ["OSError", "KeyError"]
    reasons = [line["reason"] for line in told if line["event"] == "version-refused"]
    assert reasons[0] == "It could not be loaded (OSError); it is tried again."


def test_a_check_that_hangs_does_not_hold_up_a_shutdown(tiny, save, serving):
    server = serving(tiny)
    save(tiny, prefix="new", overwrite=True)
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        pytest.skip("this system does not tell the children of a process")
    threads = Path(f"/proc/{pid}/task")
    found = until(lambda: [int(one) for task in threads.iterdir() for one in (task / "children").read_text().split()])
    os.kill(found[0], signal.SIGSTOP)
    begun = time.monotonic()
    assert server.end() == 0
    assert time.monotonic() - begun < 15
    with pytest.raises(ProcessLookupError):
        os.kill(found[0], 0)


# where versions come from


def test_a_source_tells_versions_apart_and_sees_nothing_where_there_is_nothing(tmp_path, save):
    place = tmp_path / "b"
    source = BundleSource(place)
    assert source.look() is None
    save(place)
    first = source.look()
    assert first == source.look()
    save(place, prefix="n", overwrite=True)
    assert source.look() != first
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert BundleSource(tmp_path / "loop").look() is None


def test_a_stream_names_its_versions_by_its_link(tmp_path, save):
    with pytest.raises(UsageError, match="There is no stream at"):
        StreamSource(tmp_path)
    (tmp_path / "stream.toml").write_text("")
    source = StreamSource(tmp_path)
    assert source.look() is None
    save(tmp_path / "versions" / "000001-aaaaaaaa")
    (tmp_path / "serving").symlink_to("versions/000001-aaaaaaaa")
    assert source.look().name == "000001-aaaaaaaa"
    assert load(source.look(), check=False).name == "000001-aaaaaaaa"
