"""What the table of `recdistill reproduce adarec` must show of a scene, and whether it does.

Where seeds differ it is the worst of them that counts: the largest cells, the slowest body, the dearest search.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["shown", "times_its_training", "times_longer"]

_CONTROLS = ("all-none", "all-skip")
_AS_FAST = ("nextitnet as fast", "sasrec as fast")
_KEPT = 98.0
"""Per cent of the teacher's NDCG@10."""


def shown(scene: Mapping[str, Any]) -> list[str]:
    """A table of the claims that the finished rows of a scene decide, and their figures; nothing of no rows."""
    found = [claim(scene) for claim in (_kept, _small, _above_random, _above_controls, _above_as_fast, _fast, _cheap)]
    lines = [f"| {claim} |" for claim in found if claim]
    return ["| must show | measured | does it |", "|---|---|---|", *lines] if lines else []


def times_longer(ms: Mapping[str, Any], one: str, other: str) -> float | None:
    """How many times as long the body of `one` takes for one history, at most over the seeds that timed both."""
    found = [at[one]["1"]["body"] / at[other]["1"]["body"] for at in ms.values() if one in at and other in at]
    return max(found, default=None)


def times_its_training(search: Mapping[str, Any], trained: Mapping[str, Any] | None) -> float | None:
    """What a search cost, its refinement too where that was timed, beside the training of what it found."""
    if trained is None or not trained["seconds"]:  # too short for the clock
        return None
    return (search["seconds"] + search.get("refine_seconds", 0.0)) / trained["seconds"]


def _kept(scene: Mapping[str, Any]) -> str:
    kept = scene["rows"]["searched"].get("retention")
    if kept is None:
        return ""
    what = f"searched: at least {_KEPT:g} % of the teacher's NDCG@10"
    return f"{what} | {kept[0]:.1f} % ({kept[1]:.1f}-{kept[2]:.1f}) | {_yes(kept[0] >= _KEPT)}"


def _small(scene: Mapping[str, Any]) -> str:
    rows = scene["rows"]
    if not (rows["searched"]["seeds"] and rows["teacher"]["seeds"]):
        return ""
    ours, theirs = max(rows["searched"]["body"]), min(rows["teacher"]["body"])
    share = f"1/{theirs / ours:.0f} ({ours:,} of {theirs:,})"
    return f"at most 1/10 of its body | {share} | {_yes(10 * ours <= theirs)}"


def _above_random(scene: Mapping[str, Any]) -> str:
    each = scene["against random"].values()
    if not each:
        return ""
    gap, spread = (statistics.fmean(one[what] for one in each) for what in ("difference", "spread"))
    what = "above the mean of the random cells by more than their spread"
    return f"{what} | {gap:+.4f}, spread {spread:.4f}, seeds {len(each)} | {_yes(gap > spread)}"


def _above_controls(scene: Mapping[str, Any]) -> str:
    return _above(scene, _CONTROLS)


def _above_as_fast(scene: Mapping[str, Any]) -> str:
    return _above(scene, _AS_FAST)


def _above(scene: Mapping[str, Any], names: Sequence[str]) -> str:
    """By more than chance: the interval of the nearest of them holds no 0."""
    there = {name: scene["against others"][name] for name in names if name in scene["against others"]}
    if len(there) < len(names):
        return ""
    nearest = min(there, key=lambda name: there[name]["NDCG@10"]["difference"][0])
    gap, low, high = there[nearest]["NDCG@10"]["difference"]
    verdict = "yes" if low > 0 else "within chance" if gap > 0 else "no"
    return f"above {' and '.join(names)} | {gap:+.4f} ({low:+.4f} to {high:+.4f}) over {nearest} | {verdict}"


def _fast(scene: Mapping[str, Any]) -> str:
    slower = times_longer(scene["ms"], "searched", "teacher")
    if slower is None:
        return ""
    return f"body at least 5 times as fast as the teacher's | {1 / slower:.1f} times | {_yes(5 * slower <= 1)}"


def _cheap(scene: Mapping[str, Any]) -> str:
    trained = scene["rows"]["searched"]["seeds"]
    each = [times_its_training(search, trained.get(seed)) for seed, search in scene["searches"].items()]
    known = [times for times in each if times is not None]
    if not known:
        return ""
    what = "a search takes at most twice the training of what it found"
    return f"{what} | {max(known):.2g} times | {_yes(max(known) <= 2)}"


def _yes(holds: bool) -> str:  # noqa: FBT001 - the verdict itself
    return "yes" if holds else "no"
