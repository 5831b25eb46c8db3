"""What README, docs and examples show is run, on a made-up log; what they list is what there is."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import get_args

import pytest

from recdistill.cli import main
from recdistill.continual.settings import settings_of
from recdistill.data.synthetic import planted
from recdistill.recipes import ccd_rows, runfile, searchfile
from recdistill.recipes.reproduce import markdown, summary
from recdistill.recipes.runfile import RunSettings
from recdistill.settings import load
from recdistill.stream import settings as stream_settings
from recdistill.stream import stream

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- executed -->\n```(\w+)\n(.*?)```", re.S)


@pytest.fixture
def here(tmp_path, monkeypatch):
    log = planted(users=80, items=200, interactions=2000, dim=4, seed=1)
    rows = zip(log.users.external(log.user), log.items.external(log.item), log.timestamp, strict=True)
    (tmp_path / "ratings.csv").write_text("user,item,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def executed() -> list[Path]:
    return [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", executed(), ids=lambda page: page.name)
def test_what_a_page_shows_runs(page, here, monkeypatch):
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, f"{page.name}", "exec"), {})  # noqa: S102
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            assert words[0] == "recdistill"
            if words[1:2] == ["init"]:
                (here / words[2]).unlink(missing_ok=True)
            monkeypatch.setattr(sys, "argv", words)
            said, code = io.StringIO(), 0
            try:
                with redirect_stdout(said), redirect_stderr(said):
                    main()
            except SystemExit as end:
                code = end.code or 0
            assert not code, f"{line}\n{said.getvalue()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_table_of_the_readme_is_that_of_the_results():
    found = json.loads((ROOT / "docs/results/de-rrd.json").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- table: docs/results/de-rrd.json -->\n(.*?)<!-- end -->", text, re.S)[1]
    assert shown.splitlines() == summary(found)
    assert (ROOT / "docs/results/de-rrd.md").read_text(encoding="utf-8") == markdown(found)


def test_every_page_is_in_the_navigation():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed = {path for entry in nav for path in entry.values()}
    pages = sorted((ROOT / "docs").rglob("*.md"))
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in pages}


def test_the_page_of_commands_lists_every_command_and_every_key():
    from recdistill.cli.app import app
    from recdistill.recipes.train import TrainSettings

    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"`recdistill {command.callback.__name__}" in text
    for name, field in RunSettings.model_fields.items():
        row = re.search(rf"\| `\[+{name}\]+` \| (.*) \|", text)[1]
        table = next(iter(get_args(field.annotation)), field.annotation)  # of several, that of each
        for key in table.model_fields:
            assert f"`{key}`" in row, f"{name}.{key}"
    row = re.search(r"\| `\[train\]` \| (.*) \|", text)[1]
    assert set(re.findall(r"`(\w+)`", row)) == {"seed", *TrainSettings.model_fields}


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda file: file.name)
def test_every_run_file_that_is_shipped_is_valid(file):
    if "blocks" in load(file):
        stream.method_of(stream_settings.read(file))
        return
    kind = searchfile if "search" in load(file) else runfile
    kind.resolve(kind.read(file))


def test_the_stream_that_is_shipped_is_within_the_margins_that_were_found():
    found = stream.method_of(stream_settings.read(ROOT / "examples/stream.toml")).settings
    short = ccd_rows.SCENES["yelp-mf-small"].settings
    assert found.update == settings_of("default", short).update
    assert found.teach.margin == short["teach"]["margin"]


def test_the_page_of_the_search_lists_every_key_of_its_tables():
    from recdistill.search.settings import RetrainSettings, SearchSettings

    text = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    fields = searchfile.SearchRun.model_fields
    for table, settings in (("search", SearchSettings), ("retrain", RetrainSettings)):
        own = fields[table].annotation.model_fields
        for key in own:
            assert f"`{key}`" in text, f"{table}.{key}"
        for key in settings.model_fields:
            assert f"`{key}`" in text, f"{table}.{key}"


def test_the_python_example_runs(tmp_path):
    space: dict = {"__name__": "example"}
    exec(compile((ROOT / "examples/python_api.py").read_text(encoding="utf-8"), "python_api.py", "exec"), space)  # noqa: S102
    space["main"](tmp_path, epochs=2)
    assert (tmp_path / "bundle" / "manifest.json").exists()
