"""Several files as one teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.csr import Csr
from recdistill.errors import MissingKnowledge, UsageError
from recdistill.ids import IdTable
from recdistill.knowledge.view import Kind
from recdistill.query import Query
from recdistill.teachers.joined import Joined, joined
from recdistill.teachers.stored import stored

OURS = {"users": IdTable.from_ids(["a", "b", "c"]), "items": IdTable.from_ids(["w", "x"]), "seen": Csr.empty(3, 2)}


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    path = tmp_path / "l.parquet"
    pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "x"]}).write_parquet(path)
    return path


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "v.npz"
    ids = {"users": np.array(["b", "c"]), "items": np.array(["w", "x"])}
    np.savez(path, **ids, user_vectors=np.float32([[2], [3]]), item_vectors=np.float32([[5], [1]]))
    return path


def test_each_kind_comes_from_the_first_that_provides_it(lists: Path, vectors: Path):
    known = stored(lists=lists, vectors=vectors, **OURS)
    assert isinstance(known, Joined)
    assert known.provides == {Kind.RANKS, Kind.SCORES, Kind.VECTORS}
    view = known.view(Query(torch.tensor([0, 1, 2])))
    assert view.ranked(2).tolist() == [[1, -1], [1, -1], [-1, -1]]  # the lists say x; by the vectors w would be first
    assert view.scores(torch.tensor([[0], [0], [1]]))[1:].tolist() == [[10], [3]]
    assert view.scores_among(torch.tensor([1]))[1:].tolist() == [[2], [3]]
    assert view.entities("item", torch.tensor([0])).tolist() == [[5]]
    swapped = joined(stored(vectors=vectors, **OURS))
    assert swapped.view(Query(torch.tensor([1]))).ranked(2).tolist() == [[0, 1]]


def test_a_query_is_known_when_all_that_are_asked_know_it(lists: Path, vectors: Path):
    view = stored(lists=lists, vectors=vectors, **OURS).view(Query(torch.tensor([0, 1, 2, -1])))
    assert view.known().tolist() == [False, True, False, False]
    part = view.select(torch.tensor([1, 2]))
    assert part.known().tolist() == [True, False]
    assert part.ranked(1).tolist() == [[1], [-1]]
    assert part.scores(torch.tensor([[0], [0]])).tolist() == [[10], [15]]


def test_reports_and_fingerprints_are_those_of_the_parts(lists: Path, vectors: Path):
    known = stored(lists=lists, vectors=vectors, **OURS)
    assert isinstance(known, Joined)
    assert [line.split(" knows ")[0] for line in str(known.coverage).splitlines()] == [
        "the teacher lists 'l.parquet'",
        "the teacher vectors 'v.npz'",
    ]
    assert known.fingerprint == joined(*known.teachers).fingerprint
    assert known.fingerprint != joined(known.teachers[1]).fingerprint


def test_what_nobody_provides_is_missing(lists: Path, vectors: Path):
    view = joined(stored(lists=lists, **OURS)).view(Query(torch.tensor([0])))
    with pytest.raises(MissingKnowledge, match=r"the teacher lists 'l.parquet' cannot give vectors"):
        view.entities("user", torch.tensor([0]))
    view = stored(lists=lists, vectors=vectors, **OURS).view(Query(torch.tensor([0])))
    with pytest.raises(MissingKnowledge, match=r"'l.parquet' with the teacher vectors 'v.npz' cannot give states"):
        view.states()


def test_a_teacher_that_adds_nothing_is_refused(lists: Path, vectors: Path):
    with pytest.raises(UsageError, match="Teacher 2 of 2 provides ranks, which those before it provide already"):
        joined(stored(vectors=vectors, **OURS), stored(lists=lists, **OURS))
    with pytest.raises(UsageError, match="Joining needs at least one teacher"):
        joined()
