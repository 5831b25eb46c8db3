"""What is installed, what the machine has, and what to install for the rest."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from recdistill.evaluation.card import environment

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Finding", "Findings", "examine"]

_EXTRAS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "train": ("train and distil", "-c constraints.txt ", ("torch", "polars")),
    "plot": ("figures for papers", "", ("matplotlib",)),
}
"""Extra -> what it is for, how it is installed, the modules it brings. Only extras that something here uses."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    name: str
    value: str
    remedy: str = ""
    """What to do where something is missing; empty where all is well."""


@dataclass(frozen=True)
class Findings:
    """All of them, printable."""

    lines: tuple[Finding, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A table without borders."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for line in self.lines:
            said = Text(line.value, style="" if not line.remedy else "yellow")
            table.add_row(Text(line.name), said if not line.remedy else Text.assemble(said, "\n", line.remedy))
        yield table


def examine(data: Path | None = None) -> Findings:
    """Look at the installation and the machine. Starts nothing and changes nothing.

    Args:
        data: where real data is looked for; else `RECDISTILL_DATA`, else `../shared/data`.
    """
    found = [Finding(name, value) for name, value in _versions().items()]
    found.append(_cuda())
    disk = shutil.disk_usage(Path.cwd())
    found.append(Finding("disk here", f"{disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB"))
    found.append(_data(data))
    found += [_extra(name) for name in _EXTRAS]
    return Findings(tuple(found))


def _versions() -> dict[str, str]:
    found = environment()
    said = {"recdistill": found.recdistill, "python": found.python, "numpy": found.numpy}
    said |= {"torch": found.torch or "not installed", "cpu": found.cpu}
    said["threads"] = f"{found.threads} used of {found.cpus}" if found.threads != found.cpus else str(found.cpus)
    return said | {"platform": found.platform}


def _cuda() -> Finding:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    told = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})"
    if find_spec("torch") is None:
        return Finding("gpu", "not looked for: torch is not installed" + told)
    import torch  # noqa: PLC0415 - only where it is installed

    build = f"torch is built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'the CPU'}"
    if not torch.cuda.is_available():
        return Finding("gpu", f"none seen; {build}{told}")
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return Finding("gpu", f"{', '.join(names)}; {build}{told}")


def _data(folder: Path | None) -> Finding:
    folder = folder or Path(os.environ.get("RECDISTILL_DATA", "../shared/data"))
    if not folder.is_dir():
        return Finding(
            "real data", f"none at {folder}", "Set RECDISTILL_DATA to the folder that holds it; no command needs it"
        )
    sets = sorted(p.name for p in folder.iterdir() if (p / "interactions.parquet").exists())
    return Finding("real data", f"{len(sets)} data sets at {folder.resolve()}")


def _extra(name: str) -> Finding:
    purpose, options, modules = _EXTRAS[name]
    missing = [module for module in modules if find_spec(module) is None]
    if not missing:
        return Finding(f"extra [{name}]", f"installed: {purpose}")
    command = f'{Path(sys.executable).name} -m pip install {options}"recdistill[{name}]"'
    return Finding(f"extra [{name}]", f"not installed ({', '.join(missing)} missing): {purpose}", command)
