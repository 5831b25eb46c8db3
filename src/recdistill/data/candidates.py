"""Negatives of the sampled protocol, drawn once and recorded: n items for each user that the user never met.

Letters: U users, I items, n candidates, w drawn columns.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from recdistill import rng
from recdistill.errors import DataError, UsageError, problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.data.interactions import Split

__all__ = ["Candidates", "draw"]

_BLOCK = 1 << 22  # numbers drawn at a time


@dataclass(frozen=True, eq=False, repr=False)
class Candidates:
    """The negatives of a sampled evaluation."""

    items: NDArray[np.int32]
    """(U, n) item rows, distinct within a user; -1 past the end where a user has fewer than n free items."""
    n: int
    seed: int

    def __repr__(self) -> str:
        return f"Candidates({self.items.shape[0]:,} users x {self.n}, seed {self.seed}, sha256 {self.digest[:12]})"

    @property
    def digest(self) -> str:
        """sha256 over seed, shape and items (little-endian int32), as hex: two evaluations with it are comparable."""
        text = f"{self.seed} {self.items.shape[0]} {self.n}\n".encode()
        return hashlib.sha256(text + np.ascontiguousarray(self.items, "<i4").tobytes()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write an .npz without pickles, by atomic rename."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, items=self.items, seed=np.int64(self.seed), digest=np.array(self.digest))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Candidates:
        """Read what `save` wrote.

        Raises:
            DataError: no such file, another format, or the content does not match its digest.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                items, seed, digest = file["items"], int(file["seed"]), str(file["digest"])
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            remedy = "Draw the candidates again and save them"
            raise DataError(problem(f"{str(path)!r} holds no candidates ({error})", remedy=remedy)) from None
        if items.ndim != 2 or items.dtype != np.int32:
            raise DataError(problem(f"{str(path)!r} must hold int32 items of two dimensions", str(items.dtype)))
        found = cls(items, items.shape[1], seed)
        if found.digest != digest:
            remedy = "The file was changed; draw the candidates again"
            raise DataError(problem(f"The digest of {str(path)!r} does not match its content", digest, remedy=remedy))
        return found


def draw(split: Split, n: int = 499, seed: int = 0) -> Candidates:
    """`n` items for each user, uniform without replacement from those outside the user's train, valid and test.

    A user's candidates are a function of (seed, user row, what the user has, I): neither the block size nor the other
    users change them.

    Raises:
        UsageError: `n` below 1.
    """
    seed = rng.check_seed(seed)
    if n < 1:
        raise UsageError(problem("The number of candidates must be at least 1", n))
    owned = split.test.seen.union(split.test.targets)  # U x I
    n_users, n_items = owned.n_rows, owned.n_columns
    items = np.full((n_users, n), -1, np.int32)
    key = rng.key(seed, "candidates")
    free = n_items - owned.degrees  # (U,)
    crowded = free < 2 * n  # rejection would draw long: choose among the free items by their hashes
    for users in _blocks(np.flatnonzero(crowded), n_items):
        items[users] = _chosen(owned, users, n, key)
    width = n + n // 8 + 16
    left = np.flatnonzero(~crowded)
    while len(left):
        short: list[NDArray[np.int64]] = []
        for users in _blocks(left, width):
            found, enough = _rejected(owned, users, n, width, key)
            items[users[enough]] = found[enough]
            short.append(users[~enough])
        left = np.concatenate(short)
        width *= 2
    return Candidates(items, n, seed)


def _blocks(users: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    step = max(1, _BLOCK // max(1, width))
    return [users[start : start + step] for start in range(0, len(users), step)]


def _rejected(
    owned: Csr, users: NDArray[np.int64], n: int, width: int, key: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The first n distinct free items among `width` draws of each user: (u, n), and who has that many: (u,)."""
    drawn = rng.integers(key, users, width, owned.n_columns)  # (u, w)
    good = ~owned.contains(users[:, None], drawn)
    order = np.argsort(drawn, axis=1, kind="stable")
    ranked = np.take_along_axis(drawn, order, axis=1)
    again = np.zeros_like(good)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    good &= ~again
    place = np.cumsum(good, axis=1)  # (u, w) 1 = the first kept
    enough = place[:, -1] >= n
    good &= (place <= n) & enough[:, None]
    found = np.full((len(users), n), -1, np.int32)
    found[enough] = drawn[good].reshape(-1, n)
    return found, enough


def _chosen(owned: Csr, users: NDArray[np.int64], n: int, key: int) -> NDArray[np.int32]:
    """The n free items of the smallest hashes of each user, in order of hash: (u, n), -1 past the end."""
    taken = owned.select(users)
    hashes = rng.bits(key, users, owned.n_columns) >> 1  # (u, I); the last bit makes room for the owned
    line = np.repeat(np.arange(len(users)), taken.degrees)
    hashes[line, taken.indices] = np.iinfo(np.int64).max
    first = np.argsort(hashes, axis=1, kind="stable")[:, :n]  # (u, min(n, I))
    kept = np.arange(first.shape[1])[None, :] < (owned.n_columns - taken.degrees)[:, None]
    found = np.full((len(users), n), -1, np.int32)
    found[:, : first.shape[1]] = np.where(kept, first, -1)
    return found
