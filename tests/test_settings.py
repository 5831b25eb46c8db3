"""Settings: strict, and every message names the key, the value, what is allowed and the nearest match."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

import recdistill
from recdistill.errors import SettingsError
from recdistill.settings import Settings, load, overlay, parse


class Inner(Settings):
    near: int = Field(default=40, ge=1)
    """How many keep their order."""
    kind: Literal["soft", "hard"] = "soft"


class Outer(Settings):
    dir: Path
    """Where it goes."""
    rate: float = Field(default=0.1, gt=0, lt=1)
    names: tuple[str, ...] = ("a",)
    some: tuple[int, ...] = Field(default=(1,), min_length=1)
    sizes: tuple[int, ...] = ()
    size: int | Literal["auto"] = "auto"
    deep: bool = False
    inner: Inner = Inner()
    maybe: Inner | None = None


def message(table: dict, **options) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(Outer, {"dir": "x", **table}, **options)
    return str(caught.value)


def test_what_toml_gives_is_read_strictly_but_paths_and_tuples_are_made():
    read = parse(Outer, {"dir": "x", "names": ["b", "c"], "rate": 0.5, "size": 3, "inner": {"near": 2}})
    assert (read.dir, read.names, read.size, read.inner.near) == (Path("x"), ("b", "c"), 3, 2)


def test_an_unknown_key_names_its_full_path_its_nearest_match_and_the_allowed_keys():
    assert message({"inner": {"naer": 3}}) == (
        "Unknown setting 'inner.naer'. Did you mean 'inner.near'? Allowed: near, kind."
    )


def test_a_table_within_another_is_named_from_the_root():
    assert message({"maybe": {"knd": "soft"}}, at="method").startswith(
        "Unknown setting 'method.maybe.knd'. Did you mean 'method.maybe.kind'?"
    )


def test_keys_that_others_have_read_are_among_the_allowed():
    assert message({"nam": 1}, at="method", also=("name",)).startswith(
        "Unknown setting 'method.nam'. Did you mean 'method.name'? Allowed: dir, "
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"rate": "0.5"}, "The setting 'rate' must be a number, above 0, below 1; got '0.5'."),
        ({"rate": 1.5}, "The setting 'rate' must be a number, above 0, below 1; got 1.5."),
        ({"rate": float("nan")}, "The setting 'rate' must be a number, above 0, below 1; got nan."),
        ({"deep": 1}, "The setting 'deep' must be true or false; got 1."),
        ({"inner": {"near": True}}, "The setting 'inner.near' must be a whole number, at least 1; got True."),
        ({"inner": 3}, "The setting 'inner' must be a table; got 3."),
        ({"names": "a"}, "The setting 'names' must be a list (of each: a text); got 'a'."),
        ({"some": ["x"]}, "The setting 'some[0]' must be a whole number; got 'x'."),
        ({"some": []}, "The setting 'some' must be a list (of each: a whole number), at least 1 of them; got []."),
        ({"sizes": [1, "2"]}, "The setting 'sizes[1]' must be a whole number; got '2'."),
        ({"size": 1.5}, "The setting 'size' must be a whole number or \"auto\"; got 1.5."),
        (
            {"inner": {"kind": "herd"}},
            "The setting 'inner.kind' has no such choice; got 'herd'. Did you mean 'hard'? Allowed: soft, hard.",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(table, said):
    assert message(table) == said


def test_a_missing_key_says_what_it_is():
    with pytest.raises(SettingsError) as caught:
        parse(Outer, {}, at="output")
    assert str(caught.value) == "The setting 'output.dir' is missing. Allowed: a text. Where it goes."


def test_everything_wrong_is_said_at_once():
    assert message({"rate": 2, "inner": {"naer": 3}}).count("\n") == 1


def test_later_assignments_win_over_earlier_ones_and_both_over_the_file():
    table = {"train": {"epochs": 1, "lr": 0.1}}
    assert overlay(table, ["train.epochs=2", "train.epochs=3", "new.table.key=1"]) == {
        "train": {"epochs": 3, "lr": 0.1},
        "new": {"table": {"key": 1}},
    }
    assert table == {"train": {"epochs": 1, "lr": 0.1}}


def test_precedence_is_defaults_then_file_then_assignments(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('dir = "x"\nrate = 0.2\n[inner]\nnear = 7\n')
    read = parse(Outer, overlay(load(file), ["rate=0.3"]))
    assert (read.inner.kind, read.inner.near, read.rate) == ("soft", 7, 0.3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ('"3"', "3"),
        ('["a@1", "b"]', ["a@1", "b"]),
        ("{ near = 2 }", {"near": 2}),
        ("de-rrd", "de-rrd"),
        ("sampled(499)", "sampled(499)"),
        ("runs/a=b", "runs/a=b"),
        ("2020-01-01", "2020-01-01"),
        ("007", "007"),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_an_assigned_value_is_toml_and_a_bare_word_is_a_text(text, value):
    got = overlay({}, [f"a.b={text}"])["a"]["b"]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("epochs", "--set takes key=value; got 'epochs'."),
        ("=3", "--set takes key=value; got '=3'."),
        ("a..b=3", "--set takes key=value; got 'a..b=3'."),
        ("a=[1", "The value of --set a=[1 is not TOML; got '[1'."),
        ("a=", "The value of --set a= is not TOML; got ''."),
        ("x.y.z=1", "--set x.y.z=1: 'x.y' is a value, it has no keys; got 2."),
    ],
)
def test_a_broken_assignment_is_an_error(assignment, said):
    with pytest.raises(SettingsError) as caught:
        overlay({"x": {"y": 2}}, [assignment])
    assert str(caught.value).startswith(said)


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_assignment_breaks_the_reader(key, value):
    with contextlib.suppress(SettingsError):
        overlay({}, [f"{key}={value}"])


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(SettingsError, match=r"Did you mean 'run.toml'\? Write one with `recdistill init`"):
        load(tmp_path / "runn.toml")


def test_a_file_that_is_not_toml_names_line_and_column(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[data]\npath = ratings.csv\n")
    with pytest.raises(SettingsError, match=r"is not TOML: .*line 2, column"):
        load(file)


def every_settings_class() -> list[type[Settings]]:
    for module in pkgutil.walk_packages(recdistill.__path__, "recdistill."):
        importlib.import_module(module.name)
    found: list[type[Settings]] = []
    todo = [Settings]
    while todo:
        below = [c for c in todo.pop().__subclasses__() if c.__module__.startswith("recdistill.")]
        found += below
        todo += below
    return found


def test_every_settings_class_accepts_its_own_defaults():
    checked = 0
    one_of_several = {"Member"}  # model or files: it has no default
    for model in every_settings_class():
        required = any(field.is_required() for field in model.model_fields.values())
        if not required and model.__name__ not in one_of_several:
            given_back = model().model_dump(mode="json", exclude_none=True)
            assert parse(model, given_back) == model(), model
            checked += 1
    assert checked > 3


def test_every_setting_is_documented():
    bare = [
        f"{model.__qualname__}.{name}"
        for model in every_settings_class()
        for name, field in model.model_fields.items()
        if not field.description and not (isinstance(field.annotation, type) and issubclass(field.annotation, Settings))
    ]
    assert bare == []


def test_the_words_of_other_libraries_find_ours():
    from recdistill.recipes.train import TrainSettings

    for theirs, ours in (("learning_rat", "lr"), ("batch_size", "batch"), ("optimizer", "optimiser")):
        with pytest.raises(SettingsError, match=rf"Unknown setting 'train.{theirs}'\. Did you mean 'train.{ours}'\?"):
            parse(TrainSettings, {theirs: 1}, at="train")
    with pytest.raises(SettingsError, match=r"protocol' must be \"full\", or \"sampled\(n\)\" with n at least 1; got"):
        TrainSettings(protocol="sampled(0)")
