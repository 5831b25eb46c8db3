"""The papers behind what was used: methods as BibTeX, models as a line."""

from __future__ import annotations

import recdistill.search.model  # noqa: F401  # pyright: ignore[reportUnusedImport] - registers "cells"
from recdistill.errors import UnknownName
from recdistill.methods import METHODS
from recdistill.models import MODELS

__all__ = ["cite"]


def cite(*names: str) -> str:
    """The papers of methods ("de-rrd", BibTeX) and models ("lightgcn", a line); all of both when none is named.

    Raises:
        UnknownName: neither a method nor a model.
    """
    found: dict[str, None] = {}  # each paper once, in the order asked for
    for name in names or (*METHODS, *MODELS):
        if name in METHODS:
            found[METHODS[name].paper.bibtex()] = None
        elif name in MODELS:
            found[MODELS[name].paper] = None
        else:
            raise UnknownName("method or model", name, [*METHODS, *MODELS])
    return "\n\n".join(found)
