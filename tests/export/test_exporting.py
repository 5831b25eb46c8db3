"""What a bundle is exported as: every form answers as the bundle, and what does not is not written."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import recdistill as rd
from recdistill import bundle
from recdistill.bundle.folder import beside
from recdistill.data.csr import Csr
from recdistill.errors import BundleError, UnknownName, UsageError
from recdistill.evaluation.ranking import ranker
from recdistill.evaluation.vectors import VectorRanker
from recdistill.export import exporting
from recdistill.export.agreement import Agreement, agreement, compared
from recdistill.export.exporting import FORMATS, export_bundle
from recdistill.ids import IdTable
from recdistill.teachers.reading import read_tables

N_USERS, N_ITEMS, D = 60, 300, 6
QUICK = rd.TrainSettings(epochs=1, batch=32, loss="cross-entropy", weight_decay=0, device="cpu")


def made(path, kind="vectors", **changes):
    """Users 'u0'.., items 0.. as numbers; each has three items that were learned from, and one held out: their best."""
    rng = np.random.default_rng(0)
    user, item = rng.normal(size=(N_USERS, D)).astype(np.float32), rng.normal(size=(N_ITEMS, D)).astype(np.float32)
    best = VectorRanker(user, item).top_k(np.arange(N_USERS), 4)  # (N_USERS, 4)
    rows = np.repeat(np.arange(N_USERS), 4)
    arrays = {"user": user, "item": item}
    given = {
        "kind": kind,
        "arrays": arrays,
        "users": IdTable.from_ids([f"u{i}" for i in range(N_USERS)]),
        "items": IdTable.from_ids(np.arange(1000, 1000 + N_ITEMS)),
        "seen": Csr.from_pairs(rows, best.ravel(), N_USERS, N_ITEMS),
        "trained": Csr.from_pairs(rows, best[:, [0, 1, 3, 3]].ravel(), N_USERS, N_ITEMS),
        "popular": np.arange(5),
        "model": "mf",
        "settings": {"dim": D},
        "lineage": {"method": "plain"},
        "metrics": {},
        "citations": [],
    }
    bundle.save(path, **{**given, **changes})
    return path


@pytest.fixture
def saved(tmp_path):
    return made(tmp_path / "b")


@pytest.fixture(scope="module")
def sequential(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "b"
    student = rd.fit("sasrec", parts.train, dim=8, settings={"layers": 1, "length": 9}, training=QUICK)
    student.save(path)
    return path


@pytest.mark.parametrize("name", ["v.npz", "v.safetensors", "v"])
def test_vectors_are_a_teacher_that_knows_all_ids(saved, tmp_path, name):
    found = export_bundle(saved, tmp_path / name, "vectors")
    assert (found.agreement.overlap, found.agreement.identical, found.agreement.difference) == (1, 1, 0)
    opened = bundle.open(saved)
    tables = read_tables(tmp_path / name)
    assert tables.users.tolist() == [f"u{i}" for i in range(N_USERS)]
    assert list(map(int, tables.items)) == list(range(1000, 1000 + N_ITEMS))
    rd.teacher(vectors=tmp_path / name).matched(users=opened.users, items=opened.items)
    back = exporting.read_vectors(tmp_path / name)
    assert np.array_equal(back.item, opened.arrays["item"])
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize(("precision", "overlap"), [("float16", 0.98), ("int8", 0.9)])
def test_a_compact_bundle_is_smaller_answers_and_tells_its_loss(saved, tmp_path, precision, overlap):
    found = export_bundle(saved, tmp_path / "small", precision)
    assert found.agreement.overlap >= overlap
    assert found.agreement.users == N_USERS
    assert abs(found.agreement.loss) < 0.02
    opened = bundle.open(tmp_path / "small", verify="full")
    told = opened.manifest.lineage["export"]
    assert told["measured"]["before"] == found.agreement.before > 0
    assert told["made_from"] == bundle.open(saved).manifest.digest
    sizes = [one.manifest.files["tensors.safetensors"].bytes for one in (opened, bundle.open(saved))]
    assert sizes[0] < (0.65 if precision == "float16" else 0.6) * sizes[1]  # int8: 6 + 4 bytes a row of 24
    lists = [rd.Service.from_bundle(path).recommend(["u1"], k=5).item_id for path in (tmp_path / "small", saved)]
    assert len(set(lists[0].tolist()) & set(lists[1].tolist())) >= 4
    with pytest.raises(UsageError, match=r"'item' is compact already.*Export the bundle that it was made from"):
        export_bundle(tmp_path / "small", tmp_path / "again", precision)


def test_a_compact_bundle_can_be_exported_as_vectors_and_as_a_graph(saved, tmp_path):
    export_bundle(saved, tmp_path / "small", "int8")
    assert export_bundle(tmp_path / "small", tmp_path / "v.npz", "vectors").agreement.overlap == 1
    assert export_bundle(tmp_path / "small", tmp_path / "graph", "onnx").agreement.overlap == 1


def test_a_graph_gives_the_best_rows_and_ids_stand_beside_it(saved, tmp_path):
    import onnxruntime

    found = export_bundle(saved, tmp_path / "g", "onnx")
    assert found.agreement.overlap == 1
    session = onnxruntime.InferenceSession(str(tmp_path / "g" / "model.onnx"))
    items, scores = session.run(["items", "scores"], {"user": np.array([3]), "k": np.array([4])})
    opened = bundle.open(saved)
    exact = ranker("vectors", opened.arrays)
    assert items.tolist() == exact.top_k(np.array([3]), 4).tolist()
    assert scores[0] == pytest.approx(exact.scores_of(np.array([3]), items)[0], rel=1e-5)
    ids = json.loads((tmp_path / "g" / "ids.json").read_text())
    assert (ids["users"][3], ids["items"][0]) == ("u3", 1000)


def test_a_sequential_graph_reads_histories(sequential, tmp_path):
    import onnxruntime

    found = export_bundle(sequential, tmp_path / "g", "onnx")
    assert found.agreement.overlap == 1
    session = onnxruntime.InferenceSession(str(tmp_path / "g" / "model.onnx"))
    service = rd.Service.from_bundle(sequential)
    clicks = service.items.external([4, 2, 7]).tolist()
    asked = {"history": np.array([[-1, 4, 2, 7]]), "k": np.array([5])}
    theirs = session.run(["items"], asked)[0]
    ours = service.recommend_after([clicks], k=5, filter_seen=False)
    cold = set(service.items.rows(ours.item_id).tolist())
    assert len(cold & set(theirs[0].tolist())) >= 4  # the service hides what was never trained on; the graph cannot


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_a_compact_sequential_bundle_still_reads_histories(sequential, tmp_path, form):
    found = export_bundle(sequential, tmp_path / "small", form, max_loss=1, min_overlap=0.8)
    assert any("cosine" in note for note in found.notes)
    opened = bundle.open(tmp_path / "small", verify="full")
    assert opened.encoder.entry.precision == ("int8" if form == "int8" else "float32")
    services = [rd.Service.from_bundle(path) for path in (sequential, tmp_path / "small")]
    clicks = services[0].items.external([4, 2, 7]).tolist()
    one, other = (set(each.recommend_after([clicks], k=10).item_id.tolist()) for each in services)
    assert len(one & other) >= 8


# refusals


def wrong(monkeypatch):
    """Whatever is read back has other items."""
    monkeypatch.setattr(
        exporting,
        "read_vectors",
        lambda _: VectorRanker(np.ones((N_USERS, D), np.float32), np.ones((N_ITEMS, D), np.float32)),
    )


@pytest.mark.parametrize("name", ["v.npz", "v.safetensors", "v"])
def test_what_does_not_answer_as_the_bundle_is_not_written(saved, tmp_path, monkeypatch, name):
    wrong(monkeypatch)
    before = sorted(each.name for each in tmp_path.iterdir())
    with pytest.raises(BundleError, match=r"The vectors export does not answer as the bundle: scores differ by up to"):
        export_bundle(saved, tmp_path / name, "vectors")
    assert sorted(each.name for each in tmp_path.iterdir()) == before


def test_a_failed_export_leaves_what_was_there(saved, tmp_path, monkeypatch):
    export_bundle(saved, tmp_path / "v.npz", "vectors")
    before = (tmp_path / "v.npz").read_bytes()
    wrong(monkeypatch)
    with pytest.raises(BundleError):
        export_bundle(saved, tmp_path / "v.npz", "vectors", overwrite=True)
    assert (tmp_path / "v.npz").read_bytes() == before


def test_a_compact_bundle_that_loses_too_much_is_not_written(tmp_path):
    rng = np.random.default_rng(0)
    user, item = rng.normal(size=(N_USERS, D)).astype(np.float32), rng.normal(size=(N_ITEMS, D)).astype(np.float32)
    user[:, 0], item[:, 0] = 0, 1000  # one great column takes all of int8's steps
    user[:, 1:] *= 10
    path = made(tmp_path / "b", arrays={"user": user, "item": item}, trained=None)
    with pytest.raises(BundleError, match=r"The int8 export .*lists of 10 overlap by 0\.\d+, at least 0\.9 is needed"):
        export_bundle(path, tmp_path / "small", "int8")
    assert not (tmp_path / "small").exists()
    assert export_bundle(path, tmp_path / "small", "int8", min_overlap=0).agreement.overlap < 0.9


def test_nothing_is_written_over_without_being_asked(saved, tmp_path):
    for name, form in (("v.npz", "vectors"), ("g", "onnx"), ("small", "int8")):
        export_bundle(saved, tmp_path / name, form)
        with pytest.raises(UsageError, match=r"there already|is a bundle at"):
            export_bundle(saved, tmp_path / name, form)
        export_bundle(saved, tmp_path / name, form, overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    for form in ("vectors", "onnx", "int8"):
        with pytest.raises(UsageError, match=r"something else|no bundle"):
            export_bundle(saved, tmp_path / "other", form, overwrite=True)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"


def test_wrong_arguments_are_answered(saved, tmp_path):
    with pytest.raises(UnknownName, match=r"Unknown format of an export 'int4'.*Did you mean 'int8'"):
        export_bundle(saved, tmp_path / "x", "int4")
    with pytest.raises(UsageError, match=r"Vectors are written as; got '.csv'"):
        export_bundle(saved, tmp_path / "x.csv", "vectors")
    with pytest.raises(UsageError, match="at least one query"):
        export_bundle(saved, tmp_path / "x", "int8", queries=0)
    with pytest.raises(UsageError, match="'max_loss' is a share"):
        export_bundle(saved, tmp_path / "x", "int8", max_loss=2)


def test_a_network_of_pairs_has_no_such_form(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {
        "user_mf": (N_USERS, 2),
        "item_mf": (N_ITEMS, 2),
        "user_mlp": (N_USERS, 2),
        "item_mlp": (N_ITEMS, 2),
        "hidden.0.weight": (2, 4),
    }
    shapes |= {"hidden.0.bias": (2,), "out.weight": (1, 4), "out.bias": (1,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    path = made(tmp_path / "b", kind="neumf", arrays=arrays)
    for form in FORMATS:
        with pytest.raises(UsageError, match="kind 'neumf' scores by a network, not by products of vectors"):
            export_bundle(path, tmp_path / "x", form)


# agreement


def test_overlap_and_difference_by_hand():
    one, other = np.array([[1, 2], [3, -1]]), np.array([[2, 1], [4, -1]])
    found = compared(one, other, np.array([[4, 2], [1, -np.inf]], "f"), np.array([[4, 1], [1, -np.inf]], "f"))
    assert (found.overlap, found.identical, found.difference) == (2 / 3, 0, 0.25)


def test_nobody_to_ask_is_said():
    ranker = VectorRanker(np.ones((1, 1), np.float32), np.ones((2, 1), np.float32))
    with pytest.raises(UsageError, match="no user to compare"):
        agreement(ranker, ranker, np.zeros(0, np.int64))


def test_where_a_loss_is_known_it_judges_and_else_the_overlap():
    found = Agreement(9, 10, overlap=0.5, identical=0, difference=0, before=0.2, after=0.199, users=9)
    assert found.checked("It", overlap=0.9, difference=None, loss=0.01) is found
    with pytest.raises(BundleError, match=r"It does not answer as the bundle: it loses 0\.50% of NDCG@10 on 9 users"):
        found.checked("It", overlap=0.9, difference=None, loss=0.001)
    with pytest.raises(BundleError, match=r"lists of 10 overlap by 0\.5000, at least 0\.9"):
        Agreement(9, 10, 0.5, 0, 0).checked("It", overlap=0.9, difference=None, loss=0.01)


def test_the_command_prints_what_was_found_and_no_torch_is_imported(saved, tmp_path):
    code = (
        "import sys; from recdistill.cli import main; sys.argv = ['recdistill', *sys.argv[1:]]\n"
        "try: main()\nfinally: assert 'torch' not in sys.modules"
    )
    words = ["export", str(saved), "--format", "int8", "--out", str(tmp_path / "small")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 queries: top-10 overlap" in done.stdout
    assert "NDCG@10 on 60 users" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limits there")
@pytest.mark.parametrize("words", [("vectors", "v"), ("vectors", "v.npz"), ("onnx", "o"), ("float16", "f")])
def test_without_room_on_the_disk_nothing_is_written_and_one_message_says_so(saved, tmp_path, words):
    import resource

    (tmp_path / "out").mkdir()
    command = [
        sys.executable,
        "-m",
        "recdistill",
        "export",
        saved,
        "--format",
        words[0],
        "--out",
        tmp_path / "out" / words[1],
    ]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    done = subprocess.run(command, check=False, capture_output=True, text=True, preexec_fn=limit)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "cannot be used: file too large" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_ids_that_an_npz_file_would_cut_short_are_refused_and_others_kept(tmp_path):
    ids = [f"u{i}" for i in range(N_USERS - 3)] + ["a", "a\0", "a\0b"]
    path = made(tmp_path / "b", users=IdTable.from_ids(ids))
    with pytest.raises(UsageError, match="cuts NUL characters off the end of an id"):
        export_bundle(path, tmp_path / "v.npz", "vectors")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b"]
    for name in ("v", "v.safetensors"):
        export_bundle(path, tmp_path / name, "vectors")
        assert read_tables(tmp_path / name).users.tolist() == ids


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_two_exports_to_one_place_do_not_disturb_each_other_and_what_was_killed_is_swept(tmp_path):
    (tmp_path / ".v.npz.0123.partial").mkdir()
    with beside(tmp_path / "v.npz") as one, beside(tmp_path / "v.npz") as two:
        assert sorted(tmp_path.iterdir()) == sorted([one, two])
    assert list(tmp_path.iterdir()) == []
