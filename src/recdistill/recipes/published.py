"""The figures of papers and of their authors' logs, to be printed beside ours."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DE_RRD_LOG", "DE_RRD_PAPER", "SEQUENTIAL", "Published"]

Row = dict[str, float]


def _row(*values: float) -> Row:
    names = ("H@5", "M@5", "N@5", "H@10", "M@10", "N@10", "H@20", "M@20", "N@20")
    return dict(zip(names, values, strict=True))


DE_RRD_PAPER: dict[str, dict[str, Row]] = {
    "bpr": {
        "teacher": _row(0.5135, 0.3583, 0.3970, 0.6185, 0.3724, 0.4310, 0.7099, 0.3788, 0.4541),
        "plain": _row(0.4441, 0.2949, 0.3319, 0.5541, 0.3102, 0.3691, 0.6557, 0.3133, 0.3906),
        "de": _row(0.4817, 0.3230, 0.3625, 0.5916, 0.3372, 0.3977, 0.6917, 0.3441, 0.4229),
        "rrd": _row(0.4622, 0.3076, 0.3461, 0.5703, 0.3220, 0.3809, 0.6746, 0.3293, 0.4074),
        "de-rrd": _row(0.4843, 0.3231, 0.3632, 0.5966, 0.3373, 0.3989, 0.6991, 0.3447, 0.4251),
    },
    "neumf": {
        "teacher": _row(0.4790, 0.3318, 0.3684, 0.5827, 0.3457, 0.4020, 0.6748, 0.3521, 0.4254),
        "plain": _row(0.3867, 0.2531, 0.2865, 0.4909, 0.2670, 0.3202, 0.5833, 0.2738, 0.3436),
        "de": _row(0.4079, 0.2625, 0.2986, 0.5139, 0.2766, 0.3328, 0.6238, 0.2843, 0.3607),
        "rrd": _row(0.4737, 0.3086, 0.3497, 0.5800, 0.3236, 0.3847, 0.6765, 0.3305, 0.4094),
        "de-rrd": _row(0.4758, 0.3108, 0.3518, 0.5805, 0.3246, 0.3856, 0.6770, 0.3312, 0.4099),
    },
}
"""Kang et al., CIKM 2020, arXiv:2012.04357, Table 2, CiteULike, phi = 0.1: test figures, repetitions not stated."""

DE_RRD_LOG: dict[str, dict[str, Row]] = {
    "bpr": {
        "plain": _row(0.4486, 0.2978, 0.3353, 0.5559, 0.3104, 0.3686, 0.6584, 0.3201, 0.3966),
        "de": _row(0.4773, 0.3205, 0.3595, 0.5796, 0.3350, 0.3933, 0.6729, 0.3391, 0.4149),
        "rrd": _row(0.4698, 0.3175, 0.3554, 0.5727, 0.3303, 0.3879, 0.6679, 0.3382, 0.4132),
        "ir-rrd": _row(0.4947, 0.3349, 0.3747, 0.5951, 0.3484, 0.4072, 0.6915, 0.3483, 0.4263),
    },
    "neumf": {},
}
"""The training logs in the authors' repository: single runs, each cut-off at its own best validation epoch."""


@dataclass(frozen=True, slots=True)
class Published:
    """HR@10 and NDCG@10 of a sequential model, full ranking."""

    hr: float
    ndcg: float
    key: str
    source: str


_S3_REC = (
    "S3-Rec",
    "RUCAIBox/CIKM2020-S3Rec, all-item table, on the same file: SASRec with binary cross-entropy, as `sasrec-bce`; "
    "`sasrec` has the full cross-entropy",
)
_GSASREC = (
    "gSASRec",
    "README of asash/gSASRec-pytorch, ML-1M without items of fewer than five interactions: SASRec "
    "with binary cross-entropy, and gSASRec (many negatives), which stands beside our full cross-entropy",
)
_KLENITSKIY = (
    "Klenitskiy & Vasilev",
    "RecSys 2023, arXiv:2309.07602, full softmax, as quoted in the README of facebookresearch/generative-recommenders "
    "(whose own SASRec with sampled softmax has 0.2853, 0.1603)",
)

SEQUENTIAL: dict[str, dict[str, Published]] = {
    "toys": {"sasrec": Published(0.0675, 0.0374, *_S3_REC), "sasrec-bce": Published(0.0675, 0.0374, *_S3_REC)},
    "beauty": {"sasrec": Published(0.0605, 0.0318, *_S3_REC), "sasrec-bce": Published(0.0605, 0.0318, *_S3_REC)},
    "ml-1m": {
        "sasrec": Published(0.3003, 0.1726, *_GSASREC),
        "sasrec-bce": Published(0.2392, 0.1259, *_GSASREC),
        "bert4rec": Published(0.2843, 0.1537, *_KLENITSKIY),
        "gru4rec": Published(0.2811, 0.1648, *_KLENITSKIY),
    },
}
"""Scene -> row -> what others report; that of S3-Rec is trained by "bce", and is the bar of both of our rows."""
