"""Run files that a command writes are read as what was written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import UsageError
from recdistill.recipes.tomltext import as_toml

LEAF = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")),
)  # fmt: skip
KEY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), min_size=1, max_size=8)
VALUE = st.recursive(
    LEAF,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEY, inner, min_size=1, max_size=3)),
    max_leaves=4,
)


@settings(max_examples=40)
@given(st.dictionaries(KEY, st.dictionaries(KEY, VALUE, min_size=1), min_size=1, max_size=3))
def test_what_is_written_is_read_again(tables):
    assert tomllib.loads(as_toml(tables)) == tables


def test_tables_stand_in_their_order_without_what_is_nothing():
    train, method = {"lr": 0.001, "every": None, "of": {}}, {"name": "rrd", "de": {"weight": 1e-05}}
    text = as_toml({"train": train, "method": method})
    assert text == '[train]\nlr = 0.001\n\n[method]\nname = "rrd"\nde = { weight = 1e-05 }\n'


def test_what_toml_does_not_have_is_refused():
    with pytest.raises(UsageError, match="TOML has no such value"):
        as_toml({"a": {"b": object()}})
