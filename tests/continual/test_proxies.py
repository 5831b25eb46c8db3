"""Two memories of students."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.continual.proxies import averaged, compressed, procrustes, remembered
from recdistill.continual.settings import ModelSpec, Proxies
from recdistill.continual.snapshot import blank
from recdistill.data.csr import Csr

OLD = Csr.from_pairs([0, 1, 2], [0, 1, 2], 5, 4)
NEW = Csr.from_pairs([0, 1, 6], [0, 1, 5], 7, 6)
MODES = ("weights", "aligned", "scores")


def students(name="mf"):
    spec = ModelSpec(name=name, dim=3, init_std=1.0, layers=1)
    return blank(spec, OLD, seed=1), blank(spec, NEW, seed=2)


def scores(snapshot):
    user, item = remembered(snapshot)
    return user @ item.T


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["mf", "lightgcn"])
def test_keeping_nothing_is_the_student_and_so_is_the_first_proxy(mode, name):
    before, student = students(name)
    for proxy in (averaged(before, student, 0.0, Proxies(mode=mode)), averaged(None, student, 0.9, Proxies(mode=mode))):
        np.testing.assert_array_equal(scores(proxy), scores(student))


@pytest.mark.parametrize("mode", ["weights", "aligned"])
def test_keeping_everything_leaves_old_rows_bit_identical(mode):
    before, student = students()
    proxy = averaged(before, student, 1.0, Proxies(mode=mode))
    for name in ("user", "item"):
        assert proxy.weights[name][: len(before.weights[name])].tobytes() == before.weights[name].tobytes()
    assert proxy.n_users, proxy.n_items == (7, 6)


def test_weights_are_averaged_row_by_row_and_new_rows_are_the_students():
    before, student = students()
    proxy = averaged(before, student, 0.75, Proxies(mode="weights"))
    want = 0.75 * before.weights["user"] + 0.25 * student.weights["user"][:5]
    np.testing.assert_allclose(proxy.weights["user"][:5], want, rtol=1e-6)
    np.testing.assert_array_equal(proxy.weights["user"][5:], student.weights["user"][5:])


@pytest.mark.parametrize("width", [128, 9])
def test_scores_are_averaged_where_both_know_the_pair(width):
    before, student = students()
    proxy = averaged(before, student, 0.75, Proxies(mode="scores", width=width))
    want = scores(student)
    want[:5, :4] = 0.75 * scores(before) + 0.25 * want[:5, :4]
    np.testing.assert_allclose(scores(proxy), want, atol=1e-5)
    again = averaged(proxy, student, 0.5, Proxies(mode="scores", width=width))
    np.testing.assert_allclose(scores(again), 0.5 * want + 0.5 * scores(student), atol=1e-4)
    assert again.spec.dim <= max(width, 3)


def test_scores_of_a_graph_model_are_those_it_serves():
    before, student = students("lightgcn")
    proxy = averaged(before, student, 0.5, Proxies(mode="scores"))
    np.testing.assert_allclose(scores(proxy)[5:], scores(student)[5:], atol=1e-5)


def test_a_turned_copy_is_turned_back():
    _, student = students()
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = {name: (table @ turn).astype(np.float32) for name, table in student.weights.items()}
    from dataclasses import replace

    copy = replace(student, weights=turned)
    np.testing.assert_allclose(procrustes(turned["user"], student.weights["user"]), turn.T, atol=1e-5)
    aligned = averaged(student, copy, 0.5, Proxies(mode="aligned"))
    np.testing.assert_allclose(scores(aligned), scores(student), atol=1e-5)
    plain = averaged(student, copy, 0.5, Proxies(mode="weights"))
    assert np.abs(scores(plain) - scores(student)).max() > 0.1, "averaging tables of turned spaces is not averaging"


def test_a_compressed_product_is_the_nearest_of_its_rank():
    chance = np.random.default_rng(1)
    user, item = chance.normal(size=(20, 6)).astype(np.float32), chance.normal(size=(15, 6)).astype(np.float32)
    a, b = compressed(user, item, 2)
    u, s, v = np.linalg.svd(user @ item.T)
    np.testing.assert_allclose(a @ b.T, (u[:, :2] * s[:2]) @ v[:2], atol=1e-4)
    assert compressed(user, item, 6)[0] is user
