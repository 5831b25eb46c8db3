"""The page of `recdistill reproduce adarec`: a table a scene, what the search was worth, cells that change places."""

from __future__ import annotations

import statistics
from typing import Any

from recdistill.recipes.adarec_bars import shown, times_its_training, times_longer

__all__ = ["markdown"]

_METRICS = ("HR@10", "NDCG@10", "NDCG@20")
_SWAP = "cell of "


def markdown(found: dict[str, Any]) -> str:
    """The tables as a page."""
    lines = [
        "# AdaRec: searched students, their teachers, and what nobody searched",
        "",
        f"{found['protocol'][:1].upper()}{found['protocol'][1:]}; the teacher is NextItNet 256. Every student is "
        "distilled by the same terms, those called alone excepted. Intervals: 95 % bootstrap over users and seeds. "
        "Kept: share of the teacher's NDCG@10. Body: parameters without embeddings and output, from the "
        "smallest to the largest where the cells of seeds differ. Milliseconds: onnxruntime, one thread, histories of "
        "50, for 1 history and for 256: body, head (scores of all items), and the whole answer, of the slowest seed. "
        f"This page and `adarec.json` are printed by `{found['command']}`.",
        "",
    ]
    for name, scene in found["scenes"].items():
        lines += [f"## {scene['title']}", ""]
        if not any(row["seeds"] for row in scene["rows"].values()):
            lines += [f"Not run yet (`--tables {name}`): missing.", ""]
            continue
        lines += [*_table(scene), ""]
        if bars := shown(scene):
            lines += [*bars, ""]
        lines += [*_worth(scene), ""]
    return "\n".join([*lines, *_swaps(found["scenes"])])


def _table(scene: dict[str, Any]) -> list[str]:
    columns = "row", "seeds", "HR@10", "NDCG@10 (95 %)", "NDCG@20", "kept (95 %)", "parameters", "body"
    lines = [f"| {' | '.join([*columns, 'body ms', 'head ms', 'answer ms'])} |", "|" + "---|" * (len(columns) + 3)]
    random = {name: row for name, row in scene["rows"].items() if name.startswith("random ")}
    for name, row in scene["rows"].items():
        if name in random:
            continue
        if not row["seeds"]:
            lines.append(f"| {name} | missing |" + " |" * (len(columns) + 1))
            continue
        mean, (low, high) = row["mean"], row["interval"]["NDCG@10"]
        kept = "{:.1f} % ({:.1f}-{:.1f})".format(*row["retention"]) if "retention" in row else ""
        cells = [
            name,
            str(len(row["seeds"])),
            f"{mean['HR@10']:.4f}",
            f"**{mean['NDCG@10']:.4f}** ({low:.4f}-{high:.4f})",
            f"{mean['NDCG@20']:.4f}",
            kept,
            _range(row["parameters"]),
            _range(row["body"]),
            *_ms(_slowest(scene["ms"], name.removesuffix(" alone"))),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, _random(random, scene["ms"])]


def _random(rows: dict[str, Any], times: dict[str, Any]) -> str:
    """All random cells in one row."""
    found = {name: row for name, row in rows.items() if row["seeds"]}
    if not found:
        return "| random cells | missing |" + " |" * 9
    each = {metric: [row["mean"][metric] for row in found.values()] for metric in _METRICS}
    mean = {metric: statistics.fmean(of) for metric, of in each.items()}
    spread = statistics.stdev(each["NDCG@10"]) if len(each["NDCG@10"]) > 1 else 0.0
    kept = statistics.fmean(row["retention"][0] for row in found.values() if "retention" in row)
    sizes = [statistics.fmean(statistics.fmean(row[what]) for row in found.values()) for what in ("parameters", "body")]
    timed = [slowest for name in found if (slowest := _slowest(times, name))]
    cells = [
        f"random cells of its price, mean of {len(found)}",
        str(max(len(row["seeds"]) for row in found.values())),
        f"{mean['HR@10']:.4f}",
        f"**{mean['NDCG@10']:.4f}** (spread {spread:.4f})",
        f"{mean['NDCG@20']:.4f}",
        f"{kept:.1f} %",
        *(f"{size:,.0f}" for size in sizes),
        *_ms(_mean_of(timed) if timed else {}),
    ]
    return f"| {' | '.join(cells)} |"


def _range(sizes: list[int]) -> str:
    return " - ".join(f"{size:,}" for size in dict.fromkeys(sizes))


def _slowest(times: dict[str, Any], name: str) -> dict[str, Any]:
    """Of the seed whose body takes longest for one history; nothing where none was timed."""
    return max((each[name] for each in times.values() if name in each), key=lambda ms: ms["1"]["body"], default={})


def _mean_of(timed: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        size: {part: statistics.fmean(each[size][part] for each in timed) for part in parts}
        for size, parts in timed[0].items()
    }


def _ms(times: dict[str, Any]) -> list[str]:
    return [", ".join(f"{each[part]:.3g}" for each in times.values()) for part in ("body", "head", "end to end")]


def _worth(scene: dict[str, Any]) -> list[str]:
    """What was found, and whether it is better than what was not searched."""
    lines: list[str] = []
    for seed, each in scene["searches"].items():
        cells = "; ".join(", ".join(row) for row in each["operators"])
        lines.append(
            f"- Seed {seed} found: {cells} ({each['cost']:.4g} {each['unit']}, {each['epochs']} epochs"
            f"{_dearness(each, scene['rows']['searched']['seeds'].get(seed))}). {_inherited(each)}"
        )
    for seed, each in scene["against random"].items():
        lines.append(
            f"- Seed {seed}: searched less the mean of {each['cells']} random cells {each['difference']:+.4f} NDCG@10 "
            f"(p {each['p']:.3f}), their spread {each['spread']:.4f}. {_ranked(each['kendall'])}"
        )
    lines += _as_fast(scene["as fast"])
    lines += _other_teachers(scene["rows"])
    if each := _pooled(scene["against random"]):
        lines.append(
            f"- Over {each['seeds']} seeds: {each['difference']:+.4f}, the spread {each['spread']:.4f}; "
            f"better by more than the spread: {'yes' if each['difference'] > each['spread'] else 'no'}."
        )
    others = {row: each for row, each in scene["against others"].items() if not row.startswith(_SWAP)}
    if others:
        lines += ["", *_differences("searched less", others, scene["ms"])]
    return lines


def _as_fast(chosen: dict[str, Any]) -> list[str]:
    """The hand-made students that take no longer than what was found, and what they take."""
    lines: list[str] = []
    for seed, each in chosen.items():
        made = [
            f"{model} {', '.join(f'{key} {value}' for key, value in one['student'].items())} ({one['ms']:.3g} ms)"
            for model, one in each.items()
            if model != "ms"
        ]
        lines.append(f"- Seed {seed}: as fast as the searched body ({each['ms']:.3g} ms): {'; '.join(made)}.")
    return lines


def _other_teachers(rows: dict[str, Any]) -> list[str]:
    """What searched students are beside teachers that are not the one of record."""
    lines: list[str] = []
    for row, found in rows.items():
        by, _, what = row.partition(": ")
        theirs = rows.get(f"{by}: teacher", {})
        if what == "searched" and found["seeds"] and theirs.get("seeds"):
            ours, whole = max(found["body"]), min(theirs["body"])
            kept = "{:.1f} % ({:.1f}-{:.1f})".format(*found["retention"])
            lines.append(f"- Taught by {by}: {kept} of its NDCG@10 at 1/{whole / ours:.1f} of its body.")
    return lines


def _inherited(search: dict[str, Any]) -> str:
    """What the supernet's weights say of it, of the cells that nobody searched, and of the random ones."""
    scores: dict[str, float] = {**search["inherited"], "as alpha has it": search["derived"]["inherited"]}
    random = [score for name, score in scores.items() if name.startswith("random ")]
    others = [f"{name} {score:.4f}" for name, score in scores.items() if not name.startswith("random ")]
    spread = f", random cells {min(random):.4f} to {max(random):.4f}" if random else ""
    return f"Validation NDCG@10 with the supernet's weights: {', '.join(others)}{spread}."


def _ranked(tau: dict[str, Any]) -> str:
    """How the supernet's order of designs agrees with that after their training."""
    all_of, random = tau["all"], tau["random"]
    return (
        "Kendall's tau of the supernet with what they are after training: "
        f"{all_of['valid']:.2f} on validation data and {all_of['test']:.2f} on test data over {all_of['designs']} "
        f"designs, {random['valid']:.2f} and {random['test']:.2f} over the {random['designs']} random ones. Of "
        f"validation with test data, both after training: {all_of['after']:.2f} and {random['after']:.2f}."
    )


def _dearness(search: dict[str, Any], trained: dict[str, Any] | None) -> str:
    """What the search cost beside the training of what it found."""
    times = times_its_training(search, trained)
    return "" if times is None else f", {times:.2g} times its training"


def _pooled(each: dict[str, Any]) -> dict[str, float]:
    """The mean of the differences and of the spreads; nothing of fewer than two seeds."""
    if len(each) < 2:
        return {}
    mean = {what: statistics.fmean(one[what] for one in each.values()) for what in ("difference", "spread")}
    return {"seeds": len(each), **mean}


def _swaps(scenes: dict[str, Any]) -> list[str]:
    """Each scene's own cell beside the cells of other scenes, trained the same way."""
    swapped = {
        f"{scene['title']}: own cell less the {row}": each
        for scene in scenes.values()
        for row, each in scene["against others"].items()
        if row.startswith(_SWAP)
    }
    lines = ["## Cells that change places", ""]
    if not swapped:
        return [*lines, "Needs searched students of two scenes: missing.", ""]
    return [*lines, *_differences("scene", swapped, {}), ""]


def _differences(title: str, rows: dict[str, Any], times: dict[str, Any]) -> list[str]:
    """A row each, and how many times as long the searched body takes for one history at most, where both were timed."""
    lines = [
        f"| {title} | seeds | NDCG@10 (95 %) | p (Holm) | NDCG@20 (95 %) | p (Holm) | body ms, searched / other |",
        "|" + "---|" * 7,
    ]
    for row, each in rows.items():
        cells = [row, str(each["seeds"])]
        for metric in ("NDCG@10", "NDCG@20"):
            mean, low, high = each[metric]["difference"]
            cells += [f"{mean:+.4f} ({low:+.4f} to {high:+.4f})", f"{each[metric]['corrected']:.3g}"]
        longer = times_longer(times, "searched", row)
        cells.append("" if longer is None else f"{longer:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines
