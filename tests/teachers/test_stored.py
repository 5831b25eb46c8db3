"""Teachers from files: external ids matched and counted, lists without training items, good errors."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.errors import DataError, MissingKnowledge, UsageError
from recdistill.ids import IdTable
from recdistill.knowledge.view import Kind
from recdistill.query import Query
from recdistill.teachers.importers import teacher
from recdistill.teachers.kept import StoredLists, StoredRanker, StoredVectors
from recdistill.teachers.stored import Files, stored

# Ours: users a b c, items w x y z. a has seen x in training.
USERS = IdTable.from_ids(["a", "b", "c"])
ITEMS = IdTable.from_ids(["w", "x", "y", "z"])
SEEN = Csr.from_pairs([0], [1], 3, 4)
OURS = {"users": USERS, "items": ITEMS, "seen": SEEN}
W, X, Y, Z = range(4)
INF = float("inf")


def rows(*row: int) -> Query:
    return Query(torch.tensor(row, dtype=torch.int64))


def frame(path: Path, **columns: object) -> Path:
    pl.DataFrame(columns).write_parquet(path)
    return path


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    # a: y 3, x 2 (seen), q 5 (foreign), w -1.   b: w 1.   n (foreign): z 9
    return frame(
        tmp_path / "scores.parquet",
        user_id=["a", "a", "b", "a", "n", "a"],
        item_id=["x", "y", "w", "q", "z", "w"],
        score=[2.0, 3.0, 1.0, 5.0, 9.0, -1.0],
    )


# lists and scores


def test_lists_are_in_order_without_training_items_and_padded(scored: Path):
    known = stored(scores=scored, **OURS)
    view = known.view(rows(0, 1, 2, -1))
    assert view.ranked(3).tolist() == [[Y, W, -1], [W, -1, -1], [-1] * 3, [-1] * 3]
    assert view.ranked(3).dtype == torch.int64
    assert view.ranked(1).tolist() == [[Y], [W], [-1], [-1]]
    assert view.known().tolist() == [True, True, False, False]
    assert known.provides == {Kind.RANKS, Kind.SCORES}
    kept = stored(scores=scored, users=USERS, items=ITEMS)
    assert kept.view(rows(0)).ranked(3).tolist() == [[Y, X, W]]


def test_scores_of_listed_items_are_theirs_training_items_included_and_others_are_below_all(scored: Path):
    view = stored(scores=scored, **OURS).view(rows(0, 1, 2, -1))
    asked = torch.tensor([[W, X, Y, -1], [W, X, Z, W], [W, X, Y, Z], [W, X, Y, Z]])
    expected = [[-1.0, 2.0, 3.0, -INF], [1.0, -INF, -INF, 1.0], [-INF] * 4, [-INF] * 4]
    assert view.scores(asked).tolist() == expected
    assert view.scores_among(torch.tensor([Y, W])).tolist() == [[3.0, -1.0], [-INF, 1.0], [-INF] * 2, [-INF] * 2]
    part = view.select(torch.tensor([1, 0]))
    assert part.scores(asked[:2]).tolist() == [[1.0, -INF, -INF, -INF], [-1.0, 2.0, -INF, -1.0]]
    assert part.ranked(2).tolist() == [[W, -1], [Y, W]]


def test_nobody_asked_nobody_answered(scored: Path):
    view = stored(scores=scored, **OURS).view(rows())
    assert view.ranked(2).shape == (0, 2)
    assert view.scores(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)
    assert view.known().shape == (0,)


def test_what_a_file_does_not_hold_is_missing_knowledge(tmp_path: Path):
    path = frame(tmp_path / "top.parquet", user_id=["a"], item_id=["y"], rank=[1])
    known = stored(lists=path, **OURS)
    assert known.provides == {Kind.RANKS}
    with pytest.raises(
        MissingKnowledge, match=r"the teacher lists 'top.parquet' cannot give scores. Use a teacher that"
    ):
        known.view(rows(0)).scores(torch.tensor([[W]]))
    with pytest.raises(MissingKnowledge, match="cannot give vectors"):
        known.view(rows(0)).entities("user", torch.tensor([0]))


@pytest.mark.parametrize("first", [0, 1])
def test_ranks_decide_where_they_are_given(tmp_path: Path, first: int):
    path = frame(
        tmp_path / "l.parquet",
        userId=["b", "a", "b", "b"],
        ITEM=["z", "w", "x", "w"],
        Rank=[first + 2, first, first, first + 1],
        score=[3.0, 1.0, 2.0, 1.0],  # says otherwise
    )
    known = stored(lists=path, **OURS)
    assert known.view(rows(1)).ranked(4).tolist() == [[X, W, Z, -1]]
    assert "are they distances" not in str(known.coverage)


def test_the_order_of_rows_decides_where_nothing_else_does(tmp_path: Path):
    path = frame(tmp_path / "l.parquet", user_id=["b", "a", "b", "b"], item_id=["z", "w", "x", "w"])
    assert stored(lists=path, **OURS).view(rows(1)).ranked(3).tolist() == [[Z, X, W]]


def test_list_columns_are_opened(tmp_path: Path):
    path = frame(tmp_path / "l.parquet", user_id=["b", "c", "a"], items=[["z", "w"], [], ["y", "x", "w"]])
    known = stored(lists=path, **OURS)
    assert known.view(rows(0, 1, 2)).ranked(3).tolist() == [[Y, W, -1], [Z, W, -1], [-1] * 3]
    path = frame(tmp_path / "s.parquet", user_id=["b"], items=[["z", "w"]], scores=[[0.5, 0.75]])
    assert stored(scores=path, **OURS).view(rows(1)).ranked(2).tolist() == [[W, Z]]


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_lists_as_arrays(tmp_path: Path, kind: str):
    path = tmp_path / f"l.{kind}"
    arrays = {
        "users": np.array([8, 7]),
        "items": np.array([[3, 1, 9], [2, -1, -1]]),
        "scores": np.float32([[0.5, 0.75, 0.1], [1.0, 0.0, np.nan]]),
    }
    (np.savez if kind == "npz" else lambda p, **a: safetensors.numpy.save_file(a, p))(path, **arrays)
    numbered = {"users": IdTable.from_ids([7, 8]), "items": IdTable.from_ids([1, 2, 3])}
    assert stored(scores=path, **numbered).view(rows(0, 1)).ranked(3).tolist() == [[1, -1, -1], [0, 2, -1]]
    del arrays["scores"]
    (np.savez if kind == "npz" else lambda p, **a: safetensors.numpy.save_file(a, p))(path, **arrays)
    assert stored(lists=path, **numbered).view(rows(0, 1)).ranked(3).tolist() == [[1, -1, -1], [2, 0, -1]]


def test_text_lists_as_npz(tmp_path: Path):
    np.savez(tmp_path / "l.npz", users=np.array(["b", "a"]), items=np.array([["z", ""], ["w", "y"]]))
    assert stored(lists=tmp_path / "l.npz", **OURS).view(rows(0, 1)).ranked(2).tolist() == [[W, Y], [Z, -1]]


def test_coverage_says_what_matched(scored: Path, tmp_path: Path):
    known = stored(scores=scored, **OURS)
    assert str(known.coverage) == (
        # z is listed for n alone, yet the teacher knows it
        "the teacher scores 'scores.parquet' knows 100 % of your items (4 of 4), 66 % of users (2 of 3); "
        "1 of its items and 1 of its users are not yours\n"
        "1 of its 4 pairs are training items and are left out of the lists"
    )
    path = frame(tmp_path / "l.parquet", user_id=["a", "b", "c"], item_id=["w"] * 3)
    assert str(stored(lists=path, **OURS).coverage) == (
        "the teacher lists 'l.parquet' knows 25 % of your items (1 of 4), 100 % of users (3 of 3)"
    )
    many = {"users": IdTable.from_ids(range(1000)), "items": IdTable.from_ids(["w"])}
    path = frame(tmp_path / "m.parquet", user_id=list(range(3)), item_id=["w"] * 3)
    assert "under 1 % of users (3 of 1,000)" in str(stored(lists=path, **many).coverage)


def test_distances_are_suspected(tmp_path: Path):
    path = frame(
        tmp_path / "l.parquet", user_id=["a"] * 3, item_id=["w", "y", "z"], rank=[1, 2, 3], score=[0.1, 0.5, 2.0]
    )
    assert "its scores rise along its ranks: are they distances?" in str(stored(scores=path, **OURS).coverage)


def test_integer_ids_match_text_tables_and_the_other_way_round(tmp_path: Path):
    path = frame(tmp_path / "l.parquet", user_id=[1, 2], item_id=["10", "20"])
    ours = {"users": IdTable.from_ids(["2", "3"]), "items": IdTable.from_ids([20, 30])}
    assert stored(lists=path, **ours).view(rows(0, 1)).ranked(1).tolist() == [[0], [-1]]


BAD_PAIRS: dict[str, tuple[dict, str]] = {
    "repeated pair": (
        {"user_id": ["a", "b", "a"], "item_id": ["w", "w", "w"]},
        r"1 rows repeat a user and an item, the first user 'a' and item 'w'. Keep one row for each pair",
    ),
    "score NaN": (
        {"user_id": ["a", "b"], "item_id": ["w", "w"], "score": [1.0, float("nan")]},
        r"1 of 2 scores are not finite; the first is in row 1 \(from 0\); got nan. Leave such rows out",
    ),
    "score missing": (
        {"user_id": ["a", "b"], "item_id": ["w", "w"], "score": [None, 1.0]},
        r"1 of 2 scores are not finite; the first is in row 0",
    ),
    "score text": (
        {"user_id": ["a"], "item_id": ["w"], "score": ["high"]},
        r"1 of 1 scores in column 'score' are no numbers; the first is in row 0 \(from 0\); got 'high'",
    ),
    "rank with a hole": (
        {"user_id": ["a", "a", "b"], "item_id": ["w", "y", "w"], "rank": [1, 3, 1]},
        r"the list in which row 1 \(from 0\) stands skips a rank: 3 follows 1. Number each user's list 1, 2, 3",
    ),
    "rank repeated": (
        {"user_id": ["a", "a", "b"], "item_id": ["w", "y", "w"], "rank": [1, 1, 1]},
        r"row 1 \(from 0\) stands repeats a rank: 1 follows 1",
    ),
    "rank that begins late": (
        {"user_id": ["a", "b"], "item_id": ["w", "y"], "rank": [0, 1]},
        r"row 1 \(from 0\) stands begins at rank 1, others at 0",
    ),
    "rank from ten": (
        {"user_id": ["a"], "item_id": ["w"], "rank": [10]},
        r"ranks count from 0 or from 1; the least .*; got 10. Take 10 from each",
    ),
    "rank a float": (
        {"user_id": ["a"], "item_id": ["w"], "rank": [1.0]},
        r"the ranks in column 'rank' must be integers; .* row 0 \(from 0\); got 1.0. Write 0, 1, 2",
    ),
    "user a float": (
        {"user_id": [1.0], "item_id": ["w"]},
        r"the ids in column 'user_id' are of type Float64. Allowed: integers or text. Write them as they stand",
    ),
    "item missing": (
        {"user_id": ["a", "b"], "item_id": ["w", None]},
        r"1 rows have no id in column 'item_id'; the first is row 1 \(from 0\)",
    ),
    "no user in common": (
        {"user_id": ["u1", "u2"], "item_id": ["w", "w"]},
        r"no user in common: its users are called 'u1', 'u2', yours 'a', 'b', 'c'. Write the teacher's file with",
    ),
    "no item in common": (
        {"user_id": ["a"], "item_id": [17]},
        r"no item in common: its items are called 17, yours 'w'",
    ),
    "no item column": (
        {"user_id": ["a"], "thing": ["w"]},
        r"no column is recognised as the item; got \['user_id', 'thing'\]. Allowed: item, iid",
    ),
    "no rows": ({"user_id": pl.Series([], dtype=pl.String), "item_id": pl.Series([], dtype=pl.String)}, "has no rows"),
    "lists and scores of unequal length": (
        {"user_id": ["a"], "items": [["w", "y"]], "scores": [[1.0]]},
        r"lists of items and of scores have unequal lengths. Write one score for each item",
    ),
    "list column and rank": ({"user_id": ["a"], "items": [["w"]], "rank": [1]}, "a list column is in order already"),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_lists_that_cannot_be_used_say_why(tmp_path: Path, name: str):
    columns, reason = BAD_PAIRS[name]
    path = frame(tmp_path / "bad.parquet", **columns)
    with pytest.raises(DataError, match=reason):
        stored(lists=path, **OURS)


def test_scores_need_a_score(tmp_path: Path):
    path = frame(tmp_path / "l.parquet", user_id=["a"], item_id=["w"])
    with pytest.raises(DataError, match=r"has no column of scores. Add one .score., or give the file as lists"):
        stored(scores=path, **OURS)


def test_formats_that_are_not_read_say_so(tmp_path: Path, scored: Path):
    with pytest.raises(DataError, match=r"There is no file .*score.parquet. Did you mean 'scores.parquet'"):
        stored(lists=scored.with_name("score.parquet"), **OURS)
    with pytest.raises(DataError, match=r"Allowed: .parquet, .csv, .tsv, .npz, .safetensors. Pickles are never read"):
        stored(lists=tmp_path / "model.pkl", **OURS)
    (tmp_path / "x.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        stored(lists=tmp_path / "x.parquet", **OURS)
    (tmp_path / "x.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="cannot be read as npz"):
        stored(lists=tmp_path / "x.npz", **OURS)
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04\x95" + b"x" * 30)
    with pytest.raises(DataError, match="is a pickle, not safetensors"):
        stored(lists=tmp_path / "x.safetensors", **OURS)
    uneven = np.empty(2, dtype=object)
    uneven[:] = [["w"], ["w", "y"]]
    np.savez(tmp_path / "o.npz", users=np.array(["a", "b"]), items=uneven)
    with pytest.raises(DataError, match=r"holds Python objects, which are never loaded.*pad lists of unequal length"):
        stored(lists=tmp_path / "o.npz", **OURS)
    np.savez(tmp_path / "m.npz", users=np.array(["a", "b"]), itms=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"has no array 'items'; got \['itms', 'users'\].*Did you mean 'itms'"):
        stored(lists=tmp_path / "m.npz", **OURS)
    np.savez(tmp_path / "n.npz", users=np.array(["a", "b"]), items=np.array([["w"]]))
    with pytest.raises(DataError, match=r"lists are users .U,. and items .U, R., best first, padded"):
        stored(lists=tmp_path / "n.npz", **OURS)
    np.savez(tmp_path / "f.npz", users=np.array(["a"]), items=np.array([[1.5]]))
    with pytest.raises(DataError, match="the ids in 'items' are of type float64"):
        stored(lists=tmp_path / "f.npz", **OURS)


# vectors

U_T = np.float32([[1, 0], [0, 1], [5, 5]])  # b, a, n
I_T = np.float32([[1, 2], [3, 1], [9, 9], [2, 0]])  # z, w, q, x: y is unknown


def vectors_npz(path: Path) -> Path:
    ids = {"users": np.array(["b", "a", "n"]), "items": np.array(["z", "w", "q", "x"])}
    np.savez(path, **ids, user_vectors=U_T, item_vectors=I_T)
    return path


def test_vectors_of_a_file_are_one_layer(tmp_path: Path):
    view, ids = (
        stored(vectors=vectors_npz(tmp_path / "v.npz"), **OURS).view(Query(torch.tensor([0]))),
        torch.tensor([0, 1]),
    )
    assert torch.equal(view.entities("user", ids, 0), view.entities("user", ids))
    with pytest.raises(UsageError, match=r"The teacher vectors .* has no such layer of vectors; got 2"):
        view.entities("user", ids, 2)


def vectors_safetensors(path: Path) -> Path:
    arrays = {"user_vectors": U_T, "item_vectors": I_T}
    for side, ids in (("users", "ban"), ("items", "zwqx")):
        arrays[f"{side}.bytes"] = np.frombuffer(ids.encode(), np.uint8)
        arrays[f"{side}.offsets"] = np.arange(len(ids) + 1)
    safetensors.numpy.save_file(arrays, path)
    return path


def vectors_folder(path: Path) -> Path:
    path.mkdir()
    frame(path / "users.parquet", user_id=["b", "a", "n"], vector=U_T.tolist())
    frame(path / "items.parquet", item_id=["z", "w", "q", "x"], d0=I_T[:, 0], d1=I_T[:, 1])  # wide
    return path


def vectors_side(path: Path) -> Path:
    both = np.concatenate([U_T, I_T]).tolist()
    return frame(path, side=["user"] * 3 + ["item"] * 4, id=list("banzwqx"), embedding=both)


WRITERS = {
    "t.npz": vectors_npz,
    "t.safetensors": vectors_safetensors,
    "t": vectors_folder,
    "t.parquet": vectors_side,
}


@pytest.mark.parametrize("name", WRITERS)
def test_vectors_of_every_format_give_scores_lists_and_themselves(tmp_path: Path, name: str):
    known = stored(vectors=WRITERS[name](tmp_path / name), **OURS)
    assert isinstance(known, StoredVectors)
    assert known.provides == {Kind.SCORES, Kind.RANKS, Kind.VECTORS}
    view = known.view(rows(0, 1, 2, -1))
    assert view.known().tolist() == [True, True, False, False]
    assert view.entities("user", torch.tensor([1, 0, 2])).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert view.entities("item", torch.tensor([W, Y, Z])).tolist() == [[3, 1], [0, 0], [1, 2]]
    # a = (0, 1): z 2, w 1, x 0 (seen).  b = (1, 0): w 3, x 2, z 1.  y is not ranked: nothing is known of it.
    assert view.ranked(4).tolist() == [[Z, W, -1, -1], [W, X, Z, -1], [-1] * 4, [-1] * 4]
    assert view.scores(torch.tensor([[Z, W, Y, -1]] * 4))[:2].tolist() == [[2, 1, -INF, -INF], [1, 3, -INF, -INF]]
    assert view.scores_among(torch.tensor([X, Y]))[:2].tolist() == [[0, -INF], [2, -INF]]
    assert view.select(torch.tensor([1])).ranked(2).tolist() == [[W, X]]
    assert str(known.coverage).endswith(
        "knows 75 % of your items (3 of 4), 66 % of users (2 of 3); 1 of its items and 1 of its users are not yours"
    )


def test_a_view_says_which_entities_it_has(tmp_path: Path):
    view = stored(vectors=vectors_npz(tmp_path / "t.npz"), **OURS).view(rows(0))
    assert view.has("item", torch.tensor([W, X, Y, Z, -1])).tolist() == [True, True, False, True, False]
    assert view.has("user", torch.tensor([0, 1, 2])).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"user_vectors": U_T[:2]},
            r"the user vectors must be floats of shape .3, d., one for each id; got 'float32 .2, 2.'",
        ),
        ({"item_vectors": I_T[:, :1]}, "users have 2 dimensions and items 1; they must be equal"),
        ({"item_vectors": np.array([[1, 2]] * 4)}, "the item vectors must be floats of shape .4, d."),
        ({"item_vectors": np.where(I_T == 3, np.nan, I_T)}, "the vector of item 'w' holds a number that is not finite"),
        ({"users": np.array(["b", "a", "a"])}, "the user 'a' has 2 vectors. Keep one of them"),
        ({"users": np.array(["1", "2", "3"])}, "no user in common: its users are called '1', '2', '3'"),
        ({"users": np.array([1.0, 2.0, 3.0])}, "neither an integer nor text"),
    ],
)
def test_vectors_that_cannot_be_used_say_why(tmp_path: Path, change: dict, reason: str):
    with np.load(vectors_npz(tmp_path / "t.npz")) as file:
        arrays = dict(file) | change
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=reason):
        stored(vectors=tmp_path / "t.npz", **OURS)


def test_vector_tables_that_cannot_be_used_say_why(tmp_path: Path):
    folder = vectors_folder(tmp_path / "t")
    frame(folder / "users.parquet", user_id=["a", "b"], vector=[[1.0, 2.0], [1.0]])
    with pytest.raises(DataError, match="the vectors in column 'vector' have unequal lengths or gaps"):
        stored(vectors=folder, **OURS)
    frame(folder / "users.parquet", user_id=["a", "b"], name=["x", "y"])
    with pytest.raises(DataError, match="column 'name' is no number"):
        stored(vectors=folder, **OURS)
    frame(folder / "users.parquet", name=["x", "y"])
    with pytest.raises(DataError, match="needs one column of ids"):
        stored(vectors=folder, **OURS)
    (folder / "users.parquet").unlink()
    with pytest.raises(DataError, match=r"has no users.parquet"):
        stored(vectors=folder, **OURS)
    path = frame(tmp_path / "one.parquet", id=["a"], vector=[[1.0]])
    with pytest.raises(DataError, match="has no column 'side' that says which rows are users"):
        stored(vectors=path, **OURS)
    path = frame(tmp_path / "one.parquet", side=["user"], id=["a"], vector=[[1.0]])
    with pytest.raises(DataError, match="must say 'user' or 'item', and both must occur"):
        stored(vectors=path, **OURS)


def test_a_teacher_has_no_parameters_and_gives_no_gradient(tmp_path: Path, scored: Path):
    for known in (stored(vectors=vectors_npz(tmp_path / "t.npz"), **OURS), stored(scores=scored, **OURS)):
        assert not isinstance(known, torch.nn.Module)
        view = known.view(rows(0, 1))
        assert not view.scores(torch.tensor([[W, Z], [X, W]])).requires_grad
    assert (
        not stored(vectors=tmp_path / "t.npz", **OURS).view(rows(0)).entities("user", torch.tensor([0])).requires_grad
    )


def test_lists_from_vectors_are_made_for_the_users_asked_alone():
    # A dense score table would have 50,000 x 4,000 x 4 bytes = 800 MB, and lists of all users 200 MB.
    n_users, n_items, d = 50_000, 4_000, 8
    chance = np.random.default_rng(0)
    from recdistill.teachers.coverage import Coverage

    known = StoredVectors(
        Coverage("vectors", 1, 1, 1, 1, 0, 0),
        chance.normal(size=(n_users, d)).astype(np.float32),
        chance.normal(size=(n_items, d)).astype(np.float32),
        users_known=np.ones(n_users, np.bool_),
        items_known=np.ones(n_items, np.bool_),
        seen=Csr.empty(n_users, n_items),
    )
    tracemalloc.start()
    assert known.view(Query(torch.arange(0, n_users, 100))).ranked(100).shape == (500, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6, f"{peak:,} bytes"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_lists_and_scores_equal_those_of_a_dense_twin(tmp_path: Path, data: st.DataObject):
    n_users, n_items = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    pair = st.tuples(st.integers(0, n_users), st.integers(0, n_items))  # the last of each is foreign
    pairs = data.draw(st.lists(pair, min_size=1, max_size=20, unique=True))
    if all(u == n_users for u, _ in pairs) or all(i == n_items for _, i in pairs):
        return
    score = data.draw(st.lists(st.integers(-3, 3), min_size=len(pairs), max_size=len(pairs)))
    seen = data.draw(st.lists(st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1)), max_size=8))
    path = frame(
        tmp_path / "s.parquet", user=[u for u, _ in pairs], item=[i for _, i in pairs], score=[float(s) for s in score]
    )
    ours = {"users": IdTable.from_ids(range(n_users)), "items": IdTable.from_ids(range(n_items))}
    taken = Csr.from_pairs([u for u, _ in seen], [i for _, i in seen], n_users, n_items)
    asked = data.draw(st.lists(st.integers(-1, n_users - 1), min_size=1, max_size=4))
    view = stored(scores=path, **ours, seen=taken).view(rows(*asked))
    k = data.draw(st.integers(1, 7))
    table = dict(zip(pairs, score, strict=True))
    for place, user in enumerate(asked):
        listed = [(u, i) for u, i in pairs if u == user and i < n_items]  # in file order: ties keep it
        best = [i for u, i in sorted(listed, key=lambda p: -table[p]) if (u, i) not in seen][:k]
        assert view.ranked(k)[place].tolist() == best + [-1] * (k - len(best))
        every = view.scores_among(torch.arange(n_items))[place].tolist()
        assert every == [table.get((user, i), -INF) for i in range(n_items)]
        assert view.known()[place].item() == bool(listed)


# bundles


def saved(path: Path, kind: str, arrays: dict[str, np.ndarray]) -> Path:
    bundle.save(
        path,
        kind=kind,
        arrays=arrays,
        users=IdTable.from_ids(["b", "a", "n"]),
        items=IdTable.from_ids(["z", "w", "q", "x"]),
        seen=Csr.empty(3, 4),
        popular=np.zeros(0, np.int64),
        model="mf",
        settings={},
        lineage={},
        metrics={},
        citations=[],
    )
    return path


def test_a_bundle_is_a_teacher(tmp_path: Path):
    known = stored(bundle=saved(tmp_path / "b", "vectors", {"user": U_T, "item": I_T}), **OURS)
    twin = stored(vectors=vectors_npz(tmp_path / "t.npz"), **OURS)
    assert isinstance(known, StoredVectors)
    assert known.view(rows(0, 1)).ranked(4).tolist() == twin.view(rows(0, 1)).ranked(4).tolist()
    assert known.fingerprint == twin.fingerprint
    assert known.source == "the teacher bundle 'b'"


def test_a_ranker_without_vectors_is_a_teacher_of_scores_and_lists():
    from recdistill.evaluation.ranking import VectorRanker
    from recdistill.teachers.coverage import Coverage

    known = StoredRanker(
        Coverage("the teacher bundle 'net'", 3, 4, 2, 3, 1, 1),
        VectorRanker(U_T, I_T),  # stands for any network
        user=np.array([1, 0, -1]),
        item=np.array([1, 3, -1, 0]),
        digest="d",
        seen=SEEN,
    )
    view = known.view(rows(0, 1, 2, -1))
    assert known.provides == {Kind.SCORES, Kind.RANKS}
    assert known.fingerprint == "d"
    assert view.known().tolist() == [True, True, False, False]
    assert view.ranked(4).tolist() == [[Z, W, -1, -1], [W, X, Z, -1], [-1] * 4, [-1] * 4]
    assert view.ranked(1).tolist() == [[Z], [W], [-1], [-1]]  # q, which is best of all, is not ours
    assert view.scores(torch.tensor([[Z, W, Y, -1]] * 4)).tolist() == [
        [2, 1, -INF, -INF],
        [1, 3, -INF, -INF],
        [-INF] * 4,
        [-INF] * 4,
    ]
    assert view.scores_among(torch.tensor([X]))[:2].tolist() == [[0], [2]]
    assert view.select(torch.tensor([1])).ranked(2).tolist() == [[W, X]]
    with pytest.raises(MissingKnowledge, match="the teacher bundle 'net' cannot give vectors"):
        view.entities("user", torch.tensor([0]))


# arguments


def test_files_wait_for_a_log(scored: Path):
    files = teacher(scores=str(scored))
    assert isinstance(files, Files)
    assert isinstance(files.matched(**OURS), StoredLists)


def test_arguments_that_cannot_be_used_say_why(scored: Path):
    with pytest.raises(
        UsageError, match=r"A teacher from files needs at least one file. Allowed: lists, scores, vectors"
    ):
        stored(**OURS)
    with pytest.raises(UsageError, match=r"'seen' is of another size .*; got \(2, 4\). Allowed: \(3, 4\)"):
        stored(scores=scored, users=USERS, items=ITEMS, seen=Csr.empty(2, 4))


def test_fingerprints_follow_the_content(tmp_path: Path, scored: Path):
    one = stored(scores=scored, **OURS).fingerprint
    assert one == stored(scores=scored, **OURS).fingerprint
    other = pl.read_parquet(scored).with_columns(pl.col("score") + 1)
    other.write_parquet(tmp_path / "other.parquet")
    assert one != stored(scores=tmp_path / "other.parquet", **OURS).fingerprint


def test_the_page_on_teachers_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = Path(__file__).parents[2] / "docs" / "teachers.md"
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(code) == 3
    exec("\n".join(code), {})  # noqa: S102 - our own page
