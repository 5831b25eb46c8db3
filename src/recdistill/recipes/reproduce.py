"""`recdistill reproduce NAME`: compute a paper's cells, or read them, and print its figures beside ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import UnknownName
from recdistill.evaluation.compare import bootstrap_interval, holm, paired_test, retention
from recdistill.recipes.cells import finish, publish
from recdistill.recipes.derrd import CUTS, TABLES, Cell, Experiment, Table, cells_of, run_cell, unpack
from recdistill.recipes.published import DE_RRD_LOG, DE_RRD_PAPER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.training.watch import Watch

__all__ = ["PAPERS", "collect", "markdown", "reproduce", "summary"]

PAPERS = ("de-rrd",)
_ORDER = (("plain", "rrd"), ("rrd", "de"), ("de", "de-rrd"))
_NAMES = tuple(f"{metric}@{cut}" for cut in CUTS for metric in ("H", "M", "N"))

Found = dict[str, dict[int, dict[str, Any]]]


def reproduce(
    name: str,
    *,
    data: Path,
    out: Path,
    work: Path,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    tables: Sequence[str] = ("bpr",),
    only: Sequence[str] = (),
    watch: Callable[[str], Sequence[Watch]] = lambda _: (),
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Finish the cells that are missing, then write `<name>.json` and `<name>.md` beside their directory.

    Args:
        name: "de-rrd".
        data: the folder of the paper's split, with its `interactions.parquet`.
        out: where finished cells are kept: small, worth committing. Several processes may work on one directory.
        work: checkpoints and logs; a killed run goes on from them.
        seeds: each trains its own teacher and students.
        tables: which of the paper's tables; see `derrd.TABLES`.
        only: rows to compute; all of them when empty.
        watch: watches for a cell, given its label.
        say: told of every finished cell.

    Raises:
        UnknownName: no such paper, table or row.
        DataError: the data is not there, or is another split.
    """
    if name not in PAPERS:
        raise UnknownName("paper", name, PAPERS)
    todo = list(cells_of(tables, seeds, only))
    experiment = Experiment.open(data, out, work)
    finish(todo, lambda at: run_cell(experiment, *at, watch=watch), lambda at, result: say(_said(*at, result)))
    return publish(out.with_name(name), collect(experiment), markdown)


def _said(table: Table, cell: Cell, seed: int, result: dict[str, Any]) -> str:
    on = table.judged_on
    figures = ", ".join(f"{key} {result['own'][f'{on}.{key}']:.4f}" for key in ("H@5", "N@10"))
    return f"{table.name} {cell.name} seed {seed}: {on} {figures}, {result['epochs']} epochs"


def collect(experiment: Experiment, seeds: Sequence[int] = range(1, 101)) -> dict[str, Any]:
    """Every finished cell under its table and row: per seed, means, intervals, tests. What is not there is left out."""
    tables: dict[str, Any] = {}
    for table in TABLES.values():
        rows: Found = {}
        for cell in (table.teacher, *table.students):
            done = {s: experiment.cells.get(table.label(cell, s), experiment.about(table, cell, s)) for s in seeds}
            rows[cell.name] = {s: each for s, each in done.items() if each is not None}
        tables[table.name] = _table(table, rows) if table.judged_on == "test" else _trials(table, rows)
    return {
        "paper": "DE-RRD, CIKM 2020, arXiv:2012.04357",
        "protocol": f"leave-one-out, {experiment.candidates.n} sampled negatives a user",
        "users": len(experiment.split.test.queries),
        "candidates": {"seed": experiment.candidates.seed, "sha256": experiment.candidates.digest},
        "command": "recdistill reproduce de-rrd",
        "tables": tables,
    }


def _table(table: Table, rows: Found) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    for name, done in rows.items():
        seeds = {
            str(s): {**each["own"], "epochs": each["epochs"], "seconds": each["seconds"]} for s, each in done.items()
        }
        methods[name] = {"seeds": seeds}
        if not done:
            continue
        keys = next(iter(done.values()))["own"]
        methods[name]["mean"] = {key: _mean(done, "own", key) for key in keys}
        methods[name]["one_epoch_for_all"] = {key: _mean(done, "one", key) for key in keys}
        methods[name]["parameters"] = next(iter(done.values()))["parameters"]
        methods[name]["interval"] = {}
        methods[name]["retention"] = {}
        for metric in _NAMES:
            values = _values(done, metric)
            interval = bootstrap_interval(values)
            methods[name]["interval"][f"test.{metric}"] = [interval.low, interval.high]
            teachers = rows["teacher"]
            both = sorted(done.keys() & teachers.keys()) if name != "teacher" else []
            theirs = _values({s: teachers[s] for s in both}, metric) if both else None
            if theirs is not None and theirs.mean() > 0:
                kept = retention(_values({s: done[s] for s in both}, metric), theirs)
                methods[name]["retention"][f"test.{metric}"] = [kept.mean, kept.low, kept.high]
    return {"title": table.title, "base": table.teacher.base, "methods": methods, "order": _order(rows)}


def _trials(table: Table, rows: Found) -> dict[str, Any]:
    """What a search for settings saw: validation figures, and no others."""
    methods: dict[str, Any] = {}
    for cell in table.students:
        methods[cell.name] = {
            "method": cell.method,
            "settings": cell.settings,
            "training": cell.training,
            "seeds": {
                str(s): {key: value for key, value in each["own"].items() if key.startswith("valid.")}
                | {"epochs": each["epochs"], "seconds": each["seconds"]}
                for s, each in rows[cell.name].items()
            },
        }
    return {"title": table.title, "base": table.teacher.base, "methods": methods}


def _order(rows: Found) -> list[dict[str, Any]]:
    """Paired tests of neighbours in the published order, each with its better variant, Holm-corrected over all."""
    tests: list[dict[str, Any]] = []
    for metric in ("H@5", "N@10"):
        for below, above in _ORDER:
            low, high = _better(rows, below, metric), _better(rows, above, metric)
            both = sorted(rows.get(low, {}).keys() & rows.get(high, {}).keys())
            if not both:
                continue
            test = paired_test(
                _values({s: rows[high][s] for s in both}, metric), _values({s: rows[low][s] for s in both}, metric)
            )
            tests.append(
                {
                    "metric": metric,
                    "below": low,
                    "above": high,
                    "seeds": len(both),
                    "difference": [test.difference.mean, test.difference.low, test.difference.high],
                    "p": test.p_permutation,
                }
            )
    for test, adjusted in zip(tests, holm([test["p"] for test in tests]) if tests else [], strict=True):
        test["p_holm"] = float(adjusted)
    return tests


def _better(rows: Found, name: str, metric: str) -> str:
    """The variant of a row that is better on validation data."""
    variants = [each for each in (name, f"{name}-top") if rows.get(each)]
    return max(variants, key=lambda each: _mean(rows[each], "own", f"valid.{metric}"), default=name)


def _mean(done: dict[int, dict[str, Any]], rule: str, key: str) -> float:
    return float(np.mean([each[rule][key] for each in done.values()]))


def _values(done: dict[int, dict[str, Any]], metric: str) -> NDArray[np.float64]:
    """(S, m) each seed's value for each user, at the epoch that is best for the metric's own cut-off."""
    kind, cut = metric[0], int(metric[2:])
    ranks = np.stack([unpack(each["ranks"][str(cut)]) for _, each in sorted(done.items())])  # (S, m)
    inside = (ranks <= cut).astype(np.float64)
    return {"H": inside, "M": inside / ranks, "N": inside / np.log2(ranks + 1)}[kind]


def markdown(found: dict[str, Any]) -> str:
    """The tables as a page."""
    lines = [
        "# DE-RRD, reproduced",
        "",
        f"{found['paper']}. {found['protocol']}, {found['users']:,} users, negatives drawn with seed "
        f"{found['candidates']['seed']} (sha256 `{found['candidates']['sha256'][:16]}`). Every cut-off is reported at "
        "its own best validation epoch, as the authors do; the second table takes all of them at the best epoch of "
        "validation H@5. Intervals: 95 % bootstrap over users and seeds. This page and `de-rrd.json` are printed by "
        f"`{found['command']}`.",
        "",
        *summary(found),
        "",
    ]
    for name, table in found["tables"].items():
        lines += _page(name, table) if "order" in table else _trials_page(table)
    lines += [
        "Not run here: the paper's Foursquare tables (Table 2's second half, Tables 4 and 5): missing.",
        "",
    ]
    return "\n".join(lines)


def summary(found: dict[str, Any]) -> list[str]:
    """The lines of a short table: the teacher, the student without it, each method's better variant, the best there is.

    A better variant is chosen by validation H@5.
    """
    table = found["tables"]["bpr"]
    rows = {**table["methods"], **found["tables"].get("best", {}).get("methods", {})}
    lines = [
        f"| {table['title']} | numbers | seeds | H@5 (95 %) | N@10 (95 %) | of the teacher's H@5 (95 %) |",
        "|" + "---|" * 6,
    ]
    for name in ("teacher", "plain", "rrd", "de", "de-rrd", "best"):
        variants = [each for each in (name, f"{name}-top") if rows.get(each, {}).get("seeds")]
        if not variants:
            lines.append(f"| {name} | | missing | | | |")
            continue
        better = max(variants, key=lambda each: rows[each]["mean"]["valid.H@5"])
        row = rows[better]
        kept = row["retention"].get("test.H@5")
        cells = [
            better,
            f"{row['parameters'] / 1e6:.2f} M",
            str(len(row["seeds"])),
            *(_with(row["mean"][f"test.{m}"], row["interval"][f"test.{m}"]) for m in ("H@5", "N@10")),
            f"{kept[0]:.1f} % ({kept[1]:.1f}-{kept[2]:.1f})" if kept else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _page(name: str, table: dict[str, Any]) -> list[str]:
    done = {name: row for name, row in table["methods"].items() if row["seeds"]}
    lines = [f"## {table['title']}", ""]
    if not done:
        return [*lines, "Not run yet: missing.", ""]
    paper, log = DE_RRD_PAPER.get(name, {}), DE_RRD_LOG.get(name, {})
    lines += [
        "| row | seeds | H@5 (95 %) | N@5 | H@10 | N@10 (95 %) | H@20 | N@20 | H@5 kept (95 %) | paper H@5, N@10 "
        "| log H@5, N@10 |",
        "|" + "---|" * 11,
    ]
    for method, row in table["methods"].items():
        if method not in done:
            lines.append(f"| {method} | missing |" + " |" * 9)
            continue
        mean, spread = row["mean"], row["interval"]
        kept = row["retention"].get("test.H@5")
        cells = [
            method,
            str(len(row["seeds"])),
            _with(mean["test.H@5"], spread["test.H@5"]),
            *(f"{mean[f'test.{metric}']:.4f}" for metric in ("N@5", "H@10")),
            _with(mean["test.N@10"], spread["test.N@10"]),
            *(f"{mean[f'test.{metric}']:.4f}" for metric in ("H@20", "N@20")),
            f"{kept[0]:.1f} % ({kept[1]:.1f}-{kept[2]:.1f})" if kept else "",
            *(_published(source.get(method.removesuffix("-top"))) for source in (paper, log)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "All cut-offs at one epoch (best validation H@5):",
        "",
        "| row | H@5 | H@10 | N@10 | H@20 |",
        "|---|---|---|---|---|",
    ]
    for method, row in done.items():
        one = row["one_epoch_for_all"]
        lines.append(
            f"| {method} | " + " | ".join(f"{one[f'test.{m}']:.4f}" for m in ("H@5", "H@10", "N@10", "H@20")) + " |"
        )
    if not table["order"]:
        return [*lines, ""]
    lines += ["", "Neighbours in the published order, paired over users (sign flips, Holm over all rows):", ""]
    lines += ["| metric | above | below | seeds | difference (95 %) | p |", "|---|---|---|---|---|---|"]
    for test in table["order"]:
        difference = "{:+.4f} ({:+.4f} to {:+.4f})".format(*test["difference"])
        cells = [test["metric"], test["above"], test["below"], str(test["seeds"]), difference, f"{test['p_holm']:.3g}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _trials_page(table: dict[str, Any]) -> list[str]:
    lines = [f"## {table['title']}", ""]
    if not any(row["seeds"] for row in table["methods"].values()):
        return [*lines, "Not run yet: missing.", ""]
    lines += [
        "Validation figures of one seed; the test part was not looked at.",
        "",
        "| trial | method | settings | seed | valid H@5 | valid N@10 | epochs |",
        "|" + "---|" * 7,
    ]
    for name, row in table["methods"].items():
        settings = ", ".join(f"{key} = {value}" for key, value in _flat({**row["settings"], **row["training"]}))
        for seed, one in row["seeds"].items() or [("", None)]:
            figures = ["missing", "", ""] if one is None else [_four(one, "valid.H@5"), _four(one, "valid.N@10")]
            cells = [name, row["method"], settings, seed, *figures, *([str(one["epochs"])] if one else [])]
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _flat(settings: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{at}{key}", value


def _four(row: dict[str, float], key: str) -> str:
    return f"{row[key]:.4f}"


def _with(mean: float, interval: list[float]) -> str:
    return f"**{mean:.4f}** ({interval[0]:.4f}-{interval[1]:.4f})"


def _published(row: dict[str, float] | None) -> str:
    return f"{row['H@5']:.4f}, {row['N@10']:.4f}" if row else ""
