"""A whole search on a small log: what learns in which step, what is scored, what resumes, what is refused."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

import recdistill.search.run as module
from recdistill.clock import Clock
from recdistill.data.interactions import Interactions
from recdistill.data.split import split
from recdistill.errors import CheckpointError, SettingsError, TrainingError, UnknownName, UsageError
from recdistill.evaluation.encoded import EncodedRanker
from recdistill.evaluation.evaluate import evaluate
from recdistill.ids import IdTable
from recdistill.recipes.search import fidelity, retrain, search, settings_of
from recdistill.recipes.train import TrainSettings, fit
from recdistill.search.batches import PartBatches
from recdistill.search.controls import apart, controls, random_of_price
from recdistill.search.cost import FROZEN, Shape, counted, published
from recdistill.search.derive import Design, named
from recdistill.search.derive import drawn as cell_of
from recdistill.search.judge import loss
from recdistill.search.price import Lagrangian
from recdistill.search.run import shares
from recdistill.search.settings import PRESETS, SearchSettings
from recdistill.search.space import SPACES
from recdistill.teachers.live import Live
from recdistill.training import trainer

CPU = torch.device("cpu")
SMALL = {"epochs": 2, "batch": 16, "cells": 2, "frame": {"dim": 8, "length": 8}, "estimate": 2, "device": "cpu"}
ONE = TrainSettings(epochs=1, batch=16, loss="cross-entropy", weight_decay=0, metrics=("ndcg@10",), device="cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def parts():
    """40 users x 25 items: each goes round a ring from where it begins, with a slip now and then."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(5, 12, 40)
    user = np.repeat(np.arange(40), lengths)
    item = np.concatenate([(draw.integers(25) + np.cumsum(draw.choice([1, 1, 1, 2], n))) % 25 for n in lengths])
    log = Interactions(
        IdTable.from_ids(np.arange(40)),
        IdTable.from_ids(np.arange(25)),
        user.astype(np.int32),
        item.astype(np.int32),
        timestamp=np.arange(len(user), dtype=np.int64),
    )
    return split(log, "leave-last-out")


@pytest.fixture(scope="module")
def teacher(parts):
    return fit("gru4rec", parts.train, dim=12, settings={"length": 8}, training=ONE.model_copy(update={"epochs": 3}))


@pytest.fixture(scope="module")
def found(parts, teacher):
    return search(teacher, parts.train, valid=parts.valid, settings=SMALL)


class Watching:
    """Calls `then(record)` after every epoch."""

    def __init__(self, then):
        self.then = then

    def on_start(self, report):
        pass

    def on_epoch(self, record, report):
        self.then(record)

    def on_end(self, report):
        pass


def test_a_search_gives_a_design_its_cost_and_every_term(found, parts):
    assert found.design.space == "causal"
    assert (found.design.depth, found.design.width) == (2, 8)
    assert set(found.report.history[0].losses) == {"base", "embedding", "hidden", "logits", "price"}
    assert set(found.report.history[0].metrics) == {"ndcg@10", "entropy", "cost"}
    costs = counted(SPACES["causal"], Shape(8, 8, items=25), "macs")
    assert found.cost == costs.of(found.design, SPACES["causal"])
    assert set(found.design.fingerprints) == {"data"}
    assert sum(shares(found.report.history[0].losses).values()) == pytest.approx(1)


def test_shares_say_how_little_a_term_is():
    assert shares({"base": 3.0, "hidden": 1.0, "budget": -1.0}) == {"base": 0.6, "hidden": 0.2, "budget": 0.2}
    assert shares({"base": 0.0}) == {"base": 0.0}


def test_what_is_scored_is_the_derived_student_with_its_norms_estimated_anew(found, parts):
    best = found.report.best["ndcg@10"]
    assert round(found.score(found.derived)["ndcg@10"], 4) == best.value
    # by hand: the norms of whole training batches, one after the other, into a plain average
    design = named("all-cau_cnn_3_d1", SPACES["causal"], width=8, depth=2)
    student = found.student(design)
    batches = PartBatches(parts.train, length=8, size=16, seed=7, device=CPU)
    histories = [batch.query.history for batch in batches.epoch(0)][:2]
    norm = student.chain.cells[0].edges[0]["cau_cnn_3_d1"].norm  # reads the embedded histories
    inherited, seen = norm.mean.clone(), []
    handle = norm.register_forward_pre_hook(lambda _m, given: seen.append((given[0].detach(), given[1])))
    module.reestimate(student, lambda h: student.layers(student.embedded(h), h != -1, both_ways=False), histories)
    handle.remove()
    assert [len(x) for x, _ in seen] == [len(history) for history in histories]
    means = [x.transpose(1, 2)[real[:, 0]].mean(0) for x, real in seen]
    torch.testing.assert_close(norm.mean, torch.stack(means).mean(0))
    assert not torch.allclose(norm.mean, inherited)
    ndcg = evaluate(student.eval().ranker(), parts.valid, ("ndcg@10",)).means["ndcg@10"]
    assert ndcg == pytest.approx(found.score(design)["ndcg@10"])


def test_scoring_changes_nothing(found):
    before = {name: value.clone() for name, value in found.supernet.state_dict().items()}
    first = found.score()
    assert found.score() == first
    assert all(torch.equal(value, before[name]) for name, value in found.supernet.state_dict().items())


def stepped(monkeypatch, parts, teacher, **settings):
    """What every step of a search moved: [(pass name, whether weights, whether alpha, whether projections)]."""
    moved = []
    whole = trainer._Loop._step

    def step(self, each, batch, clock):
        groups = {
            "weights": [p for name, p in self.learner.named_parameters() if not name.startswith("architecture")],
            "alpha": list(self.learner.architecture.parameters()),
            "terms": list(each.objective.parameters()),
        }
        before = {name: [p.detach().clone() for p in ps] for name, ps in groups.items()}
        parts_ = whole(self, each, batch, clock)
        changed = {
            name: any(not torch.equal(p, b) for p, b in zip(ps, before[name], strict=True))
            for name, ps in groups.items()
        }
        moved.append((each.name, changed["weights"], changed["alpha"], changed["terms"]))
        return parts_

    monkeypatch.setattr(trainer._Loop, "_step", step)
    search(teacher, parts.train, valid=parts.valid, settings={**SMALL, "epochs": 1, **settings})
    return moved


def test_on_one_level_a_step_moves_weights_and_alpha(monkeypatch, parts, teacher):
    moved = stepped(monkeypatch, parts, teacher)
    assert moved == [("search", True, True, True)] * len(moved)
    assert len(moved) == 3  # 40 users, 16 a step


def test_on_two_levels_alpha_and_weights_take_turns_on_users_of_their_own(monkeypatch, parts, teacher):
    moved = stepped(monkeypatch, parts, teacher, level="bi", share=0.5, batch=8)
    assert set(moved) == {("weights", True, False, True), ("alpha", False, True, False)}
    made = {
        part: PartBatches(parts.train, length=8, size=8, part=part, seed=7, device=CPU) for part in ("weights", "alpha")
    }
    users = {part: {u for b in of.epoch(0) for u in b.query.row.tolist()} for part, of in made.items()}
    assert not users["weights"] & users["alpha"]
    assert users["weights"] | users["alpha"] == set(range(40))
    again = {u for b in made["alpha"].epoch(5) for u in b.query.row.tolist()}
    assert again == users["alpha"]


def test_on_two_levels_a_multiplier_rises_as_if_only_steps_of_alpha_counted(monkeypatch, parts, teacher):
    steps = []
    made = lambda *args, **how: (steps.append(how["step"]), Lagrangian(*args, **how))[1]  # noqa: E731
    monkeypatch.setattr(module, "Lagrangian", made)
    stepped(monkeypatch, parts, teacher, budget="1 MB")
    moved = stepped(monkeypatch, parts, teacher, level="bi", share=0.25, batch=4, budget="1 MB")
    single, bi = steps
    alpha = sum(name == "alpha" for name, *_ in moved)
    assert bi * len(moved) == pytest.approx(single * alpha, rel=0.3)  # users are dealt by chance


@pytest.mark.parametrize("more", [{}, {"level": "bi", "batch": 8}, {"budget": "5 kB"}, {"depth": True}])
def test_while_it_warms_up_weights_learn_alone_of_one_path_and_nothing_has_a_price(monkeypatch, parts, teacher, more):
    asked, losses, metrics, held = [], [], [], []
    sample = module.Supernet.sample

    def watched(net, clock, *, paths):
        alpha = torch.cat([p.detach().flatten() for p in net.architecture.parameters()])
        multiplier = held[0].multiplier.item() if held else 0.0
        asked.append((clock.epoch, paths, alpha.clone(), net.item.detach().clone(), multiplier))
        sample(net, clock, paths=paths)

    def after(record):
        losses.append(record.losses)
        metrics.append(record.metrics)

    monkeypatch.setattr(module.Supernet, "sample", watched)
    made = lambda *args, **how: held.append(Lagrangian(*args, **how)) or held[-1]  # noqa: E731
    monkeypatch.setattr(module, "Lagrangian", made)
    settings = {**SMALL, "epochs": 4, "warm_up": 2, "patience": 1, "refine": {"designs": 0}, "alpha_weight_decay": 0.5}
    found = search(teacher, parts.train, valid=parts.valid, settings={**settings, **more}, watch=[Watching(after)])
    warm = [step for step in asked if step[0] < 2]
    assert {paths for _, paths, *_ in warm} == {1}
    assert max(paths for epoch, paths, *_ in asked if epoch == 2) == 2
    assert all(torch.equal(alpha, warm[0][2]) for _, _, alpha, *_ in warm)
    assert not torch.equal(warm[0][3], warm[-1][3])
    assert {multiplier for *_, multiplier in warm} == {0.0}
    moves = [float((b[2] - a[2]).abs().max()) for a, b in itertools.pairwise(asked)]
    assert 0 < max(moves) < 1.2 * found.settings.alpha_lr, "its optimiser begins anew, not after steps of nothing"
    name = next(each for each in losses[0] if each.endswith(("price", "budget")))
    assert losses[0][name] == 0 != losses[2][name]
    assert metrics[:2] == [{}, {}], "what was not learned is no candidate, and exhausts no patience"
    assert found.report.best["ndcg@10"].epoch >= 2


def test_a_search_that_warms_up_to_the_end_leaves_the_choice_to_refinement(parts, teacher):
    settings = {**SMALL, "epochs": 2, "warm_up": 2}
    found = search(teacher, parts.train, valid=parts.valid, settings=settings)
    assert len(found.tried) > 1
    assert found.report.best["ndcg@10"].epoch == 1, "there is nothing to choose an epoch by before"
    assert found.report.history[1].metrics["entropy"] == pytest.approx(math.log(10), abs=1e-3), "alpha is as it began"


def test_by_its_objective_designs_are_ranked_with_their_price(parts, teacher):
    settings = {**SMALL, "refine": {"designs": 24, "metric": "objective"}, "price_weight": 0.0}
    free = search(teacher, parts.train, valid=parts.valid, settings=settings)
    assert free.tried[0].score == pytest.approx(max(each.score for each in free.tried))
    dear = search(teacher, parts.train, valid=parts.valid, settings={**settings, "price_weight": 1e4})
    assert dear.tried[0].cost == min(each.cost for each in dear.tried)
    dearest = dear.costs.dearest(2, 6)
    for each in dear.tried[:3]:  # nothing else counts beside such a weight
        share = (each.cost - dear.costs.fixed) / dearest
        assert -each.score == pytest.approx(1e4 * share, abs=5)


def test_the_loss_of_a_design_is_that_of_the_search_on_held_out_data(parts):
    c = SearchSettings.model_validate({**SMALL, "price_weight": 0.25, "distillation": {"weight": 0.25}})
    space, design = SPACES["causal"], named("nextitnet", SPACES["causal"], width=8, depth=2)
    costs = counted(space, Shape(8, 8, items=25), "macs")
    user, item = (torch.randn(n, 8, generator=torch.Generator().manual_seed(n)) for n in (40, 25))
    held = parts.valid.targets
    rows = torch.from_numpy(np.repeat(np.arange(40), held.degrees))
    ce = float(torch.nn.functional.cross_entropy(user[rows] @ item.T, torch.from_numpy(held.indices).long()))
    asked = EncodedRanker(lambda _, rows: user.numpy()[rows], item.numpy(), parts.train.histories())
    found = loss(asked, design, parts.valid, settings=c, costs=costs, space=space)
    share = (costs.of(design, space) - costs.fixed) / costs.dearest(2, len(space.edges))
    assert found == pytest.approx(0.75 * ce + 0.25 * share, rel=1e-5)
    budget = c.model_copy(update={"budget": "1 MB"})
    held_to = loss(asked, design, parts.valid, settings=budget, costs=costs, space=space)
    assert held_to == pytest.approx(0.75 * ce, rel=1e-5), "a budget has no price"
    frozen = published(space, FROZEN)
    priced = loss(asked, design, parts.valid, settings=c, costs=frozen, space=space)
    of_one = sum(frozen.operators[space.index(name)] for name in design.operators[0])
    assert priced == pytest.approx(0.75 * ce + 0.25 * of_one, rel=1e-5), "the official prices are of one cell"


def test_a_part_without_users_is_refused(parts):
    with pytest.raises(TrainingError, match="No user is left to train alpha with"):
        PartBatches(parts.train, length=8, size=8, part="alpha", share=1e-9, seed=7, device=CPU)


def test_scored_at_the_end_a_history_stops_anywhere_and_its_label_follows(parts):
    batches = PartBatches(parts.train, length=4, size=16, scored="last", seed=3, device=CPU)
    whole = parts.train.histories()
    ends = set()
    for epoch in range(6):
        for batch in batches.epoch(epoch):
            q = batch.query
            assert len(q.at) == len(batch.positive) == len(q.row)
            assert (q.at[:, 1] == q.history.shape[1] - 1).all()
            for row, history, label in zip(q.row.tolist(), q.history.tolist(), batch.positive.tolist(), strict=True):
                real = [item for item in history if item != -1]
                items = whole.row(row).tolist()
                window = items[-5:]  # length + 1: what a window holds
                places = [
                    at for at in range(1, len(window)) if window[at] == label and window[max(0, at - 4) : at] == real
                ]
                assert places
                ends.add((row, places[0]))
    assert len(ends) > 80, "in several epochs most places come up"


def test_the_published_space_is_refused_for_a_loss_it_would_leak(parts, teacher):
    with pytest.raises(UsageError, match="'published' leaks under a next-item loss at every position"):
        search(teacher, parts.train, valid=parts.valid, settings={**SMALL, "space": "published"})
    honest = {**SMALL, "space": "published", "frame": {**SMALL["frame"], "scored": "last"}, "epochs": 1}
    found = search(teacher, parts.train, valid=parts.valid, settings=honest)
    assert found.design.space == "published"
    leaky = named("all-std_cnn_3", SPACES["published"], width=8, depth=2)
    trained = retrain(found, teacher, parts.train, design=leaky, training=ONE)
    assert np.isfinite(trained.report.history[0].losses["base"])
    with pytest.raises(UsageError, match="1 of its operators read the future"):
        fit("cells", parts.train, settings={"space": "published", "cell": "all-std_cnn_3"}, training=ONE)
    sound = {"space": "published", "cell": "all-cau_cnn_3"}  # what is not used does no harm
    assert fit("cells", parts.train, settings=sound, training=ONE).report.history


def test_presets_are_settings(parts, teacher):
    for preset in PRESETS:
        settings = settings_of(preset)
        assert SearchSettings.model_validate_json(settings.model_dump_json()) == settings
    compat = settings_of("compat", {"frame": {"dim": 32}})
    assert (compat.space, compat.alpha_lr, compat.temperature.floor, compat.paths) == ("published", 2e-5, 0.0, 10)
    assert (compat.distillation.direction, compat.frame.pads, compat.frame.dim) == ("reverse", True, 32)
    found = search(teacher, parts.train, valid=parts.valid, preset="compat", settings={**SMALL, "epochs": 1})
    assert found.costs.operators[3] == pytest.approx(2.12701275, abs=1e-8)
    losses = found.report.history[0].losses
    assert 8 * 6 * 0.48 < losses["price"] < 8 * 6 * 2.13  # beta 8, six edges, prices of one cell
    with pytest.raises(UnknownName, match=r"Unknown preset of a search 'compot'. Did you mean 'compat'"):
        settings_of("compot")
    with pytest.raises(SettingsError, match=r"Unknown setting 'search.frame.dims'. Did you mean 'search.frame.dim'"):
        settings_of("default", {"frame": {"dims": 3}})


def test_a_search_without_a_teacher_has_no_distillation(parts, teacher):
    alone = {**SMALL, "epochs": 1, "distillation": {"weight": 0.0}}
    found = search(None, parts.train, valid=parts.valid, settings=alone)
    assert set(found.report.history[0].losses) == {"base", "price"}
    with pytest.raises(UsageError, match="A search that distils needs a teacher"):
        search(None, parts.train, valid=parts.valid, settings=SMALL)
    mf = fit("mf", parts.train, dim=4, training=TrainSettings(epochs=1, device="cpu"))
    with pytest.raises(UsageError, match="cannot give states"):
        search(mf, parts.train, valid=parts.valid, settings=SMALL)


@pytest.mark.parametrize("deep", [False, True])
def test_a_budget_is_kept_by_what_is_derived(parts, teacher, deep):
    space = SPACES["causal"]
    shape = Shape(8, 8, items=25)
    costs = counted(space, replace(shape, exit=deep), "bytes")
    room = costs.dearest(2, 6)
    most = int(costs.fixed + 0.25 * room)
    settings = {**SMALL, "budget": f"{most} B", "depth": deep}
    found = search(teacher, parts.train, valid=parts.valid, settings=settings)
    assert found.costs.unit == "bytes"
    assert found.cost <= most
    built = sum(p.numel() for p in found.student().parameters())
    assert 4 * built == found.cost
    assert "budget" in found.report.history[0].losses
    with pytest.raises(UsageError, match="No architecture keeps the budget of 100 B"):
        search(teacher, parts.train, valid=parts.valid, settings={**SMALL, "budget": "100 B"})


def test_under_a_tighter_budget_the_best_of_what_was_tried_is_next_then_what_is_derived(parts, teacher):
    found = search(teacher, parts.train, valid=parts.valid, settings={**SMALL, "budget": "params=1k"})
    space = SPACES["causal"]
    assert found.under(1000).operators == found.design.operators
    most = found.cost - 1
    below = [each for each in found.tried if each.cost <= most]
    assert found.under(most).operators == below[0].design.operators
    assert found.under(most).fingerprints == found.design.fingerprints
    least = found.costs.fixed + 2 * found.costs.cell
    assert found.under(least - 1) is None
    alone = {**SMALL, "budget": "params=1k", "refine": {"designs": 0}}
    found = search(teacher, parts.train, valid=parts.valid, settings=alone)
    assert found.costs.of(found.under(least), space) == least


def test_prices_and_refinement_are_part_of_its_seconds(parts, teacher, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    found = search(teacher, parts.train, valid=parts.valid, settings=SMALL)
    assert (found.price_seconds, found.refine_seconds) == (1, 1)
    assert found.seconds == found.report.seconds + 2


def test_latency_is_priced_on_the_cpu_wherever_the_search_is_trained(tmp_path):
    devices = []

    def timer(works, device):
        devices.append(device)
        return [1.0] * len(works)

    c = settings_of("default", {**SMALL, "price": "latency", "device": "cuda"})
    costs, most = module.prices(c, SPACES["causal"], 25, latencies=tmp_path, timer=timer)
    assert (costs.unit, most, devices) == ("ms", None, [torch.device("cpu")])


def test_a_latency_budget_asks_the_table(parts, teacher, tmp_path):
    asked = []

    def timer(works, device):
        asked.append(len(works))
        return [3.0] * 6 + [1.2] * 3 + [1.0, 0.5]

    settings = settings_of("default", {**SMALL, "epochs": 1, "budget": "2 ms"})
    knows = Live(teacher.model, seen=parts.train.csr())
    common = {"valid": parts.valid, "latencies": tmp_path, "timer": timer}
    found = module.search(knows, parts.train, settings, **common)
    assert found.costs.unit == "ms"
    assert found.cost <= 2.0
    assert found.design.fingerprints["prices"] == found.costs.digest
    module.search(knows, parts.train, settings, **common)
    assert asked == [11]


def test_a_strong_price_empties_the_cells(parts, teacher):
    settings = {**SMALL, "epochs": 12, "price_weight": 50.0, "alpha_lr": 0.1}
    found = search(teacher, parts.train, valid=parts.valid, settings=settings)
    first, last = (found.report.history[at] for at in (0, -1))
    assert last.metrics["entropy"] < first.metrics["entropy"]
    cells = last.metrics["cost"] - found.costs.fixed
    assert cells < 0.1 * found.costs.dearest(2, 6), "no convolution is left"
    assert last.losses["price"] < 0.5 * first.losses["price"]


class Interrupt(Exception):
    pass


def state(found):
    return found.supernet.state_dict(), found.design, [r.losses for r in found.report.history]


@pytest.mark.parametrize("level", ["single", "bi"])
def test_a_search_stopped_after_an_epoch_ends_as_the_whole_one(parts, teacher, tmp_path, monkeypatch, level):
    monkeypatch.setattr(trainer.Keep.__init__, "__defaults__", (0.0,))
    settings = {**SMALL, "epochs": 3, "level": level, "depth": True, "budget": "3 kB"}
    common = {"valid": parts.valid, "settings": settings}
    whole = search(teacher, parts.train, **common)

    def stop(record):
        if record.epoch == 1:
            raise Interrupt

    path = tmp_path / "search.safetensors"
    with pytest.raises(Interrupt):
        search(teacher, parts.train, checkpoint=path, watch=[Watching(stop)], **common)
    again = search(teacher, parts.train, checkpoint=path, **common)
    for name, value in state(whole)[0].items():
        assert torch.equal(value, state(again)[0][name]), name
    assert state(whole)[1:] == state(again)[1:]
    with safe_open(path, "pt") as opened:
        names = set(opened.keys())
    first = "search" if level == "single" else "weights"
    for name in (
        "model/architecture.alpha",
        f"terms/{first}/terms.hidden.student_mass",
        f"terms/{first}/terms.budget.multiplier",
    ):
        assert name in names
    assert any(name.startswith("optimiser-alpha/0/exp_avg") for name in names)
    with pytest.raises(CheckpointError, match="other settings or data"):
        search(teacher, parts.train, checkpoint=path, valid=parts.valid, settings={**settings, "alpha_lr": 0.5})


SCRIPT = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
import recdistill.training.trainer as trainer
trainer.Keep.__init__.__defaults__ = (0.0,)
from recdistill.data.interactions import Interactions
from recdistill.data.split import split
from recdistill.ids import IdTable
from recdistill.recipes.search import search
from recdistill.recipes.train import TrainSettings, fit
from safetensors.torch import load_file, save_file

draw = np.random.default_rng(0)
user = np.repeat(np.arange(40), 9)
log = Interactions(IdTable.from_ids(np.arange(40)), IdTable.from_ids(np.arange(30)), user.astype(np.int32),
    draw.integers(0, 30, len(user)).astype(np.int32), timestamp=np.arange(len(user), dtype=np.int64))
parts = split(log, "leave-last-out")
how = TrainSettings(epochs=1, batch=16, loss="cross-entropy", device="cpu")
small = {"epochs": 4, "batch": 8, "cells": 2, "frame": {"dim": 8, "length": 8}, "estimate": 2, "device": "cpu",
    "level": sys.argv[2], "depth": True, "share": 0.4}
teacher = fit("gru4rec", parts.train, dim=12, settings={"length": 8}, training=how)

def work(out):
    out.mkdir(exist_ok=True)
    found = search(teacher, parts.train, valid=parts.valid, settings=small, checkpoint=out / "search.safetensors")
    (out / "design.json").write_text(found.design.to_json())
    save_file({k: v.contiguous() for k, v in found.supernet.state_dict().items()}, out / "end.safetensors")

def start(out):  # a fork: the same process, without the seconds that imports take
    child = os.fork()
    if child == 0:
        work(out)
        os._exit(0)
    return child

whole, killed = Path(sys.argv[1]) / "whole", Path(sys.argv[1]) / "killed"
began = time.monotonic()
assert os.waitpid(start(whole), 0)[1] == 0
seconds = time.monotonic() - began
kills = 0
while not (killed / "end.safetensors").exists():
    child = start(killed)
    if kills < 4:
        time.sleep(random.uniform(0.1, 0.45) * seconds)
        os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    if kills < 3 and (killed / "end.safetensors").exists():  # the machine was slow when the whole one was timed
        shutil.rmtree(killed)
        kills, seconds = 0, seconds / 2
one, other = load_file(whole / "end.safetensors"), load_file(killed / "end.safetensors")
assert one.keys() == other.keys()
for name in one:
    assert torch.equal(one[name], other[name]), name
assert (whole / "design.json").read_text() == (killed / "design.json").read_text()
print("killed", kills)
"""


@pytest.mark.parametrize("level", ["single", "bi"])
def test_a_search_killed_at_random_moments_ends_bit_identical(level, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, tmp_path, level],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 3, "the search must have been killed for this test to say anything"


@pytest.mark.parametrize("weights", ["fresh", "inherited"])
@pytest.mark.parametrize("distilled", [True, False])
def test_what_was_found_is_trained_again(found, parts, teacher, tmp_path, weights, distilled):  # noqa: PLR0917
    given = teacher if distilled else None
    how = {"settings": {"weights": weights, "distilled": distilled}, "folder": tmp_path}
    never = ONE.model_copy(update={"epochs": 0})
    student = retrain(found, given, parts.train, training=never, **how)
    same = torch.equal(student.model.item, found.supernet.item)
    assert same == (weights == "inherited")
    trained = retrain(found, given, parts.train, valid=parts.valid, training=ONE, **how)
    losses = trained.report.history[0].losses
    assert set(losses) == ({"base", "embedding", "hidden", "logits"} if distilled else {"base"})
    assert trained.method == ("adarec" if distilled else "plain")
    assert trained.model.n_body == sum(p.numel() for p in found.student().chain.parameters())
    assert [len(items) for _, items in trained.recommend([0, 1], k=5)] == [5, 5]
    assert len(list(tmp_path.glob("*"))) == (weights == "inherited")


def test_weights_to_inherit_need_a_place(found, parts):
    with pytest.raises(UsageError, match="Give `folder`"):
        retrain(found, None, parts.train, preset="compat")
    with pytest.raises(UsageError, match="The method 'adarec' needs a teacher"):
        retrain(found, None, parts.train, training=ONE)


def test_presets_of_the_retraining_are_settings_too(found, parts, tmp_path):
    short = {"epochs": 1}
    official = retrain(found, None, parts.train, preset="compat", settings=short, folder=tmp_path, valid=parts.valid)
    assert official.method == "plain"
    assert official.settings["train"]["lr"] == 1e-4
    assert official.settings["train"]["metrics"] == ["ndcg@10"]
    assert official.settings["model"]["start"].startswith(str(tmp_path))
    with pytest.raises(UnknownName, match=r"Unknown preset of a retraining 'defalt'. Did you mean 'default'"):
        retrain(found, None, parts.train, preset="defalt")
    with pytest.raises(SettingsError, match=r"Unknown setting 'retrain.weight'. Did you mean 'retrain.weights'"):
        retrain(found, None, parts.train, settings={"weight": "fresh"})


def test_fidelity_compares_the_same_designs(found, parts, teacher):
    designs = {name: controls(SPACES["causal"], width=8, depth=2, random=1)[name] for name in ("all-none", "random-0")}
    both = fidelity(found, teacher, parts.train, designs=designs, valid=parts.valid, training=ONE)
    assert both.names == ("all-none", "random-0")
    assert both.inherited == tuple(found.score(design)["ndcg@10"] for design in designs.values())
    one = retrain(found, teacher, parts.train, design=designs["random-0"], valid=parts.valid, training=ONE)
    assert both.retrained[1] == evaluate(one.ranker(), parts.valid, ("ndcg@10",)).means["ndcg@10"]


def test_controls_stand_beside_what_was_found(found):
    space = SPACES["causal"]
    rows = controls(space, width=8, depth=2, random=3)
    assert list(rows) == ["all-none", "all-skip", "nextitnet", "random-0", "random-1", "random-2"]
    target = replace_operators(
        found.design, ["cau_cnn_3_d1", "none", "skip_connect", "cau_cnn_5_d2", "none", "cau_cnn_3_d4"]
    )
    same = random_of_price(space, found.costs, target, n=5)
    cells = found.costs.of(target, space) - found.costs.fixed
    for one in same.values():
        assert found.costs.of(one, space) - found.costs.fixed == pytest.approx(cells, rel=0.1)
        assert one.operators != target.operators
    assert len({one.operators for one in same.values()}) == 5
    assert apart(space, found.costs, target, same.values()) <= 0.1 * cells


def test_cells_that_cost_nothing_stand_beside_the_cheapest_random_ones(found):
    """None of its edges does anything, so no share of its price holds another cell."""
    space, nothing = SPACES["causal"], replace_operators(found.design, ["none"] * 6)
    prices = tuple(float(at + 1) * (name != "none") for at, name in enumerate(space.names))
    free = replace(found.costs, cell=0.0, operators=prices)
    drawn = random_of_price(space, free, nothing, n=5)
    prices = [free.of(each, space) for each in drawn.values()]
    assert len({each.operators for each in drawn.values()} - {nothing.operators}) == 5
    assert prices == sorted(prices)
    every = {cell_of(at, space) for at in range(20_000)} - {("none",) * 6}
    cheapest = sorted(nothing.depth * sum(free.operators[space.index(name)] for name in cell) for cell in every)
    assert prices == pytest.approx([free.fixed + price for price in cheapest[:5]])
    assert apart(space, free, nothing, drawn.values()) == prices[-1] - free.fixed
    assert apart(space, free, nothing, []) == 0


def test_more_random_cells_than_there_are_is_refused(found):
    with pytest.raises(UsageError, match=r"Of 20,000 random cells only \d+ are another .* Ask for fewer"):
        random_of_price(SPACES["causal"], found.costs, found.design, n=20_001)


def replace_operators(design, names):
    return Design.of(SPACES["causal"], [names], width=design.width, depth=design.depth)


def test_the_clock_of_a_sample_is_that_of_the_step(monkeypatch, parts, teacher):
    clocks = []
    whole = module.Supernet.sample
    monkeypatch.setattr(
        module.Supernet,
        "sample",
        lambda self, clock, *, paths: (clocks.append((clock, paths)), whole(self, clock, paths=paths)),
    )
    search(teacher, parts.train, valid=parts.valid, settings={**SMALL, "level": "bi", "share": 0.5})
    assert len(set(clocks)) == len(clocks)
    assert {paths for _, paths in clocks} == {1, 2}
    assert clocks[0][0] == Clock(0, 0)


def test_what_is_found_is_the_best_of_what_was_tried(found):
    scores = {each.design.operators: each.score for each in found.tried}
    assert found.derived.operators in scores
    assert scores[found.design.operators] == max(scores.values())
    assert found.cost == found.costs.of(found.design, SPACES["causal"])


def test_without_refinement_the_derived_cells_are_found(parts, teacher):
    plain = search(teacher, parts.train, valid=parts.valid, settings={**SMALL, "refine": {"designs": 0}})
    assert plain.design == plain.derived
    assert plain.tried == ()
