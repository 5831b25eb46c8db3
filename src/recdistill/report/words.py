"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["amount", "megabytes", "milliseconds", "short", "times"]


def amount(value: float | None) -> str:
    """A count with its separators: 5,026,000; a dash for None."""
    return "\u2013" if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A count in few characters: 357, 35.2k, 6.08M."""
    if value is None:
        return "\u2013"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def megabytes(size: float | None) -> str:
    """Bytes in the unit that fits, powers of 1000: 24.3 MB."""
    if size is None:
        return "\u2013"
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def milliseconds(value: float | None) -> str:
    """A short time: 0.43 ms, 12 ms."""
    if value is None:
        return "\u2013"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def times(ratio: float) -> str:
    """How many times: 9.8x, 12x."""
    return f"{ratio:.0f}\u00d7" if ratio >= 9.95 else f"{ratio:.1f}\u00d7"
