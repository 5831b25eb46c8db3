"""How a search is run; `PRESETS` are settings too."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from recdistill.evaluation.metrics import MetricName
from recdistill.evaluation.protocol import ProtocolName
from recdistill.methods.adarec import COMPAT, AdaRec
from recdistill.search.cost import Priced
from recdistill.search.model import Frame
from recdistill.search.price import Chances
from recdistill.search.refine import Refine
from recdistill.search.space import SPACES
from recdistill.settings import Settings
from recdistill.terms.base import check_negatives

__all__ = ["PRESETS", "RETRAINING", "RetrainSettings", "SearchSettings", "Temperature"]


class Temperature(Settings):
    """tau of the Gumbel-softmax: `max(floor, start * factor ** (epoch // period))`."""

    start: float = Field(default=1.0, gt=0)
    """At epoch 0."""
    factor: float = Field(default=0.8, gt=0, le=1)
    """Of every step down."""
    period: int = Field(default=5, ge=1)
    """Epochs between steps."""
    floor: float = Field(default=0.2, ge=0)
    """The least it gets. The official code has none, and alpha's gradient is gone by epoch 100."""


class SearchSettings(Settings):
    """A search for the cells of a student."""

    space: str = "causal"
    """A registered search space: "causal", "attentive" or "published"."""
    cells: int = Field(default=4, ge=1)
    """The most cells there can be."""
    depth: bool = False
    """Whether the number of cells is searched too."""
    shared: bool = True
    """Whether all cells have one architecture, or each its own."""
    frame: Frame = Frame()
    """What stands around the cells: width, length, tables."""
    level: Literal["single", "bi"] = "single"
    """ "single": one backward pass updates weights and alpha; "bi": alpha learns from users that weights never see."""
    share: float = Field(default=0.3, gt=0, lt=1)
    """Of the users, those that alpha learns from on two levels."""
    paths: int = Field(default=2, ge=1)
    """Operators asked on an edge where alpha learns, at most all of the space; the official code asks all ten."""
    distillation: AdaRec = AdaRec()
    """The distillation's settings; weight 0 searches without it."""
    loss: str = "cross-entropy"
    """The base loss, its mean over asked positions."""
    negatives: int = Field(default=0, ge=0, validate_default=True)
    """Sampled items for each label, for a base loss that needs them."""
    price: Priced = "macs"
    """What an operator costs: "macs", "params" or "bytes" of the real shape, "latency" measured on this machine's CPU,
    "published" by the official formula, or "frozen", the official table as it was shipped."""
    price_weight: float = Field(default=0.1, ge=0)
    """beta: multiplies the cost, a share of the dearest cells' in [0, 1] (in official prices their plain sum)."""
    chances: Chances = "expected"
    """What is priced: the "expected" architecture, or the "sampled" one (official code)."""
    budget: str | None = None
    """A hard limit such as "2 ms" or "5 MB", in place of the price; the design that is derived keeps it."""
    temperature: Temperature = Temperature()
    """Of the samples."""
    epochs: int = Field(default=40, ge=0)
    """The most epochs there can be."""
    warm_up: int = Field(default=0, ge=0)
    """Epochs in which weights learn alone, each of one path drawn near evenly, and nothing has a price yet: alpha would
    else prefer what learns fastest."""
    batch: int = Field(default=128, ge=1)
    """Histories a step."""
    lr: float = Field(default=3e-3, gt=0)
    """Of the weights, by AdamW."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of the weights."""
    alpha_lr: float = Field(default=1e-2, gt=0)
    """Of alpha, by AdamW. The official 2e-5 moves it by a tenth in 5,000 steps."""
    alpha_weight_decay: float = Field(default=0.0, ge=0)
    """Of alpha."""
    estimate: int = Field(default=32, ge=1)
    """Batches from which a derived student's norms are estimated anew before it is scored."""
    refine: Refine = Refine()
    """Designs that are tried in the place of the derived one after the last epoch."""
    metrics: tuple[MetricName, ...] = Field(default=("ndcg@10",), min_length=1)
    """Validation metrics of the derived student; the first one chooses the epoch."""
    protocol: ProtocolName = "full"
    """ "full" ranking, or e.g. "sampled(100)"."""
    patience: int = Field(default=20, ge=1)
    """Validations in a row without improvement before the search stops."""
    every: int = Field(default=1, ge=1)
    """Epochs between validations."""
    device: str = "auto"
    """ "auto", "cpu", "cuda" or "cuda:<index>"."""

    @field_validator("negatives")
    @classmethod
    def _enough(cls, negatives: int, info: ValidationInfo) -> int:
        return check_negatives(info.data.get("loss"), negatives)

    @field_validator("paths")
    @classmethod
    def _of_the_space(cls, paths: int, info: ValidationInfo) -> int:
        name = str(info.data.get("space"))
        if name in SPACES and paths > len(SPACES[name]):  # an unknown space is named where it is looked up
            msg = f"the space {name!r} has {len(SPACES[name])} operators; got {paths}"
            raise ValueError(msg)
        return paths


class RetrainSettings(Settings):
    """The training of what was found; what is not here is as it was in the search."""

    weights: Literal["fresh", "inherited"] = "fresh"
    """Where it begins: drawn anew, or the supernet's."""
    distilled: bool = True
    """Whether the teacher is asked again."""
    epochs: int = Field(default=200, ge=0)
    """The most epochs there can be."""
    batch: int = Field(default=128, ge=1)
    """Histories a step."""
    lr: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty, beside a base loss that is summed over positions."""
    patience: int = Field(default=10, ge=1)
    """Validations in a row without improvement before it stops."""


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "compat": {
        "space": "published",
        "level": "single",
        "paths": 10,
        "frame": {
            "norm": False,
            "pads": True,
            "over": "all",
            "every": True,
            "tied": False,
            "bias": True,
            "init_std": 1.0,
            "leak": "allow",
        },
        "distillation": COMPAT,
        "price": "frozen",
        "price_weight": 8.0,
        "chances": "sampled",
        "temperature": {"floor": 0.0},
        "epochs": 200,
        "batch": 64,
        "lr": 5e-3,
        "weight_decay": 5e-4,
        "alpha_lr": 2e-5,
        "alpha_weight_decay": 1e-4,
        "patience": 200,
        "refine": {"designs": 0},
    },
}
"""Settings by name. "default" is AdaRec as it was meant; "compat" is what the official code does, for comparison: its
space reads the label, its divergences are swapped and summed, its prices are of another shape, its temperature has no
floor. What it does and is not here: a class for padding and the share of padding in its sums, an output layer that
begins at U(-1 / sqrt(C), 1 / sqrt(C)) beside item vectors of N(0, 1) (here both are N(0, 1), so the loss begins
higher), a teacher that is differentiated in vain, the choice of an epoch by randomly sampled cells (the derived one is
scored)."""
RETRAINING: dict[str, dict[str, Any]] = {
    "default": {},
    "compat": {
        "weights": "inherited",
        "distilled": False,
        "epochs": 100,
        "lr": 1e-4,
        "weight_decay": 5e-4,
        "patience": 100,
    },
}
"""Settings by name, for what follows a search. The official code takes AdamW, and 0.9 of its learning rate every ten
epochs; neither is here."""
