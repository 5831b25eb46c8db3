"""Compact tables: what a row stands for, and that it is searched as exactly as float32."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.errors import DataError
from recdistill.evaluation.tables import _widened, longest, quantised, taken
from recdistill.evaluation.topk import Shown
from recdistill.evaluation.vectors import VectorRanker


def vectors(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_int8_keeps_the_greatest_of_a_row_and_rounds_the_others_to_its_127th():
    values, scale = quantised(np.array([[1.27, -0.634, 0.0], [0, 0, 0], [-254, 1, 3]], np.float32))
    assert values.tolist() == [[127, -63, 0], [0, 0, 0], [-127, 0, 2]]  # -63.4, and 1 / 2 and 3 / 2 to even
    assert scale.tolist() == pytest.approx([0.01, 0.0, 2.0])
    assert taken(values, scale, np.array([2]))[0].tolist() == [-254, 0, 4]


def test_int8_is_off_by_at_most_half_a_step():
    table = vectors(50, 7)
    values, scale = quantised(table)
    assert (np.abs(taken(values, scale, slice(None)) - table) <= 0.5001 * scale[:, None]).all()


def test_a_table_that_is_not_finite_is_not_quantised():
    with pytest.raises(DataError, match="not finite"):
        quantised(np.array([[np.nan, 1]], np.float32))


def test_every_finite_float16_becomes_its_float32():
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    halves = bits.view(np.float16)
    bits = bits[np.isfinite(halves)]
    out = np.empty(len(bits), np.float32)
    _widened(bits, out)
    assert np.array_equal(out, bits.view(np.float16).astype(np.float32))


@pytest.mark.parametrize(("n", "d", "q"), [(1, 1, 1), (63, 3, 5), (700, 20, 3), (1300, 33, 40), (90, 300, 2)])
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_compact_table_answers_as_the_float32_table_it_stands_for(precision, n, d, q):
    user, item = vectors(q, d, 1), vectors(n, d)
    if precision == "int8":
        (user, user_scale), (item, item_scale) = quantised(user), quantised(item)
        compact = VectorRanker(user, item, user_scale=user_scale, item_scale=item_scale)
        plain = VectorRanker(taken(user, user_scale, slice(None)), taken(item, item_scale, slice(None)))
    else:
        user, item = user.astype(np.float16), item.astype(np.float16)
        compact, plain = VectorRanker(user, item), VectorRanker(user.astype(np.float32), item.astype(np.float32))
    rows = np.arange(q)
    gone = Csr.from_pairs(rows, rows % n, q, n)
    shown = Shown(np.arange(n) % 3 != 1)
    assert np.array_equal(compact.top_k(rows, 12), plain.top_k(rows, 12))
    assert np.array_equal(compact.top_k(rows, 5, gone, shown=shown), plain.top_k(rows, 5, gone, shown=shown))
    every = np.broadcast_to(np.arange(n), (q, n))
    assert np.array_equal(compact.scores_of(rows, every), plain.scores_of(rows, every))
    others = np.broadcast_to(np.arange(1, n), (q, n - 1))
    target = np.zeros(q, np.int64)
    assert np.array_equal(compact.ranks_among(rows, target, others), plain.ranks_among(rows, target, others))


def test_int8_without_scales_and_scales_without_int8_are_refused():
    item, scale = quantised(vectors(4, 3))
    with pytest.raises(DataError, match="item vectors must be floats, or int8 with one scale a row; got 'int8, scales"):
        VectorRanker(vectors(2, 3), item)
    with pytest.raises(DataError, match="user vectors must be floats"):
        VectorRanker(vectors(4, 3), item, item_scale=scale, user_scale=scale)
    with pytest.raises(DataError, match=r"int8, scales \(3,\)"):
        VectorRanker(vectors(2, 3), item, item_scale=scale[:3])


def test_the_longest_vector_is_found_among_all_or_some():
    table = np.array([[3, 4], [0, 1], [0, 0]], np.float32)
    assert longest(table, None, "item", None) == 5
    assert longest(table, None, "item", np.array([1, 2])) == 1
    table[2, 1] = np.inf
    with pytest.raises(DataError, match="The vector of item row 2 is not made of finite numbers"):
        longest(table, None, "item", None)
