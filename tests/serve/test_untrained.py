"""Vectors that nothing was learned into are not served: neither of users nor of items."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import recdistill as rd
from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.errors import BundleError, UsageError
from recdistill.evaluation.ranking import VectorRanker
from recdistill.ids import IdTable
from recdistill.serve.service import Service

# Users a, b, c; items i0 .. i5, one dimension: user vectors 1, 1, 1; item vectors 0 .. 5: all rank i5 i4 i3 i2 i1 i0.
# Trained: a had i0 and i4, b had i1; nothing of c, and nothing of i2, i3 and i5. All in all c has i4 as well.
USERS, ITEMS = IdTable.from_ids(["a", "b", "c"]), IdTable.from_ids([f"i{n}" for n in range(6)])
VECTORS = (np.ones((3, 1), np.float32), np.arange(6, dtype=np.float32)[:, None])
TRAINED = Csr.from_pairs([0, 0, 1], [0, 4, 1], 3, 6)
SEEN = Csr.from_pairs([0, 0, 1, 2], [0, 4, 1, 4], 3, 6)
POPULAR = np.array([4, 1, 0])


@pytest.fixture
def service() -> Service:
    return Service(VectorRanker(*VECTORS), USERS, ITEMS, SEEN, POPULAR, trained=TRAINED)


def ids(told) -> dict:
    return {user: [item.id for item in items] for user, items in told}


def test_a_user_without_training_history_gets_the_popular_list_marked_so_without_what_it_has(service):
    told = service.recommend(["c", "a", "nobody"], k=3)
    assert ids(told) == {"c": ["i1", "i0"], "a": ["i1"], "nobody": ["i4", "i1", "i0"]}
    assert [told.source_of(user) for user in ("c", "a", "nobody")] == ["popular", "model", "popular"]
    assert ids(service.recommend(["c"], k=1, filter_seen=False)) == {"c": ["i4"]}


def test_items_that_never_occurred_in_training_are_not_recommended_by_the_model(service):
    assert ids(service.recommend(["b"], k=1)) == {"b": ["i4"]}  # i5 is asked for first, then twice as many
    assert ids(service.recommend(["b"], k=6)) == {"b": ["i4", "i0"]}
    assert ids(service.recommend(["b"], k=6, candidates=["i5", "i0"])) == {"b": ["i0"]}


def test_lists_of_everybody_say_the_same(service, tmp_path):
    service.recommend_all(tmp_path / "lists.parquet", 2)
    frame = pl.read_parquet(tmp_path / "lists.parquet")
    assert frame.group_by("user_id", maintain_order=True).agg("item_id").rows() == [
        ("a", ["i1"]),
        ("b", ["i4", "i0"]),
        ("c", ["i1", "i0"]),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_is_ranked_as_if_the_untrained_items_were_not_there(seed):
    chance = np.random.default_rng(seed)
    user, item = chance.normal(size=(7, 3)).astype("f"), chance.normal(size=(50, 3)).astype("f")
    pairs = chance.integers(0, [7, 10], size=(40, 2))  # 40 items are untrained
    trained = Csr.from_pairs(pairs[:, 0], pairs[:, 1], 7, 50)
    users, items = IdTable.from_ids(range(7)), IdTable.from_ids(range(50))
    told = Service(VectorRanker(user, item), users, items, trained, np.zeros(0, np.int64), trained=trained)
    alone = VectorRanker(user, item[:10])
    few = Csr.from_pairs(pairs[:, 0], pairs[:, 1], 7, 10)
    wanted = alone.top_k(np.arange(7), 10, few)
    for row, (_, found) in enumerate(told.recommend(range(7), k=4)):
        if len(trained.row(row)):
            assert [each.id for each in found] == [i for i in wanted[row].tolist() if i in trained.indices][:4]


def test_tables_of_another_size_are_refused():
    with pytest.raises(UsageError, match="The table of what was trained on is of another size"):
        Service(VectorRanker(*VECTORS), USERS, ITEMS, SEEN, POPULAR, trained=Csr.empty(2, 6))


# through training and a bundle


@pytest.fixture(scope="module")
def parts():
    """Ten users with five old items each; at the end, five new users and the item "new" come."""
    rows = [(f"a{n % 10}", f"i{(n * 7) % 20}", n) for n in range(50)]
    rows += [(f"late{n}", f"i{n}", 1000 + n) for n in range(5)] + [("a1", "new", 2000)]
    log = rd.read(pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row"), echo=None)
    return log, rd.split(log, "time", valid=0, test=6 / 56)


@pytest.fixture(scope="module")
def trained(parts):
    return rd.fit("mf", parts[1].train, dim=2, training={"epochs": 1, "device": "cpu"})


def test_a_model_does_not_answer_for_who_it_was_not_trained_on_nor_with_what(parts, trained):
    told = trained.recommend(["late1", "a1"], k=30)
    assert (told.source_of("late1"), told.source_of("a1")) == ("popular", "model")
    assert "new" not in set(told.item_id)


def test_a_bundle_leaves_out_the_training_data_or_the_whole_log(parts, trained, tmp_path):
    log, split = parts
    trained.save(tmp_path / "alone")
    trained.save(str(tmp_path / "whole"), seen=log)
    alone, whole = (bundle.open(str(tmp_path / name), verify="full") for name in ("alone", "whole"))
    for opened in (alone, whole):
        assert np.array_equal(opened.trained.keys, split.train.csr().keys)
    assert np.array_equal(alone.seen.keys, split.train.csr().keys)
    assert np.array_equal(whole.seen.keys, log.csr().keys)
    first = rd.Service.from_bundle(str(tmp_path / "whole")).recommend(["late3", "a1"], k=30)
    assert first.source_of("late3") == "popular"
    assert not {"i3", "new"} & {item.id for item in first["late3"]}
    assert "new" not in {item.id for item in first["a1"]}


def test_the_log_of_a_bundle_is_that_of_the_model(parts, trained, tmp_path):
    other = rd.read({"user": ["x"], "item": ["y"]}, echo=None)
    with pytest.raises(rd.RecdistillError, match="`seen` and the training data do not have the same users"):
        trained.save(tmp_path / "b", seen=other)


def test_what_was_trained_on_is_part_of_what_was_seen(trained, tmp_path):
    with pytest.raises(BundleError, match="'trained' holds what 'seen' does not"):
        bundle.save(
            tmp_path / "b",
            kind="vectors",
            arrays=trained.model.arrays(),
            users=trained.train.users,
            items=trained.train.items,
            seen=Csr.empty(trained.train.n_users, trained.train.n_items),
            trained=trained.train.csr(),
            popular=np.zeros(0, np.int64),
            model="mf",
            settings={},
            lineage={},
            metrics={},
            citations=[],
        )


def test_what_a_desktop_leaves_in_a_bundle_does_no_harm(trained, tmp_path):
    trained.save(tmp_path / "b")
    (tmp_path / "b" / ".DS_Store").write_text("x")
    assert bundle.verify(tmp_path / "b").n_users == trained.train.n_users
    trained.save(tmp_path / "b", overwrite=True)
    (tmp_path / "b" / ".evil.py").write_text("x")
    with pytest.raises(BundleError, match=r"holds what is not a bundle's: \.evil\.py"):
        bundle.open(tmp_path / "b")
