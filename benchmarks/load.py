"""Asks a server for lists over kept connections, one user a request: the second process of `serving.py`.

    python benchmarks/load.py URL [--connections 64] [--seconds 10] [--users 100000] [--k 10] [--save FILE.npz]

Users are drawn evenly from "u0", "u1", ... Prints JSON: requests, failures, answers a second, milliseconds, and how
many answers were mixed: items of more than one version, or a version whose items do not begin as they did before.
SIGUSR1 ends it early. `--save` keeps the start and the length of every request, in seconds of the monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import uvloop
from typing_extensions import override


@dataclass
class Counts:
    """What has been seen."""

    until: float
    users: int
    k: int
    started: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    failed: int = 0
    mixed: int = 0
    prefix: dict[str, str] = field(default_factory=dict)
    """Of each version's item ids."""

    def request(self) -> bytes:
        """The next one."""
        body = b'{"user":"u%d","k":%d}' % (random.randrange(self.users), self.k)  # noqa: S311
        head = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
        return head + str(len(body)).encode() + b"\r\n\r\n" + body

    def take(self, status: bytes, body: bytes, began: float) -> None:
        """An answer has come."""
        self.started.append(began)
        self.took.append(time.monotonic() - began)
        if status != b"200":
            self.failed += 1
            return
        told = json.loads(body)
        prefixes = {one.rstrip("0123456789") for one in told["items"]}
        expected = self.prefix.setdefault(told["version"], min(prefixes, default=""))
        if len(told["items"]) != self.k or prefixes != {expected}:
            self.mixed += 1


class Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, counts: Counts, done: asyncio.Future[None]) -> None:
        self._counts, self._done, self._read, self._began = counts, done, b"", 0.0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    @override
    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._read[:end].lower()
        at = head.index(b"content-length: ") + 16
        size = int(head[at : at + 12].split(b"\r")[0])
        if len(self._read) < end + 4 + size:
            return
        body, self._read = self._read[end + 4 : end + 4 + size], b""
        self._counts.take(head[9:12], body, self._began)
        self._send()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._counts.failed += 1
            self._done.set_result(None)

    def _send(self) -> None:
        self._began = time.monotonic()
        if self._began > self._counts.until:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
        else:
            self._transport.write(self._counts.request())


async def run(host: str, port: int, connections: int, counts: Counts) -> None:
    """Ask until it is time."""
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(connections)]
    for future in futures:
        await loop.create_connection(lambda future=future: Connection(counts, future), host, port)
    await asyncio.gather(*futures)


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--save")
    asked = parser.parse_args()
    place = urlsplit(asked.url)
    begun = time.monotonic()
    counts = Counts(begun + asked.seconds, asked.users, asked.k)
    signal.signal(signal.SIGUSR1, lambda *_: setattr(counts, "until", 0.0))
    uvloop.run(run(place.hostname or "127.0.0.1", place.port or 80, asked.connections, counts))
    seconds = time.monotonic() - begun
    took = np.array(counts.took) * 1e3
    told = {
        "requests": len(took),
        "failed": counts.failed,
        "mixed": counts.mixed,
        "versions": len(counts.prefix),
        "per_second": round(len(took) / seconds, 1),
        **{f"p{q}_ms": round(float(np.percentile(took, q)), 2) for q in (50, 95, 99)},
        "max_ms": round(float(took.max()), 2),
    }
    if asked.save:
        np.savez(asked.save, started=np.array(counts.started), took=np.array(counts.took))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
