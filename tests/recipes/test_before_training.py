"""What is said, or refused, before a training begins; Python and run files alike."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import recdistill as rd
from recdistill.data.synthetic import planted
from recdistill.errors import SettingsError, TrainingError, UsageError
from recdistill.recipes.runfile import RunSettings, resolve
from recdistill.search.settings import SearchSettings
from recdistill.settings import parse

ONCE = {"epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def parts():
    return rd.split(planted(users=40, items=30, interactions=500, dim=3, seed=3))


@pytest.mark.parametrize("loss", ["bpr", "bce", "softmax", "sampled-softmax"])
def test_a_loss_that_compares_with_sampled_items_needs_negatives(loss):
    said = rf"negatives': the loss '{loss}' compares what was seen with sampled items and needs at least 1.*; got 0"
    with pytest.raises(SettingsError, match=said):
        rd.TrainSettings(negatives=0, loss=loss)
    run = {"data": {"path": "x"}, "student": {"model": "mf"}, "method": {"name": "plain"}, "output": {"dir": "y"}}
    with pytest.raises(SettingsError, match=f"The setting 'train.{said}"):
        resolve(parse(RunSettings, run | {"train": {"negatives": 0, "loss": loss}}))
    with pytest.raises(SettingsError, match="negatives': the loss"):
        SearchSettings(loss=loss)


def test_a_loss_over_the_whole_catalogue_needs_none():
    assert rd.TrainSettings(negatives=0, loss="cross-entropy").negatives == 0
    assert SearchSettings().negatives == 0


def test_no_epoch_at_all_is_said_once(parts):
    said: list[str] = []
    trained = rd.fit("mf", parts.train, dim=2, training={"epochs": 0, "device": "cpu"}, echo=said.append)
    assert said == ["Nothing is trained: epochs = 0, so the model stays as it was initialised"] == [*trained.notes]


def test_a_misspelt_setting_in_python_reads_as_in_a_run_file():
    with pytest.raises(SettingsError, match=r"Unknown setting 'epoch'\. Did you mean 'epochs'\?"):
        rd.TrainSettings(epoch=4)
    with pytest.raises(SettingsError, match=r"The setting 'lr' must be a number, above 0; got -1"):
        rd.TrainSettings(lr=-1)


def test_settings_of_training_may_be_a_mapping(parts):
    assert rd.fit("mf", parts.train, dim=2, training=ONCE).settings["train"]["epochs"] == 1
    with pytest.raises(SettingsError, match=r"Unknown setting 'training.epoch'\. Did you mean 'training.epochs'\?"):
        rd.fit("mf", parts.train, dim=2, training={"epoch": 1})
    with pytest.raises(UsageError, match=r"'training' takes a mapping of settings; got 'int'.*\{'epochs': 50\}"):
        rd.fit("mf", parts.train, dim=2, training=3)


def test_a_width_said_twice_is_said_alike(parts):
    with pytest.raises(UsageError, match=r"The width is said twice: dim=3 and settings \{'dim': 6\}"):
        rd.fit("mf", parts.train, dim=3, settings={"dim": 6}, training=ONCE)
    assert rd.fit("mf", parts.train, dim=3, settings={"dim": 3}, training=ONCE).settings["model"]["dim"] == 3


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, None, True, "7"])
def test_a_seed_is_a_whole_number_below_2_to_the_63(parts, seed):
    for use in (
        lambda: rd.fit("mf", parts.train, dim=2, seed=seed, training=ONCE),
        lambda: rd.split(planted(users=10, items=10, interactions=50, dim=2), "leave-random-out", seed=seed),
    ):
        with pytest.raises(UsageError, match=r"The seed must be a whole number from 0 to 2\*\*63 - 1"):
            use()


def test_a_seed_of_numpy_is_the_number_it_holds(parts):
    assert rd.fit("mf", parts.train, dim=2, seed=np.int64(3), training=ONCE).settings["seed"] == 3


def test_a_width_beyond_memory_names_the_bytes(parts):
    with pytest.raises(UsageError, match=r"dim 100000000000 for 30 items does not fit.*take 12,000,000,000,000 bytes"):
        rd.fit("mf", parts.train, dim=100_000_000_000, training=ONCE)


def test_a_checkpoint_may_be_a_text(parts, tmp_path):
    rd.fit("mf", parts.train, dim=2, training=ONCE, checkpoint=str(tmp_path / "c.safetensors"))
    assert (tmp_path / "c.safetensors").exists()


# users who have everything


def everything(extra: int = 1):
    """`all0` .. have all 6 items, a and b some."""
    rows = [(f"all{u}", f"i{i}") for u in range(extra) for i in range(6)]
    rows += [(u, f"i{i}") for u in ("a", "b") for i in range(3)]
    return rd.read(pl.DataFrame(rows, schema=["user", "item"], orient="row"), echo=None)


@pytest.mark.parametrize("model", ["mf", "gru4rec"])
def test_a_user_with_every_item_is_left_out_of_the_batches_and_named(model):
    said: list[str] = []
    trained = rd.fit(model, everything(), dim=2, training=ONCE, echo=said.append)
    assert said == ["1 user has every item ('all0') and nothing to compare with: trained without their rows"]
    assert trained.report.history[0].losses["base"] > 0


def test_a_log_in_which_all_have_everything_teaches_nothing():
    log = rd.read({"user": ["a", "a", "b", "b"], "item": [1, 2, 1, 2]}, echo=None)
    with pytest.raises(TrainingError, match="Every user has all 2 items, so there is nothing to compare with"):
        rd.fit("mf", log, dim=2, training=ONCE)


# who knew the answers


def test_a_teacher_that_was_trained_on_held_out_data_is_warned_of():
    log = planted(users=40, items=30, interactions=500, dim=3, seed=3)
    parts, said = rd.split(log), []
    teacher = rd.fit("mf", log, dim=4, training=ONCE)
    student = rd.distill(
        teacher, "mf", parts.train, method="rrd", dim=2, valid=parts.valid, training=ONCE, echo=said.append
    )
    n = len(parts.valid)
    assert said[0].startswith(f"Warning: the teacher was trained on {n} of the {n} valid targets, so its figures")
    notes = rd.compare({"teacher": teacher, "student": student}, parts.test, latency=False).notes
    assert [note.partition(" was trained")[0] for note in notes] == [
        "Warning: the system 'teacher'",
        "Warning: the teacher of the system 'student'",
    ]
    clean = rd.fit("mf", parts.train, dim=4, valid=parts.valid, training=ONCE)
    assert clean.notes == () == rd.compare({"clean": clean}, parts.test, latency=False).notes


def test_a_teachers_bundle_and_lists_are_looked_at_too(tmp_path):
    log = planted(users=60, items=50, interactions=900, dim=3, seed=3)
    parts = rd.split(log)
    rd.fit("mf", log, dim=4, training=ONCE).save(tmp_path / "b")
    test = parts.test
    user = np.repeat(np.arange(log.n_users), test.targets.degrees)
    lists = tmp_path / "lists.parquet"
    ids = {"user_id": list(log.users.external(user)), "item_id": list(log.items.external(test.targets.indices))}
    pl.DataFrame(ids | {"score": 1.0}).write_parquet(lists)
    said: list[str] = []
    taught = {"training": ONCE, "echo": said.append}
    by_bundle = rd.distill(
        rd.teacher(bundle=tmp_path / "b"), "mf", parts.train, method="rrd", valid=parts.valid, **taught
    )
    assert "the teacher's bundle was trained on" in " ".join(said)
    by_lists = rd.distill(rd.teacher(lists=lists), "mf", parts.train, method="rrd", **taught)
    first, second = rd.compare({"bundle": by_bundle, "lists": by_lists}, test, latency=False).notes
    assert "bundle was trained on" in first
    assert "begins with the test target for" in second


# few items to rank among


def test_candidates_that_run_out_are_said_with_the_figures(parts):
    from recdistill.data.candidates import draw

    model = rd.fit("mf", parts.train, dim=2, training=ONCE)
    few, many = draw(parts, 5), draw(parts, 29)
    assert rd.evaluate(model, parts.test, protocol="sampled(5)", candidates=few).notes == ()
    found = rd.evaluate(model, parts.test, protocol="sampled(29)", candidates=many)
    assert found.protocol == "sampled(29)"
    assert found.notes[0].startswith(
        f"sampled(29): {len(parts.test.queries)} of {len(parts.test.queries)} users have fewer"
    )
    assert rd.Evaluation.from_json(found.to_json()).notes == found.notes
    told = rd.compare({"a": model}, parts.test, protocol="sampled(29)", candidates=many, latency=False)
    assert told.notes == found.notes
    assert "have fewer free items" in repr(told)
