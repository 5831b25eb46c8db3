"""Everything that can be set of continual collaborative distillation, and presets.

"default" does what the paper's figure and its code's comments promise; "compat" does what the official code does
(Gyu-Seok0/CCD_KDD24 at 47a00b1, or its first commit 906159c where the newest is broken); "quick" updates the student
with five times the learning rate in ten epochs, and replays in few large steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from recdistill.errors import UnknownName
from recdistill.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PRESETS",
    "TUNED",
    "CCDSettings",
    "Contrast",
    "Distil",
    "Initial",
    "ModelSpec",
    "Proxies",
    "Replay",
    "Reservoir",
    "Teach",
    "Training",
    "Update",
    "merged",
    "over",
    "settings_of",
]


class _Grown(Settings):
    """Settings that have grown: results are kept under their words, so what came later is told only where it is set."""

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _told(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        out: dict[str, Any] = whole(self)
        return {name: value for name, value in out.items() if value is not None or name not in self.later}


class ModelSpec(_Grown):
    """A model that can grow."""

    later: ClassVar[tuple[str, ...]] = ("reads",)

    name: Literal["mf", "lightgcn", "vae"] = "mf"
    """Matrix factorisation, LightGCN over a graph of interactions, or Mult-VAE over rows of them."""
    dim: int = Field(default=8, ge=1)
    """Width of its vectors."""
    layers: int = Field(default=2, ge=0)
    """Of LightGCN."""
    init_std: float = Field(default=0.01, gt=0)
    """Standard deviation of vectors drawn at random."""
    reads: Literal["all"] | None = None
    """What the graph or the rows hold: the current block alone (official code), or "all" blocks that the model learned
    from so far, so that who is silent in one keeps neighbours, and graphs grow with the stream. MF reads nothing."""
    bias_std: float = Field(default=0.001, ge=0)
    """Of Mult-VAE's biases; the official code draws them from N(0, 1)."""


class Training(Settings):
    """One run of the loop."""

    epochs: int = Field(default=100, ge=0)
    """The most there can be."""
    batch: int = Field(default=2048, ge=1)
    """Interactions a step."""
    negatives: int = Field(default=1, ge=1)
    """Sampled items an interaction."""
    lr: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Coupled L2."""
    decay: Literal["all", "touched"] = "touched"
    """Whose vectors shrink at a step. "all", the official code: everybody's, so that a user who is silent in a block
    moves by about a learning rate a step towards zero. "touched": only of those whom the batch holds."""
    every: int = Field(default=5, ge=1)
    """Epochs between validations on the block's own held-out items, by recall@20."""
    patience: int = Field(default=2, ge=1)
    """Validations without improvement before it stops."""
    moments: Literal["fresh", "carried"] = "fresh"
    """Whether Adam begins each block anew, or goes on with what it had, grown by zeros."""


class Initial(Settings):
    """What an entity that was never trained begins with."""

    hops: Literal["none", "one", "two"] = "two"
    """Random; the mean of its neighbours; or the mean of that and of the most active entities two hops away."""
    neighbours: int = Field(default=20, ge=1)
    """How many of those two hops away; filled up with the most active of all."""
    who: Literal["never-trained", "newest"] = "never-trained"
    """Every id without a training interaction so far, or only ids that came with the block (official code)."""
    missing: Literal["skip", "zero"] = "skip"
    """Where there is no neighbour: leave that half out, or count it as zero and halve all the same (official)."""


class Replay(_Grown):
    """What is drawn from others' memory, and how it is learned."""

    later: ClassVar[tuple[str, ...]] = ("batch", "who")

    depth: int = Field(default=100, ge=1)
    """A: candidates are the first so many of a source's list."""
    sharpness: float = Field(default=1e-4, ge=0)
    """eps: a candidate is drawn with weight `exp(eps (rank_ref - rank_source))`."""
    stability: int = Field(default=3, ge=0)
    """Items a user drawn from the slow proxy."""
    plasticity: int = Field(default=5, ge=0)
    """Items a user drawn from the recent proxy."""
    student: int = Field(default=0, ge=0)
    """Items a user drawn from the updated student (teachers only)."""
    reference: Literal["current", "distilled"] = "current"
    """Against whose ranks forgetting is measured: the model that learns, or the student as it was distilled."""
    masks: Literal["alike", "source"] = "alike"
    """Whether training items leave both rankings, or the source's alone (official code)."""
    loss: Literal["bce", "hinge"] = "bce"
    """Binary cross-entropy of the logit against the soft label, or `relu(logit - label)` (the first commit)."""
    weight: float = Field(default=0.5, ge=0)
    """Of the pass, at its first epoch."""
    period: float | None = Field(default=10.0, gt=0)
    """The weight falls as `exp(-epoch / period)`; None keeps it."""
    redraw: int = Field(default=5, ge=1)
    """Epochs between draws."""
    batch: int | None = Field(default=None, ge=1)
    """Pairs a step; None = as many as a step has interactions (official code). Few large steps cost less, and move
    people who are silent in the block less often."""
    among: int | None = Field(default=None, ge=1)
    """Ranks in the reference are counted among so many items, drawn anew each time, and scaled up; None counts all. At
    1024 and eps 1e-4 weights are off by 2 % on Yelp, 6 % on Gowalla, for a tenth of the time."""
    users: int | None = Field(default=None, ge=1)
    """Whose memory is replayed: so many of those known, chosen once a stage; None = everybody's (official code). At a
    million users everybody's ranks cost more than the learning."""
    who: Literal["dormant", "active"] | None = None
    """Of those known, whose memory is replayed: of those without an interaction in what is learned (the block, or the
    part of it that an update has), whom nothing else reminds the model of, or of those with one; None = both (official
    code)."""


class Contrast(Settings):
    """LWC-KD: vectors of before against those of now, over the graph of before (Wang et al., CIKM 2021)."""

    weight: float = Field(default=0.01, ge=0)
    """Of each of the four terms; 0 leaves them out."""
    temperature: float = Field(default=5.0, gt=0)
    """tau"""
    neighbours: int = Field(default=10, ge=1)
    """Mean degree of the user-user and item-item graphs."""
    anchors: int | None = Field(default=256, ge=1)
    """Asked at a step, of a batch's; the others' part is estimated. None asks all (official code), each against
    everybody of before."""
    reach: Literal["everybody", "batch"] = "everybody"
    """Whose vectors these terms move. A softmax gives everybody a gradient, and Adam makes a whole step of the
    smallest, so that people who are silent in a block drift as far as others; "batch" moves only whom it holds."""
    how: Literal["sum", "mean"] = "sum"
    """Over a batch's anchors. BPR is a sum; the official mean makes these terms 2e5 times weaker a pair."""
    personal: bool = True
    """PIW (Wang et al., AAAI 2023): weights of users that are learned."""
    clusters: int = Field(default=10, ge=2)
    """Of PIW."""
    cluster_weight: float = Field(default=1.0, ge=0)
    """Of the term that sharpens them."""


class Distil(_Grown):
    """Stage 1: a student from the ensemble."""

    later: ClassVar[tuple[str, ...]] = ("most",)

    training: Training = Training(lr=5e-3, batch=1024, decay="all")
    """How; everybody is in a softmax, so there are no rows that a step does not touch."""
    near: int = Field(default=40, ge=1)
    """List length, of users and of items."""
    weight: float = Field(default=0.01, ge=0)
    """Of the users' ranking term."""
    item_weight: float = Field(default=0.01, ge=0)
    """Of the items' one, a pass of its own after the others."""
    item_batch: int = Field(default=1024, ge=1)
    """Items a step of it."""
    layer: Literal["served", "raw"] = "served"
    """Which vectors of LightGCN are distilled: what is served, or the raw tables (official code)."""
    start: Literal["scratch", "warm"] = "scratch"
    """From random vectors, or from the updated student."""
    passes: Literal["batch", "epoch"] = "batch"
    """The users' term beside every batch's users (official code), or in a pass of its own, each user once an epoch."""
    most: int | None = Field(default=None, ge=1)
    """Users, and items, whose lists are learned in passes of their own: so many, chosen once a stage, of those who have
    a list; None = all (official code). Each is asked about everybody of the other side."""
    avoid: int = Field(default=40, ge=0)
    """Negatives avoid so many of the best items of the ensemble, of both proxies and of the updated student."""


class Update(_Grown):
    """Stage 2: the student on new data."""

    later: ClassVar[tuple[str, ...]] = ("margin",)

    training: Training = Training()
    """How."""
    initial: Initial = Initial()
    """New entities."""
    replay: Replay = Replay()
    """What the proxies remember."""
    avoid: int = Field(default=40, ge=0)
    """Negatives avoid so many of the best items of the ensemble, the distilled student and both proxies."""
    times: int = Field(default=1, ge=1)
    """n: student updates inside a block."""
    margin: float | None = Field(default=None, gt=0)
    """The most that new pairs of users and items trained before may be above random ones, on average, when an update
    begins: longer vectors are shortened to it, the student's and those it replays, no ranking changes, and BPR has
    something left to ask. None leaves them (official code). Mult-VAE has none; moments that are carried stay."""


class Teach(_Grown):
    """Stage 3: each teacher on the same data."""

    later: ClassVar[tuple[str, ...]] = ("margin",)

    training: Training = Training()
    """How."""
    initial: Initial = Initial()
    """New entities."""
    replay: Replay = Replay(student=5, period=5.0)
    """What the student's side knows. Mult-VAE takes it as pseudo-labels, without weight and loss."""
    contrast: Contrast = Contrast()
    """Its own memory, of MF and LightGCN."""
    vae_weight: float = Field(default=1.0, ge=0)
    """Of the divergence from its own past, of Mult-VAE."""
    imputed: float = Field(default=0.1, ge=0)
    """Mult-VAE's input where the student's side knows an item."""
    avoid: int = Field(default=40, ge=0)
    """Negatives avoid so many of the best items of the ensemble, both proxies and the student."""
    margin: float | None = Field(default=None, gt=0)
    """As of the student's update: the member's vectors, as it is and as it remembers itself, and the student's side's.
    Mult-VAE has none."""


class Proxies(Settings):
    """Two memories of the distilled students."""

    mode: Literal["weights", "aligned", "scores"] = "scores"
    """What is averaged: raw tables (official code), tables after an orthogonal rotation, or scores."""
    stability: float = Field(default=0.9, ge=0, le=1)
    """l_S: what the slow one keeps of itself."""
    plasticity: float = Field(default=0.0, ge=0, le=1)
    """l_P"""
    width: int = Field(default=128, ge=1)
    """Of "scores": vectors are compressed when they grow wider, so that months cost no more than weeks."""


class Reservoir(Settings):
    """SPMF (Wang et al., SIGIR 2018): a sample of the past, drawn where the model ranks badly."""

    size: int = Field(default=50_000, ge=1)
    """Interactions kept."""
    share: float = Field(default=1.0, gt=0)
    """Interactions of an epoch, as a multiple of the block's."""


_BASE = Training(batch=512, negatives=2, every=1, patience=10)


class CCDSettings(_Grown):
    """Continual collaborative distillation."""

    later: ClassVar[tuple[str, ...]] = ("depth",)

    student: ModelSpec = ModelSpec()
    """What is served."""
    teachers: tuple[ModelSpec, ...] = Field(default=tuple(ModelSpec(dim=128) for _ in range(5)), min_length=1)
    """The ensemble's members; the seed of each is its place."""
    base: Training = _BASE
    """Of teachers on the base block."""
    plain: Training = Training(lr=5e-3)
    """Of a model that is trained from scratch without a teacher: a baseline's base block, full-batch."""
    exponent: float = Field(default=0.05, ge=0)
    """An item at rank r of a member's list counts `r ** -exponent` in the ensemble."""
    depth: int | None = Field(default=None, ge=1)
    """How deep members' lists are read; what is below counts as the next rank. None reads all (official code), which
    sorts every item for every user; a large catalogue needs a few hundred."""
    distil: Distil = Distil()
    """Stage 1."""
    update: Update = Update()
    """Stage 2."""
    teach: Teach = Teach()
    """Stage 3."""
    proxies: Proxies = Proxies()
    """Between them."""
    reservoir: Reservoir = Reservoir()
    """Of SPMF."""

    @model_validator(mode="after")
    def _averaged(self) -> CCDSettings:
        if self.student.name == "vae" and self.proxies.mode == "aligned":
            msg = (
                'student.name = "vae" and proxies.mode = "aligned" do not go together: a Mult-VAE has no table of '
                'users that could be turned; give proxies.mode = "scores" or "weights"'
            )
            raise ValueError(msg)
        return self


_OFFICIAL_TRAINING: dict[str, Any] = {"decay": "all"}
_OFFICIAL_INITIAL: dict[str, Any] = {"who": "newest", "missing": "zero"}
_OFFICIAL_REPLAY: dict[str, Any] = {"masks": "source"}

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "compat": {
        "base": _OFFICIAL_TRAINING,
        "plain": _OFFICIAL_TRAINING,
        "distil": {"training": _OFFICIAL_TRAINING, "layer": "raw"},
        "update": {
            "training": _OFFICIAL_TRAINING,
            "initial": _OFFICIAL_INITIAL,
            "replay": {**_OFFICIAL_REPLAY, "reference": "distilled"},
        },
        "teach": {
            "training": _OFFICIAL_TRAINING,
            "initial": _OFFICIAL_INITIAL,
            "replay": {**_OFFICIAL_REPLAY, "period": 5.0},
            "contrast": {"how": "mean", "anchors": None, "reach": "everybody"},
        },
        "proxies": {"mode": "weights"},
    },
    "quick": {
        "update": {
            "training": {"lr": 5e-3, "epochs": 10, "batch": 1024},
            "replay": {"batch": 32_768, "among": 1024, "depth": 50, "redraw": 10},
        }
    },
}
"""Over the defaults; "quick" is a student update of few epochs (docs/benchmarks.md). What else the official code does
and is not offered, because it is a fault: docs/ccd.md."""


def _tuned(
    a: int, sp: int, pp: int, teacher: tuple[int, int, int, int], proxies: tuple[float, float]
) -> dict[str, Any]:
    of_teacher = dict(zip(("depth", "stability", "plasticity", "student"), teacher, strict=True))
    return {
        "update": {"replay": {"depth": a, "stability": sp, "plasticity": pp}},
        "teach": {"replay": of_teacher},
        "proxies": {"stability": proxies[0], "plasticity": proxies[1]},
    }


TUNED: dict[int, dict[str, Any]] = {
    1: _tuned(50, 1, 0, (100, 5, 0, 5), (1.0, 0.0)),
    2: _tuned(100, 3, 5, (100, 1, 3, 5), (1.0, 0.1)),
    3: _tuned(100, 5, 5, (50, 3, 5, 1), (0.9, 0.0)),
    4: _tuned(50, 1, 5, (100, 1, 3, 1), (0.9, 0.0)),
    5: _tuned(50, 3, 1, (100, 1, 5, 1), (0.9, 0.0)),
}
"""Block -> what the official scripts set for it (Yelp, LightGCN student), tuned on that block's own validation part."""


def settings_of(preset: str = "default", settings: Mapping[str, Any] | None = None) -> CCDSettings:
    """The settings of a preset, with others over them, key by key in tables too.

    Raises:
        UnknownName: no such preset.
        SettingsError: unknown keys or unusable values.
    """
    if preset not in PRESETS:
        raise UnknownName("preset of CCD", preset, PRESETS)
    whole = merged(merged(CCDSettings().model_dump(mode="json"), PRESETS[preset]), settings or {})
    return parse(CCDSettings, whole, at="ccd")


def over(settings: CCDSettings, changes: Mapping[str, Any]) -> CCDSettings:
    """`settings` with `changes` over them, as in `settings_of`."""
    return parse(CCDSettings, merged(settings.model_dump(mode="json"), changes), at="ccd")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested tables, the values of `above` over those of `below`."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out
