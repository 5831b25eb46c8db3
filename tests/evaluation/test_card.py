"""The card and its parts: what is measured is kept, and reads back the same."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.data.histories import Histories
from recdistill.errors import DataError, UsageError
from recdistill.evaluation.card import Card, Measured, Training, agreement, bytes_on_disk, environment
from recdistill.evaluation.compare import Interval
from recdistill.evaluation.encoded import EncodedRanker
from recdistill.evaluation.evaluate import Evaluation
from recdistill.evaluation.latency import Latency, measure
from recdistill.evaluation.ranking import VectorRanker


class Listed:
    """A ranker that answers with given lists."""

    def __init__(self, lists, n_items=10):
        self.lists, self.n_users, self.n_items = np.array(lists), len(lists), n_items
        self.asked: list[int] = []

    def top_k(self, queries, k, exclude=None):
        self.asked.append(len(queries))
        return self.lists[queries, :k]

    def ranks_among(self, queries, target, others):
        raise NotImplementedError

    def scores_of(self, queries, items):
        raise NotImplementedError


def test_agreement_worked_by_hand():
    # user 0: {1 2 3} and {3 2 9}: 2 of 3, firsts differ;  user 1: {4 5 -} and {4 6 7}: 1 of 2, firsts agree
    # user 2: the teacher has no list: left out;             user 3: the student has none: 0 of 3
    teacher = Listed([[1, 2, 3], [4, 5, -1], [-1, -1, -1], [0, 1, 2]])
    student = Listed([[3, 2, 9], [4, 6, 7], [1, 2, 3], [-1, -1, -1]])
    found = agreement(student, teacher, np.arange(4), 3)
    assert found.k == 3
    assert found.overlap.n == found.first.n == 3
    assert found.overlap.mean == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found.first.mean == pytest.approx(1 / 3)


def test_a_ranker_agrees_with_itself():
    rng = np.random.default_rng(0)
    made = VectorRanker(rng.normal(size=(9, 3)).astype(np.float32), rng.normal(size=(40, 3)).astype(np.float32))
    found = agreement(made, made, np.arange(9), 5, exclude=Csr.from_pairs(np.arange(9), np.arange(9), 9, 40))
    assert found.overlap == found.first == Interval(1, 1, 1, 9)


def test_agreement_needs_a_common_catalogue_and_somebody_with_a_list():
    with pytest.raises(UsageError, match=r"same items to agree on; got \(10, 12\)"):
        agreement(Listed([[1]]), Listed([[1]], 12), np.array([0]), 1)
    with pytest.raises(UsageError, match="list for none of these users; got '1 users'"):
        agreement(Listed([[1]]), Listed([[-1]]), np.array([0]), 1)


def test_latency_times_single_users_then_tables_and_says_how_many():
    ranker = Listed([[1, 2]] * 5)
    found = measure(ranker, k=2, n_users=12, batch=16, seconds=0)
    assert found.n_users_timed == 10  # at least ten, even without any time
    assert ranker.asked == [1] * 10 + [1] * 10 + [2] + [16]  # warm-up, singles, warm-up, one table
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    assert found.users_per_second > 0
    assert (found.k, found.threads) == (2, 1)
    rng = np.random.default_rng(0)
    vectors = VectorRanker(
        rng.normal(size=(9, 3)).astype(np.float32), rng.normal(size=(40, 3)).astype(np.float32), threads=2
    )
    assert measure(vectors, n_users=3, batch=2, seconds=0, users=np.array([4])).threads == 2


def test_latency_refuses_nobody_and_nothing():
    with pytest.raises(UsageError, match="There is no user to time"):
        measure(Listed([[1]]), users=np.zeros(0, np.int64))
    with pytest.raises(UsageError, match=r"must be at least 1; got \(0, 1000, 4096\)"):
        measure(Listed([[1]]), k=0)


def card():
    evaluation = Evaluation(
        name="test",
        protocol="sampled(499)",
        cold="zero",
        queries=np.arange(4),
        per_user={"hr@10": np.array([1.0, 0, 1, 1])},
        unserved=1,
        fingerprint="abc",
    )
    return Card(
        name="student",
        model="mf",
        method="de-rrd",
        metrics=(Measured.of(evaluation),),
        parameters=608_040,
        bytes=2_500_000,
        latency=Latency(0.2, 0.3, 0.5, 20_000.0, 10, 2, 1000),
        agreement=agreement(Listed([[1, 2]]), Listed([[2, 1]]), np.array([0]), 2),
        retention={"hr@10": Interval(91.5, 89.0, 94.0, 4)},
        training=Training(seconds=12.5, epochs=40, best_epoch=31),
        environment=environment(seed=7),
        citations=("Kang et al., CIKM 2020, arXiv:2012.04357",),
    )


def test_a_card_reads_back_as_it_was():
    made = card()
    assert Card.from_json(made.to_json()) == made
    assert Card.from_json(made.to_json()).to_json() == made.to_json()
    assert made.metrics[0].users == 4
    assert made.metrics[0].values["hr@10"].mean == 0.75
    assert json.loads(made.to_json())["metrics"][0]["values"]["hr@10"]["n"] == 4


def test_what_is_not_a_card_is_named_by_its_first_wrong_field():
    content = json.loads(card().to_json())
    content["parameters"] = -1
    with pytest.raises(DataError, match=r"not a card: parameters: input should be greater than or equal to 0.*Measure"):
        Card.from_json(json.dumps(content))
    with pytest.raises(DataError, match="not a card: color: extra inputs are not permitted"):
        Card.from_json(json.dumps({**content, "parameters": 1, "color": "red"}))
    with pytest.raises(DataError, match="not a card: the whole"):
        Card.from_json("nonsense")


def test_the_environment_knows_versions_threads_and_the_processor():
    found = environment(seed=3)
    assert found.seed == 3
    assert found.numpy == np.__version__
    assert min(found.cpus, found.threads) >= 1
    assert found.cpu


def test_bytes_are_those_of_all_files(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b").write_bytes(b"67")
    assert bytes_on_disk(tmp_path) == 7
    assert bytes_on_disk(tmp_path / "a") == 5
    with pytest.raises(DataError, match="There is nothing to weigh"):
        bytes_on_disk(tmp_path / "nowhere")


def test_what_reads_histories_is_timed_as_it_is_served_and_not_while_it_reads():
    asked = []

    def encode(histories, rows):
        asked.append((histories.n_rows, rows.tolist()))
        return np.ones((len(rows), 2), np.float32)

    histories = Histories(np.array([0, 1, 2, 4], np.int64), np.array([0, 1, 2, 1], np.int32))
    ranker = EncodedRanker(encode, np.eye(4, 2, dtype=np.float32), histories)
    assert measure(ranker, k=2, n_users=5, batch=4, seconds=0).n_users_timed == 5
    assert asked == [(3, [0, 1, 2])], "everybody once, before the clock runs"
