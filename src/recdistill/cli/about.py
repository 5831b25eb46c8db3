"""Commands about the installation and the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["cite", "doctor"]


def doctor(
    *,
    data: Annotated[Path | None, typer.Option(help="Folder of real data to look for.")] = None,
) -> None:
    """Say what is installed, what the machine has, and what to install for the rest."""
    from recdistill.cli.screen import console
    from recdistill.recipes.doctor import examine

    console().print(examine(data))


def cite(
    methods: Annotated[list[str] | None, typer.Argument(help="Methods or models; all of them when left out.")] = None,
) -> None:
    """Print the papers behind what you use: BibTeX of methods, a line for each model."""
    from recdistill.recipes.cite import cite as entries

    typer.echo(entries(*(methods or ())))
