"""Knowledge distillation for recommender systems: a student a tenth of the size that ranks as well.

    import recdistill as rd

    log = rd.read("ratings.csv")
    train, valid, test = rd.split(log, "leave-last-out")
    teacher = rd.fit("mf", train, dim=200, valid=valid)
    student = rd.distill(teacher, "mf", train, method="de-rrd", dim=20, valid=valid)
    rd.compare({"teacher": teacher, "student": student}, test)

Names are looked up where they live when they are first used: importing the package is quick, and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recdistill.data.interactions import HeldOut, Interactions, Split
    from recdistill.data.sources import read
    from recdistill.data.split import split
    from recdistill.errors import RecdistillError
    from recdistill.evaluation.card import Card
    from recdistill.evaluation.evaluate import Evaluation
    from recdistill.export.exporting import export_bundle
    from recdistill.recipes.cite import cite
    from recdistill.recipes.compare import Comparison, compare
    from recdistill.recipes.measure import evaluate
    from recdistill.recipes.train import TrainSettings, distill, fit
    from recdistill.recipes.trained import Trained
    from recdistill.serve.recommendations import Recommendations
    from recdistill.serve.service import Service
    from recdistill.teachers.stored import teacher

__all__ = [
    "Card",
    "Comparison",
    "Evaluation",
    "HeldOut",
    "Interactions",
    "RecdistillError",
    "Recommendations",
    "Service",
    "Split",
    "TrainSettings",
    "Trained",
    "__version__",
    "cite",
    "compare",
    "distill",
    "evaluate",
    "export_bundle",
    "fit",
    "read",
    "split",
    "teacher",
]

__version__ = "0.1.0"

_HOMES = {
    "Card": "evaluation.card",
    "Comparison": "recipes.compare",
    "Evaluation": "evaluation.evaluate",
    "HeldOut": "data.interactions",
    "Interactions": "data.interactions",
    "RecdistillError": "errors",
    "Recommendations": "serve.recommendations",
    "Service": "serve.service",
    "Split": "data.interactions",
    "TrainSettings": "recipes.train",
    "Trained": "recipes.trained",
    "cite": "recipes.cite",
    "compare": "recipes.compare",
    "distill": "recipes.train",
    "evaluate": "recipes.measure",
    "export_bundle": "export.exporting",
    "fit": "recipes.train",
    "read": "data.sources",
    "split": "data.split",
    "teacher": "teachers.stored",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module 'recdistill' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"recdistill.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
