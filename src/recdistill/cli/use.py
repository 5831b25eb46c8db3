"""Commands that use what was trained; none of them imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from recdistill.cli.train import OnBadRows

__all__ = ["evaluate", "export", "recommend"]

BundlePath = Annotated[Path, typer.Argument(help="A bundle, as `recdistill distill` writes it.", show_default=False)]


def evaluate(
    bundle: BundlePath,
    *,
    data: Annotated[Path, typer.Option(help="The log that holds what is to be found.", show_default=False)],
    split: Annotated[
        str, typer.Option(help="given, leave-last-out, leave-random-out, ratio or time.")
    ] = "leave-last-out",
    part: Annotated[str, typer.Option(help="test or valid.")] = "test",
    metrics: Annotated[str, typer.Option(help="With commas between.")] = "recall@10,ndcg@10",
    protocol: Annotated[str, typer.Option(help="full, or sampled(499).")] = "full",
    seed: Annotated[int, typer.Option(min=0, help="Of a random split and of sampled items.")] = 0,
    on_bad_rows: OnBadRows = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with the values of every user.")] = False,
) -> None:
    """Measure a bundle on held-out data."""
    from recdistill.cli.screen import Screen, console
    from recdistill.recipes.evaluate import evaluate_bundle

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    found = evaluate_bundle(
        bundle,
        data,
        split=split,
        part=part,
        metrics=names,
        protocol=protocol,
        seed=seed,
        on_bad_rows=cast("Any", on_bad_rows or "error"),  # checked where the log is read
        listener=Screen(),
    )
    if as_json:
        typer.echo(found.evaluations[bundle.name].to_json())
    else:
        console().print(found)


def recommend(
    bundle: BundlePath,
    *,
    users: Annotated[str | None, typer.Option(help="External ids with commas between, or @file, one a line.")] = None,
    after: Annotated[
        str | None,
        typer.Option(help="Item ids, oldest first: what one user, or a visitor, did last. Commas, or @file."),
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Every user of the bundle; needs --out.")] = False,
    k: Annotated[int, typer.Option(min=1, help="Items each.")] = 10,
    exclude: Annotated[str | None, typer.Option(help="Item ids to leave out: commas, or @file.")] = None,
    candidates: Annotated[str | None, typer.Option(help="Only these item ids: commas, or @file.")] = None,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Do not leave out what a user has already.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="lists.parquet, .csv or .jsonl; a table on screen if left out.")
    ] = None,
) -> None:
    """Recommend from a bundle: external ids in, external ids out. Unknown users get the popular list, marked so.

    With --after, a bundle of a sequential model reads a new history: of a visitor, or of the one user of --users, whose
    own it follows. That needs onnxruntime.
    """
    from recdistill.cli.lists import ids, write
    from recdistill.cli.screen import console
    from recdistill.errors import UsageError, problem
    from recdistill.serve.service import Service

    if everybody == (users is not None or after is not None):
        raise UsageError(problem("Say for whom: --users u7,u9 (or --users @file), --after i3,i5, or --all"))
    if everybody and (out is None or out.suffix != ".parquet"):
        remedy = "For example --out lists.parquet"
        raise UsageError(problem("--all writes a Parquet file", None if out is None else str(out), remedy=remedy))
    service = Service.from_bundle(bundle, verify="full")
    left_out = None if exclude is None else ids(exclude, "--exclude")
    only = None if candidates is None else ids(candidates, "--candidates")
    if everybody and out is not None:
        rows = service.recommend_all(out, k, filter_seen=not keep_seen, exclude=left_out, candidates=only)
        typer.echo(f"Wrote {rows:,} rows for {len(service.users):,} users to {out}")
        return
    asked = [] if users is None else ids(users, "--users")
    if after is None:
        found = service.recommend(asked, k, filter_seen=not keep_seen, exclude=left_out, candidates=only)
    else:
        if len(asked) > 1:
            raise UsageError(problem("--after is the history of one user", f"{len(asked)} users"))
        history = ids(after, "--after")
        whole = {asked[0]: history} if asked else [history]
        asked = asked or ["a visitor"]
        found = service.recommend_after(whole, k, filter_seen=not keep_seen, exclude=left_out, candidates=only)
    if out is None:
        console().print(found)
    else:
        write(found, out)
        typer.echo(f"Wrote {found.n_rows:,} rows for {len(asked):,} users to {out}")


def export(
    bundle: BundlePath,
    *,
    as_format: Annotated[
        str, typer.Option("--format", help="vectors, onnx, float16, int8 or ann.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="vectors: NAME.npz, NAME.safetensors, or a folder for Parquet; onnx: a folder; else a bundle.",
            show_default=False,
        ),
    ],
    queries: Annotated[int, typer.Option(min=1, help="Users that the parity check asks.")] = 1000,
    min_overlap: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of top-10 lists that must be the same.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of NDCG@10 that float16 or int8 may lose.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of users.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
) -> None:
    """Export a bundle: vectors, one ONNX graph, compact tables, or an index. What answers otherwise is not written."""
    from recdistill.export.exporting import export_bundle

    found = export_bundle(
        bundle,
        out,
        cast("Any", as_format),  # checked there
        queries=queries,
        seed=seed,
        min_overlap=min_overlap,
        max_loss=max_loss,
        overwrite=overwrite,
    )
    typer.echo(str(found))
