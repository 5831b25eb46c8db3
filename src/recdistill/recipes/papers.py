"""What `recdistill reproduce` can compute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from recdistill.recipes import adarec, ccd, method_tables, sequences
from recdistill.recipes.reproduce import markdown, reproduce
from recdistill.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REPRODUCTIONS", "Reproduction"]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Published tables, and the function that computes ours."""

    run: Callable[..., dict[str, Any]]
    """Takes data, out, work, seeds, tables, only, watch and say, by name; see `sequences.reproduce`."""
    page: Callable[[dict[str, Any]], str]
    """What `run` found, as Markdown."""
    folder: str
    """Of the data, below the folder of all data sets."""
    tables: str
    """Those computed unless told otherwise, with commas between."""


REPRODUCTIONS: Registry[Reproduction] = Registry("paper")
REPRODUCTIONS.add("de-rrd", Reproduction(partial(reproduce, "de-rrd"), markdown, "citeulike_derrd", "bpr"))
REPRODUCTIONS.add("ccd", Reproduction(ccd.reproduce, ccd.markdown, "", "yelp-mf-small"))
REPRODUCTIONS.add("sequential", Reproduction(sequences.reproduce, sequences.markdown, "", "toys"))
REPRODUCTIONS.add("adarec", Reproduction(adarec.reproduce, adarec.markdown, "", "ml-100k"))
REPRODUCTIONS.add("methods", Reproduction(method_tables.reproduce, method_tables.markdown, "", "citeulike-10"))
