"""What is public of CCD's figures, and an independent calibration, to be printed beside ours."""

from __future__ import annotations

__all__ = ["CCD_FLOOR", "CCD_GAINS"]

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

CCD_FLOOR: dict[str, tuple[float, float]] = {
    "Yelp, popularity of the current block": (0.0136, 0.0147),
    "Yelp, popularity so far": (0.0167, 0.0157),
    "Yelp, MF 8, fine-tune": (0.0648, 0.0655),
    "Yelp, MF 8, full-batch": (0.0702, 0.0673),
    "Yelp, MF 128, fine-tune": (0.0648, 0.0678),
    "Yelp, LightGCN 8, fine-tune": (0.0595, 0.0624),
    "Gowalla, popularity of the current block": (0.0339, 0.0368),
    "Gowalla, popularity so far": (0.0356, 0.0374),
    "Gowalla, MF 16, fine-tune": (0.0876, 0.0951),
}
"""H-mean of recall@20 after D5, with and without the base block: one seed, Adam 5e-3 then 1e-3, coupled decay 1e-4."""
