"""The list of commands, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from recdistill.cli import about, papers, serve, stream, train, use
from recdistill.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["app"]


class _Group(TyperGroup):
    """An unknown command is a user error like any other: it names its neighbour."""

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands and not ctx.resilient_parsing:
            raise UnknownName("command", cmd_name, self.commands)
        return self.commands.get(cmd_name)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from recdistill import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def recdistill(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Distil a recommender into a student a tenth of the size, trained to rank as it does; measure it, ship it."""
    del version


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (train.demo, train.init),
    "Train": (train.distill, train.search, train.compare, train.tune, papers.reproduce),
    "Use": (use.evaluate, use.recommend, use.export, serve.serve),
    "About": (about.doctor, about.cite),
}
for _panel, _functions in _COMMANDS.items():
    for _function in _functions:
        app.command(rich_help_panel=_panel)(_function)

_stream = typer.Typer(cls=_Group, no_args_is_help=True, help="Teacher and student evolve together on a stream.")
for _function in stream.COMMANDS:
    _stream.command()(_function)
app.add_typer(_stream, name="stream", rich_help_panel="Train")
