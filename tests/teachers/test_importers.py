"""Teachers from elsewhere: real frozen artefacts of implicit, RecTools and RecBole, callables, hostile checkpoints."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import recdistill as rd
from recdistill.data.csr import Csr
from recdistill.errors import DataError, UsageError
from recdistill.ids import IdTable
from recdistill.knowledge.view import Kind
from recdistill.query import Query
from recdistill.teachers.callables import Scorer, _best
from recdistill.teachers.importers import teacher
from recdistill.teachers.inert import Global, Made, interpreted
from recdistill.teachers.recbole import SERVED
from recdistill.teachers.stored import stored

PEERS = Path(__file__).parents[1] / "golden" / "peers"
BPR, DATASET = PEERS / "recbole_bpr.pth", PEERS / "recbole_dataset.pth"


def arrays(peer: str) -> dict[str, np.ndarray]:
    with np.load(PEERS / f"{peer}_models.npz") as file:
        return dict(file)


def matched(found, users, items, pairs=((), ())):
    tables = IdTable.from_ids(users), IdTable.from_ids(items)
    rows = [table.rows(ids) for table, ids in zip(tables, pairs, strict=True)] if len(pairs[0]) else ((), ())
    seen = Csr.from_pairs(*rows, len(tables[0]), len(tables[1]))
    return found.matched(users=tables[0], items=tables[1], seen=seen), tables


def lists(known, tables, users, k):
    view = known.view(Query(torch.from_numpy(tables[0].rows(users))))
    ranked = view.ranked(k)
    names = np.append(tables[1].external(np.arange(len(tables[1]))), "")  # "" past the end
    return names[ranked.numpy()], view.scores(ranked).numpy()


# RecBole


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_a_recbole_checkpoint_ranks_and_scores_as_recbole_does(model):
    said = arrays("recbole")
    found = teacher(recbole=PEERS / f"recbole_{model.lower()}.pth", ids=DATASET)
    known, tables = matched(found, said["users"], said["items"])
    users = said["users"][:30]
    view = known.view(Query(torch.from_numpy(tables[0].rows(users))))
    theirs = torch.from_numpy(tables[1].rows(said[f"{model}.items"].reshape(-1)).reshape(-1, 5))
    finite = np.isfinite(said[f"{model}.scores"])
    assert finite.sum() > 100
    np.testing.assert_allclose(
        view.scores(theirs).numpy()[finite], said[f"{model}.scores"][finite], rtol=1e-4, atol=1e-7
    )
    assert known.provides == {Kind.VECTORS, Kind.SCORES, Kind.RANKS}
    report = "knows 100 % of your items (20 of 20), 100 % of users (30 of 30)"
    assert str(known.coverage) == f"the teacher recbole 'recbole_{model.lower()}.pth' {report}"


def test_rows_can_be_named_by_arrays_too(tmp_path):
    said = arrays("recbole")
    np.savez(tmp_path / "ids.npz", users=said["users"], items=said["items"])
    tables = said["users"], said["items"]
    one, _ = matched(teacher(recbole=BPR, ids=DATASET), *tables)
    other, _ = matched(teacher(recbole=BPR, ids=tmp_path / "ids.npz"), *tables)
    assert one.fingerprint == other.fingerprint
    np.savez(tmp_path / "few.npz", users=said["users"][1:], items=said["items"])
    with pytest.raises(DataError, match=r"has 30 users and .*few\.npz names 29\. Give the data set that was saved"):
        teacher(recbole=BPR, ids=tmp_path / "few.npz")


def test_a_model_whose_scores_are_no_inner_products_is_refused_with_the_way_out():
    with pytest.raises(DataError, match=r"holds a NeuMF, whose scores are no inner products .*BPR.*recbole_lists\.py"):
        teacher(recbole=PEERS / "recbole_neumf.pth", ids=DATASET)
    assert (PEERS.parents[2] / "examples" / "recbole_lists.py").exists()
    assert {"BPR", "LightGCN"} <= set(SERVED)


class Runs:
    """A pickle that would leave a file behind."""

    def __init__(self, what, *args):
        self.what, self.args = what, args

    def __reduce__(self):
        return self.what, self.args


def pickled(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def hostile(path: Path, payload: bytes) -> Path:
    """The checkpoint with another pickle in it, and its tensors as they were."""
    with zipfile.ZipFile(BPR) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, payload if entry.filename.endswith("data.pkl") else old.read(entry))
    return path


@pytest.mark.parametrize(
    ("call", "args", "name"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (exec, ("open({!r}, 'w')",), "builtins.exec"),
        (eval, ("open({!r}, 'w')",), "builtins.eval"),
        (shutil.rmtree, ("{}",), "shutil.rmtree"),
        (print, ("{}",), "builtins.print"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_checkpoint_runs_nothing_and_is_refused_by_the_name_it_asks_for(tmp_path, call, args, name, protocol):
    mark = tmp_path / "ran"
    payload = pickle.dumps({"config": Runs(call, *(a.format(str(mark)) for a in args))}, protocol=protocol)
    name = name.replace("builtins", "(builtins|__builtin__)")
    match = f"names '{name}', which no checkpoint of vectors needs; nothing was run" if protocol else "not read|names"
    with pytest.raises(DataError, match=match):
        teacher(recbole=hostile(tmp_path / "m.pth", payload), ids=DATASET)
    (tmp_path / "d.pth").write_bytes(payload)
    with pytest.raises(DataError, match=match):
        teacher(recbole=BPR, ids=tmp_path / "d.pth")
    assert not mark.exists()


def test_what_is_allowed_is_kept_as_a_name_and_never_called(tmp_path):
    payload = pickle.dumps(Runs(getattr, str, "upper"), protocol=4)  # builtins.getattr: an enumeration is pickled by it
    found = interpreted(tmp_path, payload.replace(b"\x8c\x03str", b"\x8c\x04list"))
    assert isinstance(found, Made)
    assert found.of == Global("builtins.getattr")
    assert found.args[1] == "upper"


def test_an_odd_escape_in_a_name_is_an_error_of_ours_and_no_warning(tmp_path):
    with pytest.raises(DataError, match="hello"):
        interpreted(tmp_path, b"c\\hello\nname\n.")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_checkpoint_is_an_error_of_ours_or_read(data):
    whole = zipfile.ZipFile(BPR).read(
        "BPR" if False else next(n for n in zipfile.ZipFile(BPR).namelist() if "data.pkl" in n)
    )
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    cut = damaged if data.draw(st.booleans()) else damaged[: data.draw(st.integers(0, len(damaged)))]
    with suppress(DataError):
        interpreted(BPR, cut)


def test_a_checkpoint_that_promises_more_than_it_holds_is_refused(tmp_path):
    whole = BPR.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("weights")
    for name in ("cut.pth", "text.pth"):
        with pytest.raises(DataError, match=r"is no checkpoint as torch 1\.6 and later writes it"):
            teacher(recbole=tmp_path / name, ids=DATASET)
    with zipfile.ZipFile(BPR) as old, zipfile.ZipFile(tmp_path / "small.pth", "w") as new:
        for entry in old.infolist():
            new.writestr(entry, b"\0" * 8 if entry.filename.endswith("data/0") else old.read(entry))
    with pytest.raises(DataError, match=r"'user_embedding\.weight' has 8 bytes, not 496"):
        teacher(recbole=tmp_path / "small.pth", ids=DATASET)
    with zipfile.ZipFile(BPR) as old, zipfile.ZipFile(tmp_path / "zip.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(DataError, match="is compressed, or larger than the file"):
        teacher(recbole=tmp_path / "zip.pth", ids=DATASET)
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"no checkpoint of RecBole: it has no configuration"):
        teacher(recbole=tmp_path / "other.pth", ids=DATASET)


# implicit and RecTools


@pytest.fixture
def implicit():
    said = arrays("implicit")
    users, items = [f"u{u}" for u in range(40)], [f"i{i}" for i in range(30)]
    row = np.repeat(np.arange(40), np.diff(said["indptr"]))
    pairs = [users[u] for u in row], [items[i] for i in said["indices"]]
    return said, users, items, pairs


@pytest.mark.parametrize("name", ["als", "bpr"])
def test_implicit_factors_rank_and_score_as_implicit_does(implicit, name):
    said, users, items, pairs = implicit
    model = SimpleNamespace(user_factors=said[f"{name}.user_factors"], item_factors=said[f"{name}.item_factors"])
    known, tables = matched(teacher(implicit=model, users=users, items=items), users, items, pairs)
    ranked, scores = lists(known, tables, users, 8)
    assert (ranked == np.array(items)[said[f"{name}.lists"]]).mean() > 0.99  # but for near ties
    np.testing.assert_allclose(scores, said[f"{name}.scores"], rtol=1e-4, atol=1e-6)


def test_what_implicit_saved_is_read_whatever_else_lies_in_the_file(implicit, tmp_path):
    said, users, items, pairs = implicit
    saved = PEERS / "implicit_als_saved.npz"  # by implicit 0.7.3
    known, tables = matched(teacher(implicit=saved, users=users, items=items), users, items, pairs)
    ranked, scores = lists(known, tables, users, 8)
    assert (ranked == np.array(items)[said["als.lists"]]).mean() > 0.99
    np.testing.assert_allclose(scores, said["als.scores"], rtol=1e-4, atol=1e-6)
    with np.load(saved) as file:
        whole = dict(file)
    np.savez(tmp_path / "als.npz", **whole | {"random_state": np.array(Path(), dtype=object)})
    again, _ = matched(teacher(implicit=tmp_path / "als.npz", users=users, items=items), users, items, pairs)
    assert again.fingerprint == known.fingerprint
    np.savez(tmp_path / "als.npz", **whole | {"item_factors": np.array([None, 1])})
    with pytest.raises(DataError, match=r"als\.npz holds Python objects, which are never loaded"):
        teacher(implicit=tmp_path / "als.npz", users=users, items=items)


def test_implicit_models_without_factors_give_their_lists(implicit):
    said, users, items, pairs = implicit

    class CosineRecommender:
        def recommend(self, rows, log, N, filter_already_liked_items):
            assert log == "the matrix"
            assert filter_already_liked_items
            return said["cosine.lists"][rows, :N], said["cosine.scores"][rows, :N]

    found = teacher(implicit=CosineRecommender(), users=users, items=items, log="the matrix", k=8)
    known, tables = matched(found, users, items, pairs)
    assert known.provides == {Kind.RANKS, Kind.SCORES}
    ranked, _ = lists(known, tables, users, 8)
    theirs = said["cosine.lists"]
    pairs_of = zip(ranked.tolist(), theirs, strict=True)
    same = [[i for i in mine if i] == [items[i] for i in row if i >= 0] for mine, row in pairs_of]
    assert sum(same) >= 30  # its scores of 0 repeat training items
    with pytest.raises(UsageError, match="CosineRecommender has no factors: its lists need the matrix"):
        teacher(implicit=CosineRecommender(), users=users, items=items)


@pytest.mark.parametrize("vectors", [True, False])
def test_rectools_models_give_vectors_or_lists(vectors):
    said = arrays("rectools")
    name = "als" if vectors else "popular"

    class Frame(dict):
        pass

    class Column(np.ndarray):
        def to_numpy(self):
            return np.asarray(self)

    class Popular:
        def recommend(self, users, dataset, k, filter_viewed, on_unsupported_targets):
            assert filter_viewed
            assert on_unsupported_targets == "ignore"
            return Frame({c: said[f"{name}.{c}"].view(Column) for c in ("user_id", "item_id", "rank", "score")})

    class Als(Popular):
        u2i_dist = SimpleNamespace(name="DOT")

        def get_vectors(self):
            return said["user_vectors"], said["item_vectors"]

    ids = [SimpleNamespace(external_ids=said[side].astype(object)) for side in ("users", "items")]
    dataset = SimpleNamespace(user_id_map=ids[0], item_id_map=ids[1])
    found = teacher(rectools=(Als if vectors else Popular)(), dataset=dataset)
    known, tables = matched(found, said["users"], said["items"], (said["log.user"], said["log.item"]))
    assert (Kind.VECTORS in known.provides) is vectors
    user, rank, item = said[f"{name}.user_id"], said[f"{name}.rank"], said[f"{name}.item_id"]
    ranked, scores = lists(known, tables, said["users"].tolist(), 8)
    place = {u: at for at, u in enumerate(said["users"].tolist())}
    mine = np.array([ranked[place[u], r - 1] for u, r in zip(user.tolist(), rank.tolist(), strict=True)])
    assert (mine == item).mean() > 0.99
    own = np.array([scores[place[u], r - 1] for u, r in zip(user.tolist(), rank.tolist(), strict=True)])
    np.testing.assert_allclose(own, said[f"{name}.score"], rtol=1e-4)


# callables

USERS, ITEMS = ["a", "b", "c"], ["w", "x", "y", "z"]
TABLE = {"a": [1.0, 9, 3, 2], "b": [4.0, 4, 5, 0], "c": [0.0, 0, 0, 1]}


def scored(users):
    return np.array([TABLE[u] for u in users])


def test_a_callable_of_scores_is_asked_by_external_ids_and_ranks_ties_by_row():
    known, tables = matched(teacher(callable=scored, items=ITEMS), USERS, ITEMS, (["a"], ["x"]))
    ranked, scores = lists(known, tables, ["a", "b"], 4)
    assert ranked[:, :3].tolist() == [["y", "z", "w"], ["y", "w", "x"]]  # x is a's in training; w and x tie
    assert scores[0, :3].tolist() == [3, 2, 1]
    assert known.provides == {Kind.RANKS, Kind.SCORES}
    assert str(known.coverage).startswith("the teacher callable 'scored' knows 100 % of your items (4 of 4)")


def test_items_of_a_callable_are_matched_by_id():
    known, tables = matched(teacher(callable=scored, items=["w", "q", "y", "z"]), ["b", "a"], ITEMS)
    ranked, _ = lists(known, tables, ["b", "a"], 4)
    assert ranked[:, :3].tolist() == [["y", "w", "z"], ["y", "z", "w"]]
    assert "75 % of your items (3 of 4)" in str(known.coverage)
    assert known.view(Query(torch.tensor([0]))).scores(torch.tensor([[1]])).item() == -np.inf


@pytest.mark.parametrize("with_scores", [True, False])
def test_a_callable_of_lists_is_asked_once_for_everybody(with_scores):
    calls = []

    def best(users):
        calls.append(len(users))
        found = [{"a": ["y", "q"], "b": [], "c": ["z", "w", "x"]}[u] for u in users]
        return (found, [np.arange(len(line), 0, -1.0) for line in found]) if with_scores else found

    known, tables = matched(teacher(callable=best), USERS, ITEMS)
    assert calls == [3]
    view = known.view(Query(torch.from_numpy(tables[0].rows(USERS))))
    assert view.known().tolist() == [True, False, True]
    assert view.ranked(3).tolist() == [[2, -1, -1], [-1, -1, -1], [3, 0, 1]]
    assert (Kind.SCORES in known.provides) is with_scores


def test_a_callable_that_answers_wrongly_is_told_what_is_wanted():
    def fit(call, **more):
        return matched(teacher(callable=call, **more), USERS, ITEMS)

    with pytest.raises(DataError, match=r"must answer 1 users with scores of all 4 items; got 'float64 \(1, 2\)'"):
        fit(lambda users: np.zeros((len(users), 2)), items=ITEMS)
    with pytest.raises(DataError, match="gives user 'a' a score that is not finite"):
        fit(lambda users: np.full((len(users), 4), np.nan), items=ITEMS)
    draws = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"answers the same user differently when asked again. Put the model in eval"):
        fit(lambda users: draws.random((len(users), 4)), items=ITEMS)
    with pytest.raises(DataError, match=r"scores of all 4 items; got 'object \(0,\)'. Return an array"):
        fit(lambda users: [[1.0], [1.0, 2.0]], items=ITEMS)
    with pytest.raises(DataError, match="must answer 3 users with 3 lists; got 1"):
        fit(lambda users: [["w"]])
    with pytest.raises(DataError, match="lists nothing for any of 3 users"):
        fit(lambda users: [[] for _ in users])


def test_a_callable_that_is_none_or_answers_otherwise_is_refused():
    def fit(answer):
        return matched(teacher(callable=lambda users: answer), USERS, ITEMS)

    with pytest.raises(UsageError, match=r"A callable is a function of external user ids; got 5. teacher\(callable="):
        teacher(callable=5)
    for answer in (None, 3, "wxy", {"a": ["w"], "b": ["x"], "c": []}, iter([["w"]] * 3), np.array(None)):
        with pytest.raises(DataError, match=rf"a list for each user; got '{type(answer).__name__}'. Return one list"):
            fit(answer)
    for line in ("wx", None, 7, {"w"}):
        with pytest.raises(DataError, match=r"list of user 'b' must be a sequence of item ids; got .*Return one list"):
            fit([["w"], line, []])
    for scores in ([1.0], ["high", "low"], None, [1.0, np.inf]):
        with pytest.raises(DataError, match=r"scores of user 'a' must be 2 finite numbers; got .*Give one number for"):
            fit(([["w", "x"], [], []], [scores, [], []]))


@pytest.mark.parametrize("kind", [tuple, list])
def test_two_lists_for_two_users_are_lists_and_no_scores(kind):
    found = matched(teacher(callable=lambda users: kind([["w", "x"], ["y"]])), ["a", "b"], ITEMS)[0]
    assert found.provides == {Kind.RANKS}
    assert found.view(Query(torch.arange(2))).ranked(2).tolist() == [[0, 1], [2, -1]]
    pair = ([["w", "x"], ["y"]], [[2.0, 1.0], [3.0]])
    found = matched(teacher(callable=lambda users: pair), ["a", "b"], ITEMS)[0]
    assert found.provides == {Kind.RANKS, Kind.SCORES}
    numbers = (np.array([["w", "x"], ["y", "z"]]), np.array([[2.0, 1.0], [3.0, 0.0]]))
    assert matched(teacher(callable=lambda users: numbers), ["a", "b"], ITEMS)[0].provides == found.provides


def test_scores_for_some_users_alone_are_refused(monkeypatch):
    monkeypatch.setattr("recdistill.teachers.callables._AT_ONCE", 2)
    with pytest.raises(DataError, match=r"gives 2 of 3 users scores. Give everybody's lists scores, or"):
        matched(teacher(callable=lambda users: ([["w"]] * 2, [[1.0]] * 2) if len(users) > 1 else [["w"]]), USERS, ITEMS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(1, 7))
def test_the_best_are_those_of_a_stable_sort(rows, k):
    scores = np.float32(rows)
    naive = np.full((len(rows), k), -1)
    naive[:, : min(k, 5)] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert _best(scores, k).tolist() == naive.tolist()


def test_a_callable_ranks_a_target_among_others_at_the_middle_of_its_ties():
    model = Scorer(scored, np.array(USERS, dtype=object), np.array(ITEMS, dtype=object), "it")
    rank = model.ranks_among(np.array([1, -1]), np.array([0, 0]), np.array([[1, 2, -1], [1, 2, 3]]))
    assert rank.tolist() == [2.5, np.inf]  # y scores more, x the same


# files


def test_lists_vectors_and_scores_from_csv_tsv_and_npy(tmp_path):
    frame = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["y", "w", "w"], "score": [3.0, 1.0, 2.0]})
    frame.write_csv(tmp_path / "s.csv")
    frame.write_csv(tmp_path / "s.tsv", separator="\t")
    frame.write_parquet(tmp_path / "s.parquet")
    tables = {"users": IdTable.from_ids(USERS), "items": IdTable.from_ids(ITEMS)}
    prints = {stored(scores=tmp_path / f"s.{kind}", **tables).fingerprint for kind in ("csv", "tsv", "parquet")}
    assert len(prints) == 1
    arrays = {
        "users": np.array(USERS),
        "items": np.array(ITEMS),
        "user_vectors": np.eye(3, 2, dtype=np.float32),
        "item_vectors": np.ones((4, 2), np.float32),
    }
    (tmp_path / "npy").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "npy" / f"{name}.npy", array, allow_pickle=False)
    np.savez(tmp_path / "v.npz", **arrays)
    one, other = (stored(vectors=tmp_path / name, **tables) for name in ("npy", "v.npz"))
    assert one.fingerprint == other.fingerprint
    np.save(tmp_path / "npy" / "users.npy", np.array(["a", 1], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"users\.npy cannot be read as npy.*np\.array\(ids, dtype=str\)"):
        stored(vectors=tmp_path / "npy", **tables)


# what is refused


def test_sources_do_not_mix_and_arguments_belong_to_one():
    with pytest.raises(UsageError, match=r"A teacher comes from files, or from one other place.*'lists', 'callable'"):
        teacher(lists="l.parquet", callable=scored)
    with pytest.raises(UsageError, match=r"The argument 'dataset' does not belong here. Allowed: with rectools"):
        teacher(callable=scored, dataset=object())
    with pytest.raises(UsageError, match=r"A model of implicit knows rows, not ids. teacher\(implicit=model, users="):
        teacher(implicit=SimpleNamespace())
    with pytest.raises(UsageError, match="This has neither factors nor `recommend`; got 'SimpleNamespace'"):
        teacher(implicit=SimpleNamespace(), users=USERS, items=ITEMS)
    with pytest.raises(UsageError, match="A model of RecTools needs its data set"):
        teacher(rectools=SimpleNamespace())
    with pytest.raises(UsageError, match="A checkpoint of RecBole knows rows, not ids"):
        teacher(recbole=BPR)
    with pytest.raises(UsageError, match=r"A teacher from elsewhere needs a source. Allowed: lists, scores"):
        teacher()


def test_a_student_is_distilled_from_each_and_the_coverage_is_printed(capsys):
    said = arrays("recbole")
    log = rd.read(pl.DataFrame({"user": said["log.user"], "item": said["log.item"]}), echo=None)
    train = rd.split(log, "leave-random-out").train
    items = said["items"].tolist()

    def call(users):
        return np.tile(np.arange(len(items)) % 7.0, (len(users), 1))

    for found in (teacher(recbole=BPR, ids=DATASET), teacher(callable=call, items=items)):
        student = rd.distill(found, "mf", train, method="rrd", dim=2, training={"epochs": 1})
        assert student.model.n_items == train.n_items
        assert " of your items (" in capsys.readouterr().out
