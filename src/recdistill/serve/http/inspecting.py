"""Checks a bundle in a process of its own: every byte, every number, known answers.

    python -P -m recdistill.serve.http.inspecting BUNDLE

A server runs it before it opens what it was given. Whatever a hostile file does to a reader, it does here: in a process
of bounded memory, at the lowest priority, without the server's interpreter lock. The last line of standard output is
the verdict.

Letters: q users probed, k list, I items.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from recdistill import bundle
from recdistill.errors import BundleError, RecdistillError, problem
from recdistill.evaluation.ranking import VectorRanker
from recdistill.evaluation.tables import taken
from recdistill.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from recdistill.bundle.io import Bundle
    from recdistill.serve.service import Search

    Items = Callable[[NDArray[np.int64]], NDArray[np.float32]]

__all__ = ["Verdict", "inspected", "main", "probe"]

_SECONDS = 1800.0
_MEMORY = 1 << 30
"""Bytes of its own that the process may take, beside `_SHARE` times the bundle's files."""
_SHARE = 4
_USERS = 8
_LENGTH = 10
_CHUNK = 1 << 16
_RECALL = 0.8
"""Of an approximate search over the few lists probed; the bundle tells what was measured on many."""


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    reason: str | None
    """Why the bundle is refused; None: it is sound."""
    digest: str = ""
    """Of the manifest that was checked."""
    users: tuple[int, ...] = ()
    """(q,) rows of users probed."""
    lists: tuple[tuple[int, ...], ...] = ()
    """(q, k) item rows as the server has to find them."""


def inspected(
    path: Path, search: Search = "auto", begun: Callable[[subprocess.Popen[bytes]], object] | None = None
) -> Verdict:
    """Check a bundle in another process, searched as it will be.

    Args:
        path: the bundle's folder.
        search: as in `Service.from_bundle`.
        begun: told of the process, so that it can be ended.
    """
    command = [sys.executable, "-P", "-m", __name__, os.fspath(path), search]
    piped = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=piped, stderr=piped) as process:  # noqa: S603
        if begun is not None:
            begun(process)
        try:
            out, err = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return Verdict(f"The check took longer than {_SECONDS:,.0f} seconds.")
        except BaseException:
            process.kill()
            raise
    try:
        told = json.loads(out.splitlines()[-1])
        told["users"], told["lists"] = tuple(told["users"]), tuple(map(tuple, told["lists"]))
        return Verdict(**told)
    except (IndexError, ValueError, TypeError, KeyError):
        last = err.decode(errors="replace").strip().splitlines()[-1:]
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"code {process.returncode}"
        return Verdict(f"The check ended with {how}: {' '.join(last)[:300]}")


def main() -> None:
    """Check the bundle named by the first argument, searched as the second says; print the verdict."""
    path, search = Path(sys.argv[1]), cast("Search", sys.argv[2])
    _bounded(path)
    try:
        found = bundle.open(path, verify="full")
        users, lists = _known_answers(found, Service.from_bundle(path, threads=1, search=search))
        verdict = Verdict(None, found.manifest.digest, users, lists)
    except RecdistillError as error:
        verdict = Verdict(str(error))
    except MemoryError:
        verdict = Verdict("Checking it needs more memory than a bundle of its size may take.")
    print(json.dumps(asdict(verdict)))


def probe(service: Service, users: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """(q,) user rows -> (q, k) item rows as the service ranks them; nothing is left out."""
    lists = service.ranker.top_k(np.array(users, np.int64), _LENGTH, None)
    return tuple(tuple(row) for row in lists.tolist())


def _bounded(path: Path) -> None:
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on every system

    os.nice(19)
    size = sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path)) if path.is_dir() else 0
    limit = _MEMORY + _SHARE * size
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _known_answers(found: Bundle, service: Service) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The lists of a few users, of vectors computed again by plain products."""
    n, ranker = len(found.users), service.ranker
    users = tuple(dict.fromkeys(np.linspace(0, n - 1, _USERS).astype(int).tolist())) if n else ()
    lists = probe(service, users)
    if isinstance(ranker, VectorRanker) and len(found.items):
        item = ranker.vectors_of_items
        vectors = taken(ranker.user, ranker.user_scale, np.array(users, np.int64))
        shares = [_found(vector, item, len(found.items), mine) for vector, mine in zip(vectors, lists, strict=True)]
        least = 1.0 if service.search.startswith("exact") else _RECALL
        if shares and np.mean(shares) < least:
            raise BundleError(problem("The index does not find what the vectors say", remedy="Save the bundle again"))
    return users, lists


def _found(user: NDArray[np.float32], item: Items, n: int, mine: tuple[int, ...]) -> float:
    """The share of a list (k,) that scores as well as the best k of all (n,) do, to within a rounding."""
    parts = [
        (item(np.arange(at, min(at + _CHUNK, n))).astype(np.float64) @ user.astype(np.float64)).astype(np.float32)
        for at in range(0, n, _CHUNK)
    ]
    scores = np.concatenate(parts)  # (I,)
    best = -np.sort(-scores)[: len(mine)]
    told = scores[[place for place in mine if place >= 0]]
    return float((told >= best[-1] - 1e-5 * abs(best[-1])).sum() / len(best))


if __name__ == "__main__":
    main()
