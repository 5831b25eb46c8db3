"""The one loop: what it trains, when it stops, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from recdistill.clock import Clock
from recdistill.data.batches import InteractionBatches
from recdistill.data.split import split
from recdistill.data.synthetic import planted
from recdistill.errors import MissingKnowledge, SettingsError, TrainingError, UnknownName, UsageError
from recdistill.models.mf import MF
from recdistill.objective import Objective, Pass, Term
from recdistill.query import Query, Rows
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.runtime import Runtime
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions
from recdistill.training.optim import optimiser
from recdistill.training.stop import Stop
from recdistill.training.trainer import Group, Keep
from recdistill.training.trainer import fit as loop
from recdistill.training.watch import JsonLines

CPU = TrainSettings(epochs=3, batch=64, device="cpu")


class Notes:
    def __init__(self):
        self.seen = []

    def on_start(self, report):
        self.seen.append("start")

    def on_epoch(self, record, report):
        self.seen.append(record.epoch)

    def on_end(self, report):
        self.seen.append("end")


def test_the_loss_falls_and_every_epoch_is_told(parts):
    notes = Notes()
    trained = fit("mf", parts.train, dim=8, training=CPU.model_copy(update={"epochs": 30, "lr": 0.05}), watch=[notes])
    losses = [record.losses["base"] for record in trained.report.history]
    assert losses[-1] < 0.5 * losses[0]
    assert notes.seen == ["start", *range(30), "end"]


def test_the_first_loss_is_log_two_an_interaction(parts):
    trained = fit("mf", parts.train, dim=8, training=CPU.model_copy(update={"epochs": 1, "lr": 1e-9}))
    n, batch = len(parts.train), 64
    assert trained.report.history[0].losses["base"] == pytest.approx(n / -(-n // batch) * np.log(2), rel=1e-3)


def test_the_same_seed_gives_the_same_model_and_another_seed_another(parts):
    one, again, other = (fit("mf", parts.train, dim=4, training=CPU, seed=s).model.arrays()["user"] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_held_out_data_is_refused_as_training_data(parts):
    with pytest.raises(UsageError, match=r"Training takes Interactions; got 'HeldOut'.*split\(log\).train"):
        fit("mf", parts.test, dim=4)
    with pytest.raises(UsageError, match=r"takes the validation part of a split; got 'test'"):
        fit("mf", parts.train, dim=4, valid=parts.test)
    with pytest.raises(UsageError, match=r"takes the validation part"):
        fit("mf", parts.train, dim=4, valid=parts.train)


def test_a_whole_log_beside_its_validation_part_is_refused():
    log = planted(users=20, items=30, interactions=200, dim=4, seed=1)
    parts = split(log, "leave-last-out")
    with pytest.raises(UsageError, match=r"The training data hold \d+ of the \d+ validation targets\. Train on `split"):
        fit("mf", log, dim=2, valid=parts.valid)


def test_a_teacher_stays_as_it_is_while_the_student_trains(parts):
    teacher = fit("mf", parts.train, dim=8, training=CPU)
    before = {name: value.copy() for name, value in teacher.model.arrays().items()}
    student = distill(
        teacher, "mf", parts.train, dim=4, training=CPU, settings={"de": {"experts": 2}, "rrd": {"near": 5}}
    )
    for name, value in teacher.model.arrays().items():
        np.testing.assert_array_equal(value, before[name])
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert set(dict(student.model.named_parameters())) == {"user", "item"}, "no teacher and no expert in the student"


def test_unknown_names_and_settings_get_their_neighbours(parts):
    with pytest.raises(UnknownName, match=r"Unknown model 'fm'. Did you mean 'mf'"):
        fit("fm", parts.train)
    with pytest.raises(UnknownName, match=r"Unknown method 'de-rdr'. Did you mean 'de-rrd'"):
        distill(None, "mf", parts.train, method="de-rdr")
    with pytest.raises(UnknownName, match=r"Unknown base loss 'bprr'. Did you mean 'bpr'"):
        fit("mf", parts.train, training=TrainSettings(loss="bprr", device="cpu"))
    with pytest.raises(SettingsError, match=r"experts"):
        distill(None, "mf", parts.train, method="de", settings={"expert": 3})


def test_a_method_without_its_teacher_says_so(parts):
    with pytest.raises(UsageError, match=r"The method 'de' needs a teacher"):
        distill(None, "mf", parts.train, method="de")


def test_everything_a_teacher_lacks_is_said_at_once(parts):
    class Deaf:
        provides = frozenset()

        def view(self, query):
            raise AssertionError

    with pytest.raises(MissingKnowledge, match=r"cannot give ranks.*The term 'rrd' asks for it"):
        distill(Deaf(), "mf", parts.train, method="rrd", dim=4, training=CPU)


def test_a_loss_that_is_not_a_number_stops_the_run(parts):
    with pytest.raises(TrainingError, match=r"'base' is not finite in epoch 0.*Lower the learning rate"):
        fit("mf", parts.train, dim=4, training=CPU.model_copy(update={"lr": 1e30}))


def test_passes_are_dealt_evenly_and_epoch_passes_run_last(parts):
    order = []

    class Spy(FromInteractions):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, student, teacher, batch, clock):
            order.append(self.name)
            return super().forward(student, teacher, batch, clock)

    device = torch.device("cpu")
    long = InteractionBatches(parts.train, size=50, seed=0, device=device)
    short = InteractionBatches(parts.train, size=100, seed=0, device=device)
    passes = [
        Pass("late", short, Objective(x=(1.0, Spy("c"))), interleave="epoch"),
        Pass("long", long, Objective(x=(1.0, Spy("a")))),
        Pass("short", short, Objective(x=(1.0, Spy("b")))),
    ]
    model = MF(parts.train.n_users, parts.train.n_items, dim=4)
    report = loop(
        model,
        passes,
        epochs=1,
        optimise=lambda p: optimiser("adam", p, lr=1e-3, weight_decay=0),
        runtime=Runtime.of("cpu"),
    )
    n_long, n_short = len(long), len(short)
    assert order[-n_short:] == ["c"] * n_short
    head = "".join(order[:-n_short])
    assert head.count("a") == n_long
    assert head.count("b") == n_short
    assert head.startswith("aba") or head.startswith("aab")
    assert set(report.history[0].losses) == {"late.x", "long.x", "short.x"}


def test_the_last_batch_is_kept_and_batches_make_up_the_whole(parts):
    batches = InteractionBatches(parts.train, size=50, seed=0, device=torch.device("cpu"))
    seen = [(int(u), int(i)) for b in batches.epoch(0) for u, i in zip(b.query.row, b.positive, strict=True)]
    assert sorted(seen) == sorted(zip(parts.train.user.tolist(), parts.train.item.tolist(), strict=True))


def values(*numbers):
    return iter([{"hr@5": number} for number in numbers])


def test_patience_counts_validations_without_improvement_after_rounding():
    stop = Stop(lambda: {}, ("hr@5",), patience=2)
    told = [stop.see(e, v, dict) for e, v in enumerate(values(0.1, 0.10004, 0.2, 0.2, 0.19))]
    assert told == [False, False, False, False, True]  # 0.10004 rounds to 0.1: no improvement, but 0.2 is
    assert stop.best["hr@5"].epoch == 2


def test_each_metric_keeps_its_own_best_epoch_and_state():
    stop = Stop(lambda: {}, ("a", "b"), patience=9)
    for epoch, (a, b) in enumerate([(0.1, 0.9), (0.5, 0.2), (0.3, 0.3)]):
        stop.see(epoch, {"a": a, "b": b}, lambda epoch=epoch: {"at": torch.tensor(epoch)})
    assert (stop.best["a"].epoch, stop.best["b"].epoch) == (1, 0)
    assert int(stop.state_of("a")["at"]) == 1
    assert set(stop.states) == {0, 1}


def test_a_validation_metric_that_is_not_a_number_is_an_error():
    with pytest.raises(TrainingError, match=r"'hr@5' is not a number"):
        Stop(lambda: {}, ("hr@5",)).see(0, {"hr@5": float("nan")}, dict)


def test_the_learner_ends_at_its_best_epoch(parts):
    training = TrainSettings(epochs=40, batch=32, lr=0.05, metrics=("ndcg@5",), patience=3, device="cpu")
    trained = fit("mf", parts.train, dim=8, valid=parts.valid, training=training)
    best = trained.report.best["ndcg@5"]
    assert best.epoch < len(trained.report.history) - 1
    np.testing.assert_array_equal(
        trained.at_best("ndcg@5").scores_of(np.array([0]), np.array([[1, 2]])),
        trained.ranker().scores_of(np.array([0]), np.array([[1, 2]])),
    )


def test_the_log_has_one_line_an_epoch(parts, tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    fit("mf", parts.train, dim=4, valid=parts.valid, training=CPU, watch=[JsonLines(path)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert {"losses", "metrics", "seconds"} <= set(lines[0])


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"Unknown device; got 'gpu'"):
        Runtime.of("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match=r"not there \(0 GPU\(s\) visible"):
            Runtime.of("cuda:3")


def test_a_live_teachers_lists_leave_out_training_items(parts):
    teacher = Live(fit("mf", parts.train, dim=8, training=CPU).model, seen=parts.train.csr())
    users = torch.arange(parts.train.n_users)
    lists = teacher.view(Query(users)).ranked(41).numpy()
    assert not parts.train.csr().contains(np.repeat(users.numpy(), 41), lists.ravel().clip(0))[lists.ravel() >= 0].any()
    assert (lists[:, -1] == -1).all(), "a list longer than what is left ends in -1"


def test_a_pass_updates_the_groups_it_names_alone(parts):
    torch.manual_seed(0)
    model = MF(parts.train.n_users, parts.train.n_items, dim=4, seed=1)
    tables = dict(model.named_parameters())
    assert len(tables) == 2
    (first, one), (_second, other) = tables.items()
    begun = []

    def run_with(updates, epochs=1):
        batches = InteractionBatches(parts.train, size=64, seed=1, device=torch.device("cpu"))
        only = Pass("p", batches, Objective(base=(1.0, FromInteractions())), updates=updates, begin=begun.append)
        loop(
            model,
            [only],
            epochs=epochs,
            optimise=lambda ps: torch.optim.SGD(ps, lr=0.1),
            groups={"first": Group([one], lambda ps: torch.optim.Adam(ps, lr=0.1))},
            runtime=Runtime.of("cpu"),
        )
        return len(batches)

    for updates, moved in (
        (("first",), (True, False)),
        (("weights",), (False, True)),
        (("weights", "first"), (True, True)),
    ):
        before = one.detach().clone(), other.detach().clone()
        begun.clear()
        steps = run_with(updates)
        assert (not torch.equal(one, before[0]), not torch.equal(other, before[1])) == moved
        assert begun == [Clock(0, step) for step in range(steps)], "told before each of its steps"
    with pytest.raises(
        UsageError, match=r"The pass 'p' updates what is not there; got \['alpha'\]. Allowed: weights, first"
    ):
        run_with(("alpha",))
    assert first


def test_an_objective_of_two_passes_is_kept_once(parts, tmp_path):
    """safetensors refuses tensors that share memory, and one of them would be stale."""
    model = MF(parts.train.n_users, parts.train.n_items, dim=4, seed=1)
    batches = InteractionBatches(parts.train, size=64, seed=1, device=torch.device("cpu"))
    objective = Objective(base=(1.0, FromInteractions()), own=(1.0, Owning()))
    passes = [Pass(name, batches, objective) for name in ("one", "two")]
    keep = Keep(tmp_path / "run.safetensors", "r", seconds=0.0)
    report = loop(
        model, passes, epochs=1, optimise=lambda ps: torch.optim.SGD(ps, lr=0.1), runtime=Runtime.of("cpu"), keep=keep
    )
    assert set(report.history[0].losses) == {"one.base", "one.own", "two.base", "two.own"}
    with safe_open(tmp_path / "run.safetensors", "pt") as opened:
        assert [name for name in opened.keys() if "own" in name] == ["terms/one/terms.own.scale"]  # noqa: SIM118


class Owning(Term):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, student, teacher, batch, clock):
        return Rows(self.scale**2, of="queries")
