"""Other libraries' metrics: ours under their conventions are their real output, frozen in tests/golden/peers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut
from recdistill.errors import UnknownName, UsageError
from recdistill.evaluation.conventions import CONVENTIONS, Convention, Users, convention, settled
from recdistill.evaluation.evaluate import Evaluation, evaluate
from recdistill.evaluation.metrics import Discount, Metric, Over, Rules, from_rank, parse, per_user
from recdistill.evaluation.vectors import VectorRanker
from recdistill.ids import IdTable

PEERS = Path(__file__).parents[1] / "golden" / "peers"
CASE = json.loads((PEERS / "case.json").read_text())
USERS, ITEMS = len(CASE["users"]), len(CASE["items"])
LISTED = ["implicit", "kds", "lenskit", "recbole", "recommenders", "rectools", "replay"]


def frozen(name: str) -> dict:
    return json.loads((PEERS / f"{name}.json").read_text())


def csr(lists: list[list[int]]) -> Csr:
    return Csr.from_pairs(
        [u for u, items in enumerate(lists) for _ in items], [i for items in lists for i in items], USERS, ITEMS
    )


def figure(like: str, metric: Metric, lists: list[list[int]]) -> float:
    """The mean of a library for lists of all users, those without targets among them."""
    found, targets = convention(like), [set(items) for items in CASE["test"]]
    width = max(map(len, lists))
    hits = np.array(
        [[i in targets[u] for i in items] + [False] * (width - len(items)) for u, items in enumerate(lists)]
    )
    n, listed = np.array([len(t) for t in targets]), np.array([len(items) for items in lists])
    there = n > 0
    values = np.zeros(USERS)
    values[there] = per_user(metric, hits[there], n[there], rules=found.rules, listed=listed[there])
    kept, (settled_values,) = settled(found, [metric], [values], targeted=there, listed=listed > 0)
    assert len(settled_values) == kept.sum()
    return float(settled_values.mean())


def test_every_convention_was_compared_with_its_library():
    assert set(CONVENTIONS) == {*LISTED, "de-rrd"}
    for name in CONVENTIONS:
        assert CONVENTIONS[name].library.split()[-1] == frozen(name)["version"]
        assert (PEERS / f"make_{name.replace('-', '')}.py").exists()


@pytest.mark.parametrize("name", LISTED)
def test_the_figures_are_those_the_library_printed(name):
    said = frozen(name)
    names = {metric.split("@")[0] for metric in said["values"] if " " not in metric}  # others are called otherwise
    assert names <= set(convention(name).metrics), "a figure of theirs that nobody compares"
    for text in (f"{metric}@{k}" for metric in convention(name).metrics for k in CASE["k"]):
        theirs = said["values"][text.replace("recall_min", "recall")]
        assert figure(name, parse(text), said.get("lists", CASE["lists"])) == pytest.approx(theirs, abs=1e-11), text


@pytest.mark.parametrize("name", LISTED)
def test_ours_is_another_figure_wherever_the_page_says_so(name):
    said, different = frozen(name), set()
    lists, test = said.get("lists", CASE["lists"]), CASE["test"]
    for text in convention(name).metrics:
        hits = np.array([[i in test[u] for i in (lists[u] + [-1] * 6)[:5]] for u in range(USERS) if test[u]])
        n = np.array([len(t) for t in test if t])
        ours = per_user(Metric(text, 5), hits, n).mean()
        if abs(ours - said["values"][f"{text.replace('recall_min', 'recall')}@5"]) > 1e-9:
            different.add(text)
    assert (
        different
        == {
            "implicit": {"precision"},
            "kds": {"recall", "ndcg"},
            "lenskit": {"recall", "recall_min", "precision", "hr", "mrr", "ndcg"},
            "recbole": set(),
            "recommenders": {"recall", "precision", "map"},
            "rectools": {"map", "ndcg"},
            "replay": set(),
        }[name]
    )


def test_rectools_divided_by_what_is_achievable_is_ours():
    said = frozen("rectools")["values"]
    ours = Convention(name="x", library="x", metrics={"ndcg": "NDCG"})
    for k in CASE["k"]:
        assert said[f"ndcg@{k} achievable"] == pytest.approx(figure(ours, parse(f"ndcg@{k}"), CASE["lists"]))


class Given:
    """A ranker of given lists."""

    n_users, n_items = USERS, ITEMS

    def __init__(self, lists: list[list[int]]) -> None:
        self.lists = lists

    def top_k(self, queries, k, exclude=None):
        out = np.full((len(queries), k), -1, np.int64)
        for place, u in enumerate(queries.tolist()):
            mine = self.lists[u][:k] if u >= 0 else []
            out[place, : len(mine)] = mine
        return out


@pytest.fixture
def held() -> HeldOut:
    ids = [IdTable.from_ids(CASE[side]) for side in ("users", "items")]
    return HeldOut("test", *ids, csr(CASE["test"]), csr([items or [13] for items in CASE["train"]]))


@pytest.mark.parametrize("name", [n for n in LISTED if n != "lenskit"])
def test_evaluate_gives_the_same_figures(name, held):
    said = frozen(name)
    metrics = [f"{metric}@{k}" for metric in convention(name).metrics for k in CASE["k"]]
    found = evaluate(Given(said.get("lists", CASE["lists"])), held, metrics, like=name)
    assert found.means == pytest.approx({m: said["values"][m] for m in metrics}, abs=1e-11)
    assert found.like == name
    assert found.how == f"full, like {name}"
    assert found.notes[0].startswith(f"like {convention(name).library} (")
    assert Evaluation.from_json(found.to_json()).like == name


def test_lists_of_users_without_targets_are_not_asked_for_so_lenskit_is_its_mean_over_the_others(held):
    said = frozen("lenskit")["unfilled"]
    metrics = ["ndcg@3", "recall@5", "hr@5", "mrr@3"]
    found = evaluate(Given(CASE["lists"]), held, metrics, like="lenskit")
    assert found.means == pytest.approx({m: said[m] for m in metrics}, abs=1e-12)
    assert len(found.queries) == 9  # of ten with a target one has no list


def test_a_ranker_of_vectors_gives_what_recbole_prints_and_implicit_but_for_a_tie(held):
    ranker = VectorRanker(np.float32(CASE["scores"]), np.eye(ITEMS, dtype=np.float32))
    said = frozen("recbole")
    assert evaluate(ranker, held, list(said["values"]), like="recbole").means == pytest.approx(
        said["values"], abs=1e-11
    )
    theirs, ours = frozen("implicit")["lists"], ranker.top_k(held.queries, 5, held.seen).tolist()
    differ = [u for u, mine in zip(held.queries.tolist(), ours, strict=True) if mine[: len(theirs[u])] != theirs[u]]
    assert {CASE["users"][u] for u in differ} <= {"u03", "u04", "u05"}, (
        "two ties, and a list with training items at its end"
    )


def test_the_values_of_users_are_weighted_up_where_means_run_over_fewer(held):
    found = evaluate(Given(CASE["lists"]), held, ["recall@3", "ndcg@3"], like="recommenders")
    assert len(found.queries) == 10
    cold = CASE["users"].index("u08")
    assert found.per_user["recall@3"][found.queries == cold] == [0]
    first = found.queries == 1  # one of the three targets of u01 is among its first three: 1/3, of nine who count
    assert found.per_user["recall@3"][first] == pytest.approx([1 / 3 * 10 / 9])
    assert found.per_user["ndcg@3"].max() <= 1


# sampled


def test_de_rrd_is_the_sampled_protocol_at_whole_ranks():
    said = frozen("de-rrd")
    scores, n = np.float32(said["scores"]), len(said["test"]) - 2
    for part in ("test", "valid"):
        own = scores[np.arange(n), said[part][:n]]
        others = np.take_along_axis(scores, np.array(said["candidates"]), 1)[:n]
        rank = 1.0 + (others > own[:, None]).sum(1)
        for text in ("hr@5", "ndcg@5", "mrr@5", "hr@10", "ndcg@10", "mrr@10", "hr@20", "ndcg@20", "mrr@20"):
            value = from_rank(parse(text), rank, rules=convention("de-rrd").rules).mean()
            assert round(float(value), convention("de-rrd").decimals) == said["values"][f"{part} {text}"]


def test_a_tie_has_no_rule_in_de_rrd_and_ours_lies_within():
    said = frozen("de-rrd")
    scores, tied = np.float32(said["scores"]), slice(-2, None)
    own = scores[[-2, -1], said["test"][tied]]
    others = np.take_along_axis(scores, np.array(said["candidates"]), 1)[tied]
    greater, equal = (others > own[:, None]).sum(1), (others == own[:, None]).sum(1)
    assert (equal == 8).all()
    at = {
        name: from_rank(Metric("mrr", 40), 1.0 + greater + share * equal)
        for name, share in (("first", 0), ("middle", 0.5), ("last", 1))
    }
    assert at["last"].mean() < at["middle"].mean() < at["first"].mean()
    assert at["last"].mean() <= said["tied"]["test mrr@20"] + 5e-5 or said["tied"]["test mrr@20"] == 0
    assert said["tied"]["test mrr@20"] <= at["first"].mean() + 5e-5


def test_one_target_by_its_rank_is_the_same_as_by_its_list_under_every_rule():
    rank, hits = np.arange(1.0, 9), np.eye(8, dtype=bool)
    for name in CONVENTIONS:
        rules = convention(name).rules
        for metric in ("recall", "precision", "map", "ndcg", "mrr", "hr", "recall_min"):
            by_list = per_user(Metric(metric, 5), hits, np.ones(8, np.int64), rules=rules)
            np.testing.assert_allclose(from_rank(Metric(metric, 5), rank, rules=rules), by_list)


# rules by hand


def test_rules_worked_by_hand():
    # hit, miss, hit; n = 2; list of 3; K = 4; another user with 6 targets and no hit
    hits, n = np.array([[1, 0, 1], [0, 0, 0]], bool), np.array([2, 6])
    wide = Rules(recall=Over.ACHIEVABLE, precision=Over.LISTED, map=Over.TARGETS, ideal=Over.CUTOFF)

    def of(name: str, rules: Rules, k: int = 4) -> list[float]:
        return per_user(Metric(name, k), hits, n, rules=rules).tolist()

    assert of("precision", wide) == pytest.approx([2 / 3, 0])
    assert of("precision", wide, 2) == pytest.approx([1 / 2, 0])
    assert of("recall", wide, 1) == pytest.approx([1, 0])  # min(2, 1)
    assert of("map", wide, 1) == pytest.approx([1 / 2, 0])
    discounts = [1, 1 / math.log2(3), 1 / 2, 1 / math.log2(5)]
    assert of("ndcg", wide) == pytest.approx([1.5 / sum(discounts), 0])
    floor = Rules(discount=Discount.AT_LEAST_1)  # ranks 1, 2, 3 -> 1, 1, 1 / log2 3
    assert of("ndcg", floor) == pytest.approx([(1 + 1 / math.log2(3)) / 2, 0])
    assert of("precision", Rules(precision=Over.POOLED)) == pytest.approx([2 / ((2 + 4) / 2), 0])
    assert per_user(
        Metric("precision", 4), hits[:1], n[:1], rules=Rules(precision=Over.POOLED), everyone=n
    ) == pytest.approx([2 / 3])


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (Users.WITH_TARGET, (0.5 + 1 + 0) / 3),
        (Users.ANSWERED, (0.5 + 1) / 2),
        (Users.LISTED, (0.5 + 1 + 0) / 3),
        (Users.EVERY_ROW, 1.5 / 5),
    ],
)
def test_whom_a_mean_runs_over(users, expected):
    # two answered, one with a target alone, one with a list alone, one with nothing
    found = Convention(name="x", library="x", metrics={"hr": "HR"}, users=users)
    targeted, listed = np.array([1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 1, 0], bool)
    values = np.array([0.5, 1, 0, 7, 7])  # what stands where there is no target counts nothing
    _, (of,) = settled(found, [Metric("hr", 1)], [values], targeted=targeted, listed=listed)
    assert of.mean() == pytest.approx(expected)


# what is refused


def test_what_a_library_does_not_have_is_refused_with_its_names(held):
    ranker = Given(CASE["lists"])
    with pytest.raises(UnknownName, match=r"Unknown convention of metrics 'rectool'\. Did you mean 'rectools'\?"):
        evaluate(ranker, held, like="rectool")
    with pytest.raises(
        UsageError, match=r"implicit 0\.7\.3 does not have this metric; got 'recall@10'\. Allowed: precision@10"
    ):
        evaluate(ranker, held, ["recall@10"], like="implicit")
    with pytest.raises(UsageError, match=r"not that of DE-RRD 97b6bf6; got 'full'\. Write the protocol sampled\(499\)"):
        evaluate(ranker, held, ["ndcg@10"], like="de-rrd")
    with pytest.raises(UsageError, match=r"LensKit 2025\.8\.1 says which users are counted; got \"cold='drop'\""):
        evaluate(ranker, held, ["ndcg@10"], like="lenskit", cold="drop")


def test_figures_of_two_conventions_are_not_compared(held):
    ranker = Given(CASE["lists"])
    ours, theirs = evaluate(ranker, held, "ndcg@3"), evaluate(ranker, held, "ndcg@3", like="rectools")
    with pytest.raises(UsageError, match="not made on the same users and data"):
        ours.versus(theirs, "ndcg@3")


# the page


def test_the_page_has_a_row_for_every_convention_with_what_was_compared():
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for name, each in ((name, CONVENTIONS[name]) for name in CONVENTIONS):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"| {each.library} |" in row
        assert all(f"`{metric}`" in row for metric in each.metrics)
