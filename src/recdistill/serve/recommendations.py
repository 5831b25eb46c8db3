"""What a recommender answers: ranked items for users, in columns.

Letters: Q users asked, n rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from recdistill.errors import UsageError, printable, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray
    from rich.console import Group

__all__ = ["Item", "Recommendations"]

_SHOWN = 20


class Item(NamedTuple):
    """One place of a list."""

    id: str | int
    score: float | None
    """What the model gives it, greater is better; None in a popular list, which no model scored."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Recommendations:
    """Ranked items for Q users: five columns of n rows, user after user, best first.

    Iterating gives `(user, [Item, ...])` for every user asked, in the order asked, empty lists included; `len` is Q.
    """

    asked: NDArray[Any]
    """(Q,) the user ids, as they were asked."""
    offsets: NDArray[np.int64]
    """(Q + 1,) where each user's rows begin."""
    user_id: NDArray[Any]
    """(n,) int64, or an object array of str."""
    item_id: NDArray[Any]
    """(n,) int64, or an object array of str."""
    rank: NDArray[np.int32]
    """(n,) from 1."""
    score: NDArray[np.float32]
    """(n,) NaN where the source is "popular"."""
    source: NDArray[Any]
    """(n,) "model" or "popular"."""
    notes: tuple[str, ...] = ()
    """What was ignored, and how often."""

    @property
    def n_rows(self) -> int:
        """How many items all lists hold together."""
        return len(self.item_id)

    def __len__(self) -> int:
        return len(self.asked)

    def __iter__(self) -> Iterator[tuple[str | int, list[Item]]]:
        for place, user in enumerate(self.asked.tolist()):
            yield user, self._list(place)

    def __getitem__(self, user: str | int) -> list[Item]:
        """The list of one of the users asked."""
        places = np.flatnonzero(self.asked == user)
        if len(places) == 0:
            raise UsageError(problem("This user was not asked for", user, remedy="Pass the user to `recommend`"))
        return self._list(int(places[0]))

    def source_of(self, user: str | int) -> Literal["model", "popular"] | None:
        """Where a user's list comes from; None where it is empty."""
        places = np.flatnonzero(self.user_id == user)
        return str(self.source[places[0]]) if len(places) else None  # pyright: ignore[reportReturnType] - one of two

    def to_dict(self) -> dict[str | int, list[Item]]:
        """`{user: [Item, ...]}`."""
        return dict(self)

    def to_polars(self) -> pl.DataFrame:
        """Columns user_id, item_id, rank, score, source; the score of a popular list is null."""
        import polars as pl  # noqa: PLC0415 - the base install has none

        columns = {name: pl.Series(name, _plain(column)) for name, column in self._columns().items()}
        return pl.DataFrame(columns).with_columns(pl.col("score").fill_nan(None))

    def to_pandas(self) -> pd.DataFrame:
        """Columns user_id, item_id, rank, score, source; the score of a popular list is NaN."""
        import pandas as pd  # noqa: PLC0415 - never required

        return pd.DataFrame(self._columns())

    def __repr__(self) -> str:
        popular = int((self.source[self.offsets[:-1][np.diff(self.offsets) > 0]] == "popular").sum())
        return f"Recommendations({len(self):,} users, {self.n_rows:,} items, {popular:,} users with the popular list)"

    def __rich__(self) -> Group:
        """The first rows as a table, and the notes below it."""
        from rich.console import Group  # noqa: PLC0415 - only where something is printed
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table("user", "rank", "item", "score", "source", box=None, header_style="bold")
        for column in (1, 3):
            table.columns[column].justify = "right"
        for n in range(min(_SHOWN, self.n_rows)):
            again = n > 0 and self.rank[n] != 1
            score = "" if np.isnan(self.score[n]) else f"{self.score[n]:.4f}"
            cells = ("" if again else str(self.user_id[n]), str(self.rank[n]), str(self.item_id[n]), score)
            table.add_row(*(Text(printable(cell)) for cell in cells), Text(str(self.source[n])))
        below = [f"... and {self.n_rows - _SHOWN:,} rows more"] if self.n_rows > _SHOWN else []
        empty = self.asked[np.diff(self.offsets) == 0]
        if len(empty):
            below.append(f"nothing for {len(empty):,} of {len(self):,} users: {', '.join(map(str, empty[:5]))}")
        return Group(table, *(Text(line, style="dim") for line in (*below, *self.notes)))

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {
            "user_id": self.user_id,
            "item_id": self.item_id,
            "rank": self.rank,
            "score": self.score,
            "source": self.source,
        }

    def _list(self, place: int) -> list[Item]:
        rows = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        scores = (None if np.isnan(s) else float(s) for s in self.score[rows])
        return [Item(item, score) for item, score in zip(self.item_id[rows].tolist(), scores, strict=True)]


def _plain(column: NDArray[Any]) -> Any:  # noqa: ANN401 - what polars takes
    """Object columns as lists of one type: a mixture of str and int becomes str."""
    if column.dtype != object:
        return column
    values = column.tolist()
    return values if all(isinstance(v, str) for v in values) else [str(v) for v in values]
