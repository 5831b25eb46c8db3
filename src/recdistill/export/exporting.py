"""`recdistill export`: a bundle as what production takes, checked against the bundle before anybody sees it.

Nothing here needs torch: what is exported is what the bundle serves. The check is part of the export: what does not
answer as the bundle is not written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from recdistill import bundle as bundles
from recdistill.bundle.folder import beside, replaced, write_whole
from recdistill.errors import UnknownName, UsageError, printable, problem
from recdistill.evaluation.ranking import ranker
from recdistill.evaluation.vectors import VectorRanker
from recdistill.export.agreement import Agreement, agreement, held_out, lost, sample
from recdistill.export.ann import index
from recdistill.export.compact import compacted
from recdistill.export.scorer import scorer, scorer_agreement
from recdistill.export.tables import SUFFIXES, read_vectors, write_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.bundle import Bundle

__all__ = ["FORMATS", "Exported", "Format", "export_bundle"]

Format = Literal["vectors", "onnx", "float16", "int8", "ann"]
FORMATS: tuple[Format, ...] = get_args(Format)

_TOLERANCE = {"vectors": 1e-5, "onnx": 1e-4, "float16": None, "int8": None}
"""Greatest difference of a score, as a share of the greatest of its list; a compact table is judged by its lists."""
_OVERLAP = {"vectors": 0.9999, "onnx": 0.999, "float16": 0.98, "int8": 0.9}
_LOSS = {"vectors": None, "onnx": None, "float16": 0.005, "int8": 0.02}
"""Share of NDCG@10 that may be lost, where the bundle holds what it was not trained on."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how it was found to answer."""

    path: Path
    format: Format
    bytes: tuple[int, int]
    """Of the bundle, and of what was written."""
    agreement: Agreement | None
    """None for an index, which is measured by its recall."""
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """A few lines for people."""
        before, after = self.bytes
        first = f"Wrote {self.format} to {self.path}: {after:,} bytes, the bundle has {before:,}"
        told = [] if self.agreement is None else self.agreement.told(compact=self.format in ("float16", "int8"))
        return printable("\n".join([first, *(f"  {line}" for line in (*told, *self.notes))]))


def export_bundle(
    bundle: Path | str,
    out: Path | str,
    format: Format,
    *,
    queries: int = 1000,
    seed: int = 0,
    min_overlap: float | None = None,
    max_loss: float | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export a bundle; what is written appears whole, and only if it answers as the bundle does.

    Args:
        bundle: the folder; every byte is checked first.
        out: what to write. "vectors": a path that ends with .npz or .safetensors, or a folder for Parquet; "onnx": a
            folder; "float16", "int8", "ann": a bundle.
        format: "vectors", tables with external ids; "onnx", one graph from rows to the best items; "float16" and
            "int8", a bundle of 1/2 or 1/4 the bytes a vector; "ann", the bundle with an index for approximate search.
        queries: how many users, at least 1, the check asks.
        seed: of their choice.
        min_overlap: share of top-10 lists that must be the same, in [0, 1]; None: as `docs/export.md` says.
        max_loss: share of NDCG@10 that a compact table may lose on what the bundle holds and was not trained on; judges
            instead of the overlap where there is such data. None: 0.005 for float16, 0.02 for int8.
        overwrite: replace what is there, if it is of the same sort.

    Returns:
        What was found; `print` it.

    Raises:
        UnknownName: no such format.
        UsageError: something stands there, a package is missing, or the bundle's kind has no such form.
        BundleError: the bundle is broken, or what came of it does not answer as it; nothing is written.
    """
    if format not in FORMATS:
        raise UnknownName("format of an export", format, FORMATS)
    if isinstance(queries, bool) or queries < 1:
        raise UsageError(problem("The check needs at least one query", queries))
    for what, share in (("min_overlap", min_overlap), ("max_loss", max_loss)):
        if share is not None and not 0 <= share <= 1:
            raise UsageError(problem(f"'{what}' is a share", share, allowed="0 to 1"))
    source, path = Path(bundle), Path(out)
    _free(path, format, overwrite=overwrite)
    opened = bundles.open(source, verify="full")
    exact = ranker(opened.manifest.kind, opened.arrays)
    if not isinstance(exact, VectorRanker):
        what = f"A bundle of kind {opened.manifest.kind!r} scores by a network, not by products of vectors"
        raise UsageError(problem(what, allowed="bundles of kind 'vectors'", remedy="Serve the bundle itself"))
    untrained, _ = opened.untrained()
    rows = sample(np.flatnonzero(~untrained), queries, seed)
    limits: dict[str, float | None] = {
        "overlap": _OVERLAP.get(format, 0) if min_overlap is None else min_overlap,
        "difference": _TOLERANCE.get(format),
        "loss": _LOSS.get(format) if max_loss is None or format not in ("float16", "int8") else max_loss,
    }
    asked = _Asked(opened, exact, rows, path, format, limits, overwrite)
    found, notes = {"vectors": _vectors, "onnx": _onnx, "ann": _ann}.get(format, _compact)(asked)
    size = sum(each.stat().st_size for each in path.iterdir()) if path.is_dir() else path.stat().st_size
    whole = sum(each.stat().st_size for each in source.iterdir())
    return Exported(path, format, (whole, size), found, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Asked:
    opened: Bundle
    exact: VectorRanker
    rows: NDArray[np.int64]
    path: Path
    format: Format
    limits: dict[str, float | None]
    overwrite: bool

    def checked(self, found: Agreement) -> Agreement:
        limits = cast("Any", self.limits)
        return found.checked(f"The {self.format} export", **limits)


def _free(path: Path, format: Format, *, overwrite: bool) -> None:
    if format == "vectors" and path.suffix not in SUFFIXES:
        remedy = "A path without an ending is a folder for users.parquet and items.parquet"
        raise UsageError(
            problem("Vectors are written as", path.suffix, allowed=[".npz", ".safetensors"], remedy=remedy)
        )
    if format in ("vectors", "onnx") and (path.exists() or path.is_symlink()):
        ours = {"model.onnx", "ids.json", "export.json", "users.parquet", "items.parquet"}
        foreign = path.is_symlink() or (path.is_dir() and not {each.name for each in path.iterdir()} <= ours)
        if foreign or (path.is_dir() and format == "vectors" and path.suffix):
            raise UsageError(problem(f"{path} holds something else; it is left alone", remedy="Give another path"))
        if not overwrite:
            raise UsageError(problem(f"{path} is there already", remedy="Pass overwrite=True (--overwrite)"))


def _vectors(asked: _Asked) -> tuple[Agreement, list[str]]:
    path = asked.path
    if not path.suffix:
        with replaced(path) as folder:
            write_vectors(asked.opened, folder)
            found = asked.checked(agreement(asked.exact, read_vectors(folder), asked.rows))
        return found, []
    with beside(path) as folder:
        written = folder / path.name
        write_vectors(asked.opened, written)
        found = asked.checked(agreement(asked.exact, read_vectors(written), asked.rows))
        written.replace(path)
    return found, []


def _onnx(asked: _Asked) -> tuple[Agreement, list[str]]:
    opened, graph = asked.opened, scorer(asked.opened)
    if opened.encoder is not None:
        there = np.flatnonzero(opened.encoder.histories.lengths > 0)
        asked = replace(asked, rows=np.intersect1d(asked.rows, there))
    with replaced(asked.path) as folder:
        write_whole(folder / "model.onnx", graph)
        found = asked.checked(scorer_agreement(folder / "model.onnx", opened, asked.exact, asked.rows))
        ids = {side: table.external(np.arange(len(table))).tolist() for side, table in _tables(opened)}
        write_whole(folder / "ids.json", json.dumps(ids, ensure_ascii=False).encode())
        about = {
            "made_from": opened.manifest.digest,
            "model": opened.manifest.model,
            "inputs": {"user" if opened.encoder is None else "history": "rows of ids.json, -1 = padding", "k": "(1,)"},
            "outputs": {"items": "rows of ids.json, best first", "scores": "float32"},
            "parity": found.plain(),
        }
        write_whole(folder / "export.json", (json.dumps(about, indent=2) + "\n").encode())
    return found, ["The graph knows nothing of what users have seen: ask for more, and leave it out"]


def _compact(asked: _Asked) -> tuple[Agreement, list[str]]:
    arrays, part, notes = compacted(asked.opened, asked.format)
    small = ranker("vectors", arrays)
    found = lost(agreement(asked.exact, small, asked.rows), asked.exact, small, held_out(asked.opened))
    asked.checked(found)
    about = {"export": {"format": asked.format, "made_from": asked.opened.manifest.digest, "measured": found.plain()}}
    _saved(asked, arrays=arrays, encoder=part, lineage=about)
    return found, notes


def _ann(asked: _Asked) -> tuple[None, list[str]]:
    opened = asked.opened
    made = index(asked.exact, asked.rows, opened.manifest.files["tensors.safetensors"].sha256)
    about = {"export": {"format": "ann", "made_from": opened.manifest.digest}}
    _saved(asked, arrays=opened.arrays, encoder=opened.encoder, index=made, lineage=about)
    told = ", ".join(
        f"{name} {value:,}" for name, value in made.entry.measured.items() if isinstance(value, int | float)
    )
    return None, [f"recall@10 {made.entry.recall:.4f} with ef {made.entry.effort}: searches are approximate", told]


def _saved(asked: _Asked, *, lineage: dict[str, Any], **parts: Any) -> None:  # noqa: ANN401 - parts of `bundles.save`
    opened = asked.opened
    manifest = opened.manifest
    bundles.save(
        asked.path,
        kind=manifest.kind,
        users=opened.users,
        items=opened.items,
        seen=opened.seen,
        trained=opened.trained,
        popular=opened.popular,
        model=manifest.model,
        settings=manifest.settings,
        lineage={**manifest.lineage, **lineage},
        metrics=manifest.metrics,
        citations=manifest.citations,
        overwrite=asked.overwrite,
        **parts,
    )


def _tables(opened: Bundle) -> list[tuple[str, Any]]:
    return [("users", opened.users), ("items", opened.items)]
