"""What `recdistill reproduce ccd` can run: streams with their models, and ways along them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from recdistill.continual.settings import PRESETS, Distil, Update, merged

__all__ = ["ABLATIONS", "MAIN", "ROWS", "SCENES", "Row", "Scene"]

_CALIBRATION: dict[str, Any] = {"decay": "all"}
_OF_ALL: dict[str, Any] = {"student": {"reads": "all"}}


@dataclass(frozen=True, slots=True)
class Row:
    """One way along the stream, with what it sets otherwise than its scene."""

    name: str
    how: str
    """One of `lineage.HOWS`."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    taught: bool = True
    """Whether teachers learn from the student's side."""
    tuned: bool = False
    """With the official scripts' settings of every block."""
    without: tuple[str, ...] = ()
    """Parts that no setting takes out, of `lineage.PARTS`."""
    student: bool = True
    """False of rows about teachers."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A stream, a student and an ensemble."""

    name: str
    title: str
    folder: str
    settings: dict[str, Any]
    clean: bool = False
    published: str = ""
    """Whose gains stand beside it: "gowalla" or "yelp"; only a LightGCN student is of the published kind."""


def _rows() -> tuple[Row, ...]:
    nothing: dict[str, Any] = {"hops": "none"}
    no_slow, no_recent = ({"replay": {name: 0}} for name in ("stability", "plasticity"))
    no_replay: dict[str, Any] = {"replay": {"stability": 0, "plasticity": 0}}
    larger: dict[str, Any] = {**_CALIBRATION, "batch": 8192, "patience": 10}
    sheet = merged(Update().model_dump(), {"margin": None, "replay": {"batch": None}})  # None is not in a dump
    plainly: dict[str, Any] = {"update": sheet, "teach": {"margin": None}}
    official_training = merged(plainly, {"update": {"training": _CALIBRATION}, "plain": _CALIBRATION})
    as_published = merged(plainly, {"teach": {"contrast": {"reach": "everybody"}}})
    # of a model without a teacher, by validation
    longer: dict[str, Any] = {"lr": 2e-3, "epochs": 50, "batch": 1024, "patience": 10}
    within: dict[str, Any] = {"update": {"margin": 0.5, "training": longer}}
    in_full: dict[str, Any] = {"distil": {"passes": "batch", "weight": Distil().weight, "start": "scratch"}}
    return (
        Row("popularity so far", "popularity", plainly),
        Row("popularity of the block", "popularity-now", plainly),
        Row("full-batch", "full-batch", official_training),
        Row("full-batch: decay of touched rows", "full-batch", plainly),
        Row("fine-tune", "fine-tune", official_training),
        Row("fine-tune: decay of touched rows", "fine-tune", plainly),
        Row("fine-tune: within a margin", "fine-tune", within),
        Row("fine-tune: graph of all blocks", "fine-tune", merged(_OF_ALL, within)),
        Row(
            "fine-tune: larger batches",
            "fine-tune",
            merged(plainly, {"update": {"training": larger}, "plain": _CALIBRATION}),
        ),
        Row(
            "fine-tune: 48 epochs",
            "fine-tune",
            merged(official_training, {"update": {"training": {"epochs": 48, "patience": 10}}}),
        ),
        Row("spmf", "spmf", plainly),
        Row("spmf: within a margin", "spmf", within),
        Row("lwc-kd", "lwc-kd", merged(as_published, {"teach": {"contrast": {"personal": False}}})),
        Row("lwc-kd with piw", "lwc-kd", as_published),
        Row("lwc-kd with piw: within a margin", "lwc-kd", merged(within, {"teach": {"contrast": {"reach": "batch"}}})),
        Row("replay alone", "replay"),
        Row("replay alone: updates of the sheet", "replay", plainly),
        Row("no update", "static", plainly),
        Row("distil alone", "distil-only", taught=False),
        Row("ccd", "ccd"),
        Row("ccd: settings of each block", "ccd", tuned=True),
        Row("ccd as the official code", "ccd", merged(merged(plainly, in_full), PRESETS["compat"])),
        Row("ccd: quick updates", "ccd", {"preset": "quick"}),
        Row("ccd: no distilled start", "ccd", without=("distilled start",)),
        Row("ccd: updates of the sheet", "ccd", plainly),
        Row("ccd: no margin", "ccd", {"update": {"margin": None}, "teach": {"margin": None}}),
        Row("ccd: no entity init", "ccd", {"update": {"initial": nothing}, "teach": {"initial": nothing}}),
        Row("ccd: no stability proxy", "ccd", {"update": no_slow, "teach": no_slow}),
        Row("ccd: no plasticity proxy", "ccd", {"update": no_recent, "teach": no_recent}),
        Row("ccd: no replay", "ccd", {"update": no_replay}),
        Row("ccd: no teacher update", "ccd", without=("teacher update",)),
        Row("ccd: no student knowledge", "ccd", taught=False),
        Row(
            "ccd: no annealing", "ccd", {"update": {"replay": {"period": None}}, "teach": {"replay": {"period": None}}}
        ),
        Row("ccd: one hop", "ccd", {"update": {"initial": {"hops": "one"}}}),
        Row("ccd: warm start", "ccd", {"distil": {"start": "warm"}}),
        Row("ccd: start from scratch", "ccd", {"distil": {"start": "scratch"}}),
        Row("ccd: lists beside every batch", "ccd", {"distil": {"passes": "batch", "weight": Distil().weight}}),
        Row("ccd: proxies of weights", "ccd", {"proxies": {"mode": "weights"}}),
        Row("ccd: proxies aligned", "ccd", {"proxies": {"mode": "aligned"}}),
        Row("ccd: reference distilled", "ccd", {"update": {"replay": {"reference": "distilled"}}}),
        Row("ccd: replay of the dormant", "ccd", {"update": {"replay": {"who": "dormant"}}}),
        Row("ccd: replay of the active", "ccd", {"update": {"replay": {"who": "active"}}}),
        Row("ccd: hinge", "ccd", {"update": {"replay": {"loss": "hinge"}}}),
        Row("ccd: nothing avoided", "ccd", {"update": {"avoid": 0}, "distil": {"avoid": 0}, "teach": {"avoid": 0}}),
        Row("ccd: decay of all rows", "ccd", {"update": {"training": _CALIBRATION}}),
        Row("ccd: lwc by the mean", "ccd", {"teach": {"contrast": {"how": "mean"}}}),
        Row("ccd: graph of all blocks", "ccd", _OF_ALL),
        Row("ccd: four updates a block", "ccd", {"update": {"times": 4}}),
        Row("teachers", "teacher", student=False),
        Row("teachers on their own", "teacher", taught=False, student=False),
    )


ROWS: dict[str, Row] = {row.name: row for row in _rows()}
ABLATIONS = tuple(name for name in ROWS if name.startswith("ccd: no "))
"""CCD without each of its parts."""
MAIN = (
    "popularity so far",
    "fine-tune",
    "fine-tune: decay of touched rows",
    "fine-tune: within a margin",
    "full-batch",
    "full-batch: decay of touched rows",
    "spmf",
    "lwc-kd",
    "lwc-kd with piw",
    "replay alone",
    "no update",
    "distil alone",
    "ccd",
    "teachers",
    "teachers on their own",
)
"""Computed where no row is named."""


def _members(n: int, name: str, dim: int, **more: str) -> list[dict[str, Any]]:
    return [{"name": name, "dim": dim, **more}] * n


def _lightgcn(student: int, teachers: list[dict[str, Any]], **more: str) -> dict[str, Any]:
    return {"student": {"name": "lightgcn", "dim": student, **more}, "teachers": teachers}


def _mixed(factors: int, rows: int, **more: str) -> list[dict[str, Any]]:
    return _members(factors, "mf", 64) + _members(rows, "vae", 64, **more)


def _mf(student: int, teacher: int) -> dict[str, Any]:
    return {"student": {"dim": student}, "teachers": _members(5, "mf", teacher)}


_SHORT: dict[str, Any] = {
    # a user is in about ten batches of an epoch: once an epoch with ten times the weight, for a tenth of the time
    # and from the updated student: from scratch, a small block is overfitted before the lists are learned
    "distil": {"passes": "epoch", "weight": 0.1, "start": "warm", "training": {"epochs": 30}},
    # and its long vectors leave BPR nothing to ask: docs/ccd.md
    "update": merged(PRESETS["quick"]["update"], {"margin": 0.5}),
    "teach": {"margin": 2.0, "training": {"epochs": 30}, "contrast": {"anchors": 64}},
}
"""Short stages, for two cores."""

# of teachers whose every step goes through the whole graph: few large ones
_GRAPHS: dict[str, Any] = _SHORT | {"base": {"batch": 8192, "lr": 5e-3}}

# Gowalla's items are three times Yelp's: the whole order of everybody's list costs more than the teachers. These forget
# what the softmax of silent people moves and what a student's shorter vectors pull down; by validation of one increment
_SHALLOW: dict[str, Any] = merged(
    _SHORT,
    {"depth": 400, "teach": {"replay": {"among": 4096, "period": 2.0}, "contrast": {"reach": "batch"}}},
)
# within MF's margin a graph's update loses the older blocks; by validation of one increment
_SHALLOW_GRAPHS: dict[str, Any] = merged(_SHALLOW, {"update": {"margin": 1.0, "replay": {"weight": 1.0}}})


def _short(student: int, teacher: int) -> dict[str, Any]:
    return {"student": {"dim": student}, "teachers": _members(2, "mf", teacher), **_SHORT}


SCENES: dict[str, Scene] = {
    scene.name: scene
    for scene in (
        Scene("yelp-mf", "Yelp, MF 8 from 5 MF 128", "ccd_yelp", _mf(8, 128)),
        Scene("gowalla-mf", "Gowalla, MF 16 from 5 MF 64", "ccd_gowalla", _mf(16, 64)),
        Scene(
            "yelp-lightgcn",
            "Yelp, LightGCN 8 from 5 LightGCN 128 (published)",
            "ccd_yelp",
            _lightgcn(8, _members(5, "lightgcn", 128)),
            published="yelp",
        ),
        Scene(
            "gowalla-lightgcn",
            "Gowalla, LightGCN 16 from 5 MF 64 and 2 Mult-VAE 64 (published)",
            "ccd_gowalla",
            _lightgcn(16, _mixed(5, 2)),
            published="gowalla",
        ),
        Scene("yelp-mf-small", "Yelp, MF 8 from 2 MF 128, short stages", "ccd_yelp", _short(8, 128)),
        Scene(
            "gowalla-mf-small",
            "Gowalla, MF 16 from 2 MF 64, short stages",
            "ccd_gowalla",
            _short(16, 64) | _SHALLOW,
        ),
        Scene(
            "yelp-lightgcn-small",
            "Yelp, LightGCN 8 from 2 LightGCN 128, short stages",
            "ccd_yelp",
            _lightgcn(8, _members(2, "lightgcn", 128)) | _GRAPHS,
            published="yelp",
        ),
        Scene(
            "yelp-lightgcn-small-all",
            "Yelp, LightGCN 8 from 2 LightGCN 128, graphs of all blocks, short stages",
            "ccd_yelp",
            _lightgcn(8, _members(2, "lightgcn", 128, reads="all"), reads="all") | _GRAPHS,
            published="yelp",
        ),
        Scene(
            "yelp-lightgcn-short",
            "Yelp, LightGCN 8 from 5 LightGCN 128 (published), graphs of all blocks, short stages",
            "ccd_yelp",
            _lightgcn(8, _members(5, "lightgcn", 128, reads="all"), reads="all") | _GRAPHS,
            published="yelp",
        ),
        Scene(
            "gowalla-lightgcn-small-all",
            "Gowalla, LightGCN 16 from 2 MF 64 and a Mult-VAE 64, graphs of all blocks, short stages",
            "ccd_gowalla",
            _lightgcn(16, _mixed(2, 1, reads="all"), reads="all") | _SHALLOW_GRAPHS,
            published="gowalla",
        ),
        Scene(
            "gowalla-lightgcn-short",
            "Gowalla, LightGCN 16 from 5 MF 64 and 2 Mult-VAE 64 (published), graphs of all blocks, short stages",
            "ccd_gowalla",
            _lightgcn(16, _mixed(5, 2, reads="all"), reads="all") | _SHALLOW_GRAPHS,
            published="gowalla",
        ),
        Scene(
            "yelp-mf-small-clean",
            "Yelp without repeats that leak, MF 8 from 2 MF 128, short stages",
            "ccd_yelp",
            _short(8, 128),
            clean=True,
        ),
        Scene(
            "yelp-mf-clean",
            "Yelp without repeats that leak, MF 8 from 5 MF 128",
            "ccd_yelp",
            _mf(8, 128),
            clean=True,
        ),
    )
}
