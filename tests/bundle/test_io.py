"""Saving and opening: whole or not at all, the same bytes for the same input, mapped and not copied."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from recdistill import bundle
from recdistill.bundle import folder as folder_module
from recdistill.bundle.tensors import read, write
from recdistill.data.csr import Csr
from recdistill.errors import BundleError, UsageError
from recdistill.ids import IdTable

from .conftest import contents


def test_what_was_saved_is_opened(saved: Path):
    given = contents()
    opened = bundle.open(saved, verify="full")
    for name, array in given["arrays"].items():
        np.testing.assert_array_equal(opened.arrays[name], array)
    assert opened.users == given["users"]
    assert opened.items == given["items"]
    np.testing.assert_array_equal(opened.seen.indptr, [0, 2, 3, 3, 3])
    np.testing.assert_array_equal(opened.seen.indices, [1, 4, 0])
    np.testing.assert_array_equal(opened.popular, [3, 1, 0])
    manifest = opened.manifest
    assert (manifest.kind, manifest.model, manifest.n_users, manifest.n_items) == ("vectors", "mf", 4, 6)
    assert manifest.lineage == {"method": "plain", "seed": 0, "teacher": None}
    assert manifest.metrics == {"recall@10": 0.25}
    assert manifest.created == "2026-01-02T03:04:05Z"
    assert manifest.n_parameters == 4 * 3 + 6 * 3
    assert manifest.total_bytes == sum(f.stat().st_size for f in saved.glob("*.safetensors"))
    assert bundle.verify(saved) == manifest


def test_equal_input_gives_equal_bytes(tmp_path: Path):
    for name in "ab":
        bundle.save(tmp_path / name, **contents())
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_files_are_safetensors_to_the_format_s_own_reader_and_back(saved: Path, tmp_path: Path):
    theirs = safetensors.numpy.load_file(saved / "tensors.safetensors")
    np.testing.assert_array_equal(theirs["user"], contents()["arrays"]["user"])
    mixed = {"a": np.arange(3, dtype=np.int8), "b": np.ones((2, 0)), "c": np.float16([[1, 2]]), "d": np.array(4)}
    safetensors.numpy.save_file(mixed, tmp_path / "theirs.safetensors", metadata={"format": "np"})
    ours = read(tmp_path / "theirs.safetensors").arrays()
    assert ours.keys() == mixed.keys()
    for name, array in mixed.items():
        np.testing.assert_array_equal(ours[name], array)
        assert ours[name].dtype == array.dtype
    write(tmp_path / "ours.safetensors", mixed)
    for name, array in safetensors.numpy.load_file(tmp_path / "ours.safetensors").items():
        np.testing.assert_array_equal(array, mixed[name])


def test_arrays_are_mapped_aligned_and_read_only(saved: Path):
    opened = bundle.open(saved)
    for array in (*opened.arrays.values(), opened.seen.indices, opened.popular, *opened.users.arrays().values()):
        assert not array.flags.owndata
        assert not array.flags.writeable
        assert array.flags.aligned


def test_opening_and_looking_up_one_user_allocates_nothing_of_the_size_of_the_tables(tmp_path: Path):
    n = 200_000  # ids alone: 200,000 x (9 bytes + 2 x 8); seen: 1.6 MB of indptr
    chance = np.random.default_rng(0)
    bundle.save(
        tmp_path / "big",
        **contents()
        | {
            "arrays": {"user": np.zeros((n, 8), "f"), "item": np.zeros((n, 8), "f")},
            "users": IdTable.from_ids([f"user{i:06d}" for i in range(n)]),
            "items": IdTable.from_ids(np.arange(n)),
            "seen": Csr.from_pairs(chance.integers(0, n, n), chance.integers(0, n, n), n, n),
        },
    )
    bundle.open(tmp_path / "big")  # imports and caches
    tracemalloc.start()
    opened = bundle.open(tmp_path / "big")
    np.testing.assert_array_equal(opened.users.rows(["user000007", "nobody"]), [7, -1])
    np.testing.assert_array_equal(opened.items.rows([199_999]), [199_999])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 700_000, f"{peak:,} bytes"  # less than any one table of the bundle


def test_empty_tables_are_saved_and_opened(tmp_path: Path):
    given = contents(n_users=0, n_items=0) | {
        "users": IdTable.from_ids(np.zeros(0, np.int64)),
        "seen": Csr.empty(0, 0),
        "popular": np.zeros(0, np.int64),
    }
    bundle.save(tmp_path / "empty", **given)
    assert len(bundle.open(tmp_path / "empty", verify="full").users) == 0


def test_a_path_that_is_taken_is_refused_unless_told_to_replace(saved: Path):
    with pytest.raises(UsageError, match=r"There is a bundle at .* already. Pass overwrite=True"):
        bundle.save(saved, **contents(1))
    bundle.save(saved, **contents(1), overwrite=True)
    assert bundle.open(saved, verify="full").manifest.lineage["seed"] == 1
    assert [p.name for p in saved.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path, saved: Path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is no bundle; it is left alone"):
        bundle.save(home, **contents(), overwrite=True)
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds files that are not a bundle's: notes.txt"):
        bundle.save(saved, **contents(), overwrite=True)
    assert (home / "thesis.tex").exists()
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(UsageError, match="is no bundle"):
        bundle.save(file, **contents(), overwrite=True)


def test_an_empty_folder_is_filled(tmp_path: Path):
    (tmp_path / "new").mkdir()
    bundle.save(tmp_path / "new", **contents())
    assert bundle.open(tmp_path / "new").manifest.n_users == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"arrays": {"user": np.zeros((4, 3), "f")}}, "'item' of kind 'vectors' must be floats"),
        ({"arrays": {"user": np.array([None]), "item": np.zeros((6, 3))}}, "'user' of kind 'vectors' must be floats"),
        ({"kind": "other", "arrays": {"x": np.array(["text"])}}, "'x' has a type that a bundle cannot hold; got '<U4'"),
        ({"seen": Csr.empty(3, 6)}, "seen.safetensors must hold indices int32 .0., indptr int64 .5."),
        ({"seen": Csr.empty(4, 7)}, "'seen' has 7 columns for 6 items"),
        ({"seen": Csr(np.array([0, 1, 1, 1, 1]), np.array([6], np.int32), 6)}, "'seen' holds a row that is no item"),
        ({"popular": np.array([1, 1])}, "names an item twice"),
        ({"popular": np.array([6])}, "a row that is no item"),
        ({"metrics": {"ndcg@10": float("nan")}}, "metrics.ndcg@10 is not a finite number"),
        ({"settings": {"f": print}}, "settings.f cannot stand in a manifest; got 'builtin_function_or_method'"),
    ],
)
def test_what_does_not_fit_together_is_refused_and_leaves_nothing(tmp_path: Path, change: dict, reason: str):
    with pytest.raises(BundleError, match=reason):
        bundle.save(tmp_path / "b", **contents() | change)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_bundle_says_so(tmp_path: Path):
    with pytest.raises(BundleError, match=r"There is no bundle at .* Give the folder that holds manifest.json"):
        bundle.open(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"'verify' must be known; got 'fully'. Allowed: headers, full"):
        bundle.open(tmp_path, verify="fully")  # pyright: ignore


def test_a_bundle_opens_without_torch_and_without_polars(saved: Path):
    code = f"""
        import sys
        class Closed:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "polars", "pandas", "pyarrow"):
                    raise ImportError(name)
        sys.meta_path.insert(0, Closed())
        from pathlib import Path
        from recdistill import bundle
        print(bundle.open(Path({str(saved)!r}), verify="full").users.rows(["u2"]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout == "[2]\n", done.stderr


SAVER = """
    import itertools, sys
    from pathlib import Path
    sys.path.insert(0, {here!r})
    from conftest import contents
    from recdistill import bundle
    from recdistill.bundle import folder
    if {fallback}:
        folder._exchange = lambda a, b: False
    for seed in itertools.count({first}):
        print(seed, flush=True)
        bundle.save(Path({path!r}), **contents(seed, n_users=500, n_items=300, dim=16), overwrite=True)
"""


@pytest.mark.parametrize("fallback", [False, True], ids=["exchange", "two renames"])
def test_a_save_killed_at_any_moment_leaves_a_whole_bundle(tmp_path: Path, fallback: bool):
    path = tmp_path / "b"
    bundle.save(path, **contents(n_users=500, n_items=300, dim=16))
    chance = np.random.default_rng(0)
    here = str(Path(__file__).parent)
    seeds: set[object] = set()
    for first in range(100, 900, 100):
        code = textwrap.dedent(SAVER.format(here=here, path=str(path), fallback=fallback, first=first))
        saver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert saver.stdout is not None
        for _ in range(chance.integers(1, 4)):  # when the second seed is printed, the first is saved
            saver.stdout.readline()
        time.sleep(chance.uniform(0, 0.03))
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        opened = bundle.open(path, verify="full")
        seed = opened.manifest.lineage["seed"]
        seeds.add(seed)
        expected = contents(int(str(seed)), n_users=500, n_items=300, dim=16)["arrays"]["user"]
        np.testing.assert_array_equal(opened.arrays["user"], expected)
    assert len(seeds) > 1
    bundle.save(path, **contents(), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["b"], "what killed saves left behind is swept by the next"


def test_a_bundle_set_aside_by_a_killed_save_is_found_and_put_back(saved: Path):
    aside = saved.parent / ".bundle.replaced"
    saved.rename(aside)
    assert bundle.open(saved).manifest.n_users == 4
    with pytest.raises(UsageError, match=r"There is a bundle at"):
        bundle.save(saved, **contents(1))
    bundle.save(saved, **contents(1), overwrite=True)
    assert bundle.open(saved).manifest.lineage["seed"] == 1
    assert not aside.exists()


def test_a_save_that_is_under_way_is_not_swept_by_another(tmp_path: Path):
    with folder_module.replaced(tmp_path / "b") as building:
        (building / "half").write_text("x")
        with folder_module.replaced(tmp_path / "b") as other:
            (other / "whole").write_text("y")
        assert (building / "half").exists()
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["half"]


def test_a_failed_save_leaves_the_old_bundle_and_nothing_else(saved: Path):
    with pytest.raises(RuntimeError, match="disk"), folder_module.replaced(saved):
        raise RuntimeError("disk")
    assert [p.name for p in saved.parent.iterdir()] == ["bundle"]
    assert bundle.open(saved).manifest.n_users == 4


def test_readers_see_one_whole_bundle_or_another_while_it_is_replaced(saved: Path):
    stop = threading.Event()

    def replace() -> None:
        seed = 0
        while not stop.is_set():
            seed += 1
            bundle.save(saved, **contents(seed), overwrite=True)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(150):
            opened = bundle.open(saved, verify="full")
            seed = int(str(opened.manifest.lineage["seed"]))
            np.testing.assert_array_equal(opened.arrays["item"], contents(seed)["arrays"]["item"])
    finally:
        stop.set()
        writer.join()


def test_an_open_bundle_stays_readable_after_it_was_replaced(saved: Path):
    opened = bundle.open(saved)
    before = opened.arrays["user"].copy()
    bundle.save(saved, **contents(9), overwrite=True)
    np.testing.assert_array_equal(opened.arrays["user"], before)
    assert opened.users.rows(["u1"]).tolist() == [1]
