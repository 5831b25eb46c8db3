"""External ids in, recommendations out: what is left out, what is left over, and who is answered by what."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.errors import DataError, UsageError
from recdistill.evaluation.ranking import VectorRanker
from recdistill.ids import IdTable
from recdistill.serve import Item, Recommendations, Service

# Users a, b, c; items i0 .. i5. One dimension: user vectors 1, -1, 2; item vectors 0 .. 5.
# So a and c rank i5 i4 i3 i2 i1 i0, with scores 5 4 .. and 10 8 .., and b the other way round, with scores 0 -1 -2 ...
# a has seen i5 and i0, b nothing, c i1 .. i5. Popular: i2, i5, i0.
USERS = IdTable.from_ids(["a", "b", "c"])
ITEMS = IdTable.from_ids([f"i{n}" for n in range(6)])
VECTORS = (np.array([[1], [-1], [2]], np.float32), np.arange(6, dtype=np.float32)[:, None])
SEEN = Csr.from_pairs([0, 0, 2, 2, 2, 2, 2], [5, 0, 1, 2, 3, 4, 5], 3, 6)
POPULAR = np.array([2, 5, 0])


@pytest.fixture
def service() -> Service:
    return Service(VectorRanker(*VECTORS), USERS, ITEMS, SEEN, POPULAR)


def ids(told: Recommendations) -> dict:
    return {user: [item.id for item in items] for user, items in told}


def test_the_best_items_come_first_and_what_was_seen_is_left_out(service: Service):
    told = service.recommend(["a", "b"], k=3)
    assert told.to_dict() == {
        "a": [Item("i4", 4.0), Item("i3", 3.0), Item("i2", 2.0)],
        "b": [Item("i0", 0.0), Item("i1", -1.0), Item("i2", -2.0)],
    }
    assert told.user_id.tolist() == ["a"] * 3 + ["b"] * 3
    assert told.rank.tolist() == [1, 2, 3, 1, 2, 3]
    assert set(told.source) == {"model"}
    assert told.notes == ()
    assert len(told) == 2
    assert told.n_rows == 6


def test_seen_items_stay_when_asked(service: Service):
    assert ids(service.recommend(["a"], 2, filter_seen=False)) == {"a": ["i5", "i4"]}


def test_lists_end_where_the_catalogue_or_what_is_left_of_it_ends(service: Service):
    assert ids(service.recommend(["a", "c"], k=50)) == {"a": ["i4", "i3", "i2", "i1"], "c": ["i0"]}
    assert ids(service.recommend(["c"], k=10**12, exclude=["i0"])) == {"c": []}


def test_unknown_users_get_the_popular_list_and_are_marked(service: Service):
    told = service.recommend(["nobody", "a", 12], k=2)
    assert told.to_dict() == {
        "nobody": [Item("i2", None), Item("i5", None)],
        "a": [Item("i4", 4.0), Item("i3", 3.0)],
        12: [Item("i2", None), Item("i5", None)],
    }
    assert told.source.tolist() == ["popular", "popular", "model", "model", "popular", "popular"]
    assert told.source_of("nobody") == "popular"
    assert told.source_of("a") == "model"
    assert ids(service.recommend(["nobody"], k=9)) == {"nobody": ["i2", "i5", "i0"]}


def test_nobody_asked_nobody_answered(service: Service):
    told = service.recommend([])
    assert len(told) == told.n_rows == 0
    assert list(told) == []
    assert told.to_polars().shape == (0, 5)
    assert told.to_pandas().shape == (0, 5)


def test_a_user_asked_twice_is_answered_twice(service: Service):
    told = service.recommend(["b", "a", "b"], k=1)
    assert [(user, items[0].id) for user, items in told] == [("b", "i0"), ("a", "i4"), ("b", "i0")]


def test_exclude_for_everybody(service: Service):
    told = service.recommend(["a", "b", "new"], 2, exclude=["i4", "i0", "i2", "i4"])
    assert ids(told) == {"a": ["i3", "i1"], "b": ["i1", "i3"], "new": ["i5"]}


def test_exclude_for_single_users(service: Service):
    told = service.recommend(["a", "b", "new"], 2, exclude={"a": ["i4"], "new": ["i2", "i5"]})
    assert ids(told) == {"a": ["i3", "i2"], "b": ["i0", "i1"], "new": ["i0"]}


def test_unknown_items_and_users_in_exclude_and_candidates_are_ignored_and_counted(service: Service):
    told = service.recommend(["a"], 2, exclude={"a": ["i4", "x", "y"], "z": ["i1"]}, candidates=["i4", "i2", "q"])
    assert ids(told) == {"a": ["i2"]}
    assert told.notes == (
        "exclude: 1 of 2 users were not asked for",
        "exclude: 2 of 3 items are not in the catalogue and were ignored",
        "candidates: 1 of 3 items are not in the catalogue and were ignored",
    )


def test_only_candidates_are_recommended(service: Service):
    told = service.recommend(["a", "b", "c", "new"], 3, candidates=["i1", "i4", "i5", "i1"])
    # new: i5 is on the popular list, i1 and i4 follow as given
    assert ids(told) == {"a": ["i4", "i1"], "b": ["i1", "i4", "i5"], "c": [], "new": ["i5", "i1", "i4"]}
    assert told["a"] == [Item("i4", 4.0), Item("i1", 1.0)]
    assert ids(service.recommend(["a", "new"], 3, candidates=[])) == {"a": [], "new": []}
    assert ids(service.recommend(["c"], 3, candidates=["i1", "i4"], filter_seen=False)) == {"c": ["i4", "i1"]}
    assert ids(service.recommend(["c"], 3, candidates=["i1", "i4"], filter_seen=False, exclude=["i4"])) == {"c": ["i1"]}


def test_an_integer_table_is_asked_in_text_as_well():
    service = Service(VectorRanker(*VECTORS), IdTable.from_ids([7, 8, 9]), IdTable.from_ids(range(6)), SEEN, POPULAR)
    told = service.recommend(["7", "08"], 1)
    assert told.to_dict() == {"7": [Item(4, 4.0)], "08": [Item(2, None)]}
    told = service.recommend(np.array([7, 8]), 1, exclude={7: [4], "8": ["0"]})
    assert ids(told) == {7: [3], 8: [1]}
    assert told.user_id.dtype == told.item_id.dtype == np.int64


@pytest.mark.parametrize("k", [0, -1, 2.0, "10", True, None])
def test_a_bad_k_is_an_error(service: Service, k: object):
    with pytest.raises(UsageError, match="'k' must be an integer of at least 1"):
        service.recommend(["a"], k)  # pyright: ignore


def test_a_single_id_is_not_a_sequence(service: Service):
    with pytest.raises(
        UsageError, match=r"'users' must be a sequence of ids; got 'a'. Put a single id into a list: \['a'\]"
    ):
        service.recommend("a")  # pyright: ignore
    with pytest.raises(UsageError, match="'exclude' must be a sequence of ids"):
        service.recommend(["a"], exclude="i1")
    with pytest.raises(DataError, match="neither an integer nor text"):
        service.recommend([1.5])  # pyright: ignore


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("N", "k"),
        ("top_k", "k"),
        ("filter_viewed", "filter_seen"),
        ("filter_already_liked_items", "filter_seen"),
        ("remove_seen", "filter_seen"),
        ("items_to_recommend", "candidates"),
        ("filter_items", "exclude"),
        ("exlude", "exclude"),
    ],
)
def test_other_libraries_names_are_answered_with_ours(service: Service, theirs: str, ours: str):
    with pytest.raises(UsageError, match=f"'recommend' has no argument '{theirs}'. Did you mean '{ours}'"):
        service.recommend(["a"], **{theirs: 5})  # pyright: ignore


def test_parts_that_do_not_belong_together_are_refused():
    with pytest.raises(
        UsageError, match=r"The ranker is of another size than the ids .*; got \(3, 6\). Allowed: \(3, 2\)"
    ):
        Service(VectorRanker(*VECTORS), USERS, IdTable.from_ids([1, 2]), SEEN, POPULAR)
    with pytest.raises(UsageError, match="The table of what was seen is of another size"):
        Service(VectorRanker(*VECTORS), USERS, ITEMS, Csr.empty(2, 6), POPULAR)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_answer_equals_that_of_a_dense_twin(data: st.DataObject):
    n_users, n_items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    small = st.integers(-3, 3)  # ties on purpose
    user = np.array(data.draw(st.lists(small, min_size=n_users, max_size=n_users)), np.float32)[:, None]
    item = np.array(data.draw(st.lists(small, min_size=n_items, max_size=n_items)), np.float32)[:, None]
    seen = np.array(data.draw(st.lists(st.booleans(), min_size=n_users * n_items, max_size=n_users * n_items)))
    seen = seen.reshape(n_users, n_items)
    popular = data.draw(st.permutations(range(n_items)))[: data.draw(st.integers(0, n_items))]
    service = Service(
        VectorRanker(user, item),
        IdTable.from_ids(range(n_users)),
        IdTable.from_ids(range(n_items)),
        Csr.from_pairs(*np.nonzero(seen), n_users, n_items),
        np.array(popular, np.int64),
    )
    asked = data.draw(st.lists(st.integers(0, n_users), max_size=4))  # n_users is nobody
    some = st.lists(st.integers(0, n_items - 1), max_size=4)
    per_user = data.draw(st.dictionaries(st.integers(0, n_users), some, max_size=3) | st.none() | some)
    only = data.draw(st.none() | some)
    k, filter_seen = data.draw(st.integers(1, 10)), data.draw(st.booleans())

    told = service.recommend(asked, k, filter_seen=filter_seen, exclude=per_user, candidates=only)
    assert len(told) == len(asked)
    for user_id, items in told:
        gone = set(per_user.get(user_id, [])) if isinstance(per_user, dict) else set(per_user or [])
        allowed = [i for i in range(n_items) if i not in gone and (only is None or i in only)]
        if user_id < n_users:
            allowed = [i for i in allowed if not (filter_seen and seen[user_id, i])]
            expected = sorted(allowed, key=lambda i: (-user[user_id, 0] * item[i, 0], i))[:k]
            assert [i.score for i in items] == [float(user[user_id, 0] * item[i, 0]) for i in expected]
        else:
            order = [*popular, *([] if only is None else [i for i in dict.fromkeys(only) if i not in popular])]
            expected = [i for i in order if i in allowed][:k]
            assert all(i.score is None for i in items)
        assert [i.id for i in items] == expected


def test_frames_and_tables(service: Service):
    told = service.recommend(["a", "new", "c"], 2, exclude=["i0", "i9"])
    frame = told.to_polars()
    assert frame.columns == ["user_id", "item_id", "rank", "score", "source"]
    assert frame.rows() == [
        ("a", "i4", 1, 4.0, "model"),
        ("a", "i3", 2, 3.0, "model"),
        ("new", "i2", 1, None, "popular"),
        ("new", "i5", 2, None, "popular"),
    ]
    assert told.to_pandas()["rank"].tolist() == [1, 2, 1, 2]
    assert service.recommend(["a", 12], 1).to_polars()["user_id"].to_list() == ["a", "12"]
    assert repr(told) == "Recommendations(3 users, 4 items, 1 users with the popular list)"
    assert json.loads(json.dumps(told.to_dict()))["new"] == [["i2", None], ["i5", None]]
    console = Console(file=io.StringIO(), width=80)
    console.print(told)
    shown = console.file.getvalue()  # pyright: ignore
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["user", "rank", "item", "score", "source"]
    assert lines[1] == ["a", "1", "i4", "4.0000", "model"]
    assert lines[4] == ["2", "i5", "popular"]
    assert "nothing for 1 of 3 users: c" in shown
    assert "exclude: 1 of 2 items are not in the catalogue and were ignored" in shown
    with pytest.raises(UsageError, match="This user was not asked for; got 'zoe'"):
        told["zoe"]


def test_markup_in_an_id_is_printed_as_it_is():
    service = Service(
        VectorRanker(*VECTORS), USERS, IdTable.from_ids([f"[bold]{n}[/x]" for n in range(6)]), SEEN, POPULAR
    )
    console = Console(file=io.StringIO(), width=80)
    console.print(service.recommend(["a"], 1))
    assert "[bold]4[/x]" in console.file.getvalue()  # pyright: ignore


def test_a_long_answer_is_cut_when_printed():
    service = Service(VectorRanker(np.ones((1, 1), "f"), np.ones((40, 1), "f")), IdTable.from_ids(["u"]),
                      IdTable.from_ids(range(40)), Csr.empty(1, 40), np.arange(3))  # fmt: skip
    console = Console(file=io.StringIO(), width=80)
    console.print(service.recommend(["u"], 30))
    assert "... and 10 rows more" in console.file.getvalue()  # pyright: ignore


def saved(path: Path, n_users: int = 3, n_items: int = 6) -> Path:
    chance = np.random.default_rng(0)
    big = n_users > 3
    bundle.save(
        path,
        kind="vectors",
        arrays={
            "user": chance.normal(size=(n_users, 4)).astype(np.float32) if big else VECTORS[0],
            "item": chance.normal(size=(n_items, 4)).astype(np.float32) if big else VECTORS[1],
        },
        users=IdTable.from_ids([f"user{n}" for n in range(n_users)]) if big else USERS,
        items=IdTable.from_ids([f"item{n}" for n in range(n_items)]) if big else ITEMS,
        seen=Csr.from_pairs(np.arange(n_users), np.arange(n_users) % n_items, n_users, n_items) if big else SEEN,
        popular=POPULAR,
        model="mf",
        settings={},
        lineage={},
        metrics={},
        citations=[],
    )
    return path


def test_a_bundle_is_served_without_torch_and_without_polars(tmp_path: Path):
    path = saved(tmp_path / "b")
    code = f"""
        import sys
        class Closed:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "polars", "pandas", "pyarrow"):
                    raise ImportError(name)
        sys.meta_path.insert(0, Closed())
        from pathlib import Path
        from recdistill.serve import Service
        told = Service.from_bundle(Path({str(path)!r}), verify="full").recommend(["a", "zoe"], k=2)
        print([[item.id for item in items] for _, items in told])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout == "[['i4', 'i3'], ['i2', 'i5']]\n", done.stderr


def test_one_request_allocates_nothing_of_the_size_of_the_id_tables(tmp_path: Path):
    n = 100_000
    service = Service.from_bundle(saved(tmp_path / "b", n_users=n, n_items=50), threads=1)
    service.recommend(["user3"])
    tracemalloc.start()
    service.recommend(["user99999", "nobody"], 10, candidates=[f"item{i}" for i in range(20)], exclude=["item3"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000, f"{peak:,} bytes; the ids of the users alone have {n * 9:,}"


def test_everybody_s_lists_are_written_in_chunks(tmp_path: Path):
    service = Service.from_bundle(saved(tmp_path / "b", n_users=100, n_items=30))
    out = tmp_path / "made" / "lists.parquet"
    rows = service.recommend_all(out, 5, chunk=7)
    frame = pl.read_parquet(out)
    assert frame.schema == {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int32, "score": pl.Float32}
    told = service.recommend([f"user{n}" for n in range(100)], 5)
    assert frame.equals(told.to_polars().drop("source"))
    assert rows == len(frame) == 500
    assert [p.name for p in out.parent.iterdir()] == ["lists.parquet"]
    assert service.recommend_all(out, 2, candidates=["item3", "item4", "no"], exclude=["item4"]) == 100 - 4
    assert set(pl.read_parquet(out)["item_id"]) == {"item3"}


def test_a_batch_job_that_fails_leaves_the_old_file(tmp_path: Path, service: Service):
    out = tmp_path / "lists.parquet"
    service.recommend_all(out, 2)
    before = out.read_bytes()

    class Failing(VectorRanker):
        def top_k(self, queries, k, exclude=None):
            raise DataError("a vector is not finite")

    with pytest.raises(DataError, match="a vector is not finite"):
        Service(Failing(*VECTORS), USERS, ITEMS, SEEN, POPULAR).recommend_all(out, 2)
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["lists.parquet"]
    with pytest.raises(UsageError, match="'recommend' has no argument 'N'"):
        service.recommend_all(out, N=2)  # pyright: ignore


def test_the_page_on_bundles_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = Path(__file__).parents[2] / "docs" / "bundle.md"
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(code) == 4
    exec("\n".join(code), {})  # noqa: S102 - our own page
