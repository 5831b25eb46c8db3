"""Sequential models: their sizes, what a position may see, padding, views, stages, and that they learn an order."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import recdistill as rd
from recdistill.data.histories import Histories
from recdistill.data.interactions import Interactions
from recdistill.errors import UsageError
from recdistill.ids import IdTable
from recdistill.models import MODELS, bert4rec, nextitnet, sasrec
from recdistill.models.sequence_view import Encoding
from recdistill.query import MASK, Query
from recdistill.runtime import drawing
from recdistill.search.model import Cells
from recdistill.settings import parse

MODELS_PAGE = Path(__file__).parents[2] / "docs" / "models.md"
NAMES = [name for name in MODELS if MODELS[name].settings.model_fields.keys() & {"length"}]
ITEMS = 40
FORMS = {
    "gru4rec": [{}, {"layers": 2, "bias": True, "tied": False}],
    "nextitnet": [{}, {"scale": "one", "bias": True}, {"norm": True, "head_dropout": 0.5, "tied": True}],
    "sasrec": [{}, {"form": "pre"}, {"form": "rezero", "tied": False, "bias": True, "activation": "relu"}],
    "bert4rec": [{"cloze": 0}, {"cloze": 0, "form": "pre", "tied": False}],
    "cells": [{}, {"cell": "random-1", "cells": 2, "bias": True, "tied": False}],
}
shapes = pytest.mark.parametrize(("name", "form"), [(n, f) for n in NAMES for f in FORMS[n]])


pytestmark = pytest.mark.usefixtures("one_thread")


def histories(users: int = 9, longest: int = 30) -> Histories:
    draw = np.random.default_rng(1)
    lengths = draw.integers(0, longest, users)
    lengths[3] = 0
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Histories(indptr, draw.integers(0, ITEMS, indptr[-1]).astype(np.int32))


KINDS = {"sasrec": "SASRec", "nextitnet": "NextItNet", "bert4rec": "BERT4Rec", "gru4rec": "GRU4Rec"}


def bare(name, items=ITEMS, of=None, seed=0, **settings):
    entry = MODELS[name]
    parsed = parse(entry.settings, settings)
    if name == "cells":
        return Cells(of or histories(), items, parsed.designed().build(seed=seed), parsed, seed=seed)
    module = __import__(f"recdistill.models.{name}", fromlist=["_"])
    return getattr(module, KINDS[name])(of or histories(), items, parsed, seed=seed)


def rough(name, form, **settings):
    """Far from its small initial values, dropout off."""
    net = bare(name, dim=8, length=20, **form, **settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.4)
    return net.eval()


def table(*rows: list[int]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[-1] * (width - len(row)) + row for row in rows])


def final(net, history):
    with torch.no_grad():
        return Encoding(net, history).final


# sizes: the sheet's section 1; it counts PAD as an item, so 10,000 items are 10,001 rows


@pytest.mark.parametrize(
    ("name", "settings", "body", "whole"),
    [
        # 16 blocks of 2 (3 * 256^2 + 256) + 2 * 512 + 1; tables 10,001 * (256 + 257)
        ("nextitnet", nextitnet.ADAREC, 6_316_048, 11_446_561),
        # 8 blocks of 5 (128^2 + 128) + 2 * 256 + 1, a last norm of 256; 50 * 128 positions; tables 10,001 * (128 + 129)
        ("sasrec", sasrec.ADAREC, 664_840, 3_241_497),
        # 8 blocks of 4 (128^2 + 128) + 2 * 128 * 512 + 512 + 128 + 2 * 256; positions; tables and MASK
        ("bert4rec", bert4rec.ADAREC, 1_586_176, 4_162_961),
    ],
)
def test_parameter_counts_are_those_of_adarecs_teachers(name, settings, body, whole):
    net = bare(name, items=10_001, **settings)
    assert net.n_body == body
    assert net.n_parameters == whole


def test_the_usual_sasrec_has_the_size_of_s3_rec():
    # S3-Rec: item table, 50 positions, a norm, 2 blocks of 4 (64^2 + 64) + 64 * 256 * 2 + 256 + 64 + 2 * 128
    net = bare("sasrec", items=11_924)
    assert net.n_body == 2 * (4 * (64**2 + 64) + 2 * 64 * 256 + 256 + 64 + 2 * 128)
    assert net.n_parameters == 11_924 * 64 + 50 * 64 + 128 + net.n_body


@pytest.mark.parametrize(
    ("name", "body", "whole"),
    [
        # item table 100 * 8; positions 50 * 8, a norm 16; 2 blocks of 4 (64 + 8) + 8 * 32 * 2 + 32 + 8 + 2 * 16
        ("sasrec", 2 * (288 + 552 + 32), 800 + 400 + 16 + 1744),
        # the same, a bias for each item, one hidden item
        ("bert4rec", 1744, 800 + 400 + 16 + 1744 + 100 + 8),
        # two tables; 4 blocks of 2 (3 * 64 + 8) + 2 * 16 + 1
        ("nextitnet", 4 * 433, 1600 + 1732),
        # 3 gates of 8 x 8 from below, 8 x 8 from before, and two biases
        ("gru4rec", 3 * (64 + 64 + 8 + 8), 800 + 432),
    ],
)
def test_parameter_counts_by_hand_and_as_documented(name, body, whole):
    net = bare(name, items=100, dim=8)
    assert (net.n_body, net.n_parameters) == (body, whole)
    row = re.search(rf"\| `{name}` \|.*?\|([^|]*)\|", MODELS_PAGE.read_text(encoding="utf-8"))[1]
    formula = row.strip().replace("^", "**").replace(" (", " * (").replace("+ * (", "+ (")
    known = {"I": 100, "T": 50, "d": 8, "layers": 1 if name == "gru4rec" else 2, "blocks": 4}
    product = re.sub(r"(\w) (?=[A-Za-z])", r"\1 * ", formula)
    assert _value(product, known) == whole


def _value(formula: str, known: dict[str, int]) -> int:
    """Sums, products and powers of names and numbers."""

    def of(node: ast.AST) -> int:
        match node:
            case ast.Expression(body=body):
                return of(body)
            case ast.BinOp(left=left, op=op, right=right):
                one, other = of(left), of(right)
                return {ast.Add: one + other, ast.Mult: one * other, ast.Pow: one**other}[type(op)]
            case ast.Name(id=name):
                return known[name]
            case ast.Constant(value=int(value)):
                return value
        raise AssertionError(ast.dump(node))

    return of(ast.parse(formula, mode="eval"))


# what a position may see


@shapes
@pytest.mark.parametrize("at", [0, 6, 11])
def test_the_future_changes_nothing_at_or_before_a_position(name, form, at):
    net = rough(name, form)
    generator = torch.Generator().manual_seed(at)
    history = torch.randint(ITEMS, (4, 12), generator=generator)
    other = history.clone()
    other[:, at + 1 :] = torch.randint(ITEMS, (4, 11 - at), generator=generator)
    one, two = (Encoding(net, each) for each in (history, other))
    with torch.no_grad():
        torch.testing.assert_close(one.final[:, : at + 1], two.final[:, : at + 1])
        torch.testing.assert_close(one.states[:, :, : at + 1], two.states[:, :, : at + 1])
        if at < 11:
            assert not torch.allclose(one.final[:, -1], two.final[:, -1]), "the test can see a change"


@shapes
def test_the_past_does_change_a_position(name, form):
    net = rough(name, form)
    history = table([1, 2, 3, 4])
    assert not torch.allclose(final(net, history)[0, -1], final(net, table([1, 9, 3, 4]))[0, -1])


@shapes
@pytest.mark.parametrize("pads", [1, 5, 14])
def test_padding_on_the_left_changes_nothing(name, form, pads):
    net = rough(name, form)
    history = torch.randint(ITEMS, (3, 6), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([torch.full((3, pads), -1), history], 1)
    for both_ways in (False, True):
        with torch.no_grad():
            one, two = (Encoding(net, each, both_ways=both_ways) for each in (history, padded))
            torch.testing.assert_close(two.final[:, pads:], one.final)
            torch.testing.assert_close(two.states[:, :, pads:], one.states)
            assert (two.final[:, :pads] == 0).all()
            assert (two.states[:, :, :pads] == 0).all()


@shapes
def test_a_history_does_not_know_what_else_is_in_its_batch(name, form):
    """Histories are encoded in groups of like length."""
    net = rough(name, form)
    rows = [[1], list(range(9)), list(range(20)), [5, 6, 7], list(range(20, 3, -1)), list(range(12))]
    whole = final(net, table(*rows))
    for row, found in zip(rows, whole, strict=True):
        torch.testing.assert_close(found[-len(row) :], final(net, torch.tensor([row]))[0])


@shapes
def test_gradients_come_through_the_groups(name, form):
    net = rough(name, form)
    history = table([1], list(range(9)), list(range(20)), [5, 6])
    gradients = []
    for alone in (False, True):
        parts = [history] if not alone else [row[None][:, (row != -1).int().argmax() :] for row in history]
        net.zero_grad()
        sum(Encoding(net, part).final.square().sum() for part in parts).backward()
        gradients.append({n: p.grad for n, p in net.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][key], rtol=1e-4, atol=1e-4)


# views


@shapes
def test_scores_at_positions_are_products_with_the_output_vectors(name, form):
    net = rough(name, form)
    history, at = table([3, 1, 4], [1, 5, 9, 2, 6]), torch.tensor([[0, 4], [1, 0], [1, 3]])
    items = torch.tensor([[0, 7], [7, 7], [39, 2]])
    view = net.view(Query(torch.tensor([4, 2]), history=history, at=at))
    state = final(net, history)[at[:, 0], at[:, 1]]
    out = net.item if net.out is None else net.out
    bias = torch.zeros(ITEMS) if net.bias is None else net.bias
    want = torch.stack([out[i] @ s + bias[i] for i, s in zip(items, state, strict=True)])
    torch.testing.assert_close(view.scores(items), want)
    torch.testing.assert_close(view.scores_among(items[0]), (state @ out.T + bias)[:, items[0]])
    torch.testing.assert_close(view.log_partition(torch.zeros(3, 0).long()), (state @ out.T + bias).logsumexp(1))
    assert view.known().tolist() == [True] * 3
    assert view.states().shape[1:] == (2, 5, 8)


@shapes
def test_a_query_without_positions_is_asked_at_its_end(name, form):
    net = rough(name, form)
    history = table([3, 1, 4], [1, 5, 9, 2, 6])
    ends = torch.tensor([[0, 4], [1, 4]])
    positions = net.view(Query(torch.tensor([4, 2]), history=history, at=ends))
    end = net.view(Query(torch.tensor([-1, -1]), history=history))
    torch.testing.assert_close(end.vectors(), positions.vectors())
    part = positions.select(torch.tensor([1, 0, 1]))
    torch.testing.assert_close(part.vectors(), positions.vectors()[[1, 0, 1]])
    torch.testing.assert_close(part.states(), positions.states()[:, [1, 0, 1]])


@shapes
def test_a_user_stands_for_the_end_of_the_training_history(name, form):
    net = rough(name, form)
    of = net.histories
    users = torch.tensor([8, 0, 3, 1])
    by_row = net.view(Query(users))
    by_hand = [final(net, torch.from_numpy(of.row(u)[-20:].astype(np.int64))[None])[0, -1] for u in (8, 0, 1)]
    found = by_row.vectors().detach()[:, :8]
    torch.testing.assert_close(found[[0, 1, 3]], torch.stack(by_hand))
    assert (found[2] == 0).all(), "who did nothing has no state"
    torch.testing.assert_close(by_row.entities("user", users), by_row.vectors())
    np.testing.assert_allclose(net.arrays()["user"][users], by_row.vectors().detach(), rtol=1e-4, atol=1e-5)


@shapes
def test_a_ranker_follows_other_histories(name, form):
    net = rough(name, form)
    grown = Histories(np.array([0, 3, 3], np.int64), np.array([7, 8, 9], np.int32))
    ranker = net.ranker()
    assert ranker.following(net.histories) is ranker
    other = ranker.following(grown)
    assert (other.n_users, other.n_items) == (2, ITEMS)
    items = np.arange(ITEMS)[None]
    with torch.no_grad():
        want = net.view(Query(torch.tensor([-1]), history=table([7, 8, 9]))).scores(torch.from_numpy(items))
    np.testing.assert_allclose(other.scores_of(np.array([0]), items), want, rtol=1e-4, atol=1e-5)
    assert other.top_k(np.array([0]), 3).tolist() == want.topk(3).indices.tolist()


def test_each_history_is_encoded_once():
    net = rough("sasrec", {})
    asked = []
    encode = net.encode
    net.encode = lambda of, rows: asked.extend(rows.tolist()) or encode(of, rows)
    ranker = net.ranker()
    for users in ([0, 1], [1, 2], [2, 2, 0]):
        ranker.top_k(np.array(users), 3)
    assert asked == [0, 1, 2]


def test_a_longer_history_than_a_model_reads_is_cut_at_its_end_and_refused_at_positions():
    net = rough("sasrec", {})
    long = torch.arange(30)[None]
    torch.testing.assert_close(
        net.view(Query(torch.tensor([-1]), history=long)).vectors(),
        net.view(Query(torch.tensor([-1]), history=long[:, 10:])).vectors(),
    )
    view = net.view(Query(torch.tensor([-1]), history=long, at=torch.tensor([[0, 29]])))
    with pytest.raises(UsageError, match=r"SASRec model reads at most 20 items of a history; got 30. Give teacher and"):
        view.scores(torch.tensor([[1]]))
    torch.testing.assert_close(view.select(torch.tensor([0])).vectors()[0], final(net, long[:, 10:])[0, -1])


def test_a_part_of_a_view_costs_nothing_until_it_is_asked(monkeypatch):
    net = rough("sasrec", {})
    asked = []
    layers = net.layers
    monkeypatch.setattr(net, "layers", lambda *a, **k: asked.append(len(a[0])) or layers(*a, **k))
    view = net.view(Query(torch.tensor([0, 1]), history=table([1, 2], [3]), at=torch.tensor([[0, 1]])))
    part = view.select(torch.tensor([1])).select(torch.tensor([0, 0]))
    assert asked == []
    torch.testing.assert_close(part.vectors(), view.select(torch.tensor([1, 1])).vectors())
    view.scores(torch.tensor([[1]]))
    assert asked == [2], "all parts share what was computed"


def test_vectors_of_a_layer_that_is_not_there_are_refused():
    view = rough("sasrec", {"tied": False}).view(Query(torch.tensor([0])))
    assert not torch.equal(view.entities("item", torch.tensor([1])), view.entities("item", torch.tensor([1]), 0))
    for side, layer in (("item", 1), ("user", 0)):
        with pytest.raises(UsageError, match=f"no such layer of {side} vectors; got {layer}"):
            view.entities(side, torch.tensor([1]), layer)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(UsageError, match="heads of attention must divide the width 6; got 4"):
        bare("sasrec", dim=6, heads=4)


def test_a_nextitnet_begins_with_what_the_last_item_says_and_a_norm_gives_it_unit_scale():
    history = table([3, 7, 5])
    plain, normed = (bare("nextitnet", dim=8, tied=True, norm=norm, init_std=1).eval() for norm in (False, True))
    item = plain.item[5].detach()
    assert torch.equal(final(plain, history)[0, -1], item)  # the blocks' scale is 0
    by_hand = (item - item.mean()) / item.std(correction=0)
    torch.testing.assert_close(final(normed, history)[0, -1], by_hand)
    assert normed.n_body == plain.n_body


# chance


def test_a_nextitnet_drops_its_embedding_and_its_last_states_apart():
    history = table([3, 7, 5])

    def dropped(**settings):
        net = bare("nextitnet", dim=64, tied=True, **settings).train()
        with drawing(1, torch.device("cpu")):
            first, *_, last = net.layers(net.embedded(history), history != -1, both_ways=False)
        return [(each == 0).float().mean().item() for each in (first, last)]

    assert dropped() == [0, 0]
    entry, end = dropped(head_dropout=0.5)
    assert (entry, 0.3 < end < 0.7) == (0, True)
    entry, end = dropped(dropout=0.5)
    assert 0.3 < entry < 0.7
    assert end == entry


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_a_function_of_the_querys_key_and_leaves_torchs_generator_alone(name):
    net = bare(name, dim=8, length=20, dropout=0.5).train()
    history = table([1, 2, 3], list(range(15)))
    before = torch.get_rng_state()

    def ask(key):
        return net.view(Query(torch.tensor([0, 1]), history=history, at=torch.tensor([[0, 14]]), key=key)).vectors()

    assert torch.equal(ask(7), ask(7))
    assert not torch.equal(ask(7), ask(8))
    assert torch.equal(before, torch.get_rng_state())
    net.eval()
    assert torch.equal(ask(7), ask(8))


def test_without_a_key_torch_draws():
    with drawing(None, torch.device("cpu")):
        torch.rand(1)
    with drawing(5, torch.device("cpu")):
        one = torch.rand(3)
    with drawing(5, torch.device("cpu")):
        assert torch.equal(one, torch.rand(3))


# stages of BERT4Rec


def test_a_model_of_the_first_stage_is_asked_with_a_hidden_item_at_the_end():
    net = rough("bert4rec", {"cloze": 3})
    with torch.no_grad():
        found = net.view(Query(torch.tensor([-1]), history=table([4, 5, 6]))).vectors()
        want = Encoding(net, table([4, 5, 6, MASK]), both_ways=True).final[:, -1]
    torch.testing.assert_close(found[:, :8], want)
    long = torch.arange(20)[None]
    cut = torch.cat([long[:, 1:], torch.tensor([[MASK]])], 1)
    with torch.no_grad():
        found = net.view(Query(torch.tensor([-1]), history=long)).vectors()
        torch.testing.assert_close(found[:, :8], Encoding(net, cut, both_ways=True).final[:, -1])


def test_a_cloze_text_is_read_both_ways_and_other_histories_are_not():
    net = rough("bert4rec", {"cloze": 3})
    for both_ways in (True, False):
        one, two = (Encoding(net, table(row), both_ways=both_ways).final[0, 0] for row in ([1, 2, 3], [1, 2, 4]))
        assert torch.allclose(one, two) != both_ways


def test_the_stage_that_was_learned_last_is_served_and_kept_in_the_state():
    net = rough("bert4rec", {"cloze": 3}).train()
    assert not net.causal
    history, at = table([1, 2, 3]), torch.tensor([[0, 1]])
    net.view(Query(torch.tensor([0]), history=history, at=at))
    assert net.causal
    state = {key: value.clone() for key, value in net.state_dict().items()}
    net.view(Query(torch.tensor([0]), history=history, at=at, both_ways=True))
    assert not net.causal
    net.eval()
    net.view(Query(torch.tensor([0]), history=history, at=at))
    assert not net.causal, "only learning changes it"
    net.load_state_dict(state)
    assert net.causal


# learning


def walks() -> Interactions:
    """60 users who go round 12 items in one of two directions, from anywhere: the last two items tell the next."""
    draw = np.random.default_rng(0)
    item = [(draw.integers(12) + (1 if u % 2 else -1) * np.arange(5 + u % 6)) % 12 for u in range(60)]
    return Interactions(
        users=IdTable.from_ids(np.arange(60)),
        items=IdTable.from_ids(np.arange(12)),
        user=np.repeat(np.arange(60), [len(each) for each in item]).astype(np.int32),
        item=np.concatenate(item).astype(np.int32),
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_an_order_and_is_tested_after_the_validation_item(name):
    log = walks()
    parts = rd.split(log, "leave-last-out")
    training = rd.TrainSettings(
        epochs=60, batch=20, lr=0.02, loss="cross-entropy", negatives=0, weight_decay=0, metrics=("hr@1",), device="cpu"
    )
    settings = {"length": 8} | ({"cloze": 20} if name == "bert4rec" else {})
    trained = rd.fit(name, parts.train, dim=16, valid=parts.valid, settings=settings, training=training)
    found = rd.evaluate(trained.ranker(), parts.test, ("hr@1",))
    assert found.means["hr@1"] > 0.9
    before = trained.ranker().top_k(np.arange(60), 1, parts.valid.seen)[:, 0]
    valid, test = (
        np.mean([i in held.targets.row(u) for u, i in enumerate(before)]) for held in (parts.valid, parts.test)
    )
    assert valid > 0.9
    assert test < 0.1, "without the validation item, that item is next"
    answer = trained.recommend([0, 1], k=1)
    assert len(answer.item_id) == 2


def test_a_saved_model_serves_what_it_ranked(tmp_path):
    parts = rd.split(walks(), "leave-last-out")
    training = rd.TrainSettings(epochs=2, batch=20, loss="bce", device="cpu")
    trained = rd.fit("sasrec", parts.train, dim=8, training=training)
    trained.save(tmp_path / "bundle")
    users = list(range(60))
    one, other = (service.recommend(users, k=4) for service in (trained, rd.Service.from_bundle(tmp_path / "bundle")))
    assert one.item_id.tolist() == other.item_id.tolist()


def test_each_metrics_best_epoch_is_a_ranker_of_its_own():
    parts = rd.split(walks(), "leave-last-out")
    training = rd.TrainSettings(
        epochs=6, batch=20, loss="bce", weight_decay=0, metrics=("hr@1", "hr@5"), patience=9, device="cpu"
    )
    trained = rd.fit("sasrec", parts.train, dim=8, valid=parts.valid, training=training)
    for metric in ("hr@1", "hr@5"):
        found = rd.evaluate(trained.at_best(metric), parts.valid, (metric,)).means[metric]
        assert found == pytest.approx(trained.report.best[metric].value, abs=1e-4)
