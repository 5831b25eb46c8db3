"""The command that repeats a paper."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["reproduce"]


def reproduce(
    paper: Annotated[
        str,
        typer.Argument(
            help="Which: de-rrd, sequential (SASRec and its kind), adarec, ccd, or methods (all of them, tuned alike)."
        ),
    ] = "de-rrd",
    *,
    seeds: Annotated[str, typer.Option(help="How many seeds (5: 1 to 5), or which: 2,4.")] = "5",
    tables: Annotated[
        str,
        typer.Option(
            help="Tables by name, with commas between. Of de-rrd: bpr, neumf, bpr-half, trials, best; of "
            "sequential: toys, beauty, ml-1m; of adarec: ml-100k, toys, beauty, ml-1m; of methods: citeulike-10, "
            "citeulike-5, lastfm-10, lastfm-5, foursquare-10, gowalla-10; of ccd: yelp-mf, gowalla-mf, yelp-lightgcn, "
            "gowalla-lightgcn, yelp-mf-clean, and with short stages yelp-mf-small, yelp-mf-small-clean, "
            "yelp-lightgcn-small, yelp-lightgcn-small-all, yelp-lightgcn-short, gowalla-mf-small, "
            "gowalla-lightgcn-small-all, gowalla-lightgcn-short. "
            "[default: the first]"
        ),
    ] = "",
    only: Annotated[
        str, typer.Option(help="Rows by name, with commas between; all (of ccd, the main ones) when left out.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the log; of sequential, of its logs. [default: $RECDISTILL_DATA, ../shared/data]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Finished cells. [default: docs/results/PAPER]")] = None,
    work: Annotated[Path | None, typer.Option(help="Checkpoints and logs. [default: runs/PAPER]")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of this process.")] = 1,
) -> None:
    """Compute a paper's table cell by cell and print it beside the published figures.

    Finished cells are read and not repeated, a killed run goes on, and several processes may share the work.
    """
    from rich.markdown import Markdown

    from recdistill.cli.screen import Screen, console
    from recdistill.errors import UsageError, problem

    wanted = [part.strip() for part in seeds.split(",") if part.strip()]
    if not all(part.isdecimal() for part in wanted) or [int(part) for part in wanted] in ([], [0]):
        raise UsageError(problem("--seeds takes a number or a list", seeds, remedy="For example 5, or 1,3"))
    numbers = [int(part) for part in wanted]

    import torch

    from recdistill.recipes.papers import REPRODUCTIONS

    chosen = REPRODUCTIONS[paper]
    torch.set_num_threads(threads)
    found = chosen.run(
        data=data if data is not None else Path(os.environ.get("RECDISTILL_DATA", "../shared/data")) / chosen.folder,
        out=out if out is not None else Path("docs/results") / paper,
        work=work if work is not None else Path("runs") / paper,
        seeds=numbers if "," in seeds else list(range(1, numbers[0] + 1)),
        tables=[part.strip() for part in (tables or chosen.tables).split(",") if part.strip()],
        only=[part.strip() for part in only.split(",") if part.strip()],
        watch=Screen().watch,
        say=typer.echo,
    )
    console().print(Markdown(chosen.page(found)))
