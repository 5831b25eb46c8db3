"""`front.csv` of a search: systems with their metrics, sizes, latency, and cost by its price list."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.report.search import SearchPage

__all__ = ["front"]


def front(page: SearchPage, metrics: Sequence[str]) -> str:
    """The file as text; a latency that was not measured is left empty."""
    told = io.StringIO()
    out = csv.writer(told, lineterminator="\n")
    valid = [f"valid {metric}" for metric in metrics]
    costs = ["cost", "body", "parameters", "bytes", "p50_ms", "p99_ms", "encoder_ms", "per_s"]
    out.writerow(["system", "group", "price_weight", *metrics, *valid, *costs])
    for entry in page.entries:
        row, timed = page.row(entry), entry.card.latency
        weights = [step.weight for step in page.steps if step.name == entry.name and step.weight is not None]
        judged = entry.card.metrics[0].values
        times = () if timed is None else (timed.p50_ms, timed.p99_ms, row.encoder_ms, timed.users_per_second)
        out.writerow(
            [
                entry.name,
                row.group,
                " ".join(f"{weight:g}" for weight in weights),
                *(f"{entry.metrics[metric].mean:.6f}" for metric in metrics),
                *(f"{judged[metric].mean:.6f}" for metric in metrics),
                "" if row.cost is None else f"{row.cost:.6g}",
                row.body,
                entry.card.parameters,
                entry.card.bytes,
                *([f"{value:.4g}" for value in times] or [""] * 4),
            ]
        )
    return told.getvalue()
