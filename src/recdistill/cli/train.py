"""Commands that train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recdistill.recipes.distill import Outcome

__all__ = ["Like", "OnBadRows", "compare", "demo", "distill", "init", "search", "tune"]

Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the run file for this run: --set student.dim=32"),
]
OnBadRows = Annotated[
    str | None,
    typer.Option("--on-bad-rows", metavar="error|skip", help="Rows that cannot be read: stop, or count and show ten."),
]
Like = Annotated[
    str | None,
    typer.Option(
        metavar="LIBRARY",
        help="Another library's metrics: recbole, replay, rectools, recommenders, implicit, lenskit, kds, de-rrd.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of a run with other settings in the same folder.")
]
RunFile = Annotated[Path, typer.Argument(help="A run file, as `recdistill init` writes it.", show_default=False)]
SearchFile = Annotated[
    Path, typer.Argument(help="A run file, as `recdistill init --search` writes it.", show_default=False)
]


def demo(
    *,
    data: Annotated[Path | None, typer.Option(help="A log of yours instead of the made-up one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for bundles, logs and report.html.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the made-up log and of training.")] = 7,
    on_bad_rows: OnBadRows = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what an earlier demo has finished.")] = False,
) -> None:
    """Teacher, plain student, DE, RRD and DE-RRD on a made-up log: a table and a page, in under a minute."""
    import torch

    from recdistill.cli.screen import Screen
    from recdistill.recipes.demo import demo as run

    torch.set_num_threads(1)  # matrices this small gain nothing from more, and lose much where the cores are busy
    if fresh:
        _forget(out)
    _show(run(data=data, out=out, seed=seed, on_bad_rows=on_bad_rows or "error", listener=Screen()))


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("run.toml"),
    *,
    search: Annotated[bool, typer.Option("--search", help="The run file of `recdistill search`.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a run file with every setting explained."""
    from recdistill.errors import UsageError, problem
    from recdistill.recipes.cells import write_text
    from recdistill.recipes.template import TEMPLATE, searching

    if path.exists() and not force:
        raise UsageError(problem(f"There is a file at {str(path)!r} already", remedy="Use --force, or another name"))
    write_text(path, searching() if search else TEMPLATE)
    typer.echo(f"Wrote {path}. Set data.path, then: recdistill {'search' if search else 'distill'} {path}")


def distill(
    run: RunFile, *, assign: Assign = None, on_bad_rows: OnBadRows = None, overwrite: Overwrite = False
) -> None:
    """Run a run file: log, teacher, student, card, bundle, report. The same command again resumes it."""
    from recdistill.cli.screen import Screen
    from recdistill.recipes.runfile import read, written

    assigned = _assigned(assign, on_bad_rows)
    settings = read(run, assigned)
    from recdistill.recipes.distill import distill as execute

    _show(execute(settings, text=written(run, assigned), overwrite=overwrite, listener=Screen()))


def search(
    run: SearchFile,
    *,
    budget: Annotated[
        str | None, typer.Option(metavar="KIND=AMOUNT", help="The most a student may cost: latency=2ms, bytes=5MB.")
    ] = None,
    pareto: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="A search for each price weight: 0,0.03,0.1,0.3,1")
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=0, help="How many random cells of the same price to train beside it.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of training; latency is of one.")] = None,
    assign: Assign = None,
    on_bad_rows: OnBadRows = None,
    overwrite: Overwrite = False,
) -> None:
    """Search a student's architecture while distilling: cells drawn, card, Pareto front, bundle, report. It resumes."""
    from recdistill.cli.screen import Screen, console, show_error
    from recdistill.recipes.searchfile import read, weights
    from recdistill.search.budget import Budget

    if budget is not None:
        Budget.parse(budget)  # what is wrong with it is said of the option, not of the TOML it becomes
    options = {
        "search.budget": None if budget is None else json.dumps(budget),
        "search.pareto": None if pareto is None else str(weights(pareto)),
        "search.random": random,
    }
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    assigned = [*_assigned(assign, on_bad_rows), *given]
    settings = read(run, assigned)
    from recdistill.recipes.runfile import written
    from recdistill.recipes.searchrun import search_run

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    found = search_run(settings, text=written(run, assigned), overwrite=overwrite, listener=Screen())
    console().print(found)
    if not found.told.kept:
        show_error(found.told.budget)
    design = found.drawing.with_name("cell.json")
    typer.echo(f'Cell:    {found.drawing}   ([student] model = "cells", design = "{design}" builds it again)')
    typer.echo(f"Report:  {found.page}")
    typer.echo(f"Student: {found.bundle}   (recdistill recommend {found.bundle} --users ...)")
    if not found.told.kept:
        raise typer.Exit(1)


def compare(
    run: RunFile,
    *,
    methods: Annotated[str, typer.Option(help="Methods by name, with commas between.")] = "plain,rrd,de-rrd,dcd",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from train.seed upwards.")] = 1,
    sizes: Annotated[
        str, typer.Option(metavar="DIMS", help="Dims of the students: 20,40. [default: the run file's student]")
    ] = "",
    trials: Annotated[
        int, typer.Option(min=0, help="Settings tried for each method, on validation data; 0 tunes nothing.")
    ] = 8,
    tune_each: Annotated[
        bool, typer.Option("--tune-each", help="Tune for every size and seed, not for the first of each alone.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at work at once, one thread each.")] = 1,
    like: Like = None,
    assign: Assign = None,
    on_bad_rows: OnBadRows = None,
    overwrite: Overwrite = False,
) -> None:
    """Methods x students x seeds on one split, tuned alike: paired tests, costs, segments, a page. It resumes."""
    from recdistill.cli.screen import Screen, console
    from recdistill.recipes.runfile import read, written

    convention = [] if like is None else [f'evaluate.like="{like}"']
    assigned = [*_assigned(assign, on_bad_rows), *convention]
    settings = read(run, assigned)
    from recdistill.recipes.comparing import compare_methods

    found = compare_methods(
        settings,
        methods=_words(methods),
        seeds=seeds,
        sizes=_dims(sizes),
        trials=trials,
        tune_each=tune_each,
        jobs=jobs,
        text=written(run, assigned),
        overwrite=overwrite,
        listener=Screen(),
    )
    console().print(found)
    for name in ("compare.html", "compare.md", "compare.json"):
        typer.echo(f"Written: {settings.output.dir / name}")


def _dims(text: str) -> list[int]:
    from recdistill.errors import UsageError, problem

    words = _words(text)
    if (text and not words) or not all(word.isdecimal() and int(word) for word in words):
        raise UsageError(problem("--sizes takes dims, with commas between", text, remedy="For example --sizes 20,40"))
    return [int(word) for word in words]


def tune(
    run: RunFile,
    *,
    budget: Annotated[
        str,
        typer.Option(
            metavar="KIND=AMOUNT", help="The most a student may take: bytes=5MB, latency=1ms, params=300kparams."
        ),
    ],
    methods: Annotated[
        str | None, typer.Option(help="Methods by name, with commas between; a choice that the teacher can serve.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trainings shared among the methods at the widest width.")
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(metavar="DIMS", help="Widths to try: 8,12,16,24,32; from the budget when left out.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at work at once, one thread each.")] = 1,
    assign: Assign = None,
    on_bad_rows: OnBadRows = None,
    overwrite: Overwrite = False,
) -> None:
    """Find the best method and size under a budget, and draw the front. It resumes."""
    from recdistill.cli.screen import Screen, console
    from recdistill.recipes.runfile import read, written
    from recdistill.search.budget import Budget

    allowed = Budget.parse(budget)
    widths = _dims(sizes or "")
    assigned = _assigned(assign, on_bad_rows)
    settings = read(run, assigned)
    from recdistill.recipes.tune import tune as execute

    found = execute(
        settings,
        allowed,
        methods=_words(methods or ""),
        trials=trials or 0,
        sizes=widths,
        jobs=jobs,
        text=written(run, assigned),
        overwrite=overwrite,
        listener=Screen(),
    )
    console().print(found)
    typer.echo(f"Report:   {found.page}")
    typer.echo(f"Run file: {found.run_file}   (recdistill distill {found.run_file} makes it again)")
    typer.echo(f"Student:  {found.bundle}   (recdistill recommend {found.bundle} --users ...)")


def _assigned(assign: list[str] | None, on_bad_rows: str | None) -> list[str]:
    """The assignments of `--set`, and the options that stand for one."""
    return [*(assign or ()), *([f"data.on_bad_rows={on_bad_rows}"] if on_bad_rows else ())]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _show(outcome: Outcome) -> None:
    from recdistill.cli.screen import console

    console().print(outcome.comparison)
    typer.echo(f"Report:  {outcome.page}")
    typer.echo(f"Student: {outcome.bundle}   (recdistill recommend {outcome.bundle} --users ...)")


def _forget(out: Path) -> None:
    """Remove what a demo left; nothing but the folder it works in."""
    import shutil

    for name in ("work", "bundles", "log"):
        shutil.rmtree(out / name, ignore_errors=True)
