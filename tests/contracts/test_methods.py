"""What every registered method promises, with every model as its student and every teacher that has what it asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import recdistill as rd
from recdistill.clock import Clock
from recdistill.data.batches import InteractionBatches
from recdistill.errors import UsageError
from recdistill.knowledge.view import Kind
from recdistill.methods import METHODS, Setting
from recdistill.methods.ranges import flat, overlaid
from recdistill.models import MODELS
from recdistill.query import Batch, Query
from recdistill.recipes.train import TrainSettings, distill, fit
from recdistill.runtime import Runtime
from recdistill.serve.service import Service
from recdistill.settings import parse
from recdistill.teachers.live import Live
from recdistill.terms.base import FromInteractions

ONE = TrainSettings(epochs=1, batch=32, device="cpu")
SMALL = {
    "plain": {},
    "de": {"experts": 3},
    "rrd": {"near": 5, "far": 4, "depth": 12, "reach": 10},
    "de-rrd": {"de": {"experts": 3}, "rrd": {"near": 5, "far": 4, "depth": 12, "reach": 10}},
    "adarec": {},
    "ir-rrd": {
        "near": 5,
        "far": 4,
        "depth": 12,
        "reach": 10,
        "item_near": 4,
        "item_far": 3,
        "item_depth": 9,
        "item_reach": 8,
    },
    "dcd": {"near": 5, "far": 4, "depth": 12, "item_near": 4, "item_far": 3},
    "bd": {"candidates": 12, "drawn": 3},
    "hetcomp": {"base": 1.0, "near": 8, "positives": 3, "period": 1},
    "rce-kd": {"near": 5, "drawn": 4, "reach": 9},
    "pckd": {"experts": 3, "drawn": 3, "depth": 12},
    "freqd": {"neighbours": 3},
    "sum": {"parts": {"rrd": {"near": 5, "far": 4, "depth": 12, "reach": 10}, "ftd": {}, "de": {"experts": 3}}},
    "fitnet": {},
    "ftd": {},
    "htd": {"groups": 3},
    "unkd": {"groups": 3, "pairs": 6, "depth": 20, "reach": 8},
    "cd": {"candidates": 12, "drawn": 5},
    "rd": {"near": 4, "sampled": 8, "start": 0},
}
MUTUAL = {"bd"}  # methods whose teacher learns as well
SEQUENTIAL = {"adarec"}  # methods whose students read histories
TEACHERS = [
    "live mf",
    "live neumf",
    "live lightgcn",
    "live sasrec",
    "live nextitnet",
    "live bert4rec",
    "live gru4rec",
    "live cells",
    "lists",
    "scores",
    "vectors",
    "bundle",
    "joined",
]
DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
COMPARE = DOCS.with_name("compare.md")


def small(name):
    return SMALL.get(name, {})


def plain_student(name):
    """The simplest student that a method can have."""
    return "gru4rec" if name in SEQUENTIAL else "mf"


def knowing(name, teachers):
    """A simple teacher that has what a method asks."""
    return teachers["live gru4rec" if name in SEQUENTIAL else "live mf" if name in MUTUAL else "joined"]


def students(name):
    """BERT4Rec answers for positions inside a history in its second stage alone: tests/methods/test_adarec.py."""
    reads = [each for each in MODELS if "length" in MODELS[each].settings.model_fields and each != "bert4rec"]
    return reads if name in SEQUENTIAL else list(MODELS)


PAIRS = [(method, student) for method in METHODS for student in students(method)]

TRIPLES = [  # every teacher for the simplest student, and of two others one that has most and one that has lists alone
    (method, student, teacher)
    for method, student in PAIRS
    for teacher in (TEACHERS if student in {plain_student(method), "neumf"} else ["joined", "lists"])
]


def passes(name, log, teacher, student, seed=5):
    """The passes of a method over a model, as a run builds them."""
    batches = InteractionBatches(log, size=40, seed=seed, device=torch.device("cpu"))
    setting = Setting(
        student=student,
        batches=batches,
        base=FromInteractions(),
        taken=batches.taken,
        n_users=log.n_users,
        seed=seed,
        teacher=teacher,
    )
    entry = METHODS[name]
    return entry.build(parse(entry.settings, small(name)), setting), batches


def asks(name, log, teachers, built):
    """What the method's terms ask of a teacher."""
    made, _ = passes(name, log, teachers["live mf"], built("mf"))
    return frozenset().union(*(term.of_teacher for each in made for _, term in each.objective.named_terms()))


@pytest.mark.parametrize("method", METHODS)
def test_default_settings_are_accepted_and_survive_json(method):
    settings = parse(METHODS[method].settings, {})
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings
    assert parse(METHODS[method].settings, settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(("method", "student"), PAIRS)
def test_default_settings_train_on_a_log_smaller_than_their_lists(method, student, log, teachers):
    teacher = teachers["live gru4rec" if method in SEQUENTIAL else "live mf"]
    trained = distill(teacher, student, log, method=method, dim=4, training=ONE)
    assert np.isfinite(list(trained.report.history[0].losses.values())).all()


@pytest.mark.parametrize(("method", "student", "teacher"), TRIPLES)
def test_an_epoch_gives_finite_losses_or_says_all_that_is_missing(method, student, teacher, log, teachers, built):  # noqa: PLR0917
    if method in SEQUENTIAL and teacher == "live bert4rec":
        pytest.skip("a text is asked otherwise: tests/methods/test_adarec.py")
    missing = asks(method, log, teachers, built) - teachers[teacher].provides
    before = teachers[teacher].fingerprint
    run = {"method": method, "dim": 4, "settings": small(method), "training": ONE}
    if missing:
        with pytest.raises(UsageError) as caught:
            distill(teachers[teacher], student, log, **run)
        for kind in missing:
            assert f"cannot give {kind}" in str(caught.value)
        return
    trained = distill(teachers[teacher], student, log, **run)
    losses = trained.report.history[0].losses
    assert losses["student.base" if method in MUTUAL else "base"] > 0
    assert np.isfinite(list(losses.values())).all()
    assert teachers[teacher].fingerprint == before, "a teacher does not learn"


@pytest.mark.parametrize("method", METHODS)
def test_everything_a_teacher_lacks_is_said_at_once(method, log, teachers, built):
    wanted = asks(method, log, teachers, built)
    if not wanted:
        pytest.skip("asks nothing")

    class Deaf:
        provides = frozenset()

        def view(self, query):
            raise AssertionError

    with pytest.raises(UsageError) as caught:
        distill(Deaf(), "mf", log, method=method, dim=4, training=ONE)
    for kind in wanted:
        assert f"cannot give {kind}" in str(caught.value)
    with pytest.raises(UsageError, match=f"The method '{method}' needs a teacher"):
        distill(None, "mf", log, method=method, dim=4, training=ONE)


@pytest.mark.parametrize(("method", "student"), PAIRS)
def test_a_students_state_and_bundle_hold_the_student_alone(method, student, log, teachers, saved, tmp_path):  # noqa: PLR0917
    teacher = teachers["live gru4rec" if method in SEQUENTIAL else "live mf"]
    trained = distill(teacher, student, log, method=method, dim=4, settings=small(method), training=ONE, seed=2)
    alone = fit(student, log, dim=4, training=ONE, seed=2)
    shapes = {name: value.shape for name, value in trained.model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in alone.model.state_dict().items()}
    assert trained.model.n_parameters == alone.model.n_parameters
    manifest = saved(trained.model, tmp_path / "bundle", student)
    assert set(manifest.files["tensors.safetensors"].tensors) == set(alone.model.arrays())
    lists = trained.ranker().top_k(np.arange(log.n_users), 5, log.csr())
    served = Service.from_bundle(tmp_path / "bundle").recommend(["u0", "u5"], k=5)
    assert [[item.id for item in items] for _, items in served] == [[f"i{i}" for i in lists[u]] for u in (0, 5)]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_student_and_another_seed_another(method, log, teachers):
    run = {"method": method, "dim": 4, "settings": small(method), "training": ONE}
    teacher, student = knowing(method, teachers), plain_student(method)
    one, same, other = (distill(teacher, student, log, seed=s, **run).model.arrays() for s in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["user"], other["user"])


@pytest.mark.parametrize("method", METHODS)
def test_a_row_does_not_know_what_else_is_in_its_batch(method, log, teachers, built):
    """The rows of users and items come in ascending order whatever the batch's; those of queries in the batch's."""
    if method in SEQUENTIAL:
        pytest.skip("its rows are positions: tests/methods/test_adarec.py")
    student, order = built("mf"), torch.tensor([3, 0, 4, 2, 1])
    user = torch.tensor([7, 2, 7, 11, 20])
    positive, negatives = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([[9], [8], [1], [9], [7]])
    clock = Clock(2, 3)

    def rows(place):
        made, _ = passes(method, log, knowing(method, teachers), student)
        batch = Batch(Query(user[place]), positive[place], negatives[place])
        found = {}
        for each in made:
            teacher = None if each.teacher is None else each.teacher.view(batch.query)
            for name, term in each.objective.named_terms():
                if term.scope == "row":
                    found[name] = term(student.view(batch.query), teacher, batch, clock)
        return found

    whole, turned, part = rows(torch.arange(5)), rows(order), rows(torch.tensor([0, 1]))
    for name, value in whole.items():
        if value.of == "queries":
            torch.testing.assert_close(turned[name].value, value.value[order])
            torch.testing.assert_close(part[name].value, value.value[:2])
        elif value.of == "users":
            torch.testing.assert_close(turned[name].value, value.value)
            torch.testing.assert_close(part[name].value, value.value[:2])  # users 2 and 7 of 2, 7, 11, 20
        else:
            torch.testing.assert_close(turned[name].value, value.value)


STOPPED = {  # a gradient is stopped on purpose: their own tests compare it with what is left
    "htd": "tests/losses/test_topology.py: prototypes are held still",
    "pckd": "tests/terms/test_preference.py: only experts learn from the regulariser",
}


@pytest.mark.parametrize("model", ["mf", "lightgcn", "neumf"])
@pytest.mark.parametrize("method", sorted(set(METHODS) - SEQUENTIAL - set(STOPPED)))
def test_gradients_are_those_of_finite_differences(method, model, log, built):
    """Of the whole objective in float64, along a random direction of all the student's parameters.

    What is drawn by the student's own ranks changes in jumps, and not at all over so small a step.
    """
    student = built(model).double().train()
    teacher = Live(built("mf", seed=11, dim=8).double(), seen=log.csr())
    made, batches = passes(method, log, teacher, student)
    batch, clock, runtime = next(batches.epoch(0)), Clock(3, 0), Runtime(torch.device("cpu"))
    each = made[0]
    each.objective.double()

    def value():
        with torch.no_grad():
            view = None if each.teacher is None else each.teacher.view(batch.query)
        return each.objective(student.view(batch.query), view, batch, clock, runtime)[0]

    parameters = list(student.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    generator = torch.Generator().manual_seed(1)
    way = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum((g * v).sum() for g, v in zip(gradients, way, strict=True))
    found = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, v in zip(parameters, way, strict=True):
                p.add_(v, alpha=sign * 1e-6)
            found.append(value())
            for p, v in zip(parameters, way, strict=True):
                p.add_(v, alpha=-sign * 1e-6)
    assert abs(slope) > 1e-3
    torch.testing.assert_close((found[0] - found[1]) / 2e-6, slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_weight_zero_is_plain_training(method, log, teachers):
    if method == "plain":
        pytest.skip("is it")
    settings = parse(METHODS[method].settings, small(method)).model_dump(mode="json")

    def silence(part):
        for key, value in part.items():
            if isinstance(value, dict):
                silence(value)
            elif key == "weight" or key.endswith("_weight"):
                part[key] = 0.0

    silence(settings)
    teacher, student = knowing(method, teachers), plain_student(method)
    off = distill(teacher, student, log, method=method, dim=4, settings=settings, training=ONE).model.arrays()
    plain = fit(student, log, dim=4, training=ONE).model.arrays()
    for name, value in plain.items():
        np.testing.assert_allclose(off[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_page_on_methods_has_a_row_for_it(method, log, teachers, built):
    entry = METHODS[method]
    row = next((line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{method}` |")), None)
    assert row is not None, f"docs/methods.md has no row for {method!r}"
    assert entry.paper.url in row
    for kind in asks(method, log, teachers, built):
        assert str(kind) in row
    settings = entry.settings.model_fields
    for setting in settings:
        assert f"`{setting}`" in row, f"the row does not name the setting {setting!r}"
    assert entry.summary


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("plain", "adarec")])
def test_the_page_says_what_a_step_of_it_costs_and_where_that_goes(method):
    table = DOCS.read_text().split("### What a step costs")[1].split("###")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith(f"| `{method}` ")]
    assert rows, "benchmarks/steps.py measures it"
    assert all(cost.strip() and reason.strip() for _, _, cost, reason, _ in rows)


@pytest.mark.parametrize("method", METHODS)
def test_what_it_says_it_asks_is_what_its_terms_ask(method, log, teachers, built):
    entry = METHODS[method]
    assert entry.asks(parse(entry.settings, small(method))) == asks(method, log, teachers, built)


def test_a_teacher_that_lacks_a_kind_is_told_which_methods_it_can_serve(teachers, log):
    with pytest.raises(UsageError) as caught:
        distill(teachers["lists"], "mf", log, method="de-rrd", dim=4, training=ONE)
    line = str(caught.value).splitlines()[-1]
    assert line.startswith("Methods that this teacher can serve: ")
    named = line.removeprefix("Methods that this teacher can serve: ").rstrip(".").split(", ")
    assert {"rd", "rrd", "ir-rrd", "dcd", "unkd", "hetcomp"} <= set(named), "every ranking method takes lists alone"
    assert not {"de", "htd", "cd", "bd", "plain"} & set(named)
    assert "give vectors (vectors = ...)" in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_it_says_what_is_worth_tuning_in_a_range_that_holds_the_default(method):
    settings = METHODS[method].settings()
    ranges = METHODS[method].tuned(settings)
    assert bool(ranges) == (method != "plain"), "plain has no settings: what it tunes is what all of them tune"
    assert len(ranges) <= 2, "eight trials see no more"
    for key, default in flat(settings.model_dump(mode="json"), ranges).items():
        assert default in ranges[key], f"{key}: the default {default} is not in {ranges[key]}"
    row = f"| `{method}` | " + "; ".join(f"`{key}` {each}" for key, each in ranges.items()) + " |"
    assert not ranges or row in COMPARE.read_text(encoding="utf-8"), "docs/compare.md says what is searched"
    for end in ("low", "high"):
        values = {key: getattr(each, end) for key, each in ranges.items()}
        parse(METHODS[method].settings, overlaid(settings.model_dump(mode="json"), values))


@pytest.mark.parametrize("method", METHODS)
def test_its_paper_can_be_cited(method):
    text, paper = rd.cite(method), METHODS[method].paper
    kinds = {"pckd": "article", "ir-rrd": "article", "rce-kd": "misc", "adarec": "misc"}
    field = {"article": "journal", "misc": "howpublished", "inproceedings": "booktitle"}
    kind = kinds.get(method, "inproceedings")
    assert text.startswith(f"@{kind}{{{paper.key},\n  title = {{{paper.title}}},\n")
    assert f"\n  {field[kind]} = {{{paper.venue}}},\n" in text
    assert [name for name in field.values() if f"\n  {name} =" in text] == [field[kind]]
    assert text in rd.cite()


@pytest.mark.parametrize("kind", Kind)
def test_a_student_that_lacks_a_kind_is_refused_with_it(kind, log, teachers, built):
    """`Pass.check` names what the student lacks as well."""
    for method in METHODS:
        made, _ = passes(method, log, teachers["live mf"], built("mf"))
        for each in (one for one in made if one.learner is None):
            needed = frozenset().union(*(term.of_student for _, term in each.objective.named_terms()))
            missing = replace(each).check(frozenset(Kind) - {kind})
            assert (kind in needed) == any(problem.kind == kind for problem in missing)
