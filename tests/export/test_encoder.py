"""What is exported, when it is refused, and what a bundle is saved with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import recdistill as rd
from recdistill import bundle
from recdistill.bundle.encoder import Encoder
from recdistill.errors import BundleError, UnknownName, UsageError
from recdistill.export import encoder as exporting
from recdistill.export.encoder import encoder, traced
from recdistill.export.parity import Parity, parity, samples
from recdistill.export.quantise import quantised
from recdistill.recipes import trained as saving
from recdistill.recipes.encoder import encoder as chosen

QUICK = rd.TrainSettings(epochs=1, batch=32, loss="cross-entropy", weight_decay=0, device="cpu")


@pytest.fixture(scope="module")
def student(parts):
    return rd.fit("sasrec", parts.train, dim=8, settings={"layers": 1, "length": 9}, training=QUICK)


@pytest.fixture(scope="module")
def net(built):
    return built(layers=1)


@pytest.fixture(scope="module")
def part(net):
    return encoder(net)


def test_equal_weights_give_equal_bytes_and_the_model_stays_as_it_was(net, part):
    net.train()
    assert traced(net) == part.graph
    assert net.training
    net.eval()


def test_samples_hold_histories_as_they_are_single_items_and_long_ones(net):
    found = samples(net.histories, net.length, n=20)
    lengths = found.lengths
    assert len(lengths) == 20 + 5 + 5
    assert (lengths[20:25] == 1).all()
    assert (lengths[25:] == net.length + 3).all()
    assert found.row(20)[0] == found.row(0)[-1]


def test_parity_of_other_weights_does_not_hold_and_is_refused(net, part, built):
    other = built(layers=1)
    with torch.no_grad():
        other.placed.position[-1, 0] += 0.05
    found = parity(Encoder(part.graph, part.entry, part.table), other)
    assert not found.holds
    with pytest.raises(BundleError, match=r"does not answer as its model: scores differ by .* lists of 10 differ"):
        found.checked()


def test_a_difference_above_the_tolerance_alone_is_refused():
    with pytest.raises(BundleError, match=r"differ by up to 0\.00011, and 0 of 9 lists.*Allowed: at most 0\.0001"):
        Parity(9, 10, identical=9, tied=0, difference=1.1e-4, tolerance=1e-4).checked()


def test_answers_that_are_no_numbers_are_refused(net, part):
    broken = np.full_like(part.table, np.nan)
    assert not parity(Encoder(part.graph, part.entry, broken), net).holds


def test_lists_may_differ_only_where_float32_cannot_tell_scores_apart():
    from recdistill.export.parity import _tied

    user, item = np.ones(2, np.float32), np.array([[1, 1], [1, 1 + 1e-7], [1, 1.001]], np.float32)
    assert _tied(user, item, np.array([0, 1]), np.array([1, 0]))
    assert not _tied(user, item, np.array([0, 2]), np.array([2, 0]))


def test_a_model_that_cannot_be_traced_is_refused_with_the_reason(built, monkeypatch):
    net = built(layers=1)
    monkeypatch.setattr(type(net), "layers", lambda *_, **__: 1 / 0)
    with pytest.raises(BundleError, match=r"The encoder of the SASRec model cannot be written as ONNX: .*division"):
        traced(net)


def test_a_missing_package_is_named_with_its_remedy(net, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(UsageError, match=r'needs onnxscript, which is not installed.*pip install "recdistill\[onnx\]"'):
        traced(net)


def test_a_model_without_histories_has_no_encoder(parts):
    student = rd.fit("mf", parts.train, dim=4, training=QUICK)
    with pytest.raises(UsageError, match="A MF reads no histories, so it has no encoder"):
        chosen(student.model)
    with pytest.raises(UsageError, match="holds no encoder"):
        student.recommend_after([["i1"]])


# int8


def test_int8_is_smaller_near_and_its_loss_is_recorded(built, parts):
    net = built("nextitnet", dim=48, scale="one")
    small = chosen(net, "int8", valid=parts.valid)
    found = small.entry.measured["int8"]
    assert small.entry.precision == "int8"
    assert found["bytes"][1] < 0.5 * found["bytes"][0]
    assert found["users"] == len(parts.valid.queries)
    assert found["lost"]["ndcg@10"] == found["float32"]["ndcg@10"] - found["int8"]["ndcg@10"]
    assert 0 < found["identical_lists"] < 1
    rows = np.arange(net.n_users)
    vector, other = (
        net.encode(net.histories, rows),
        Encoder(small.graph, small.entry, small.table).encode(net.histories, rows),
    )
    assert np.linalg.norm(vector - other) < 0.1 * np.linalg.norm(vector)
    assert not np.array_equal(vector, other)


def test_int8_without_data_to_measure_it_on_is_refused(net):
    with pytest.raises(UsageError, match=r"loses some quality.*Give `valid`"):
        chosen(net, "int8")


def test_an_unknown_precision_is_answered_with_those_there_are(net):
    with pytest.raises(UnknownName, match=r"Unknown precision of an encoder 'int4'.*Did you mean 'int8'"):
        chosen(net, "int4")


def test_what_has_no_products_is_left_in_float32(built):
    with pytest.raises(UsageError, match="no products with weights"):
        quantised(encoder(built("gru4rec")))


# saving


def test_a_bundle_of_a_sequential_model_reads_new_histories(student, parts, tmp_path):
    manifest = student.save(tmp_path / "b")
    assert manifest.encoder.precision == "float32"
    assert manifest.encoder.table == "item"
    service = rd.Service.from_bundle(tmp_path / "b", verify="full")
    clicks = [parts.train.items.external([row, row + 1]).tolist() for row in range(5)]
    mine, ours = service.recommend_after(clicks, k=5), student.recommend_after(clicks, k=5)
    assert mine.item_id.tolist() == ours.item_id.tolist()
    assert np.allclose(mine.score, ours.score, atol=1e-4)
    known = parts.train.users.external([0, 3]).tolist()
    after = service.recommend_after({user: [] for user in known}, k=5)
    assert after.item_id.tolist() == service.recommend(known, k=5).item_id.tolist()


def test_no_encoder_is_exported_where_none_is_wanted(student, tmp_path):
    assert student.save(tmp_path / "b", encoder="none").encoder is None
    with pytest.raises(UsageError, match=r"This bundle cannot read new histories.*recdistill\[onnx\]"):
        rd.Service.from_bundle(tmp_path / "b").recommend_after([["i1"]])


def test_without_the_extra_a_bundle_is_saved_without_and_says_why(student, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "can_export", lambda: False)
    manifest = student.save(tmp_path / "b")
    assert manifest.encoder is None
    assert manifest.lineage["encoder"] == "not exported: the extra 'onnx' is not installed"
    known = student.train.users.external([0])
    assert rd.Service.from_bundle(tmp_path / "b").recommend(known, k=3).n_rows == 3


def test_a_failing_automatic_export_loses_no_model_and_one_by_name_says_so(student, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise BundleError("scores differ")

    monkeypatch.setattr(saving, "encoder", fail)
    assert student.save(tmp_path / "b").lineage["encoder"] == "not exported: scores differ"
    with pytest.raises(BundleError, match="scores differ"):
        student.save(tmp_path / "c", encoder="float32")
    assert not (tmp_path / "c").exists()


def test_int8_is_saved_with_its_loss(student, parts, tmp_path):
    student.save(tmp_path / "b", encoder="int8", valid=parts.valid)
    stored = json.loads((tmp_path / "b" / "manifest.json").read_text())["encoder"]
    assert stored["precision"] == "int8"
    assert set(stored["measured"]["int8"]["lost"]) == {"recall@10", "ndcg@10"}
    assert bundle.open(tmp_path / "b", verify="full").encoder.entry.precision == "int8"
