"""AdaRec's distillation as a method of any sequential student."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import SequenceBatches
from recdistill.errors import MissingKnowledge
from recdistill.ids import IdTable
from recdistill.methods import METHODS, Setting
from recdistill.methods.adarec import COMPAT, AdaRec, shape
from recdistill.models import MODELS
from recdistill.query import Batch, Query
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.runtime import Runtime
from recdistill.settings import parse
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions

CPU = torch.device("cpu")
ONE = TrainSettings(epochs=2, batch=8, lr=1e-2, loss="cross-entropy", weight_decay=0, device="cpu")


@pytest.fixture(scope="module")
def log():
    """20 users x 15 items, 3 to 9 items a user, in the order of the log."""
    draw = np.random.default_rng(0)
    user = np.repeat(np.arange(20), draw.integers(3, 10, 20))
    item = draw.integers(0, 15, len(user))
    return Interactions(
        IdTable.from_ids([f"u{n}" for n in range(20)]),
        IdTable.from_ids([f"i{n}" for n in range(15)]),
        user.astype(np.int32),
        item.astype(np.int32),
        timestamp=np.arange(len(user), dtype=np.int64),
    )


def build(name, log, seed=1, **settings):
    entry = MODELS[name]
    net = entry.build(parse(entry.settings, settings), log.n_users, log.n_items, seed, log)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)
    return net


@pytest.fixture
def teacher(log):
    return Live(build("nextitnet", log, dim=12, groups=3, dilations=[1]), seen=log.csr())


def only_pass(log, student, teacher, base="cross-entropy", how="sum", **settings):
    batches = SequenceBatches(log, length=student.length, size=6, seed=0, device=CPU)
    setting = Setting(
        student=student,
        batches=batches,
        base=FromInteractions(base, how=how),
        taken=batches.taken,
        n_users=log.n_users,
        seed=3,
        teacher=teacher,
    )
    (made,) = METHODS["adarec"].build(parse(AdaRec, settings), setting)
    return made


def parts(made, student, batch):
    teacher = made.teacher.view(batch.query)
    return made.objective(student.view(batch.query), teacher, batch, Clock(), Runtime(CPU))


def test_layers_and_widths_are_asked_of_the_models(log, teacher):
    assert shape(teacher, CPU) == (3, 12)
    student = build("sasrec", log, dim=4, layers=5, heads=1).train()
    assert shape(student, CPU) == (5, 4)
    assert student.training


@pytest.mark.parametrize("settings", [{}, COMPAT], ids=["default", "compat"])
def test_beside_a_summed_base_loss_the_parts_keep_the_ratio_of_the_means(log, teacher, settings):
    student = build("gru4rec", log, dim=4, dropout=0.0).eval()
    summed = only_pass(
        log, student, teacher, how="sum", attention="none", **{k: v for k, v in settings.items() if k != "attention"}
    )
    mean = only_pass(
        log, student, teacher, how="mean", attention="none", **{k: v for k, v in settings.items() if k != "attention"}
    )
    batch = next(iter(summed.batches.epoch(0)))
    one, two = parts(summed, student, batch)[1], parts(mean, student, batch)[1]
    n = len(batch.positive)
    assert set(one) == {"base", "embedding", "hidden", "logits"}
    for name, value in one.items():
        assert value.item() == pytest.approx(n * two[name].item(), rel=1e-4), name


def test_the_teacher_reads_a_batch_once_and_learns_nothing(log, teacher):
    student = build("gru4rec", log, dim=4)
    made = only_pass(log, student, teacher, memory=0.0)
    batch = next(iter(made.batches.epoch(0)))
    asked, graphs = [], []
    first = teacher.model.blocks[0]

    def hook(module, given, out):
        del module
        asked.append(given[0].shape[0])
        graphs.append(out.requires_grad)

    first.register_forward_hook(hook)
    total, _ = parts(made, student, batch)
    total.backward()
    assert sum(asked) == len(batch.query)  # each history once, in groups of like length
    assert not any(graphs)
    assert all(p.grad is None for p in teacher.model.parameters())


def test_a_row_of_embeddings_and_logits_does_not_know_what_else_is_in_its_batch(log, teacher):
    student = build("gru4rec", log, dim=4, dropout=0.0).eval()
    made = only_pass(log, student, teacher)
    whole = next(iter(made.batches.epoch(0)))
    few = whole.query.at[:, 0] < 2
    part = Batch(
        Query(whole.query.row[:2], history=whole.query.history[:2], at=whole.query.at[few]),
        whole.positive[few],
        whole.negatives[few],
    )
    for name, term in made.objective.named_terms():
        assert term.scope == ("batch" if name == "hidden" else "row")
        if term.scope == "row":
            one, two = (term(student.view(b.query), teacher.view(b.query), b, Clock()).value for b in (whole, part))
            torch.testing.assert_close(one[few], two)


@pytest.mark.parametrize("gone", ["embedding", "hidden", "logits"])
def test_a_part_of_weight_zero_is_left_out(log, teacher, gone):
    student = build("gru4rec", log, dim=4)
    made = only_pass(log, student, teacher, **{gone: 0.0})
    assert gone not in dict(made.objective.named_terms())
    assert len(dict(made.objective.named_terms())) == 3


def test_a_distilled_student_comes_nearer_to_its_teacher(log, teacher):
    still = {"dropout": 0.0}
    training = ONE.model_copy(update={"epochs": 40})
    alone = fit("gru4rec", log, dim=8, settings=still, training=training).model
    run = {"dim": 8, "model_settings": still, "training": training, "settings": {"weight": 0.9}}
    taught = distill(teacher, "gru4rec", log, method="adarec", **run)
    query, items = Query(torch.arange(20)), torch.arange(15)
    with torch.no_grad():
        target = teacher.view(query).scores_among(items).softmax(1)
        near, far = (
            -(target * net.eval().view(query).scores_among(items).log_softmax(1)).sum(1).mean()
            for net in (taught.model, alone)
        )
    assert near < far
    losses = [record.losses for record in taught.report.history]
    assert all(losses[-1][name] < losses[0][name] for name in ("embedding", "hidden", "logits"))


def test_bert4rec_teaches_positions_after_its_second_stage_alone(log):
    training = ONE.model_copy(update={"epochs": 2})
    first = fit("bert4rec", log, dim=4, settings={"cloze": 2, "heads": 1, "layers": 1}, training=training)
    second = fit("bert4rec", log, dim=4, settings={"cloze": 1, "heads": 1, "layers": 1}, training=training)
    with pytest.raises(MissingKnowledge, match="train its second one"):
        distill(first, "gru4rec", log, method="adarec", dim=4, training=ONE)
    assert distill(second, "gru4rec", log, method="adarec", dim=4, training=ONE).report.history[-1].losses["hidden"] > 0


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_logits_over_the_teachers_best_are_renormalised_softmaxes_over_them(log, memory):
    teacher = Live(build("nextitnet", log, dim=12, groups=3, dilations=[1], bias=True), seen=log.csr())
    student = build("gru4rec", log, dim=4, dropout=0.0).eval()
    made = only_pass(log, student, teacher, best=3, memory=memory)
    term = dict(made.objective.named_terms())["logits"]
    batch = next(iter(made.batches.epoch(0)))
    theirs, ours = teacher.view(batch.query), student.view(batch.query)
    value = term(ours, theirs, batch, Clock()).value
    everything = torch.arange(log.n_items)
    t, s = (view.scores_among(everything).detach() for view in (theirs, ours))
    for row in range(len(value)):
        top = sorted(range(log.n_items), key=lambda item, row=row: -float(t[row, item]))[:3]
        p, q = t[row, top].log_softmax(0), s[row, top].log_softmax(0)
        assert value[row].item() == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4, abs=1e-6)
    value.sum().backward()
    assert student.item.grad.abs().sum() > 0
    assert (teacher.model.memory is None) == (memory == 0)


def test_the_best_of_more_items_than_there_are_is_all_of_them(log, teacher):
    student = build("gru4rec", log, dim=4, dropout=0.0).eval()
    batch, values = None, []
    for best in (0, 15, 99):
        made = only_pass(log, student, teacher, best=best)
        batch = batch or next(iter(made.batches.epoch(0)))
        values.append(parts(made, student, batch)[1]["logits"])
    assert values[0] == values[1] == values[2]
