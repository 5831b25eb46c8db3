"""`recdistill serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from recdistill.ledger import Ledger
    from recdistill.serve.service import Search

__all__ = ["serve"]

_TOKEN = "RECDISTILL_TOKEN"  # noqa: S105 - the name of a variable


def serve(
    source: Annotated[
        Path, typer.Argument(metavar="BUNDLE|STREAM", help="A bundle, or the folder of a stream.", show_default=False)
    ],
    *,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one; the log says which.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help=f"A file with the token that clients send; else the variable {_TOKEN}.")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Listen beyond this machine without a token all the same.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that clients use for this server, without port; may be repeated.")
    ] = None,
    teacher: Annotated[Path | None, typer.Option(help="A bundle to show beside the student, on the page at /.")] = None,
    search: Annotated[
        str, typer.Option(help="exact, approximate (by the bundle's index), or auto: the index where there is one.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a batch.")] = 1,
    wait_ms: Annotated[float, typer.Option(min=0, max=1000, help="What a request waits for others.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="The most lists computed together.")] = 64,
    poll: Annotated[float, typer.Option(min=0.05, max=3600, help="Seconds between looks for a new version.")] = 0.5,
    assign: Annotated[
        list[str] | None, typer.Option("--limit", metavar="KEY=VALUE", help="Set a limit: --limit k=200")
    ] = None,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="A line for every request.")] = False,
) -> None:
    """Serve lists over HTTP. A new version is swapped in when it appears, between two requests.

    Listens at this machine alone unless told. /docs describes the routes, / shows lists in a browser.
    """
    from recdistill.errors import BundleError, UsageError, problem

    try:
        from recdistill.serve.http.app import Options
        from recdistill.serve.http.running import LOOPBACK, is_loopback, run
        from recdistill.serve.http.shelf import load
        from recdistill.serve.http.sources import BundleSource, StreamSource
    except ModuleNotFoundError as missing:
        what = f"`recdistill serve` needs {missing.name}, which is not installed"
        raise UsageError(problem(what, remedy='pip install "recdistill[serve]"')) from None
    from recdistill.serve.http.limits import Limits
    from recdistill.settings import overlay, parse

    limits = parse(Limits, overlay({}, assign or ()), at="limit")
    if search not in ("auto", "exact", "approximate"):
        raise UsageError(problem("--search must be known", search, allowed=["auto", "exact", "approximate"]))
    how: Search = search
    streams = (source / "stream.toml").is_file()
    place = StreamSource(source) if streams else BundleSource(source)
    seen = place.look()
    if seen is None and not streams:
        raise BundleError(problem(f"There is no bundle at {source}", remedy="Give the folder that holds manifest.json"))
    first = None if seen is None else load(seen, threads=threads, search=how)
    shown = None
    if teacher is not None:
        found = BundleSource(teacher).look()
        if found is None:
            raise BundleError(problem(f"There is no bundle at {teacher}", remedy="Give the folder of the teacher"))
        shown = load(found, threads=threads, search=how)
    token = _token(token_file)
    hosts = list(allow_host or ())
    options = Options(
        limits=limits,
        token=token,
        hosts=[*LOOPBACK, *hosts] if hosts or is_loopback(host) else None,
        teacher=shown,
        ledger=_ledger(source) if streams else None,
        move=_move(source) if streams else None,
        wait=wait_ms / 1e3,
        batch=batch,
        threads=threads,
        search=how,
        every=poll,
        log_requests=log_requests,
    )
    run(place, options, first=first, host=host, port=port, open_to_all=no_token)


def _token(path: Path | None) -> str | None:
    import os

    from recdistill.errors import UsageError, problem

    found = os.environ.get(_TOKEN) if path is None else path.read_text(encoding="utf-8")
    if found is None:
        return None
    found = found.strip()
    if len(found) < 16 or not found.isascii() or not found.isprintable() or " " in found:
        where = f"The variable {_TOKEN}" if path is None else f"The file {path}"
        remedy = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        raise UsageError(
            problem(f"{where} holds no token", allowed="at least 16 printable ASCII characters", remedy=remedy)
        )
    return found


def _ledger(folder: Path) -> Callable[[], Ledger]:
    from recdistill.ledger import Ledger
    from recdistill.stream import settings

    rule = settings.read(folder / "stream.toml").rule
    return lambda: Ledger(folder, rule)


def _move(folder: Path) -> Callable[[str | None], str]:
    from recdistill.stream.stream import Stream

    def move(to: str | None) -> str:
        with Stream(folder) as stream:
            return stream.rollback(to)

    return move
