"""The page "Bring your own log" says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import recdistill as rd
from recdistill.data.formats.roles import ALIASES
from recdistill.data.split import HOWS
from recdistill.data.synthetic import planted

PAGE = Path(__file__).parents[2] / "docs" / "your-own-log.md"


@pytest.fixture
def page():
    return PAGE.read_text()


def test_its_examples_run(page, tmp_path, monkeypatch, capsys):
    log = planted(users=80, items=60, interactions=2000, dim=4)
    user, item = log.users.external(log.user), log.items.external(log.item)
    rows = list(zip(user, item, log.timestamp.tolist(), strict=True))
    ratings = "".join(f"{u},{i},4.5,{t}\n" for u, i, t in rows)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    (tmp_path / "events.csv").write_text(
        "client,sku,seen_at,rating\n" + "".join(f"{u},{i},{t},5\n" for u, i, t in rows)
    )
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    assert isinstance(names["train"], rd.Interactions)
    assert "Split leave-last-out: train" in capsys.readouterr().out


@pytest.mark.data
def test_its_first_output_is_what_movielens_gives(page, data_dir, tmp_path):
    import polars as pl

    frame = pl.read_parquet(data_dir("ml_latest_small") / "interactions.parquet")
    names = {"user_id": "userId", "item_id": "movieId"}
    frame.rename(names).select("userId", "movieId", "rating", "timestamp").write_csv(tmp_path / "ratings.csv")
    said = []
    rd.read(tmp_path / "ratings.csv", echo=said.append)
    assert said[0] in page


def test_its_tables_are_complete(page):
    for role, aliases in ALIASES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{role}` |"))
        assert f"| {', '.join(aliases)}" in row
    for how in HOWS:
        assert f"| `{how}` |" in page
