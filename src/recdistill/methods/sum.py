"""A sum: the terms of several methods beside one base loss. An objective is a sum, so a combination is no new method.

    [method]
    name = "sum"
    parts = { htd = { weight = 1e-3 }, rrd = {} }

Each part has its own settings and brings its own terms; cite each by its own name (`recdistill cite htd`). The paper
named here is that of adding a teacher's knowledge to a base loss at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.methods.base import METHODS, Paper, Setting, method
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings, parse

if TYPE_CHECKING:
    from recdistill.clock import Schedule
    from recdistill.methods.ranges import Range
    from recdistill.objective import Term

__all__ = ["HINTON", "Sum", "asks", "sum_of", "tuned"]

HINTON = Paper(
    key="hinton2015distilling",
    title="Distilling the Knowledge in a Neural Network",
    authors="Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff",
    venue="NIPS Deep Learning Workshop",
    year=2015,
    url="https://arxiv.org/abs/1503.02531",
)


class Sum(Settings):
    """Several methods at once."""

    parts: dict[str, dict[str, Any]] = Field(
        default_factory=lambda: {"htd": {}, "rrd": {}}, min_length=1, validate_default=True
    )
    """Method -> its settings; each method's terms are added, with the base loss once."""

    @field_validator("parts")
    @classmethod
    def _their_own(cls, parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: _parsed(name, settings).model_dump(mode="json") for name, settings in parts.items()}


def asks(c: Sum) -> frozenset[Kind]:
    """What any of its parts asks of a teacher."""
    found = (METHODS[name].asks(_parsed(name, settings)) for name, settings in c.parts.items())
    return frozenset[Kind]().union(*found)


def tuned(c: Sum) -> dict[str, Range]:
    """The weights of its parts, in each method's own range."""
    found: dict[str, Range] = {}
    for name, settings in c.parts.items():
        own = METHODS[name].tuned(_parsed(name, settings))
        found |= {f"parts.{name}.{key}": each for key, each in own.items() if key.rpartition(".")[2] == "weight"}
    return found


@method("sum", settings=Sum, paper=HINTON, asks=asks, tuned=tuned)
def sum_of(c: Sum, s: Setting) -> list[Pass]:
    """A sum of methods: their terms beside one base loss."""
    teacher = s.need_teacher("sum")
    terms: dict[str, tuple[float | Schedule, Term]] = {"base": (1.0, s.base)}
    for name, settings in c.parts.items():
        passes = METHODS[name].build(_parsed(name, settings), s)
        if len(passes) != 1 or passes[0].teacher is not teacher:
            remedy = "Leave it out, or run it alone"
            raise UsageError(
                problem(f"The method {name!r} trains more than the student, so it is no part of a sum", remedy=remedy)
            )
        for term, (weight, each) in passes[0].objective.parts().items():
            if term != "base":
                terms[f"{name}_{term}".replace("-", "_")] = (weight, each)
    return [Pass("distil", s.batches, Objective(**terms), teacher)]


def _parsed(name: str, settings: dict[str, Any]) -> Settings:
    if name in ("sum", "plain"):
        allowed = ", ".join(each for each in METHODS if each not in ("sum", "plain"))
        raise UsageError(problem(f"The method {name!r} adds nothing to a sum", allowed=allowed))
    return parse(METHODS[name].settings, settings, at=f"method.parts.{name}")
