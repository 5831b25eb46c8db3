"""Cells as sequential models: sizes, what stands around them, supernet and derived student."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from recdistill.clock import Clock, constant
from recdistill.data.interactions import Interactions
from recdistill.errors import CheckpointError, SettingsError, UnknownName
from recdistill.ids import IdTable
from recdistill.query import Query
from recdistill.search.derive import derive, named
from recdistill.search.model import Cells, CellsSettings, Frame, Supernet, build, of_design
from recdistill.search.packing import Packing
from recdistill.search.sampling import Architecture
from recdistill.search.space import SPACES
from recdistill.settings import parse


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def log():
    """6 users x 30 items, histories of 2 to 14 items."""
    draw = np.random.default_rng(0)
    user = np.repeat(np.arange(6), [14, 2, 5, 9, 3, 12])
    return Interactions(
        IdTable.from_ids([f"u{n}" for n in range(6)]),
        IdTable.from_ids([f"i{n}" for n in range(30)]),
        user.astype(np.int32),
        draw.integers(0, 30, len(user)).astype(np.int32),
        timestamp=np.arange(len(user), dtype=np.int64),
    )


def supernet(log, *, space="causal", depth=False, seed=0, items=30, cells=2, **frame):
    architecture = Architecture(SPACES[space], cells=cells, temperature=constant(1.0), depth=depth, seed=seed)
    return Supernet(log.histories(), items, architecture, Frame(**{"dim": 8, "length": 9} | frame), seed=seed)


@pytest.mark.parametrize(("width", "teacher", "total"), [(64, 256, 3_714_077), (32, 128, 1_264_029)])
def test_the_whole_supernet_has_the_parameters_of_the_sheet(log, width, teacher, total):
    # nin: items 640,000 + padding 64 + positions 3,200 + output 640,000 + biases 10,000 + cells 2,387,468, and two
    # projections 33,280; the official code has a class for padding besides: width + 1
    whole = supernet(
        log,
        space="published",
        items=10_000,
        cells=4,
        dim=width,
        length=50,
        pads=True,
        norm=False,
        tied=False,
        bias=True,
    )
    projections = 2 * (width * teacher + teacher)
    assert projections == {64: 33_280, 32: 8_448}[width]
    assert count(whole) - count(whole.architecture) + projections + width + 1 == total
    assert whole.n_body == {64: 2_387_468, 32: 603_916}[width]


def states(net, history, at=None, key=None):
    query = Query(torch.zeros(len(history), dtype=torch.int64), history=history, at=at, key=key)
    return net.view(query).states()


def test_states_are_what_enters_and_what_leaves_each_cell(log, histories):
    net = supernet(log)
    net.sample(Clock(), paths=2)
    found = states(net, histories, at=(histories >= 0).nonzero())
    assert found.shape == (3, 5, 9, 8)
    assert (found[:, histories < 0] == 0).all()


@pytest.mark.parametrize("norm", [False, True])
def test_positions_are_counted_from_the_end_and_padding_changes_nothing(log, histories, norm):
    net = supernet(log, dropout=0.0, norm=norm).eval()
    short, long = states(net, histories[2:3, 5:]), states(net, histories[2:3])
    torch.testing.assert_close(short, long[:, :, 5:])
    entered = net.item[histories.clamp(min=0)] + net.position
    entered = (F.layer_norm(entered, (8,), eps=1e-8) if norm else entered) * (histories >= 0)[:, :, None]
    torch.testing.assert_close(states(net, histories)[0], entered)


def test_padding_that_is_read_is_always_there(log, histories):
    net = supernet(log, pads=True, over="all").eval()
    with torch.no_grad():
        net.architecture.alpha[..., 3] = 9.0  # a convolution over 5 items
    short, long = states(net, histories[2:3, 5:]), states(net, histories[2:3])
    torch.testing.assert_close(short, long[:, :, 5:])
    before = states(net, histories)
    with torch.no_grad():
        net.padding.add_(1.0)
    after = states(net, histories)
    assert not torch.allclose(before[-1, 1, -1], after[-1, 1, -1])
    torch.testing.assert_close(before[0, 1, -1], after[0, 1, -1])


def test_norms_in_training_are_of_the_whole_batch(log, histories):
    """Histories of like length would otherwise be a batch of their own."""
    net = Cells(
        log.histories(), 30, named("all-cau_cnn_3_d1", SPACES["causal"], width=8).build(), Frame(dim=8, length=9)
    )
    asked = []
    net.chain.register_forward_pre_hook(lambda _m, given: asked.append(given[1].tolist()))
    net.train().view(Query(torch.zeros(5, dtype=torch.int64), history=histories, at=torch.tensor([[0, 8]]))).vectors()
    yes, no = [True], [False]
    assert asked == [[yes * 9, yes * 6 + no * 3, yes * 4 + no * 2 + yes + no * 2]]  # a kernel of 3 reaches over 2


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("depth", [False, True])
def test_packed_histories_learn_what_they_would_apart(log, space, depth, monkeypatch):
    """Two steps of a supernet: states, gradients, statistics of norms; with dropout, whose draws are the same."""
    g = torch.Generator().manual_seed(1)
    lengths = [40, 1, 4, 6, 0, 2, 12, 3, 1]
    history = torch.randint(0, 30, (9, 40), generator=g)
    for row, length in enumerate(lengths):
        history[row, : 40 - length] = -1
    at = (history >= 0).nonzero()
    widths, found = [], []
    for packs in (True, False):
        net = supernet(log, space=space, depth=depth, seed=2, length=40).train().double()
        net.chain.register_forward_pre_hook(lambda _m, given: widths.append(given[0].shape[:2].numel()))
        if not packs:
            monkeypatch.setattr(Packing, "of", lambda *_: None)
        for step in range(2):
            net.sample(Clock(step=step), paths=4)
            view = net.view(Query(torch.zeros(9, dtype=torch.int64), history=history, at=at, key=step))
            of = torch.randn(view.vectors().shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            (view.vectors() * of).sum().add(view.states().square().sum()).backward()
        there = {name: each.grad for name, each in net.named_parameters() if each.grad is not None}
        found.append(there | dict(net.named_buffers()) | {"states": view.states().detach()})
    assert max(widths[:2]) <= 4 * 40 < min(widths[2:]) == 9 * 40
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        torch.testing.assert_close(
            found[0][name], found[1][name], rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_dropout_is_a_function_of_the_querys_key(log, histories):
    net = Cells(log.histories(), 30, named("all-skip", SPACES["causal"], width=8).build(), Frame(dim=8, length=9))
    at = (histories >= 0).nonzero()
    chance = torch.get_rng_state()
    one, same, other = (states(net, histories, at, key) for key in (5, 5, 6))
    assert torch.equal(chance, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(states(net.eval(), histories, at, 5), states(net, histories, at, 6))


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("frame", [{}, {"pads": True, "over": "all", "tied": False, "bias": True}])
def test_a_derived_student_with_inherited_weights_is_the_supernet_at_its_best(log, histories, depth, frame):
    net = supernet(log, depth=depth, seed=4, cells=3, **frame)
    at = (histories >= 0).nonzero()
    for step in range(3):  # statistics that are not trivial
        net.sample(Clock(0, step), paths=10)
        states(net, histories, at, step)
    student = net.eval().derived(derive(net.architecture, width=8))
    torch.testing.assert_close(states(student, histories), states(net, histories))
    query = Query(torch.arange(6))
    items = torch.arange(30)
    torch.testing.assert_close(student.view(query).scores_among(items), net.view(query).scores_among(items))
    with torch.no_grad():
        student.item.add_(1.0)
    assert not torch.equal(student.item, net.item), "it is a copy"


def test_a_supernet_answers_as_its_best_when_it_does_not_learn(log):
    net = supernet(log, seed=4).eval()
    net.sample(Clock(), paths=2)
    assert net.view(Query(torch.arange(6))).choice.paths == net.architecture.best().paths
    assert net.train().view(Query(torch.arange(6))).choice is net.choice


def test_settings_name_a_cell_or_hold_a_design(log):
    assert set(CellsSettings(dim=4, cell="all-none").designed().operators[0]) == {"none"}
    design = named("random-3", SPACES["causal"], width=4, depth=2)
    settings = of_design(design, Frame(dim=4, length=7, tied=False))
    again = CellsSettings.model_validate_json(settings.model_dump_json())
    assert again.designed().operators == design.operators
    assert (again.length, again.tied, again.cells) == (7, False, 2)
    student = build(again, 6, 30, 1, log)
    assert student.n_body == count(design.build())
    with pytest.raises(UnknownName, match="Unknown cell 'nextitnot'"):
        CellsSettings(cell="nextitnot").designed()
    with pytest.raises(SettingsError, match="A cell needs an operator for every edge"):
        CellsSettings(operators=(("none",),)).designed()


def test_a_student_may_begin_with_the_weights_of_its_search(log, tmp_path):
    net = supernet(log, seed=4).eval()
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "start.safetensors")
    design = derive(net.architecture, width=8)
    settings = of_design(design, net.frame, start=tmp_path / "start.safetensors")
    student = build(settings, 6, 30, 99, log).eval()
    query, items = Query(torch.arange(6)), torch.arange(30)
    torch.testing.assert_close(student.view(query).scores_among(items), net.view(query).scores_among(items))
    with pytest.raises(CheckpointError, match=r"have \(30, 8\) for 'item', and the student needs \(30, 4\)"):
        build(settings.model_copy(update={"dim": 4}), 6, 30, 99, log)
    with pytest.raises(CheckpointError, match="The weights to begin with cannot be read"):
        build(settings.model_copy(update={"start": tmp_path / "nothing"}), 6, 30, 99, log)


@pytest.mark.parametrize("cell", ["nextitnet", "random-1", "all-cau_avg_pool"])
def test_a_student_does_not_see_the_future(log, cell, shaken):
    student = shaken(build(CellsSettings(dim=8, length=9, cell=cell), 6, 30, 1, log))
    g = torch.Generator().manual_seed(0)
    one = torch.randint(0, 30, (4, 9), generator=g)
    two = one.clone()
    two[:, 5:] = torch.randint(0, 30, (4, 4), generator=g)
    before, after = states(student, one), states(student, two)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not torch.equal(before[:, :, 5:], after[:, :, 5:])


def test_cells_can_be_cited_before_anything_is_trained():
    said = subprocess.run(
        [sys.executable, "-c", "import recdistill as rd; print(rd.cite('cells'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "2107.07173" in said.stdout


def test_a_design_in_a_file_is_read_once_and_settings_depend_on_it_no_more(tmp_path):
    design = named("random-3", SPACES["attentive"], width=6, depth=2).model_copy(update={"exit": True})
    path = tmp_path / "cell.json"
    path.write_text(design.to_json(), encoding="utf-8")
    settings = parse(CellsSettings, {"design": str(path), "length": 7})
    path.unlink()
    assert settings == CellsSettings(**of_design(design, Frame(dim=6, length=7)).model_dump())
    assert settings.designed().operators == design.operators
    text = settings.model_dump_json()
    assert "design" not in text
    assert parse(CellsSettings, json.loads(text)) == settings
    assert settings.model_dump(exclude_unset=True).keys() >= {"space", "cells", "operators", "exit", "dim"}


def test_a_design_may_be_built_at_another_width(tmp_path):
    path = tmp_path / "cell.json"
    path.write_text(named("nextitnet", SPACES["causal"], width=6).to_json(), encoding="utf-8")
    assert CellsSettings(design=path, dim=10).designed().width == 10


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        (None, {}, r"The design '.*cell.json' cannot be read \(.*No such file.*Give the cell.json of a search"),
        ("{", {}, r"'.*cell.json' is not a design: A design must be JSON .*Give the cell.json of a search"),
        ('{"operators": 3}', {}, r"'.*cell.json' is not a design: .*'space' is missing"),
        ("{}", {"cells": 2}, r"says all of its cells, and cells too is given\. Take out 'design', or cells\."),
    ],
)
def test_a_design_that_cannot_be_read_is_named(tmp_path, text, more, said):
    path = tmp_path / "cell.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=re.compile(said, re.DOTALL)):
        parse(CellsSettings, {"design": str(path), **more})
