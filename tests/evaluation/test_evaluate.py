"""Evaluating: who is averaged over, what is ranked, and what is kept."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from recdistill.data.candidates import draw
from recdistill.data.csr import Csr
from recdistill.data.split import split
from recdistill.errors import DataError, UnknownName, UsageError
from recdistill.evaluation.evaluate import Evaluation, evaluate, evaluate_parts
from recdistill.evaluation.ranking import VectorRanker


@dataclass(eq=False)
class Held:
    targets: Csr
    seen: Csr
    name: str = "test"

    @property
    def queries(self):
        return np.flatnonzero(self.targets.degrees)


@dataclass(eq=False)
class Drawn:
    items: np.ndarray
    n: int
    digest: str = "drawn"


def one_hot_ranker(orders, n_items):
    """A ranker whose list for user u begins with orders[u]; the rest follow by row, far behind."""
    user = np.eye(len(orders), dtype=np.float32)
    item = np.zeros((n_items, len(orders)), np.float32)
    for u, order in enumerate(orders):
        item[order, u] = np.arange(len(order), 0, -1)
    return VectorRanker(user, item)


# Four users, five items. User 2 has no target; user 3 has nothing to learn from.
#   user 0: seen 0, targets 1 and 3, ranks 0 2 1 4 -> without 0: 2 1 4 3    hits at 2 and 4
#   user 1: seen 4, target 0,        ranks 4 0     -> without 4: 0 1 2 3    hit at 1
HELD = Held(
    Csr.from_pairs([0, 0, 1, 3], [1, 3, 0, 2], 4, 5),
    Csr.from_pairs([0, 1, 2], [0, 4, 1], 4, 5),
)
RANKER = one_hot_ranker([[0, 2, 1, 4], [4, 0], [0], [2]], 5)
METRICS = ("hr@1", "recall@2", "ndcg@2", "mrr@4", "map@4", "precision@2", "recall_min@1")


def test_full_ranking_worked_by_hand():
    found = evaluate(RANKER, HELD, METRICS)
    assert found.queries.tolist() == [0, 1, 3]  # user 2 has no target: not in any mean
    log3 = math.log2(3)
    expected = {
        "hr@1": [0, 1, 0],
        "recall@2": [1 / 2, 1, 0],
        "ndcg@2": [(1 / log3) / (1 + 1 / log3), 1, 0],
        "mrr@4": [1 / 2, 1, 0],
        "map@4": [(1 / 2 + 2 / 4) / 2, 1, 0],
        "precision@2": [1 / 2, 1 / 2, 0],
        "recall_min@1": [0, 1, 0],
    }
    assert list(found.per_user) == list(expected)
    for name, values in expected.items():
        assert found.per_user[name] == pytest.approx(values), name
    assert found.unserved == 1
    assert found.metrics["recall@2"].mean == pytest.approx(0.5)
    assert found.metrics["recall@2"].n == 3
    assert found["recall@2"] == found.metrics["recall@2"]
    assert found.means["recall@2"] == pytest.approx(0.5)


def test_cold_users_count_0_or_are_dropped_on_request():
    dropped = evaluate(RANKER, HELD, ("recall@2",), cold="drop")
    assert dropped.queries.tolist() == [0, 1]
    assert dropped.metrics["recall@2"].mean == pytest.approx(0.75)
    assert dropped.unserved == 1
    small = VectorRanker(RANKER.user[:1], RANKER.item)  # made before user 1 came
    assert evaluate(small, HELD, ("recall@2",)).per_user["recall@2"].tolist() == [0.5, 0, 0]
    assert evaluate(small, HELD, ("recall@2",)).unserved == 2


def test_what_was_seen_is_not_ranked():
    everything_else_seen = Held(Csr.from_pairs([0], [4], 1, 5), Csr.from_pairs([0] * 4, [0, 1, 2, 3], 1, 5))
    found = evaluate(one_hot_ranker([[0, 1, 2, 3]], 5), everything_else_seen, ("hr@1", "ndcg@50"))
    assert found.means == {"hr@1": 1.0, "ndcg@50": 1.0}  # and a cut-off beyond the catalogue works


def sampled_case():
    # scores of user 0: items 0..5 = 5 4 3 3 1 0. Target 2 among {1, 3, 4}: one above, one equal -> rank 2.5
    # user 1: same scores; target 0 among {5, 1, -} -> rank 1
    item = np.array([[5], [4], [3], [3], [1], [0]], np.float32)
    ranker = VectorRanker(np.ones((2, 1), np.float32), item)
    held = Held(Csr.from_pairs([0, 1], [2, 0], 2, 6), Csr.from_pairs([0, 1], [5, 4], 2, 6))
    return ranker, held, Drawn(np.array([[1, 3, 4], [5, 1, -1]], np.int32), 3)


def test_sampled_ranking_worked_by_hand():
    ranker, held, drawn = sampled_case()
    found = evaluate(ranker, held, ("hr@2", "hr@3", "ndcg@3", "mrr@3"), protocol="sampled(3)", candidates=drawn)
    assert found.protocol == "sampled(3)"
    assert found.per_user["hr@2"].tolist() == [0, 1]
    assert found.per_user["hr@3"].tolist() == [1, 1]
    assert found.per_user["ndcg@3"] == pytest.approx([1 / math.log2(3.5), 1])
    assert found.per_user["mrr@3"] == pytest.approx([1 / 2.5, 1])


def test_only_some_users_are_asked_for():
    ranker, _, drawn = sampled_case()
    only = Held(Csr.from_pairs([1], [0], 2, 6), Csr.from_pairs([1], [4], 2, 6))
    found = evaluate(ranker, only, ("hr@1",), protocol="sampled(3)", candidates=drawn)
    assert found.queries.tolist() == [1]
    assert found.means == {"hr@1": 1.0}


def planted(n_users=300, n_items=900, d=12, seed=0):
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, n_users, 9000), rng.integers(0, n_items, 9000)
    seen = Csr.from_pairs(*pairs, n_users, n_items)
    free = ~seen.contains(np.arange(n_users), np.arange(n_users) * 3 % n_items)
    targets = Csr.from_pairs(np.flatnonzero(free), (np.arange(n_users) * 3 % n_items)[free], n_users, n_items)
    items = rng.permuted(np.tile(np.arange(n_items, dtype=np.int32), (n_users, 1)), axis=1)[:, :99]
    items[items == (np.arange(n_users) * 3 % n_items)[:, None]] = -1
    user, item = rng.normal(size=(n_users, d)).astype(np.float32), rng.normal(size=(n_items, d)).astype(np.float32)
    return (user, item), Held(targets, seen), Drawn(items, 99)


@pytest.mark.parametrize("protocol", ["full", "sampled(99)"])
def test_threads_change_no_metric(protocol):
    vectors, held, drawn = planted()
    one, two = (
        evaluate(VectorRanker(*vectors, threads=t), held, ("ndcg@20", "mrr@20"), protocol=protocol, candidates=drawn)
        for t in (1, 3)
    )
    for name, values in one.per_user.items():
        assert (values == two.per_user[name]).all()
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("protocol", ["full", "sampled(99)"])
@pytest.mark.parametrize("same_users", [True, False])
def test_parts_measured_at_once_equal_parts_measured_alone(protocol, same_users):
    vectors, held, drawn = planted()
    users = held.queries if same_users else held.queries[7:]
    moved = Csr.from_pairs(users, (users * 5 + 1) % 900, 300, 900)
    drawn.items[np.isin(drawn.items, [*moved.indices])] = -1
    parts = (held, Held(moved, held.seen, "valid"))
    made = VectorRanker(*vectors)
    both = evaluate_parts(made, parts, ("hr@5", "ndcg@9"), protocol=protocol, candidates=drawn)
    alone = [evaluate(made, part, ("hr@5", "ndcg@9"), protocol=protocol, candidates=drawn) for part in parts]
    assert [e.to_json() for e in both] == [e.to_json() for e in alone]


def test_permuting_users_permutes_their_values():
    (user, item), held, _ = planted()
    order = np.random.default_rng(1).permutation(300)
    moved = Held(held.targets.select(order), held.seen.select(order))
    one = evaluate(VectorRanker(user, item), held, ("ndcg@20",))
    two = evaluate(VectorRanker(user[order], item), moved, ("ndcg@20",))
    at = np.full(300, np.nan)
    at[one.queries] = one.per_user["ndcg@20"]
    assert (at[order][two.queries] == two.per_user["ndcg@20"]).all()


def test_json_keeps_every_bit():
    vectors, held, _ = planted()
    found = evaluate(VectorRanker(*vectors), held, ("ndcg@20", "recall@5"))
    again = Evaluation.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert all((again.per_user[k] == v).all() for k, v in found.per_user.items())
    assert again.metrics == found.metrics
    for text in ("[]", "{}", "no", json.dumps({"format": 1, "name": "x"})):
        with pytest.raises(DataError, match="This is not an evaluation"):
            Evaluation.from_json(text)
    with pytest.raises(DataError, match=r"another format; got 9\. Allowed: 1"):
        Evaluation.from_json(found.to_json().replace('"format": 1', '"format": 9'))
    with pytest.raises(DataError, match="one value a user"):
        Evaluation.from_json(found.to_json().replace('"queries": [', '"queries": [0, '))


def test_only_like_is_compared_with_like():
    vectors, held, drawn = planted()
    teacher = evaluate(VectorRanker(*vectors), held, ("ndcg@20",))
    student = evaluate(VectorRanker(vectors[0][:, :9], vectors[1][:, :9]), held, ("ndcg@20",))
    assert student.versus(teacher, "ndcg@20").difference.n == len(held.queries)
    assert teacher.retention(teacher, "NDCG@20").mean == 100
    sampled = evaluate(VectorRanker(*vectors), held, ("ndcg@20",), protocol="sampled(99)", candidates=drawn)
    other = evaluate(VectorRanker(*vectors), Held(held.targets, held.targets), ("ndcg@20",))
    for wrong in (sampled, other):
        with pytest.raises(UsageError, match="not made on the same users and data"):
            student.versus(wrong, "ndcg@20")
    with pytest.raises(UsageError, match=r"'ndcg@10' was not measured\. Did you mean 'ndcg@20'\?"):
        student.versus(teacher, "ndcg@10")
    assert repr(teacher).startswith("Evaluation(test, full, ")


def test_mistakes_are_named():
    ranker, held, drawn = sampled_case()
    with pytest.raises(DataError, match="No user of the test part has a target"):
        evaluate(ranker, Held(Csr.empty(2, 6), held.seen), ("hr@1",))
    with pytest.raises(DataError, match="No user of the test part can be served"):
        evaluate(ranker, Held(held.targets, Csr.empty(2, 6)), ("hr@1",), cold="drop")
    with pytest.raises(UnknownName, match="Did you mean 'recall'"):
        evaluate(ranker, held, ("recal@1",))
    with pytest.raises(UsageError, match="no metric was named"):
        evaluate(ranker, held, ())
    with pytest.raises(UsageError, match=r"Unknown evaluation protocol; got 'sample'\. Allowed: \"full\", or"):
        evaluate(ranker, held, ("hr@1",), protocol="sample")
    with pytest.raises(
        UsageError, match=r"'sampled\(499\)' needs its candidates; got '3 candidates'.*draw\(split, n=499"
    ):
        evaluate(ranker, held, ("hr@1",), protocol="sampled(499)", candidates=drawn)
    with pytest.raises(UsageError, match=r"'sampled\(3\)' needs its candidates"):
        evaluate(ranker, held, ("hr@1",), protocol="sampled(3)")
    several = Held(Csr.from_pairs([0, 0, 1], [2, 3, 0], 2, 6), held.seen)
    with pytest.raises(UsageError, match="one target a user; 1 users have more"):
        evaluate(ranker, several, ("hr@1",), protocol="sampled(3)", candidates=drawn)
    with pytest.raises(UsageError, match="do not have a row for every user"):
        evaluate(ranker, held, ("hr@1",), protocol="sampled(3)", candidates=Drawn(drawn.items[:1], 3))
    with pytest.raises(UsageError, match=r"same items; got \(6, 7\)"):
        evaluate(ranker, Held(Csr.from_pairs([0], [6], 2, 7), Csr.empty(2, 7)), ("hr@1",))
    with pytest.raises(UsageError, match="without an answer; got 'skip'"):
        evaluate(ranker, held, ("hr@1",), cold="skip")


@pytest.mark.data
def test_a_real_log_end_to_end_against_a_naive_loop(data_dir):
    from recdistill.data.sources import read

    parts = split(read(data_dir("lastfm_lightgcn"), echo=None), "leave-random-out", seed=3)
    train = parts.train.csr()
    rng = np.random.default_rng(0)
    user = rng.normal(size=(train.n_rows, 16)).astype(np.float32)
    item = rng.normal(size=(train.n_columns, 16)).astype(np.float32)
    candidates = draw(parts, n=99, seed=1)
    full = evaluate(VectorRanker(user, item, threads=2), parts.test, ("recall@100", "ndcg@100"))
    sampled = evaluate(VectorRanker(user, item), parts.test, ("hr@10",), protocol="sampled(99)", candidates=candidates)
    for place, u in enumerate(full.queries[:150].tolist()):
        scores = (item.astype(np.float64) @ user[u].astype(np.float64)).astype(np.float32)
        among = scores[candidates.items[u][candidates.items[u] >= 0]]
        goal = int(parts.test.targets.row(u)[0])
        rank = 1 + (among > scores[goal]).sum() + 0.5 * (among == scores[goal]).sum()
        scores[parts.test.seen.row(u)] = -np.inf
        best = np.argsort(-scores, kind="stable")[:100]
        hits = np.isin(best, parts.test.targets.row(u))
        n = len(parts.test.targets.row(u))
        assert full.per_user["recall@100"][place] == hits.sum() / n
        if train.degrees[u]:
            assert sampled.per_user["hr@10"][place] == (rank <= 10)
