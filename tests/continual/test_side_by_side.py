"""Several who share a folder of stages: teachers are trained side by side, each once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from recdistill.continual.settings import settings_of
from recdistill.recipes import cells, lineage
from recdistill.recipes.kept import Kept

from .conftest import SETTINGS


def test_members_are_trained_side_by_side_and_each_once(stream, tmp_path, monkeypatch):
    settings = settings_of(settings=SETTINGS | {"teachers": [{"dim": 3}, {"dim": 4}, {"dim": 5}]})
    real, both, begun = lineage.plain.base, Barrier(2, timeout=60), []

    def base(block, spec, *rest, **more):
        begun.append(spec.dim)
        if len(begun) < 3:
            both.wait()  # broken where the second waits for the first to be through
        return real(block, spec, *rest, **more)

    def members(folder):
        found = lineage.Lineage(
            stream, "teacher", lambda _: settings, seed=1, keep=Kept.at(tmp_path / folder), taught=False
        ).members(1)
        return [each.digest for each in found]

    monkeypatch.setattr(cells, "_WAIT", 0.01)
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(lineage.plain, "base", base)
        found = list(pool.map(members, ["shared", "shared"]))
    assert sorted(begun) == [3, 4, 5]
    assert found == [members("alone")] * 2
