"""The server under load: rate, hot swaps, kill -9, hostile requests, a soak, a student beside its teacher.

    python benchmarks/serving.py rate|swaps|events|fuzz|soak|pair [--items 100000] [--dim 20] [--users 100000]
        [--seconds 10] [--rounds 5] [--swaps 50] [--cases 10000] [--folder DIR] [--json FILE]
        [--words='for recdistill serve']

The server runs in one process, what asks it in another (`load.py`: 64 kept connections, one user a request, k = 10).
Bundles are drawn at random: text ids, 20 items seen by each user. `--folder` keeps them for the next call.

`rate`    requests a second and milliseconds, of the best of `--rounds`. Bar at 100 k x 20: 2,000 a second, p99 50 ms.
`swaps`   a link is moved to another bundle under load: failures, mixed versions, p99 while a version is loaded and
          swapped over p99 between. Bar: 0, 0, 2.
`events`  10,000 events are posted while the server is killed with SIGKILL again and again: every one that was
          acknowledged is in the ledger when the server is gone, none twice.
`fuzz`    requests drawn from the OpenAPI document, right and wrong ones: none is answered 5xx, and every answer is as
          the document says.
`soak`    ten minutes of load; resident memory from minute 2 on. Bar: 2 %.
`pair`    a student of 20 dims against a teacher of 200: their servers in turns, and their rankers alone in turns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.evaluation.card import environment
from recdistill.ids import IdTable

HERE = Path(__file__).parent
SEEN = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rate", "swaps", "events", "fuzz", "soak", "pair"])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--words", type=shlex.split, default=[], help="for recdistill serve: --words='--batch 32'")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked.folder = asked.folder or Path(folder)
        asked.folder.mkdir(parents=True, exist_ok=True)
        measure = {"rate": rate, "swaps": swaps, "events": events, "fuzz": fuzz, "soak": soak, "pair": pair}[asked.what]
        found = {"what": asked.what, **measure(asked), "environment": environment()}
    print(json.dumps(found, indent=1, default=str))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1, default=str) + "\n")


def rate(asked: argparse.Namespace) -> dict:
    """Requests a second."""
    with Server(drawn(asked), *asked.words) as server:
        rounds = [load(server, asked.seconds, asked.users) for _ in range(asked.rounds)]
        return {"best": max(rounds, key=lambda one: one["per_second"]), "rounds": rounds, "resident": server.resident()}


def swaps(asked: argparse.Namespace) -> dict:
    """New versions under load."""
    bundles = [drawn(asked, prefix=f"v{n}x", seed=0) for n in range(asked.swaps + 1)]
    link, save = asked.folder / "link", asked.folder / "load.npz"
    link.unlink(missing_ok=True)
    link.symlink_to(bundles[0])
    windows, seconds, quiet = [], [], 1.5
    with Server(link, "--poll", "0.1", *asked.words) as server:
        asking = subprocess.Popen(loading(server, 3600, asked.users, save=str(save)), stdout=subprocess.PIPE, text=True)
        time.sleep(4)
        for place in bundles[1:]:
            before = server.get("/readyz")["version"]
            begun = time.monotonic()
            beside = asked.folder / "beside"
            beside.symlink_to(place)
            beside.replace(link)
            while server.get("/readyz")["version"] == before:
                time.sleep(0.05)
            windows.append((begun, time.monotonic() + 0.2))
            seconds.append(windows[-1][1] - begun - 0.2)
            time.sleep(quiet)
        asking.send_signal(signal.SIGUSR1)
        told = json.loads(asking.communicate()[0])
        refused = server.get("/readyz")["refused"]
    kept = np.load(save, allow_pickle=False)
    start, took = kept["started"], kept["took"] * 1e3
    during = np.zeros(len(start), np.bool_)
    for begin, end in windows:
        during |= (start + kept["took"] >= begin) & (start <= end)
    settled = start > windows[0][0] - 4
    p99 = {name: float(np.percentile(took[settled & side], 99)) for name, side in (("in", during), ("out", ~during))}
    return {
        "swaps": len(windows),
        "load": told,
        "refused": refused,
        "p99_during_ms": round(p99["in"], 2),
        "p99_between_ms": round(p99["out"], 2),
        "ratio": round(p99["in"] / p99["out"], 3),
        "requests_during": int(during.sum()),
        "seconds_a_swap": round(float(np.median(seconds)), 2),
    }


def events(asked: argparse.Namespace) -> dict:
    """Kill -9 while events are posted."""
    from recdistill.ledger import keys
    from recdistill.stream.stream import Stream

    folder = asked.folder / "stream"
    Stream.create(folder, "[blocks]\nbase = 1000000\nevents = 1000000\n").close()
    n, width = 10_000, 5
    waiting = [list(range(at, at + width)) for at in range(0, n, width)]
    sure: list[int] = []
    lock, kills, lost = threading.Lock(), 0, 0

    def post(port: int) -> None:
        while True:
            with lock:
                if not waiting:
                    return
                ids = waiting.pop()
            body = {"events": [{"id": f"e{one}", "user": f"u{one % 97}", "item": f"i{one % 89}"} for one in ids]}
            try:
                if request(port, "POST", "/v1/events", body)[0] != 200:
                    raise ConnectionError
            except (OSError, http.client.HTTPException):
                with lock:
                    waiting.append(ids)
                return
            with lock:
                sure.extend(ids)

    def stored() -> list[int]:
        with Stream(folder) as stream:
            return stream.ledger.rows().key.tolist()

    begun = time.monotonic()
    while waiting:
        with Server(folder) as server:
            threads = [threading.Thread(target=post, args=(server.port,)) for _ in range(16)]
            for thread in threads:
                thread.start()
            enough = len(sure) + n // 8
            while len(sure) < enough and any(thread.is_alive() for thread in threads):
                time.sleep(0.002)
            if waiting or any(thread.is_alive() for thread in threads):
                server.process.kill()
                kills += 1
            for thread in threads:
                thread.join()
        there = set(stored())
        lost += sum(key not in there for key in keys.combined(keys.of_text([f"e{one}" for one in sure])).tolist())
    counts = Counter(stored())
    return {
        "posted": n,
        "acknowledged": len(sure),
        "kills": kills,
        "lost": lost,
        "twice": sum(count > 1 for count in counts.values()),
        "in_ledger": len(counts),
        "seconds": round(time.monotonic() - begun, 1),
    }


def fuzz(asked: argparse.Namespace) -> dict:
    """Hostile requests."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.failures import FailureGroup
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    from recdistill.stream.stream import Stream

    # what a wrong request is answered is checked by the tests: here a token hides that the header was what was wrong
    checks = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
    token, folder = "t" * 32, asked.folder / "stream"
    Stream.create(folder, "").close()
    asked.items, asked.users = 2000, 500
    (folder / "versions").mkdir()
    drawn(asked).rename(folder / "versions" / "000000-aaaaaaaa")
    (folder / "serving").symlink_to("versions/000000-aaaaaaaa")
    place = asked.folder / "token"
    place.write_text(token)
    statuses: Counter[int] = Counter()
    otherwise: list[str] = []
    with Server(folder, "--token-file", str(place)) as server:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        each = -(-asked.cases // (2 * len(operations)))
        turn = 0
        while sum(statuses.values()) < asked.cases:
            for operation in operations:
                for mode in GenerationMode:

                    @settings(max_examples=each, deadline=None, database=None, suppress_health_check=list(HealthCheck))
                    @given(case=operation.as_strategy(generation_mode=mode))
                    def ask(case: schemathesis.Case) -> None:
                        answer = case.call(headers={"authorization": f"Bearer {token}"})
                        statuses[answer.status_code] += 1
                        try:
                            case.validate_response(answer, checks=checks)
                        except FailureGroup as failure:
                            otherwise.append(str(failure)[:500])

                    try:
                        ask()
                    except Unsatisfiable:  # nothing wrong can be said to a route that takes nothing
                        continue
            turn += 1
        alive = server.process.poll() is None
    faults = sum(count for status, count in statuses.items() if status >= 500)
    return {
        "cases": sum(statuses.values()),
        "statuses": dict(sorted(statuses.items())),
        "server_errors": faults,
        "not_as_documented": len(otherwise),
        "examples": otherwise[:3],
        "alive": alive,
    }


def soak(asked: argparse.Namespace) -> dict:
    """Memory over ten minutes."""
    minutes, sizes = 10, []
    with Server(drawn(asked), *asked.words) as server:
        asking = subprocess.Popen(loading(server, 60 * minutes, asked.users), stdout=subprocess.PIPE, text=True)
        begun = time.monotonic()
        for minute in range(1, minutes + 1):
            time.sleep(max(0.0, begun + 60 * minute - 2 - time.monotonic()))
            sizes.append(server.resident())
        told = json.loads(asking.communicate()[0])
    return {"load": told, "resident": sizes, "growth_from_minute_2": round(sizes[-1] / sizes[1] - 1, 5)}


def pair(asked: argparse.Namespace) -> dict:
    """A student against a teacher."""
    from recdistill.serve.service import Service

    paths = {"student": drawn(asked, dim=20), "teacher": drawn(asked, dim=200)}
    rankers = {name: Service.from_bundle(path, threads=1) for name, path in paths.items()}
    users = np.random.default_rng(1).integers(0, asked.users, (asked.rounds + 1, 64))
    alone: dict[str, list[float]] = {name: [] for name in paths}
    for turn, mine in enumerate(users):
        for name, service in rankers.items():
            begun = time.perf_counter()
            service.ranker.top_k(mine, 10, service.seen)
            if turn:  # the first makes things ready
                alone[name].append((time.perf_counter() - begun) * 1e3)
    del rankers
    rates: dict[str, list[float]] = {name: [] for name in paths}
    p99: dict[str, list[float]] = {name: [] for name in paths}
    with Server(paths["student"], *asked.words) as one, Server(paths["teacher"], *asked.words) as two:
        for _ in range(asked.rounds):
            for name, server in (("student", one), ("teacher", two)):
                told = load(server, asked.seconds, asked.users)
                rates[name].append(told["per_second"])
                p99[name].append(told["p99_ms"])
    index = {name: round(float(np.median(times)), 3) for name, times in alone.items()}
    served = {name: round(float(np.median(found)), 1) for name, found in rates.items()}
    return {
        "items": asked.items,
        "index_ms_of_64": index,
        "index_ratio": round(index["teacher"] / index["student"], 2),
        "requests_per_second": served,
        "p99_ms": {name: round(float(np.median(found)), 2) for name, found in p99.items()},
        "throughput_ratio": round(served["student"] / served["teacher"], 2),
    }


class Server:
    """`recdistill serve` in a process; a context manager that ends it."""

    def __init__(self, path: Path, *words: str) -> None:
        command = [sys.executable, "-m", "recdistill", "serve", str(path), "--port", "0", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            told = json.loads(line) if line.startswith("{") else {}
            if told.get("event") == "listening":
                self.port = told["port"]
                break
        else:
            raise SystemExit(f"the server ended with {self.process.wait()}")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait()

    def get(self, path: str) -> dict:
        """What a route answers."""
        return request(self.port, "GET", path)[1]

    def resident(self) -> int:
        """Bytes of resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def request(port: int, method: str, path: str, body: object = None) -> tuple[int, dict]:
    """One request and its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def loading(server: Server, seconds: float, users: int, *, save: str = "") -> list[str]:
    """The command that asks."""
    words = ["--seconds", str(seconds), "--users", str(users), *(["--save", save] if save else [])]
    return [sys.executable, str(HERE / "load.py"), f"http://127.0.0.1:{server.port}", *words]


def load(server: Server, seconds: float, users: int) -> dict:
    """What was told of that many seconds."""
    return json.loads(subprocess.run(loading(server, seconds, users), check=True, stdout=subprocess.PIPE).stdout)


def drawn(asked: argparse.Namespace, *, dim: int | None = None, prefix: str = "item", seed: int = 0) -> Path:
    """A bundle of random vectors; made once in a folder."""
    dim = dim or asked.dim
    path = asked.folder / f"{prefix}-{asked.users}-{asked.items}-{dim}"
    if path.exists():
        return path
    chance = np.random.default_rng(seed)
    line = np.repeat(np.arange(asked.users), SEEN)
    bundle.save(
        path,
        kind="vectors",
        arrays={
            "user": chance.normal(size=(asked.users, dim)).astype(np.float32),
            "item": chance.normal(size=(asked.items, dim)).astype(np.float32),
        },
        users=IdTable.from_ids([f"u{n}" for n in range(asked.users)]),
        items=IdTable.from_ids([f"{prefix}{n}" for n in range(asked.items)]),
        seen=Csr.from_pairs(line, chance.integers(0, asked.items, len(line)), asked.users, asked.items),
        popular=chance.permutation(asked.items)[:1000],
        model="mf",
        settings={"dim": dim},
        lineage={"drawn": seed, "prefix": prefix},
        metrics={},
        citations=[],
    )
    return path


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
