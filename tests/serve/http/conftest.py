"""A tiny bundle with answers worked by hand, an app around it, and servers in processes of their own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.ids import IdTable
from recdistill.serve.http.app import Options, create_app
from recdistill.serve.http.logs import Log
from recdistill.serve.http.running import server_of
from recdistill.serve.http.sources import BundleSource
from recdistill.serve.http.version import opened

# Users a, b, c; items i0 .. i5, of one dimension: users 1, -1, 2; items 0 .. 5. So a and c rank i5 i4 i3 i2 i1 i0, with
# scores 5 4 .. and 10 8 .., b the other way round. a has seen i5 and i0, b nothing, c i1 .. i5. Popular: i2 i5 i0.


def saved(path, *, prefix="i", dim=1, overwrite=False, **changed):
    user = np.zeros((3, dim), np.float32)
    item = np.zeros((6, dim), np.float32)
    user[:, 0], item[:, 0] = [1, -1, 2], np.arange(6)
    parts = {
        "kind": "vectors",
        "arrays": {"user": user, "item": item},
        "users": IdTable.from_ids(["a", "b", "c"]),
        "items": IdTable.from_ids([f"{prefix}{n}" for n in range(6)]),
        "seen": Csr.from_pairs([0, 0, 2, 2, 2, 2, 2], [5, 0, 1, 2, 3, 4, 5], 3, 6),
        "popular": np.array([2, 5, 0]),
        "model": "mf",
        "settings": {"dim": dim},
        "lineage": {"prefix": prefix},
        "metrics": {},
        "citations": [],
        "created": "2026-01-02T03:04:05Z",
    }
    bundle.save(path, **(parts | changed), overwrite=overwrite)
    return path


@pytest.fixture
def tiny(tmp_path):
    """The bundle of this file's first comment."""
    return saved(tmp_path / "tiny")


@pytest.fixture(scope="session")
def save():
    """`save(path, prefix="i", dim=1, overwrite=False, **changed)`: that bundle with something changed."""
    return saved


class Answer:
    """What came back."""

    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.status_code, self.content = found.status, found.read()
        self.text = self.content.decode(errors="replace")
        self.headers = {name.lower(): value for name, value in found.getheaders()}

    def json(self):
        return json.loads(self.content)


class Client:
    """Requests to one port of this machine, a connection each."""

    def __init__(self, port: int, headers: dict | None = None) -> None:
        self.port, self._headers = port, headers or {}

    def request(self, method, path, *, json=None, content=None, params=None, headers=None, timeout=30) -> Answer:
        head = {**self._headers, **(headers or {})}
        if json is not None:
            content = _dumps(json).encode()
            head = {"content-type": "application/json", **head}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path + (f"?{urlencode(params)}" if params else ""), content, head)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **more) -> Answer:
        return self.request("GET", path, **more)

    def post(self, path, **more) -> Answer:
        return self.request("POST", path, **more)

    def put(self, path, **more) -> Answer:
        return self.request("PUT", path, **more)


_dumps = json.dumps


@pytest.fixture
def app_of(tmp_path):
    """`with app_of(bundle, **options) as client`: an app on a port of its own; `client.log` is its log's file."""

    @contextmanager
    def make(path, *, headers=None, first=True, source=None, **options):
        log = tmp_path / "log"
        with log.open("a+") as out:
            options = Options(log=Log(out), **options)
            version = opened(path) if first else None
            app = create_app(source or BundleSource(path), options, first=version)
            server, place = server_of(app, options), socket.create_server(("127.0.0.1", 0))
            thread = threading.Thread(target=server.run, args=([place],))
            thread.start()
            try:
                while not server.started:
                    assert thread.is_alive()
                    time.sleep(0.002)
                client = Client(place.getsockname()[1], headers)
                client.app, client.log = app, log
                yield client
            finally:
                server.should_exit = True
                thread.join()
                place.close()

    return make


@pytest.fixture
def client(tiny, app_of):
    with app_of(tiny) as client:
        yield client


class Server:
    """`recdistill serve` in a process."""

    def __init__(self, path: Path, *words: str) -> None:
        quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        command = [sys.executable, "-m", "recdistill", "serve", str(path), "--port", "0", "--poll", "0.05", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=quiet)
        self.lines: list[dict] = []
        self.client = Client(self.told("listening")["port"])

    def told(self, event: str) -> dict:
        """The next line of the log of that event."""
        while True:
            line = self.process.stderr.readline()
            assert line, f"ended with {self.process.wait()}; {self.lines}"
            self.lines.append(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})
            if self.lines[-1]["event"] == event:
                return self.lines[-1]

    def wait_for(self, version: str) -> None:
        until = time.monotonic() + 60
        while self.client.get("/readyz").json()["version"] != version:
            assert time.monotonic() < until
            time.sleep(0.02)

    def end(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.stderr.closed:
            return
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.lines += [json.loads(line) for line in self.process.stderr if line.startswith("{")]
        self.process.stderr.close()


@pytest.fixture
def serving():
    """`serving(path, *words)`: a server in a process; it is ended with the test."""
    begun: list[Server] = []

    def begin(path, *words):
        begun.append(Server(path, *words))
        return begun[-1]

    yield begin
    for server in begun:
        server.close()
