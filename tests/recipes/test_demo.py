"""The demonstration: on a made-up log its students are what the README says they are."""

from __future__ import annotations

import polars as pl
import pytest

from recdistill.data.synthetic import planted
from recdistill.recipes import demo as demo_module
from recdistill.recipes.demo import METHODS, demo, settings
from recdistill.recipes.runfile import resolve


def test_the_demonstration_is_a_valid_run_for_every_method(tmp_path):
    plan = resolve(settings(None, tmp_path))
    assert (plan.teacher.dim, plan.student.dim) == (128, 16)
    assert list(METHODS) == ["plain", "de", "rrd", "de-rrd"]


def test_a_log_of_yours_takes_the_place_of_the_made_up_one(tmp_path, monkeypatch):
    log = planted(users=60, items=80, interactions=1200, dim=4, seed=1)
    frame = pl.DataFrame({"user": list(log.users.external(log.user)), "item": list(log.items.external(log.item))})
    frame.write_csv(tmp_path / "mine.csv")
    small = {"near": 10, "far": 10, "reach": 20, "depth": 30}
    monkeypatch.setattr(demo_module, "METHODS", {"plain": {}, "rrd": small})
    outcome = demo(data=tmp_path / "mine.csv", out=tmp_path / "out")
    assert list(outcome.comparison.cards) == ["teacher", "plain", "rrd"]
    assert "mine" in outcome.page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_distillation_pays_on_the_made_up_log(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_module, "METHODS", {name: METHODS[name] for name in ("plain", "rrd")})
    outcome = demo(out=tmp_path / "out")
    found = {name: each.means["ndcg@10"] for name, each in outcome.comparison.evaluations.items()}
    assert found["plain"] < found["rrd"] < found["teacher"]
