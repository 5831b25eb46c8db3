"""The install and start steps of the Dockerfile, taken from the file and run in a clean environment; the unit, read."""

from __future__ import annotations

import configparser
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.ids import IdTable

ROOT = Path(__file__).parents[2]
FILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
TOKEN = "correct-horse-battery-staple"  # noqa: S105
NO_INDEX = ("Could not find a version", "No matching distribution", "Connection", "connection", "resolve", "Timeout")


def steps(word: str) -> list[str]:
    return re.findall(rf"^{word} (.*)$", FILE, re.M)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_dockerfile_installs_and_starts_serves_a_bundle_without_torch(tmp_path):
    build, home = tmp_path / "build", tmp_path / "opt"
    build.mkdir()
    for line in FILE.split("FROM")[1].splitlines():
        if line.startswith("COPY"):
            *names, place = shlex.split(line)[1:]
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, build / place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, build / place)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    clean |= {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "15"}  # who cannot reach an index hears it soon
    for step in steps("RUN")[:2]:
        words = shlex.split(step.replace("/opt/recdistill", str(home)))
        words[0] = sys.executable if words[0] == "python" else words[0]
        done = subprocess.run(words, cwd=build, capture_output=True, text=True, check=False, env=clean)
        if done.returncode and any(sign in done.stderr for sign in NO_INDEX):
            pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1][:200]}")
        assert done.returncode == 0, done.stderr
    without = [str(home / "bin" / "python"), "-c", "import torch"]
    assert subprocess.run(without, capture_output=True, check=False, env=clean).returncode != 0
    command = [*json.loads(steps("ENTRYPOINT")[0]), *json.loads(steps("CMD")[0])]
    served(command, tmp_path, home, clean)


def served(command: list[str], tmp_path: Path, home: Path, clean: dict[str, str]) -> None:
    """Start the image's command on a bundle, and ask it as its health check does."""
    data, token = tmp_path / "data", tmp_path / "token"
    token.write_text(TOKEN)
    one = IdTable.from_ids(["a", "b"])
    vectors = np.eye(2, dtype=np.float32)
    about = {"model": "mf", "settings": {}, "lineage": {}, "metrics": {}, "citations": []}
    seen, popular = Csr.empty(2, 2), np.array([0, 1])
    arrays = {"user": vectors, "item": vectors}
    bundle.save(data, kind="vectors", arrays=arrays, users=one, items=one, seen=seen, popular=popular, **about)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    named = {"/data": str(data), "/run/secrets/token": str(token), "8000": port, "0.0.0.0": "127.0.0.1"}  # noqa: S104
    words = [named.get(word, word).replace("/opt/recdistill", str(home)) for word in command]
    env = {**clean, **dict(pair.split("=") for line in steps("ENV") for pair in line.split())}
    server = subprocess.Popen(words, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    try:
        check = json.loads(steps("HEALTHCHECK")[0].split("CMD ")[1])
        check = [word.replace("/opt/recdistill", str(home)).replace("8000", port) for word in check]
        until = time.monotonic() + 60
        while subprocess.run(check, capture_output=True, check=False, env=clean).returncode:
            assert server.poll() is None, server.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.2)
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        head = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        connection.request("POST", "/v1/recommend", json.dumps({"user": "b", "k": 1}), head)
        assert json.loads(connection.getresponse().read())["items"] == ["b"]
        connection.close()
        server.terminate()
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret():
    assert steps("USER") == ["10001"]
    assert "torch" not in "".join(steps("RUN"))
    assert not re.search(r"(?i)token\s*=|password", FILE)


def test_the_unit_starts_the_command_there_is_and_gives_it_nothing_it_does_not_need():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(ROOT / "deploy" / "recdistill.service")
    service = unit["Service"]
    words = shlex.split(service["ExecStart"])
    assert words[1:3] == ["serve", "/var/lib/recdistill"]
    assert "--host" not in words  # this machine alone
    for name in ("NoNewPrivileges", "DynamicUser", "PrivateDevices", "ProtectHome"):
        assert service[name] == "yes"
    assert service["CapabilityBoundingSet"] == ""


def test_the_compose_file_mounts_the_stream_and_reaches_this_machine_alone():
    text = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    assert 'ports: ["127.0.0.1:8000:8000"]' in text
    assert text.count('volumes: ["stream:/data"]') == 2
    assert "read_only: true" in text
