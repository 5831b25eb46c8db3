"""`recdistill serve` as a process: where it binds, how it ends, what it says."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from recdistill.errors import SettingsError, UsageError
from recdistill.serve.http.running import is_loopback


def said(*words, env=None):
    done = subprocess.run(
        [sys.executable, "-m", "recdistill", "serve", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    return done.returncode, " ".join(done.stderr.split())


def test_requests_under_way_are_answered_before_the_process_ends(tiny, serving):
    server = serving(tiny, "--wait-ms", "800")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.client.post("/v1/recommend", json={"user": "a"})))
    asking.start()
    time.sleep(0.3)  # it waits for others in the queue
    assert server.end(signal.SIGTERM) == 0
    asking.join()
    assert answers[0].json()["items"] == ["i4", "i3", "i2", "i1"]
    server.close()
    assert [line["event"] for line in server.lines][-2:] == ["draining", "stopped"]


def test_a_server_that_others_can_reach_needs_a_token(tiny, tmp_path):
    code, error = said(tiny, "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert code == 2
    assert error == (
        "error: A server that other machines can reach needs a token; got '0.0.0.0'. Give one by --token-file, or say "
        "--no-token where something before the server lets in only whom it should."
    )


def test_with_a_token_it_may_be_reached_from_anywhere(tiny, tmp_path, serving):
    token = tmp_path / "token"
    token.write_text("correct-horse-battery")
    server = serving(tiny, "--host", "0.0.0.0", "--token-file", str(token))  # noqa: S104
    assert server.lines[-1]["token"] is True
    assert server.client.get("/v1/about").status_code == 401
    assert server.client.get("/v1/about", headers={"authorization": "Bearer correct-horse-battery"}).status_code == 200


@pytest.mark.parametrize("text", ["", "short", "has a blank in it, long", "ümlaut-ümlaut-ümlaut"])
def test_a_token_that_is_none_is_refused(tiny, tmp_path, text):
    token = tmp_path / "token"
    token.write_text(text)
    code, error = said(tiny, "--token-file", token)
    assert code == 2
    assert f"The file {token} holds no token. Allowed: at least 16 printable ASCII characters." in error
    assert text == "" or text not in error


def test_what_cannot_be_served_is_one_message(tmp_path, tiny):
    assert said(tmp_path / "nothing")[1].startswith(f"error: There is no bundle at {tmp_path / 'nothing'}.")
    (tiny / "popular.safetensors").unlink()
    code, error = said(tiny)
    assert (code, "Traceback" in error) == (2, False)
    assert "popular.safetensors" in error
    assert "Unknown setting 'limit.kk'. Did you mean 'limit.k'?" in said(tiny, "--limit", "kk=3")[1]


def test_a_port_that_is_taken_is_said(tiny, serving):
    server = serving(tiny)
    code, error = said(tiny, "--port", server.client.port)
    assert code == 2
    assert f"cannot listen at 127.0.0.1:{server.client.port}" in error


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")),  # noqa: S104
    ],
)
def test_which_addresses_are_of_this_machine(host, local):
    assert is_loopback(host) is local


def test_limits_are_read_as_settings():
    from recdistill.serve.http.limits import Limits
    from recdistill.settings import overlay, parse

    assert parse(Limits, overlay({}, ["k=5"]), at="limit").k == 5
    with pytest.raises(SettingsError, match=r"limit\.k"):
        parse(Limits, overlay({}, ["k=0"]), at="limit")
    assert issubclass(SettingsError, UsageError)


def test_no_torch_is_loaded_by_a_server(tiny):
    code = (
        "import sys; import recdistill.serve.http.running, recdistill.cli.serve, recdistill.stream.stream; "
        "assert 'torch' not in sys.modules and 'polars' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
