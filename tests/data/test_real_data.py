"""Logs people use: counts as their sources state them, filters and splits on the whole of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recdistill.data.candidates import draw
from recdistill.data.sources import read
from recdistill.data.split import split

pytestmark = pytest.mark.data


def cold(parts, held):
    return int((~np.isin(held.targets.indices, parts.train.item)).sum())


def test_citeulike_as_de_rrd_split_it(data_dir):
    parts = split(read(data_dir("citeulike_derrd"), echo=None), "given")
    assert (parts.train.n_users, parts.train.n_items) == (5219, 25181)
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (115_142, 5219, 5219)
    assert parts.train.users.external([0, 5218]).tolist() == [0, 5218]
    assert parts.train.items.external([0, 25180]).tolist() == [0, 25180]
    assert parts.test.targets.degrees.tolist() == [1] * 5219
    assert (cold(parts, parts.valid), cold(parts, parts.test)) == (257, 258)
    assert parts.notes[1:] == (
        "257 valid targets are items that never occur in train",
        "258 test targets are items that never occur in train",
    )
    drawn = draw(parts)
    assert drawn.items.min() >= 0
    owned = parts.test.seen.union(parts.test.targets)
    assert not owned.contains(np.arange(5219)[:, None], drawn.items.astype(np.int64)).any()
    assert (np.diff(np.sort(drawn.items, axis=1), axis=1) > 0).all()


def test_movielens_small_with_times_and_ratings(data_dir, tmp_path):
    log = read(data_dir("ml_latest_small"), echo=None)
    assert (len(log), log.n_users, log.n_items) == (100_004, 671, 9066)
    assert log.describe().endswith("1995-01-09 to 2016-10-16; weights 0.5 to 5")
    parts = split(log)
    assert (len(parts.valid), len(parts.test)) == (671, 671)
    last = np.full(log.n_users, -1, np.int64)
    np.maximum.at(last, log.user, log.timestamp)
    when = {(u, i): t for u, i, t in zip(log.user.tolist(), log.item.tolist(), log.timestamp.tolist(), strict=True)}
    for user, item in zip(parts.test.queries.tolist(), parts.test.targets.indices.tolist(), strict=True):
        assert when[user, item] == last[user]
    core = log.at_least(4).k_core(users=10, items=10)
    assert core.csr().degrees.min() >= 10
    assert core.csr().transposed().degrees.min() >= 10
    frame = pl.read_parquet(data_dir("ml_latest_small") / "interactions.parquet")
    frame.write_csv(tmp_path / "ratings.csv")
    frame.write_ndjson(tmp_path / "log.jsonl")
    for name in ("ratings.csv", "log.jsonl"):
        again = read(tmp_path / name, echo=None)
        assert again.users == log.users
        assert again.items == log.items
        for column in ("user", "item", "timestamp", "weight"):
            assert np.array_equal(getattr(again, column), getattr(log, column))


def test_lastfm_without_a_valid_part(data_dir):
    parts = split(read(data_dir("lastfm_lightgcn"), echo=None), "given")
    assert (parts.train.n_users, parts.train.n_items) == (1880, 4489)
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (42_135, 0, 10_533)
    assert len(parts.valid.queries) == 0
    assert parts.train.weight.max() == 324_660


def test_gowalla_of_a_million_rows(data_dir):
    log = read(data_dir("gowalla_lightgcn"), echo=None)
    parts = split(log, "given")
    assert (len(log), log.n_users, log.n_items) == (1_027_370, 29_858, 40_981)
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (719_081, 91_047, 217_242)


def test_lastfm_from_lines_of_users(data_dir, tmp_path):
    folder = data_dir("lastfm_lightgcn")
    log = read(folder, echo=None)
    parts = split(log, "given")
    frame = pl.read_parquet(folder / "interactions.parquet").with_columns(pl.col("split").cast(pl.String))
    for name in ("train", "test"):
        lists = frame.filter(pl.col("split") == name).group_by("user_id", maintain_order=True).agg("item_id")
        rows = zip(lists["user_id"].to_list(), lists["item_id"].to_list(), strict=True)
        text = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in rows)
        (tmp_path / f"{name}.txt").write_text(text)
    again = split(read(tmp_path, echo=None), "given")
    assert again.train.users == log.users
    for one, two in ((parts.train.csr(), again.train.csr()), (parts.test.targets, again.test.targets)):
        assert np.array_equal(one.keys, two.keys)


@pytest.mark.parametrize(
    ("name", "rows", "users", "items"),
    [
        ("citeulike_a", 204_986, 5551, 16_980),
        ("citeulike_t", 134_860, 7947, 25_584),
        ("ml_100k", 100_000, 943, 1682),
        ("retailrocket", 97_381, 2174, 29_905),
        ("foursquare_checkins", 185_871, 4969, 8000),
        ("amazon_beauty", 198_502, 22_363, 12_101),
    ],
)
def test_every_log_is_read_as_its_source_counts_it(data_dir, name, rows, users, items):
    log = read(data_dir(name), echo=None)
    assert (len(log), log.n_users, log.n_items) == (rows, users, items)
    parts = split(log.deduplicated(), "leave-random-out")
    assert not np.isin(parts.test.targets.keys, parts.test.seen.keys).any()
