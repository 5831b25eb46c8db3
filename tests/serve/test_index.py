"""Approximate search: nearly the exact lists with the exact scores, and refused where it is not what it says."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys

import numpy as np
import pytest

from recdistill import bundle
from recdistill.bundle import ann
from recdistill.bundle.hnsw import checked
from recdistill.data.csr import Csr
from recdistill.errors import BundleError, UsageError
from recdistill.evaluation.topk import Shown
from recdistill.evaluation.vectors import VectorRanker
from recdistill.export.ann import index
from recdistill.export.exporting import export_bundle
from recdistill.ids import IdTable
from recdistill.serve.index import ApproximateRanker
from recdistill.serve.service import Service

pytest.importorskip("voyager", reason="the extra 'ann' is not installed")
N, D, U = 600, 5, 80


@pytest.fixture(scope="module")
def exact():
    rng = np.random.default_rng(0)
    lengths = rng.gamma(2, 0.5, size=(N, 1))
    item = (rng.normal(size=(N, D)) * lengths).astype(np.float32)
    user = rng.normal(size=(U, D)).astype(np.float32)
    user[7] = 0
    return VectorRanker(user, item)


@pytest.fixture(scope="module")
def part(exact):
    return index(exact, np.arange(U), "0" * 64)


@pytest.fixture(scope="module")
def near(exact, part):
    return ApproximateRanker.over(exact, part)


@pytest.fixture
def saved(tmp_path, exact):
    path = tmp_path / "b"
    bundle.save(
        path,
        kind="vectors",
        arrays={"user": exact.user, "item": exact.item},
        users=IdTable.from_ids([f"u{i}" for i in range(U)]),
        items=IdTable.from_ids([f"i{i}" for i in range(N)]),
        seen=Csr.from_pairs(np.arange(U), np.arange(U), U, N),
        popular=np.arange(5),
        model="mf",
        settings={},
        lineage={},
        metrics={},
        citations=[],
    )
    return path


def test_an_index_finds_nearly_the_exact_lists(exact, near, part):
    rows = np.arange(U)
    ours, theirs = near.top_k(rows, 10), exact.top_k(rows, 10)
    share = (ours[:, :, None] == theirs[:, None, :]).any(2).mean()
    assert part.entry.recall >= 0.99
    assert share >= 0.99
    assert np.array_equal(ours[7], theirs[7])  # to whom all are equal: by row


def test_equal_lists_have_equal_scores_in_order(exact, near):
    rows = np.arange(U)
    lists = near.top_k(rows, 10)
    scores = exact.scores_of(rows, lists)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_what_was_seen_or_is_not_available_is_left_out(exact, near):
    rows = np.arange(U)
    seen = Csr.from_pairs(np.repeat(rows, 10), exact.top_k(rows, 10).ravel(), U, N)
    shown = Shown(np.arange(N) % 5 != 0)
    found = near.top_k(rows, 10, seen, shown=shown)
    assert (found >= 0).all()
    assert (found % 5 != 0).all()
    assert not seen.contains(rows[:, None], found).any()
    theirs = exact.top_k(rows, 10, seen, shown=shown)
    assert (found[:, :, None] == theirs[:, None, :]).any(2).mean() >= 0.98


def test_where_a_graph_cannot_help_the_search_is_exact(exact, near):
    rows = np.array([3, -1, U, 4])
    few = Shown(np.arange(N) < 20)
    assert np.array_equal(near.top_k(rows, 30, shown=few), exact.top_k(rows, 30, shown=few))
    assert np.array_equal(near.top_k(rows, 400), exact.top_k(rows, 400))
    much = Csr.from_pairs(np.zeros(N - 4, np.int64), np.arange(N - 4), U, N)
    assert np.array_equal(near.top_k(np.array([0]), 10, much), exact.top_k(np.array([0]), 10, much))


def test_other_users_ask_the_same_index(exact, near):
    other = near.asked_by(exact.user[5:9])
    assert isinstance(other, ApproximateRanker)
    assert np.array_equal(other.top_k(np.arange(4), 10), near.top_k(np.arange(5, 9), 10))


def test_an_index_that_finds_too_little_is_not_made(exact, monkeypatch):
    monkeypatch.setattr("recdistill.export.ann._EFFORTS", (10,))
    monkeypatch.setattr("recdistill.export.ann.RECALL", 1.01)
    with pytest.raises(
        BundleError, match=r"finds .* of the exact best ten with ef 10.*exact search serves this bundle"
    ):
        index(exact, np.arange(U), "0" * 64)


# in a bundle


def test_a_bundle_with_an_index_searches_by_it_and_says_so(saved, tmp_path):
    told = export_bundle(saved, tmp_path / "ann", "ann")
    assert "recall@10" in str(told)
    service = Service.from_bundle(tmp_path / "ann", verify="full")
    assert isinstance(service.ranker, ApproximateRanker)
    assert service.search.startswith("approximate: recall@10 ")
    plain = Service.from_bundle(tmp_path / "ann", search="exact")
    assert plain.search == "exact"
    ours, theirs = service.recommend(["u1", "u2"], k=5), plain.recommend(["u1", "u2"], k=5)
    assert ours.item_id.tolist() == theirs.item_id.tolist()
    assert np.array_equal(ours.score, theirs.score)


def test_without_an_index_or_its_library_it_says_what_to_do(saved, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"holds no index.*export BUNDLE --format ann"):
        Service.from_bundle(saved, search="approximate")
    with pytest.raises(UsageError, match="'search' must be known"):
        Service.from_bundle(saved, search="quick")
    export_bundle(saved, tmp_path / "ann", "ann")
    monkeypatch.setitem(sys.modules, "voyager", None)
    monkeypatch.setattr("recdistill.serve.service.find_spec", lambda _: None)
    assert Service.from_bundle(tmp_path / "ann").search.startswith("exact: the bundle holds an index, but")
    with pytest.raises(UsageError, match=r'needs voyager.*pip install "recdistill\[ann\]"'):
        Service.from_bundle(tmp_path / "ann", search="approximate")


# hostile


def word(at, value, form="<I"):
    def change(data):
        struct.pack_into(form, data, at, value)

    return change


SIZE = 4 + 4 * 32 + 4 * (D + 1) + 8  # an element of level 0: count, 32 links, vector, label
HOSTILE = {
    "empty": (lambda d: d.clear(), "shorter than its head"),
    "a pickle": (lambda d: d.__setitem__(slice(None), pickle.dumps(list(range(900)))), "no index of voyager"),
    "another version": (word(4, 9), "no index of voyager, version 1"),
    "other dimensions": (word(8, D + 1), "6 dimensions"),
    "another space": (word(12, 0, "<B"), "space 0"),
    "another storage": (word(13, 16, "<B"), "storage 16"),
    "more elements than items": (word(35, N + 1, "<Q"), "601 elements"),
    "room without end": (word(27, 2**62, "<Q"), "4,611,686,018,427,387,904"),
    "elements without end": (word(43, 2**60, "<Q"), "elements of 1152921504606846976 bytes"),
    "vectors elsewhere": (word(59, 2**40, "<Q"), "with vectors at 1099511627776"),
    "labels elsewhere": (word(51, 8, "<Q"), "labels at 8"),
    "links without end": (word(75, 2**31, "<Q"), "links"),
    "an entry that is none": (word(71, 2**31), "an entry point 2147483648"),
    "a level too high": (word(67, 60, "<i"), "on level 60"),
    "a negative level": (word(67, -3, "<i"), "on level -3"),
    "too many links": (word(115, 33), "a link that leads nowhere"),
    "a link to nowhere": (word(119, N), "a link that leads nowhere"),
    "a vector of its own": (word(115 + 132, 7.0, "<f"), "other vectors than the bundle"),
    "not a number": (word(115 + 132 + 4 * D, float("nan"), "<f"), "other vectors than the bundle"),
    "a label that is no item": (word(115 + SIZE - 8, N, "<Q"), "a label that is no item"),
    "bytes of links without end": (word(115 + N * SIZE, 2**31), "bytes of links at element 0"),
    "cut": (lambda d: d.__delitem__(slice(115 + N * SIZE - 7, None)), "too few for its elements"),
    "cut in its links": (lambda d: d.__delitem__(slice(-4, None)), "it has "),
    "bytes after its end": (lambda d: d.extend(b"\0" * 8), "after its last element"),
    "half a word": (lambda d: d.extend(b"\0"), "not in words"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_index_never_reaches_the_library(name, exact, part):
    change, reason = HOSTILE[name]
    data = bytearray(part.data())
    change(data)
    with pytest.raises(BundleError, match=reason):
        checked("The index", bytes(data), exact.vectors_of_items, (N, D))


def test_any_changed_byte_is_refused_or_leaves_an_index_that_can_be_asked(exact, part):
    import voyager

    rng = np.random.default_rng(0)
    whole, passed = part.data(), 0
    for turn in range(400):
        data = bytearray(whole)
        at = int(rng.integers(0, 130 if turn % 2 else len(data)))
        data[at] ^= int(rng.integers(1, 256))
        try:
            checked("The index", bytes(data), exact.vectors_of_items, (N, D))
        except BundleError:
            continue
        passed += 1
        import io

        found, _ = voyager.Index.load(io.BytesIO(bytes(data))).query(exact.user, k=10, num_threads=1, query_ef=50)
        assert found.max() < N
    assert passed  # bytes of no consequence, such as unused places for links


def test_a_wrong_hash_is_refused_before_the_file_is_opened(saved, tmp_path, monkeypatch):
    export_bundle(saved, tmp_path / "ann", "ann")
    place = tmp_path / "ann" / "index.voyager"
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(bytes(data))

    def opened(*_):
        raise AssertionError

    monkeypatch.setattr(ann, "checked", opened)
    with pytest.raises(BundleError, match="does not have the hash that the manifest gives it; it was not opened"):
        Service.from_bundle(tmp_path / "ann")


def test_an_index_of_other_vectors_does_not_open(saved, tmp_path):
    import json

    from recdistill.bundle.manifest import _digest

    export_bundle(saved, tmp_path / "ann", "ann")
    place = tmp_path / "ann" / "manifest.json"
    fields = json.loads(place.read_text())
    fields.pop("digest")
    fields["index"]["built_from"] = hashlib.sha256(b"other").hexdigest()
    place.write_text(json.dumps({**fields, "digest": _digest(fields)}))
    with pytest.raises(BundleError, match="was built from other vectors"):
        bundle.open(tmp_path / "ann")
    fields["index"]["recall"] = 0.5
    place.write_text(json.dumps({**fields, "digest": _digest(fields)}))
    with pytest.raises(BundleError, match=r"'index.recall': Input should be greater than or equal to 0.99"):
        bundle.open(tmp_path / "ann")
