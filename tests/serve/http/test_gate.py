"""Who may ask, under which name, how much and how fast: every refusal names its reason."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import pytest

from recdistill.serve.http.limits import Limits

TOKEN = "correct-horse-battery"  # noqa: S105
BEARER = {"authorization": f"Bearer {TOKEN}"}


def refused(answer, status, code, limit=None):
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error.get("limit")) == (status, code, limit), answer.text
    return error


LIMITS = [
    ({"k": 11, "user": "a"}, "k", 10),
    ({"history": ["i1"] * 4}, "history", 3),
    ({"user": "a", "exclude": ["i1"] * 6}, "listed", 5),
    ({"user": "a", "candidates": ["i1"] * 6}, "listed", 5),
    ({"user": "a", "available": ["i1"] * 6}, "listed", 5),
]


@pytest.mark.parametrize(("query", "limit", "allowed"), LIMITS, ids=lambda one: str(one)[:30])
def test_a_query_beyond_a_limit_is_refused_by_its_name(tiny, app_of, query, limit, allowed):
    with app_of(tiny, limits=Limits(k=10, history=3, listed=5)) as client:
        error = refused(client.post("/v1/recommend", json=query), 422, "too-many", limit)
        assert error["allowed"] == allowed
        assert f"(limit '{limit}')" in error["message"]
        refused(client.post("/v1/recommend/batch", json={"requests": [query]}), 422, "too-many", limit)


def test_a_batch_beyond_its_limit_is_refused(tiny, app_of):
    with app_of(tiny, limits=Limits(batch=2)) as client:
        refused(client.post("/v1/recommend/batch", json={"requests": [{"user": "a"}] * 3}), 422, "too-many", "batch")


def test_a_body_beyond_its_limit_is_refused_whether_its_length_is_told_or_not(tiny, app_of):
    with app_of(tiny, limits=Limits(body=100)) as client:
        head = {"content-type": "application/json"}
        told = client.post("/v1/recommend", content=b" " * 101, headers=head)
        refused(told, 413, "too-large", "body")
        assert told.headers["connection"] == "close"
        streamed = client.post("/v1/recommend", content=iter([b" " * 60, b" " * 60]), headers=head)
        refused(streamed, 413, "too-large", "body")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not-json"),
        (b"{", 400, "not-json"),
        (b'{"user": "\\ud800"}', 400, "not-json"),
        (b'{"user": NaN}', 400, "not-json"),
        (b"[]", 422, "invalid"),
        (b"{}", 422, "invalid"),
        (b'{"user": 1.5}', 422, "invalid"),
        (b'{"user": true}', 422, "invalid"),
        (b'{"user": null}', 422, "invalid"),
        (b'{"user": ""}', 422, "invalid"),
        (b'{"user": 9223372036854775808}', 422, "invalid"),
        (b'{"user": "a", "k": 0}', 422, "invalid"),
        (b'{"user": "a", "n": 3}', 422, "invalid"),
        (b'{"user": "' + b"x" * 257 + b'"}', 422, "invalid"),
        (b'{"history": ' + b"[" * 5000 + b"]" * 5000 + b"}", 422, "invalid"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_is_not_of_the_schema_is_refused(client, body, status, code):
    answer = client.post("/v1/recommend", content=body, headers={"content-type": "application/json"})
    refused(answer, status, code)


def test_a_body_of_another_type_is_refused_so_that_no_foreign_page_can_post(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/v1/recommend", content=b'{"user":"a"}', headers={"content-type": kind})
        refused(answer, 415, "not-json")


def test_routes_and_methods_that_are_not_there_are_told_in_the_same_form(client):
    refused(client.get("/v2"), 404, "not-found")
    answer = client.put("/v1/recommend", json={})
    refused(answer, 405, "wrong-method")
    assert answer.headers["allow"] == "POST"


def test_parameters_are_as_strict_as_bodies(client):
    for params in ({}, {"item": ""}, {"item": "i1", "k": "0"}, {"item": "i1", "k": "x"}, {"item": "i1", "n": "1"}):
        refused(client.get("/v1/similar", params=params), 422, "invalid")
    refused(client.get("/v1/similar?item=i1&item=i2"), 422, "invalid")
    refused(client.get("/v1/similar?item=%ff"), 422, "invalid")
    refused(client.get("/v1/similar?item=i1&k=1001"), 422, "too-many", "k")


def test_a_token_guards_everything_but_pages_and_health(tiny, app_of):
    with app_of(tiny, token=TOKEN) as client:
        for path in ("/v1/about", "/metrics", "/v1/items", "/v1/similar?item=i1"):
            answer = client.get(path)
            refused(answer, 401, "unauthorised")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert client.get(path, headers=BEARER).status_code == 200
        for wrong in ("Bearer nonsense", f"Basic {TOKEN}", TOKEN, "Bearer", f"Bearer {TOKEN}x", "Bearer é"):
            headers = {"authorization": wrong.encode("latin-1")}
            refused(client.post("/v1/recommend", json={"user": "a"}, headers=headers), 401, "unauthorised")
        assert client.post("/v1/recommend", json={"user": "a"}, headers=BEARER).status_code == 200
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200


def test_tokens_are_compared_in_constant_time(tiny, app_of, monkeypatch):
    import hmac

    compared = []

    def watched(one, two):
        compared.append((len(one), len(two)))
        return one == two

    monkeypatch.setattr(hmac, "compare_digest", watched)
    with app_of(tiny, token=TOKEN) as client:
        client.get("/v1/about", headers={"authorization": "Bearer x"})
        client.get("/v1/about", headers=BEARER)
    assert compared == [(32, 32), (32, 32)]  # of hashes: not even the length tells


@pytest.mark.parametrize("path", ["/v1/rollback", "/v1/availability"])
def test_what_changes_answers_for_everybody_needs_a_token(client, path):
    refused(client.post(path, json={"items": None} if "avail" in path else {}), 403, "no-token")


def test_a_server_of_this_machine_answers_to_its_own_names_only(tiny, app_of):
    with app_of(tiny, hosts=["localhost", "127.0.0.1", "[::1]"]) as client:
        for host in ("evil.example", "127.0.0.1.evil.example:8000", "", "[::2]:80"):
            refused(client.get("/v1/about", headers={"host": host}), 421, "wrong-host")
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
            assert client.get("/v1/about", headers={"host": host}).status_code == 200


def test_requests_beyond_the_limit_at_a_time_are_told_to_come_back(tiny, app_of):
    with app_of(tiny, limits=Limits(concurrency=1), wait=0.5) as client:
        first = []
        waiting = threading.Thread(target=lambda: first.append(client.post("/v1/recommend", json={"user": "a"})))
        waiting.start()
        time.sleep(0.2)
        answer = client.post("/v1/recommend", json={"user": "a"})
        refused(answer, 429, "busy", "concurrency")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200  # who watches the process must get through
        assert client.get("/readyz").status_code == 200
        waiting.join()
        assert first[0].status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(tiny, app_of):
    with app_of(tiny, limits=Limits(seconds=0.05), wait=1.0) as client:
        refused(client.post("/v1/recommend", json={"user": "a"}), 503, "overloaded", "seconds")


def test_a_fault_of_ours_is_told_without_what_was_asked(tiny, app_of, monkeypatch):
    from recdistill.serve.http import answering

    def broken(version, queries, recent):
        raise RuntimeError(f"the secret of {queries[0].user}")

    monkeypatch.setattr(answering, "answer", broken)
    with app_of(tiny) as client:
        answer = client.post("/v1/recommend", json={"user": "somebody"})
        error = refused(answer, 500, "internal")
        log = client.log.read_text()
    assert error["message"].split()[-1].rstrip(".") in log
    assert '"error":"RuntimeError"' in log
    assert "broken" in log  # where
    assert "secret" not in log + answer.text
    assert "somebody" not in log


def test_logs_hold_no_ids_queries_or_addresses(tiny, app_of):
    with app_of(tiny, log_requests=True) as client:
        client.post("/v1/recommend", json={"user": "somebody", "history": ["i3"]})
        client.get("/v1/similar", params={"item": "i1"})
        client.get("/v1/nobody/knows")
    log = "".join(line for line in client.log.read_text().splitlines() if '"listening"' not in line)
    assert '"route":"/v1/recommend","method":"POST","status":200' in log
    assert '"route":"none"' in log
    for secret in ("somebody", "i3", "i1", "nobody", "127.0.0.1"):
        assert secret not in log


def test_heads_beyond_their_limit_are_refused_before_a_route_sees_them(tiny, app_of):
    with app_of(tiny, limits=Limits(head=2000)) as client:
        refused(client.get("/healthz", headers={"x": "y" * 2000}), 431, "too-large", "head")
        refused(client.get("/healthz?" + "y" * 2000), 431, "too-large", "head")
        assert client.get("/healthz", headers={"x": "y" * 1000}).status_code == 200


def test_a_connection_that_dribbles_its_head_is_closed(tiny, app_of):
    with app_of(tiny, limits=Limits(idle=0.2)) as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as one:
            one.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ")
            assert one.recv(1000) == b""
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as silent:
            assert silent.recv(1000) == b""


def test_a_body_that_dribbles_is_given_up(tiny, app_of):
    with (
        app_of(tiny, limits=Limits(seconds=0.1)) as client,
        socket.create_connection(("127.0.0.1", client.port), timeout=10) as one,
    ):
        head = b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        one.sendall(head + b"content-length: 50\r\n\r\n{")
        told = one.recv(10_000)
    assert told.startswith(b"HTTP/1.1 408")
    assert b'"limit":"seconds"' in told


def test_connections_beyond_their_limit_are_closed(tiny, app_of):
    with app_of(tiny, limits=Limits(connections=2)) as client:
        ends = [socket.create_connection(("127.0.0.1", client.port), timeout=10) for _ in range(2)]
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            client.get("/healthz")
        for end in ends:
            end.close()


def test_nothing_is_served_before_the_first_version(tmp_path, app_of):
    with app_of(tmp_path / "nothing", first=False) as client:
        assert client.get("/readyz").json() == {
            "ready": False,
            "version": None,
            "previous": None,
            "refused": None,
            "gated": None,
            "status": "starting",
        }
        assert client.get("/readyz").status_code == 503
        refused(client.post("/v1/recommend", json={"user": "a"}), 503, "not-ready")
        assert client.get("/healthz").status_code == 200
