"""What the routes answer, on a bundle whose lists are worked by hand (see conftest)."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from recdistill.ids import IdTable

TOKEN = "0123456789abcdef"  # noqa: S105
JSON = {"content-type": "application/json"}


def ask(client, **query):
    answer = client.post("/v1/recommend", json=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_known_user_gets_the_best_of_what_is_new_to_them(client):
    told = ask(client, user="a", k=3)
    assert told["items"] == ["i4", "i3", "i2"]
    assert told["scores"] == [4.0, 3.0, 2.0]
    assert told["why"] == "known-user"
    assert re.fullmatch(r"mf-[0-9a-f]{8}", told["version"])
    assert told["timing"]["batch"] == 1
    assert told["timing"]["computed_ms"] > 0
    assert told["notes"] == []


def test_what_was_seen_comes_back_where_it_is_asked_for(client):
    assert ask(client, user="a", k=3, filter_seen=False)["items"] == ["i5", "i4", "i3"]


def test_a_stranger_gets_the_popular_list_without_scores(client):
    told = ask(client, user="nobody", k=2)
    assert (told["items"], told["scores"], told["why"]) == (["i2", "i5"], None, "popular")


def test_a_stranger_with_a_history_is_folded_in(client):
    # i4 was touched by c alone. One hop: the vector of i4, 4. Two hops: c, then a and b fill up: mean(2, 1, -1) = 2/3.
    # So the visitor is (4 + 2/3) / 2 = 7/3, and the best new items are i5 and i3: 35/3 and 7.
    told = ask(client, history=["i4"], k=2)
    assert told["items"] == ["i5", "i3"]
    assert told["scores"] == pytest.approx([35 / 3, 7.0], rel=1e-6)
    assert told["why"] == "folded-in"
    assert ask(client, user="nobody", history=["i4"], k=2)["items"] == ["i5", "i3"]


def test_a_known_user_keeps_their_vector_and_loses_what_they_have_done_since(client):
    told = ask(client, user="a", history=["i4"], k=2)
    assert (told["items"], told["why"]) == (["i3", "i2"], "known-user")


def test_a_history_of_strange_items_gets_the_popular_list_and_a_note(client):
    told = ask(client, history=["x", "y"], k=1)
    assert (told["items"], told["why"]) == (["i2"], "popular")
    assert told["notes"] == ["history: 2 of 2 items are not in the catalogue and were ignored"]


def test_an_empty_list_says_what_made_it(tmp_path, save, app_of):
    bare = save(tmp_path / "bare", popular=np.zeros(0, np.int64))
    asked = [{"history": ["strange"]}, {"history": ["i1"], "candidates": ["i1"]}, {"user": "b", "candidates": []}]
    with app_of(bare) as client:
        told = client.post("/v1/recommend/batch", json={"requests": asked}).json()["answers"]
    assert [(one["items"], one["scores"], one["why"]) for one in told] == [
        ([], None, "popular"),
        ([], [], "folded-in"),
        ([], [], "known-user"),
    ]


def test_exclude_candidates_and_available_narrow_a_list(client):
    assert ask(client, user="a", exclude=["i4", "nothing"])["items"] == ["i3", "i2", "i1"]
    assert ask(client, user="a", candidates=["i1", "i3", "i5"])["items"] == ["i3", "i1"]
    assert ask(client, user="a", available=["i1", "i2"])["items"] == ["i2", "i1"]
    assert ask(client, user="a", candidates=["i1", "i3"], available=["i1", "i2"])["items"] == ["i1"]
    assert ask(client, user="nobody", available=["i0", "i1"])["items"] == ["i0", "i1"]


def test_ids_may_be_integers(tmp_path, save, app_of):
    path = save(tmp_path / "n", items=IdTable.from_ids(np.arange(10, 16)), users=IdTable.from_ids([1, 2, 3]))
    with app_of(path) as client:
        assert ask(client, user=1, k=2)["items"] == [14, 13]
        assert ask(client, user="1", k=2, exclude=["14"])["items"] == [13, 12]
        assert ask(client, user=2**62)["why"] == "popular"
        answer = client.post("/v1/recommend", content=b'{"user": 1.0, "k": 2.0}', headers=JSON)  # as JSON has it: 1, 2
        assert answer.json()["items"] == [14, 13]


def test_a_batch_is_answered_in_order_by_one_version(client):
    asked = [
        {"user": "b", "k": 1},
        {"user": "a", "k": 2, "exclude": ["i4"]},
        {"user": "a", "k": 2},
        {"history": ["i4"]},
    ]
    told = client.post("/v1/recommend/batch", json={"requests": asked}).json()
    assert [one["items"] for one in told["answers"][:3]] == [["i0"], ["i3", "i2"], ["i4", "i3"]]
    assert {one["version"] for one in told["answers"]} == {told["version"]}
    assert [one["timing"]["batch"] for one in told["answers"]] == [4] * 4


def test_similar_items_are_those_of_the_closest_direction(tmp_path, save, app_of):
    # directions of 0, 10, 90, 180, 45 and 0 degrees, of different lengths
    at = np.deg2rad([0, 10, 90, 180, 45, 0])
    item = (np.stack([np.cos(at), np.sin(at)], 1) * np.array([[1, 9, 2, 3, 1, 4]]).T).astype(np.float32)
    path = save(tmp_path / "s", arrays={"user": np.ones((3, 2), np.float32), "item": item})
    with app_of(path) as client:
        told = client.get("/v1/similar", params={"item": "i0", "k": 3}).json()
        assert told["items"] == ["i5", "i1", "i4"]
        assert told["scores"] == pytest.approx([1, np.cos(at[1]), np.cos(at[4])], abs=1e-6)
        missing = client.get("/v1/similar", params={"item": "zzz"})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown-item")


def test_items_are_found_by_how_their_ids_begin(tmp_path, save, app_of):
    names = ["apple", "apricot", "banana", "äpfel", "a", "ap"]
    with app_of(save(tmp_path / "f", items=IdTable.from_ids(names))) as client:
        found = client.get("/v1/items", params={"starts": "ap"}).json()["items"]
        assert found == ["ap", "apple", "apricot"]
        assert client.get("/v1/items", params={"starts": "ä"}).json()["items"] == ["äpfel"]
        assert client.get("/v1/items", params={"limit": 2}).json()["items"] == ["a", "ap"]
        assert client.get("/v1/items", params={"starts": "z"}).json()["items"] == []
    with app_of(save(tmp_path / "g", items=IdTable.from_ids([3, 31, 310, 32, 4, -3]))) as client:
        assert client.get("/v1/items", params={"starts": "3"}).json()["items"] == [3, 31, 32, 310]
        assert client.get("/v1/items", params={"starts": "03"}).json()["items"] == []


def test_teacher_and_student_stand_side_by_side(tmp_path, save, tiny, app_of):
    from recdistill.serve.http.version import opened

    user = np.array([[-1], [-1], [2]], np.float32)  # a thinks the other way round
    other = save(tmp_path / "t", arrays={"user": user, "item": np.arange(6, dtype=np.float32)[:, None]})
    with app_of(tiny, teacher=opened(other)) as client:
        told = client.post("/v1/compare", json={"user": "a", "k": 3}).json()
    assert told["student"]["items"] == ["i4", "i3", "i2"]
    assert told["teacher"]["items"] == ["i1", "i2", "i3"]
    assert told["overlap"] == pytest.approx(2 / 3)
    assert told["student"]["version"] != told["teacher"]["version"]


def test_without_a_teacher_the_student_stands_alone(client):
    told = client.post("/v1/compare", json={"user": "a", "k": 3}).json()
    assert (told["teacher"], told["overlap"]) == (None, None)


def test_the_availability_list_of_a_version_holds_for_everybody_until_it_is_lifted(tiny, app_of):
    with app_of(tiny, token=TOKEN, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        told = client.post("/v1/availability", json={"items": ["i1", "i3", "i3", "gone"]}).json()
        assert (told["available"], told["unknown"]) == (2, 1)
        assert ask(client, user="a")["items"] == ["i3", "i1"]
        assert ask(client, user="nobody")["items"] == ["i1", "i3"]
        assert ask(client, user="a", available=["i1", "i2"])["items"] == ["i1"]
        assert client.get("/v1/similar", params={"item": "i5"}).json()["items"] == ["i1", "i3"]
        assert client.post("/v1/availability", json={"items": None}).json()["available"] is None
        assert ask(client, user="a", k=1)["items"] == ["i4"]


def test_health_readiness_metrics_and_what_is_served_are_told(client):
    version = ask(client, user="a")["version"]
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    nothing = {"previous": None, "refused": None, "gated": None}
    assert ready == {"ready": True, "version": version, **nothing, "status": "ready"}
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    assert 'recdistill_requests_total{method="POST",route="/v1/recommend",status="200"} 1.0' in page.text
    assert f'recdistill_version{{version="{version}"}} 1.0' in page.text
    assert 'recdistill_lists_total{why="known-user"} 1.0' in page.text
    about = client.get("/v1/about").json()
    assert (about["users"], about["items"], about["reads"], about["events"]) == (3, 6, "folded-in", False)


def test_the_pages_ask_nothing_of_any_other_host(client):
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert re.findall(r"(?:src|href)=\"(?!#|data:)([^\"]*)\"|url\(([^)]*)\)|@import", page.text) == [] or all(
            one[0].startswith("/") for one in re.findall(r"(?:src|href)=\"(?!#|data:)([^\"]*)\"()", page.text)
        )
        assert "https://" not in page.text.replace("https://arxiv.org", "")


def test_the_document_names_every_route_and_resolves_every_reference(client):
    spec = client.get("/openapi.json").json()
    served = {route.path for route in client.app.routes} - {"/", "/docs", "/openapi.json"}
    assert set(spec["paths"]) == served
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(spec)):
        assert name in spec["components"]["schemas"]
    assert spec["components"]["schemas"]["Query"]["properties"]["k"]["maximum"] == 1000
