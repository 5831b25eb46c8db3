"""A bundle's encoder: what is stored, what is read, and what is refused before a runtime sees it."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill import bundle
from recdistill.bundle import graph as graphs
from recdistill.bundle.encoder import Encoder, EncoderPart
from recdistill.bundle.manifest import EncoderEntry
from recdistill.data.histories import Histories
from recdistill.errors import BundleError, UsageError

from .conftest import Broken, contents

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

HISTORIES = Histories(np.array([0, 2, 3, 3, 6]), np.array([1, 4, 0, 5, 5, 2], np.int32))


def proto(nodes=None, initializers=(), **around):
    """The vector of the last item, 0 where there is none: three dims in, three out."""
    make, kinds = onnx.helper, onnx.TensorProto
    nodes = nodes or [
        make.make_node("Gather", ["vectors", "last"], ["end"], axis=1),
        make.make_node("Identity", ["end"], ["vector"]),
    ]
    last = onnx.numpy_helper.from_array(np.array(-1), "last")
    graph = make.make_graph(
        nodes,
        "encoder",
        [
            make.make_tensor_value_info("vectors", kinds.FLOAT, ["q", "t", 3]),
            make.make_tensor_value_info("real", kinds.BOOL, ["q", "t"]),
        ],
        [make.make_tensor_value_info("vector", kinds.FLOAT, ["q", 3])],
        [last, *initializers],
    )
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10, **around)


def part(graph: bytes | None = None, **entry) -> EncoderPart:
    sizes = {"width": 3, "gives": 3, "length": 2, "parameters": 0}
    fields = {"table": "item", "precision": "float32", "measured": {}, **sizes}
    table = contents()["arrays"]["item"]
    return EncoderPart(graph or proto().SerializeToString(), EncoderEntry(**fields | entry), table, HISTORIES)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "bundle"
    bundle.save(path, **contents(), encoder=part())
    return path


@pytest.fixture
def broken(saved):
    return Broken(saved)


def test_what_was_saved_is_opened(saved):
    opened = bundle.open(saved, verify="full")
    assert opened.encoder.graph == part().graph
    assert opened.encoder.entry == part().entry
    assert opened.encoder.histories.row(3).tolist() == [5, 5, 2]
    assert set(opened.manifest.files) == {*bundle.io.FILES, *bundle.io.ENCODER_FILES}
    assert opened.manifest.n_parameters == 4 * 3 + 6 * 3


def test_equal_input_gives_equal_bytes(saved, tmp_path):
    bundle.save(tmp_path / "again", **contents(), encoder=part())
    for file in saved.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_bundle_without_an_encoder_says_nothing_of_one(tmp_path):
    bundle.save(tmp_path / "plain", **contents())
    assert "encoder" not in json.loads((tmp_path / "plain" / "manifest.json").read_text())
    assert bundle.open(tmp_path / "plain").encoder is None


def test_saving_over_it_without_an_encoder_takes_it_away(saved):
    bundle.save(saved, **contents(), overwrite=True)
    assert bundle.open(saved, verify="full").encoder is None
    assert not (saved / "encoder.onnx").exists()


def test_another_table_is_stored_beside_the_items(tmp_path):
    inner = np.ones((6, 4), np.float32)
    given_part = EncoderPart(part().graph, part(table="input").entry, inner, HISTORIES)
    bundle.save(tmp_path / "b", **contents(), encoder=given_part)
    opened = bundle.open(tmp_path / "b")
    assert opened.encoder.table.shape == opened.arrays["input"].shape == (6, 4)


def test_rows_of_the_table_are_gathered_and_padding_is_zero():
    found = part()
    encoder = Encoder(found.graph, found.entry, found.table)
    rows = np.array([[0, 1, 4], [-1, -1, 5], [-1, -1, -1]])
    assert np.array_equal(encoder.vectors(rows), np.stack([found.table[4], found.table[5], np.zeros(3)]))
    assert encoder.vectors(np.zeros((0, 2), np.int64)).shape == (0, 3)
    assert not encoder.vectors(np.zeros((2, 0), np.int64)).any()


def test_only_the_first_columns_of_a_wider_table_are_read():
    found = part()
    wide = np.concatenate([found.table, np.full((6, 2), np.nan, np.float32)], 1).astype(np.float64)
    assert np.array_equal(Encoder(found.graph, found.entry, wide).vectors(np.array([[2]])), found.table[[2]])


@given(st.lists(st.lists(st.integers(0, 5), max_size=40), max_size=30))
def test_histories_of_all_lengths_are_answered_in_their_order(lists):
    found = part(length=20)
    stored = Histories(np.cumsum([0, *map(len, lists)]), np.array([i for one in lists for i in one], np.int32))
    rows = np.arange(len(lists))[::-1]
    want = [found.table[one[-1]] if one else np.zeros(3) for one in reversed(lists)]
    got = Encoder(found.graph, found.entry, found.table).encode(stored, rows)
    assert np.array_equal(got, np.array(want, np.float32).reshape(-1, 3))


@pytest.mark.parametrize("row", [6, -2])
def test_a_row_that_is_no_item_is_refused(row):
    found = part()
    with pytest.raises(UsageError, match=rf"A history holds a row that is no item; got {row}"):
        Encoder(found.graph, found.entry, found.table).vectors(np.array([[0, row]]))


def test_without_the_runtime_the_error_names_the_remedy(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    opened = bundle.open(saved, verify="full").encoder  # opening needs none
    with pytest.raises(UsageError, match=r'needs onnxruntime, which is not.*pip install "recdistill\[onnx\]"'):
        Encoder(opened.graph, opened.entry, opened.table).vectors(np.array([[0]]))


# what is refused


def test_a_changed_byte_is_found_by_its_hash(saved):
    data = bytearray((saved / "encoder.onnx").read_bytes())
    data[data.index(b"encoder")] ^= 1  # the graph's name: nothing else would notice
    (saved / "encoder.onnx").write_bytes(data)
    bundle.open(saved)
    with pytest.raises(BundleError, match=r"encoder\.onnx does not have the hash"):
        bundle.verify(saved)


def test_a_shortened_file_is_refused(saved):
    (saved / "encoder.onnx").write_bytes(part().graph[:-1])
    with pytest.raises(BundleError, match=r"encoder\.onnx has the wrong size"):
        bundle.open(saved)


@pytest.mark.parametrize("name", ["encoder.onnx", "histories.safetensors"])
def test_half_of_the_two_files_is_refused(saved, name):
    (saved / name).unlink()
    with pytest.raises(BundleError, match=f"holds no {name}"):
        bundle.open(saved)


def test_an_encoder_that_the_manifest_does_not_tell_of_is_refused(broken):
    fields = broken.manifest()
    del fields["encoder"]
    broken.sign(fields)
    with pytest.raises(BundleError, match=r"lists what is not a bundle's: encoder\.onnx, histories"):
        bundle.open(broken.path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 4}, r"floats of shape \(6, 4 or more\)"),
        ({"gives": 4}, "the encoder gives 4 dimensions and 'item' has 3"),
        ({"table": "input"}, "the encoder reads 'input'"),
        ({"table": "user"}, "encoder.table"),
        ({"length": 0}, "encoder.length"),
        ({"code": "x"}, "encoder.code"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(broken, change, said):
    fields = broken.manifest()
    fields["encoder"] |= change
    broken.sign(fields)
    with pytest.raises(BundleError, match=said):
        bundle.open(broken.path)


def test_histories_of_other_items_are_refused(broken):
    broken.arrays("histories.safetensors", indptr=HISTORIES.indptr, items=HISTORIES.items + 1)
    bundle.open(broken.path)
    with pytest.raises(BundleError, match="a history holds a row that is no item"):
        bundle.verify(broken.path)


def test_histories_out_of_order_are_refused(broken):
    broken.arrays("histories.safetensors", indptr=np.array([0, 3, 2, 3, 6]), items=HISTORIES.items)
    with pytest.raises(BundleError, match="the rows of 'histories' are not in order"):
        bundle.open(broken.path)


def outside():
    """A weight whose bytes are those of another file."""
    weight = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "../../../etc/passwd", offset=0, length=12)
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.ClearField("raw_data")
    return weight


def node(*args, **attributes):
    return onnx.helper.make_node(*args, **attributes)


def looping():
    make, kinds = onnx.helper, onnx.TensorProto
    body = make.make_graph(
        [node("Identity", ["c"], ["again"])],
        "body",
        [make.make_tensor_value_info("i", kinds.INT64, []), make.make_tensor_value_info("c", kinds.BOOL, [])],
        [make.make_tensor_value_info("again", kinds.BOOL, [])],
    )
    return [node("Loop", ["", "c"], [], body=body)]


def constant():
    return node("Constant", [], ["vector"], value=outside())


HOSTILE = {
    "weights of another file": (lambda: proto(initializers=[outside()]), "weights in another file"),
    "the same in an attribute": (lambda: proto([constant()]), "weights in another file"),
    "a loop": (lambda: proto(looping()), "a graph within the graph"),
    "somebody's operator": (lambda: proto([node("Run", ["vectors"], ["vector"], domain="evil")]), "operator of 'evil'"),
    "a function": (
        lambda: proto(
            functions=[onnx.helper.make_function("evil", "Run", ["x"], ["y"], [node("Identity", ["x"], ["y"])], [])]
        ),
        "functions or training steps",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_graph_that_is_more_than_arithmetic_is_refused(what, broken):
    made, said = HOSTILE[what]
    with pytest.raises(BundleError, match=said):
        bundle.save(broken.path.parent / "new", **contents(), encoder=part(made().SerializeToString()))
    assert not (broken.path.parent / "new").exists()
    broken.put("encoder.onnx", made().SerializeToString())
    with pytest.raises(BundleError, match=said):
        bundle.open(broken.path)


@pytest.mark.parametrize("data", [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(40), b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_graph_is_refused(data):
    with pytest.raises(BundleError, match="The file is not an ONNX model"):
        graphs.graph("The file", data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_reason_or_hold_one_graph(data):
    try:
        graphs.graph("The file", data)
    except BundleError:
        return
    assert len(onnx.load_from_string(data).graph.node) > 0


@given(st.data())
def test_a_damaged_graph_is_refused_or_answers_as_bundles_do(data):
    whole = bytearray(proto().SerializeToString())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    found = part()
    try:
        graphs.graph("The file", bytes(whole))
        answer = Encoder(bytes(whole), found.entry, found.table).vectors(np.array([[1, 2]]))
    except BundleError:
        return
    assert answer.shape == (1, 3)


def test_a_graph_with_other_inputs_is_refused():
    model = proto()
    model.graph.input[1].name = "mask"
    with pytest.raises(BundleError, match="has other inputs"):
        Encoder(model.SerializeToString(), part().entry, part().table).vectors(np.array([[0]]))


def test_a_graph_of_another_width_is_refused():
    with pytest.raises(BundleError, match="does not give one table of width 4"):
        Encoder(part().graph, part(gives=4).entry, part().table).vectors(np.array([[0]]))


def test_the_hash_in_the_manifest_is_that_of_the_file(saved):
    entry = bundle.open(saved).manifest.files["encoder.onnx"]
    assert entry.sha256 == hashlib.sha256((saved / "encoder.onnx").read_bytes()).hexdigest()
