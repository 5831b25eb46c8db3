"""What is public of CCD's figures, and an independent calibration, to be printed beside ours."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CCD_FLOOR", "CCD_GAINS", "Floor"]

CCD_GAINS: dict[str, dict[str, tuple[float, ...]]] = {
    "gowalla": {
        "teacher": (0.0071, 0.0242, 0.0264, 0.0320, 0.0335),
        "student": (0.0029, 0.0109, 0.0239, 0.0269, 0.0260),
    },
    "yelp": {
        "teacher": (0.0036, 0.0237, 0.0338, 0.0388, 0.0354),
        "student": (0.0096, 0.0079, 0.0094, 0.0106, 0.0099),
    },
}
"""Absolute gain in H-mean over the best continual competitor after D1 to D5, LightGCN student: read off the chart of
Gyu-Seok0/CCD_KDD24, +-0.0003. The cut-off of the metric is not stated; the code suggests recall@20."""


class Floor(NamedTuple):
    """H-mean of recall@20 after D5, and the row of ours that it stands beside."""

    what: str
    h: float
    without: float
    """Without the base block."""
    scene: str = ""
    """Empty where no row of ours is the same."""
    row: str = ""


CCD_FLOOR: tuple[Floor, ...] = (
    Floor("Yelp, popularity of the current block", 0.0136, 0.0147, "yelp-mf", "popularity of the block"),
    Floor("Yelp, popularity so far", 0.0167, 0.0157, "yelp-mf", "popularity so far"),
    Floor("Yelp, MF 8, fine-tune", 0.0648, 0.0655, "yelp-mf", "fine-tune"),
    Floor("Yelp, MF 8, fine-tune", 0.0648, 0.0655, "yelp-mf", "fine-tune: 48 epochs"),
    Floor("Yelp, MF 8, fine-tune", 0.0648, 0.0655, "yelp-mf", "fine-tune: larger batches"),
    Floor("Yelp, MF 8, full-batch", 0.0702, 0.0673, "yelp-mf", "full-batch"),
    Floor("Yelp, MF 128, fine-tune", 0.0648, 0.0678),
    Floor("Yelp, LightGCN 8, fine-tune", 0.0595, 0.0624, "yelp-lightgcn", "fine-tune"),
    Floor("Gowalla, popularity of the current block", 0.0339, 0.0368, "gowalla-mf", "popularity of the block"),
    Floor("Gowalla, popularity so far", 0.0356, 0.0374, "gowalla-mf", "popularity so far"),
    Floor("Gowalla, MF 16, fine-tune", 0.0876, 0.0951, "gowalla-mf", "fine-tune"),
    Floor("Gowalla, MF 16, fine-tune", 0.0876, 0.0951, "gowalla-mf", "fine-tune: 48 epochs"),
    Floor("Gowalla, MF 16, fine-tune", 0.0876, 0.0951, "gowalla-mf", "fine-tune: larger batches"),
)
"""One seed, Adam 5e-3 then 1e-3, coupled decay 1e-4, batches of 2048. When it stopped is not known, and with Adam's
coupled decay the users of older blocks shrink at every step of a later one."""
