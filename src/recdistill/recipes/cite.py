"""The papers behind what was used, as BibTeX."""

from __future__ import annotations

from recdistill.errors import UnknownName
from recdistill.methods import METHODS

__all__ = ["cite"]


def cite(*names: str) -> str:
    """BibTeX of methods ("de-rrd") and of the plain models' loss; all methods when none is named.

    Raises:
        UnknownName: no such method.
    """
    for name in names:
        if name not in METHODS:
            raise UnknownName("method", name, METHODS)
    papers = {METHODS[name].paper.key: METHODS[name].paper for name in names or METHODS}
    return "\n\n".join(paper.bibtex() for paper in papers.values())
