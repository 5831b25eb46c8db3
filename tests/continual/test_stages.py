"""The three stages: what they learn, that they resume bit for bit, and both clocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.continual import stages
from recdistill.continual.ensemble import EnsembleRanker, lists_of
from recdistill.continual.learning import Run
from recdistill.continual.plain import base, popularity, together
from recdistill.continual.proxies import remembered
from recdistill.continual.settings import ModelSpec, over
from recdistill.continual.stages import Sources, believed, distil, falling, remembering, replayed, update_student
from recdistill.continual.teaching import update_teacher
from recdistill.data.blocks import halves
from recdistill.training import trainer

NAMES = ("mf", "lightgcn", "vae")


def spec(name, dim=4):
    return ModelSpec(name=name, dim=dim, layers=1, init_std=0.1)


@pytest.fixture
def begun(stream, settings):
    """Teacher, lists, distilled student and proxy after block 0."""
    teacher = base(stream[0], settings.teachers[0], settings.base, run=Run(1)).snapshot
    lists = lists_of(EnsembleRanker([remembered(teacher)]), stream[0].train.csr(), 5)
    student = distil(stream[0], spec("mf"), lists, settings.distil, run=Run(2)).snapshot
    return teacher, lists, student


def killed_after(monkeypatch, saves):
    """Raise at the n-th checkpoint."""
    left = [saves]
    real = trainer.checkpoint.save

    def save(*args, **kwargs):
        real(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.checkpoint, "save", save)


def resumed(monkeypatch, tmp_path, stage, at):
    """The digest of a stage that is killed after `at` steps and started again."""
    path = tmp_path / "running"
    with monkeypatch.context() as patch:
        killed_after(patch, at)
        original = trainer.Keep

        def keep(path, run):
            return original(path, run, seconds=-1.0)

        patch.setattr("recdistill.continual.learning.Keep", keep)
        with pytest.raises(KeyboardInterrupt):
            stage(Run(7, path, "stage"))
    return stage(Run(7, path, "stage")).snapshot.digest


@pytest.mark.parametrize("name", ["mf", "lightgcn"])
@pytest.mark.parametrize("passes", ["batch", "epoch"])
def test_a_student_takes_after_the_lists(stream, settings, begun, name, passes):
    _, lists, _ = begun
    c = over(
        settings,
        {"distil": {"passes": passes, "weight": 1.0, "item_weight": 1.0, "training": {"epochs": 15, "patience": 20}}},
    ).distil
    learned = distil(stream[0], spec(name), lists, c, run=Run(2))
    plain = base(stream[0], spec(name), settings.plain, run=Run(2)).snapshot

    def agreement(snapshot):  # of five
        top = snapshot.ranker().top_k(np.arange(24), 5, stream[0].train.csr())
        return np.mean([len(set(a) & set(b)) for a, b in zip(top.tolist(), lists.items.tolist(), strict=True)])

    assert agreement(learned.snapshot) > agreement(plain)
    first, last = learned.report.history[0].losses, learned.report.history[-1].losses
    names = {"users.user_lists" if passes == "epoch" else "train.user_lists", "items.item_lists"}
    assert names <= set(first)
    assert all(last[each] < first[each] for each in names)


def test_every_stage_resumes_to_the_same_bytes(monkeypatch, tmp_path, stream, settings, begun):
    teacher, lists, student = begun
    sources = Sources(stability=student, student=student)
    graph = stream[0].train.csr()
    stages = {
        "distil": lambda run: distil(stream[0], spec("mf"), lists, settings.distil, run=run),
        "student": lambda run: update_student(stream[1], graph, student, sources, settings.update, run=run),
        "teacher": lambda run: update_teacher(stream[1], graph, teacher, sources, settings.teach, run=run),
    }
    vae = base(stream[0], spec("vae"), settings.base, run=Run(1)).snapshot
    stages["vae"] = lambda run: update_teacher(stream[1], graph, vae, sources, settings.teach, run=run)
    for name, stage in stages.items():
        whole = stage(Run(7)).snapshot.digest
        assert stage(Run(7)).snapshot.digest == whole, "the same inputs, the same bytes"
        for at in (1, 4):
            folder = tmp_path / f"{name}{at}"
            folder.mkdir()
            assert resumed(monkeypatch, folder, stage, at) == whole, (name, at)


def test_a_student_is_updated_several_times_inside_a_block(stream, settings, begun):
    _, _, student = begun
    sources = Sources(stability=student, student=student)
    now, seen = student, []
    parts = halves(stream[1], 3)
    for n, part in enumerate(parts):
        now = update_student(
            stream[1], stream[0].train.csr(), now, sources, settings.update, part=part, run=Run(10 + n)
        ).snapshot
        assert (now.n_users, now.n_items) == (stream[1].n_users, stream[1].n_items)
        seen.append(now.met_users.sum())
    assert seen[0] <= seen[1] <= seen[2] == 32
    assert len({each.digest for each in (student, now)}) == 2
    assert sum(len(part) for part in parts) == len(stream[1].train)


@pytest.mark.parametrize("name", NAMES)
def test_every_teacher_learns_with_and_without_the_students_side(stream, settings, begun, name):
    _, _, student = begun
    c = over(settings, {"teach": {"replay": {"stability": 2, "plasticity": 1, "student": 2}}}).teach
    member = base(stream[0], spec(name), settings.base, run=Run(1)).snapshot
    graph = stream[0].train.csr()
    told = update_teacher(stream[1], graph, member, Sources(student, student, student), c, run=Run(3))
    alone = update_teacher(stream[1], graph, member, Sources(), c, run=Run(3))
    names = set(told.report.history[0].losses)
    if name == "vae":
        assert names == {"base", "past"}
    else:
        assert {"train.base", "train.user_item", "train.item_user", "train.user_user", "train.item_item"} <= names
        assert {"train.clusters", "replay.replay"} <= names
        assert "replay" not in "".join(alone.report.history[0].losses)
    assert told.snapshot.digest != alone.snapshot.digest
    assert told.snapshot.n_users == 32


def test_the_flags_change_what_is_learned(stream, settings, begun):
    _, _, student = begun
    proxy = base(stream[0], spec("mf"), settings.plain, run=Run(9)).snapshot
    graph, digests = stream[0].train.csr(), set()
    changes = [
        {},
        {"replay": {"loss": "hinge"}},
        {"replay": {"reference": "distilled", "sharpness": 5.0}},
        {"replay": {"sharpness": 5.0}},
        {"replay": {"period": None}},
        {"replay": {"stability": 0, "plasticity": 0}},
        {"initial": {"hops": "none"}},
        {"initial": {"hops": "one"}},
        {"training": {"decay": "all"}},
    ]
    for change in changes:
        c = over(settings, {"update": change}).update
        sources = Sources(stability=proxy, student=student)
        digests.add(update_student(stream[1], graph, student, sources, c, run=Run(4)).snapshot.digest)
    assert len(digests) == len(changes)


def test_replay_fades_with_the_epochs_or_not(settings):
    # 0.5 exp(-epoch / 10)
    at = falling(settings.update.replay)
    assert [at(Clock(0)), at(Clock(10))] == pytest.approx([0.5, 0.5 / np.e])
    kept = falling(settings.update.replay.model_copy(update={"period": None}))
    assert kept(Clock(99)) == 0.5


def test_pairs_that_are_replayed_may_come_in_larger_steps(stream, settings, begun):
    _, _, student = begun
    before = stream[0].train.csr()

    def passes(changes):
        c = over(settings, {"update": {"replay": {"depth": 5, "stability": 2, **changes}}}).update.replay
        vectors = remembered(student)
        known = (stream[1].old_users, stream[1].old_items)
        return replayed(
            student.model(), [(vectors, 2)], c, known=known, distilled=None, train=before, before=None, size=7, seed=1
        )

    (small,), (large,) = passes({}), passes({"batch": 20})
    n = 2 * stream[1].old_users
    assert (len(small.batches), len(large.batches)) == (-(-n // 7), -(-n // 20))


def test_the_memory_of_the_dormant_or_of_the_active_alone_may_be_replayed(stream, settings, begun):
    _, _, student = begun
    block, known = stream[1], (stream[1].old_users, stream[1].old_items)
    train = block.train.csr()

    def users(who):
        c = settings.update.replay.model_copy(update={"who": who})
        pairs = remembering(
            *(student.model(), [(remembered(student), 2)], c),
            **{"known": known, "distilled": None, "train": train, "before": None, "seed": 1},
        )
        return np.unique(pairs.draw(0)[0]).tolist()

    everybody = list(range(block.old_users))
    assert users(None) == everybody
    assert users("dormant") == [3], "who is away in block 1"
    assert users("active") == [user for user in everybody if user != 3]


def test_what_settings_have_grown_by_is_not_told_where_it_is_not_set(settings):
    """Results of before are found under what is told."""
    told = settings.model_dump(mode="json")
    replay = told["update"]["replay"]
    for part, name in ((told, "depth"), (told["distil"], "most"), (replay, "batch"), (replay, "who")):
        assert name not in part
    changes = {"depth": 50, "distil": {"most": 5}, "update": {"replay": {"batch": 9}}}
    now = over(over(settings, changes), {"exponent": 0.1})
    assert (now.depth, now.distil.most, now.update.replay.batch) == (50, 5, 9)
    assert now.model_dump(mode="json")["depth"] == 50


def test_some_lists_alone_may_be_learned(stream, settings, begun, monkeypatch):
    _, lists, _ = begun
    lists.items[3] = -1  # nobody lists anything for them
    asked = {}
    real = stages.EntityBatches

    def batches(ids, *, side, **given):
        asked[side] = ids
        return real(ids, side=side, **given)

    monkeypatch.setattr(stages, "EntityBatches", batches)
    for most in (6, 1000, None):
        c = over(settings, {"distil": {"passes": "epoch", "most": most}}).distil
        distil(stream[0], spec("mf"), lists, c, run=Run(2))
        if most is None:
            assert [len(asked[side]) for side in ("user", "item")] == [stream[0].n_users, stream[0].n_items]
        else:
            assert len(asked["user"]) == len(np.unique(asked["user"])) == min(most, stream[0].n_users - 1)
            assert 3 not in asked["user"]
            assert len(asked["item"]) <= most


def test_negatives_leave_what_is_believed_alone(stream, settings, begun):
    _, lists, student = begun
    block = stream[1]
    found = believed(block.n_users, block.n_items, lists=lists, models=[student], k=3, without=block.train.csr())
    assert (found.n_rows, found.n_columns) == (block.n_users, block.n_items)
    assert set(lists.items[0, :3].tolist()) <= set(found.row(0).tolist())
    assert len(found.row(block.n_users - 1)) == 0, "nobody knows a new user"
    assert not np.isin(block.train.csr().row(5), np.setdiff1d(found.row(5), lists.items[5])).any()
    unmasked = believed(block.n_users, block.n_items, models=[student], k=3)
    assert unmasked.row(5).tolist() == sorted(student.ranker().top_k(np.array([5]), 3)[0].tolist())
    assert believed(3, 3, k=0, models=[student]) is None
    few = np.array([1, 4, 7])
    part = believed(block.n_users, block.n_items, lists=lists, models=[student], k=3, users=few)
    whole = believed(block.n_users, block.n_items, lists=lists, models=[student], k=3)
    assert np.flatnonzero(part.degrees).tolist() == few.tolist()
    assert [part.row(u).tolist() for u in few] == [whole.row(u).tolist() for u in few]


def test_full_batch_and_popularity(stream):
    whole = together(stream[:2])
    assert len(whole.train) == len(stream[0].train) + len(stream[1].train)
    assert whole.test is stream[1].test
    count = np.bincount(np.concatenate([stream[0].train.item, stream[1].train.item]), minlength=70)
    top = popularity(stream[:2]).top_k(np.array([0, 31]), 3)
    assert count[top[0]].tolist() == sorted(count.tolist(), reverse=True)[:3]
    assert top[0].tolist() == top[1].tolist()


def test_a_warm_start_begins_from_the_updated_student(stream, settings, begun):
    _, lists, student = begun
    c = over(settings, {"distil": {"start": "warm", "training": {"epochs": 0}}}).distil
    warm = distil(stream[0], student.spec, lists, c, warm=student, run=Run(2)).snapshot
    np.testing.assert_array_equal(warm.weights["user"], student.weights["user"])
    scratch = distil(
        stream[0], student.spec, lists, c.model_copy(update={"start": "scratch"}), warm=student, run=Run(2)
    )
    assert not np.array_equal(scratch.snapshot.weights["user"], student.weights["user"])
    assert torch.get_default_dtype() == torch.float32


def test_a_silent_user_keeps_still_where_no_term_reaches_them_and_decays_by_term_elsewhere(stream, settings, begun):
    teacher, _, student = begun
    graph = stream[0].train.csr()
    plain = over(settings, {"teach": {"contrast": {"weight": 0}}}).teach
    alone = update_teacher(stream[1], graph, teacher, Sources(), plain, run=Run(3))
    np.testing.assert_array_equal(alone.snapshot.weights["user"][3], teacher.weights["user"][3])
    told = update_teacher(stream[1], graph, teacher, Sources(), settings.teach, run=Run(3))
    assert {"decay", "base", "user_item"} <= set(told.report.history[0].losses)
    c = over(settings, {"distil": {"training": {"decay": "touched"}}}).distil
    _, lists, _ = begun
    graphs = distil(stream[0], spec("lightgcn"), lists, c, run=Run(2)).report.history[0].losses
    assert graphs["train.decay"] < 0.01 * graphs["train.base"], "weighed by the weight decay"
    assert student.spec.name == "mf"
