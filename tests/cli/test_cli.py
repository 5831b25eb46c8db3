"""The command line: quick help, one clear message for what the user can mend, a traceback for what is ours."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from recdistill.cli import main
from recdistill.recipes.template import TEMPLATE


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def call(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Done:
    """One command in this process, as the console script runs it."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["recdistill", *words])
        for name, value in {"COLUMNS": "200", **(env or {})}.items():
            patch.setenv(name, value)
        patch.chdir(cwd or Path.cwd())
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["stream", "--help"],
        ["distill", "--help"],
        ["search", "--help"],
        ["tune", "--help"],
        ["recommend", "--help"],
        ["--version"],
    ],
)
def test_help_imports_neither_torch_nor_polars_nor_numpy(words):
    code = (
        "import sys\nfrom recdistill.cli import main\n"
        f"sys.argv = ['recdistill', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'polars', 'numpy', 'jinja2', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


STREAM = {"forget", "ingest", "init", "recommend", "report", "rollback", "status", "step"}


def test_the_commands_are_these_and_each_says_what_it_does():
    from recdistill.cli.app import app

    names = {each.name or each.callback.__name__ for each in app.registered_commands}
    assert names == {
        "cite",
        "compare",
        "demo",
        "distill",
        "doctor",
        "evaluate",
        "export",
        "init",
        "recommend",
        "reproduce",
        "search",
        "serve",
        "tune",
    }
    assert all(each.callback.__doc__ for each in app.registered_commands)
    (group,) = app.registered_groups
    within = {each.callback.__name__: each.callback.__doc__ for each in group.typer_instance.registered_commands}
    assert (group.name, set(within)) == ("stream", STREAM)
    assert all(within.values())


def test_no_command_shows_the_help():
    assert "Usage: recdistill" in call().stdout + call().stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distil"], "error: Unknown command 'distil'. Did you mean 'distill'? Allowed: cite, "),
        (["distill", "runn.toml"], "error: There is no run file 'runn.toml'"),
        (["tune", "run.toml", "--budget", "5"], "error: A budget needs a unit; got '5'"),
        (
            ["search", "run.toml", "--budget", '5"MB'],
            "error: A budget cannot be read; got '5\"MB'. Allowed: a number and",
        ),
        (
            ["tune", "run.toml", "--budget", "5MB", "--sizes", "8,x"],
            "error: --sizes takes dims, with commas between; got",
        ),
        (["stream", "stat"], "error: Unknown command 'stat'. Did you mean 'status'? Allowed: forget, ingest, "),
        (
            ["stream", "status", "nowhere"],
            "error: There is no stream at nowhere. Begin one with `recdistill stream init",
        ),
        (["stream", "init", "s", "--set", "blocks.event=5"], "Did you mean 'blocks.events'?"),
        (["stream", "ingest", "nowhere", "--column", "user"], "error: --column takes ROLE=NAME; got 'user'"),
        (
            ["cite", "derrd"],
            "error: Unknown method or model 'derrd'. Did you mean 'de-rrd'? Allowed: adarec, ",
        ),
        (
            ["cite", "lightgnc"],
            "error: Unknown method or model 'lightgnc'. Did you mean 'lightgcn'? Allowed: adarec, ",
        ),
        (
            ["distill", "run.toml", "--set", "train.epoch=3"],
            "Unknown setting 'train.epoch'. Did you mean 'train.epochs'?",
        ),
        (["distill", "run.toml", "--set", "method.name=de-rdd"], "Unknown method 'de-rdd'. Did you mean 'de-rrd'?"),
        (["distill", "run.toml", "--set", 'evaluate.metrics=["ndgc@10"]'], "Did you mean 'ndcg'?"),
        (
            ["distill", "run.toml", "--set", "train.protocol=ful"],
            '\'train.protocol\' must be "full", or "sampled(n)" with n at least 1',
        ),
        (["distill", "run.toml", "--set", "train.metrics=[]"], "'train.metrics' must be a list"),
        (["distill", "run.toml", "--set", 'train.metrics=["ndgc@10"]'], "Did you mean 'ndcg'?"),
        (["distill", "run.toml", "--set", "train.loss=bprr"], "Unknown base loss 'bprr'. Did you mean 'bpr'?"),
        (
            ["distill", "run.toml", "--set", "teacher.train.optimiser=adm"],
            "Unknown optimiser 'adm'. Did you mean 'adam'?",
        ),
        (["distill", "run.toml", "--set", "train.device=gpu"], "Unknown device; got 'gpu'"),
        (
            ["search", "run.toml"],
            "error: run.toml is the run file of a distillation: it has [method]. "
            "Run `recdistill distill run.toml`, or write one of a search with `recdistill init --search`.",
        ),
        (["search", "nowhere.toml"], "Write one with `recdistill init --search`."),
        (["search", "run.toml", "--set", "search.cells=2"], "error: run.toml is the run file of a distillation"),
        (["search", "run.toml", "--pareto", "0,x"], "error: A price weight is a number of at least 0; got 'x'."),
        (["init", "/dev/null/run.toml"], "error: '/dev/null' cannot be used: "),
        (["distill", "run.toml"], "ratings.csv"),
        (["init", "run.toml"], "error: There is a file at 'run.toml' already. Use --force, or another name."),
        (["recommend", "nowhere"], "error: Say for whom"),
        (["recommend", "nowhere", "--all", "--after", "i1"], "error: Say for whom"),
        (["recommend", "nowhere", "--all"], "error: --all writes a Parquet file. For example --out lists.parquet."),
        (["recommend", "nowhere", "--users", "@none"], "error: "),
        (["compare", "run.toml", "--sizes", ","], "--sizes takes dims, with commas between; got ','."),
        (["reproduce", "methods", "--seeds", "0"], "--seeds takes a number or a list; got '0'."),
        (["reproduce", "methods", "--seeds", "\u00b2"], "--seeds takes a number or a list; got"),
        (["reproduce", "de-rdd"], "Unknown paper 'de-rdd'. Did you mean 'de-rrd'?"),
        (["compare", "run.toml", "--methods", "rrd,plian"], "Unknown method 'plian'. Did you mean 'plain'?"),
        (["compare", "run.toml", "--sizes", "20,x"], "--sizes takes dims, with commas between; got '20,x'."),
    ],
)
def test_what_the_user_can_mend_is_one_message_and_exit_2(words, said, tmp_path):
    (tmp_path / "run.toml").write_text(TEMPLATE, encoding="utf-8")
    done = call(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_exits_2_with_its_neighbour():
    done = call("demo", "--sed", "3")
    assert done.returncode == 2
    assert "--seed" in done.stderr


def test_what_is_ours_shows_its_traceback(monkeypatch, tmp_path):
    code = (
        "import sys\nimport recdistill.recipes.cite as c\n"
        "def broken(*names): raise RuntimeError('a bug')\n"
        "c.cite = broken\n"
        "from recdistill.cli import main\nsys.argv = ['recdistill', 'cite']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: a bug" in done.stderr


def test_init_writes_the_run_file(tmp_path):
    done = call("init", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.toml").read_text(encoding="utf-8") == TEMPLATE
    assert "recdistill distill run.toml" in done.stdout


def test_init_writes_the_run_file_of_a_search_which_search_takes(tmp_path):
    done = call("init", "--search", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "run.toml").read_text(encoding="utf-8")
    assert text == (Path(__file__).parents[2] / "examples" / "adarec.toml").read_text(encoding="utf-8")
    assert "recdistill search run.toml" in done.stdout
    taken = call("search", "run.toml", cwd=tmp_path)
    assert taken.returncode == 2
    assert "There is no file 'ratings.csv'" in taken.stderr  # every key was right
    mixed = call("search", "run.toml", "--set", "method.name=de", cwd=tmp_path)
    assert "error: A search has no [method]. Take it out: how to distil is in [search]." in mixed.stderr


def test_cite_prints_bibtex():
    assert "@inproceedings{kang2020derrd," in call("cite", "de-rrd").stdout


def test_cite_knows_models_too_and_without_a_name_everything():
    assert "LightGCN" in call("cite", "lightgcn").stdout
    both = call("cite", "rrd", "lightgcn", "de-rrd").stdout
    assert both.count("@inproceedings{kang2020derrd,") == 1
    every = call("cite").stdout
    assert all(paper.strip() in every for paper in both.split("\n\n"))


def test_doctor_names_versions_threads_and_the_command_for_what_is_missing():
    done = call("doctor", env={"RECDISTILL_DATA": "/nowhere"})
    assert done.returncode == 0, done.stderr
    for word in ("recdistill", "python", "torch", "threads", "gpu", "disk here", "none at /nowhere", "extra [train]"):
        assert word in done.stdout


SMALL = """
[data]
path = "log.csv"
[teacher]
model = "mf"
dim = 16
[student]
model = "mf"
dim = 4
[method]
name = "rrd"
near = 10
far = 10
reach = 20
depth = 30
[train]
epochs = 3
lr = 0.01
device = "cpu"
[evaluate]
metrics = ["recall@10", "ndcg@10"]
[output]
dir = "out"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from recdistill.data.synthetic import planted

    folder = tmp_path_factory.mktemp("run")
    log = planted(users=60, items=80, interactions=1200, dim=4, seed=1)
    rows = zip(log.users.external(log.user), log.items.external(log.item), log.timestamp, strict=True)
    (folder / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    (folder / "run.toml").write_text(SMALL)
    done = call("distill", "run.toml", "--set", "train.epochs=2", cwd=folder, env={"CUDA_VISIBLE_DEVICES": "7"})
    assert done.returncode == 0, done.stderr
    return folder, done


def test_distill_ends_in_a_table_a_report_a_bundle_and_a_log(finished):
    folder, done = finished
    assert "kept" in done.stdout
    assert "overlap" in done.stdout
    assert "Report:  out/report.html" in done.stdout
    assert (folder / "out/bundles/rrd/manifest.json").exists()
    lines = [json.loads(line) for line in (folder / "out/log/rrd.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert set(lines[0]) >= {"losses", "metrics", "seconds"}
    cards = json.loads((folder / "out/results.json").read_text())["cards"]
    assert set(cards) == {"teacher", "plain", "rrd"}
    assert "--set train.epochs=2" in (folder / "out/run.toml").read_text()


def test_the_same_command_again_trains_nothing(finished):
    folder, _ = finished
    before = (folder / "out/results.json").read_bytes()
    again = call("distill", "run.toml", "--set", "train.epochs=2", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "Training" not in again.stderr
    assert (folder / "out/results.json").read_bytes() == before


def test_recommend_prints_lists_and_marks_strangers(finished):
    folder, _ = finished
    done = call("recommend", "out/bundles/rrd", "--users", "u1,stranger", "--k", "3", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "u1" in done.stdout
    assert "popular" in done.stdout


@pytest.mark.parametrize("name", ["lists.csv", "lists.jsonl", "lists.parquet"])
def test_recommend_writes_files(finished, name):
    folder, _ = finished
    done = call(
        "recommend", "out/bundles/rrd", "--users", "u1,u2", "--k", "3", "--exclude", "i1", "--out", name, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert "6 rows for 2 users" in done.stdout


def test_a_bundle_that_reads_no_histories_says_so(finished):
    folder, _ = finished
    done = call("recommend", "out/bundles/rrd", "--after", "i1,i2", cwd=folder)
    assert done.returncode == 2
    assert "holds no encoder" in done.stderr


def test_recommend_all_writes_every_user(finished):
    import polars as pl

    folder, _ = finished
    done = call("recommend", "out/bundles/rrd", "--all", "--out", "all.parquet", "--k", "5", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(folder / "all.parquet")["user_id"].n_unique() == 60


def test_recommend_refuses_another_kind_of_file(finished):
    folder, _ = finished
    done = call("recommend", "out/bundles/rrd", "--users", "u1", "--out", "lists.xls", cwd=folder)
    assert done.returncode == 2
    assert "Allowed: .parquet, .csv, .jsonl." in done.stderr


def test_evaluate_of_the_bundle_gives_the_numbers_of_the_run(finished):
    folder, _ = finished
    done = call("evaluate", "out/bundles/rrd", "--data", "log.csv", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)
    card = json.loads((folder / "out/results.json").read_text())["cards"]["rrd"]
    values = ours["per_user"]["ndcg@10"]
    assert sum(values) / len(values) == pytest.approx(card["metrics"][-1]["values"]["ndcg@10"]["mean"])


def test_evaluate_warns_where_the_bundle_was_trained_on_what_is_to_be_found(finished):
    folder, _ = finished
    same = call("evaluate", "out/bundles/rrd", "--data", "log.csv", cwd=folder)
    other = call("evaluate", "out/bundles/rrd", "--data", "log.csv", "--split", "leave-random-out", cwd=folder)
    assert same.returncode == other.returncode == 0, same.stderr + other.stderr
    assert "Warning" not in same.stderr
    assert re.search(r"Warning: the bundle was trained on [0-9]+ of these 60 test targets", other.stderr), other.stderr


def test_rows_that_cannot_be_read_stop_a_command_or_are_skipped_where_it_is_told_to(finished, tmp_path):
    folder, _ = finished
    (tmp_path / "log.csv").write_text((folder / "log.csv").read_text() + ",i1,5\n")
    (tmp_path / "run.toml").write_text(SMALL)
    for words in (
        ["compare", "run.toml", "--methods", "plain", "--trials", "0", "--set", "train.epochs=1"],
        ["evaluate", str(folder / "out/bundles/rrd"), "--data", "log.csv"],
    ):
        stopped = call(*words, cwd=tmp_path)
        assert stopped.returncode == 2, stopped.stdout
        assert "--on-bad-rows skip" in stopped.stderr
        skipped = call(*words, "--on-bad-rows", "skip", cwd=tmp_path)
        assert skipped.returncode == 0, skipped.stderr
        assert "Skipped 1 bad row" in skipped.stderr
        wrong = call(*words, "--on-bad-rows", "skp", cwd=tmp_path)
        assert wrong.returncode == 2, wrong.stdout
        assert "skip" in wrong.stderr


@pytest.mark.parametrize("file", ["tensors", "seen", "users", "items", "popular"])
def test_a_bundle_with_a_changed_byte_is_refused(finished, tmp_path, file):
    folder, _ = finished
    shutil.copytree(folder / "out/bundles/rrd", tmp_path / "b")
    path = tmp_path / "b" / f"{file}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for words in (["recommend", "b", "--users", "u1"], ["evaluate", "b", "--data", str(folder / "log.csv")]):
        done = call(*words, cwd=tmp_path)
        assert done.returncode == 2, done.stdout
        assert file in done.stderr
        assert "Traceback" not in done.stderr


def test_serving_commands_import_no_torch(finished):
    folder, _ = finished
    for words in (
        ["recommend", "out/bundles/rrd", "--users", "u1"],
        ["evaluate", "out/bundles/rrd", "--data", "log.csv"],
    ):
        code = (
            "import sys\nfrom recdistill.cli import main\n"
            f"sys.argv = ['recdistill', *{words!r}]\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
            "assert 'torch' not in sys.modules\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, done.stderr
