"""What was measured, user by user: means, intervals and tests come from the same numbers.

Letters: m users of a mean.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import DataError, UsageError, nearest, problem
from recdistill.evaluation.compare import Interval, PairedTest, bootstrap_interval, paired_test, retention
from recdistill.evaluation.metrics import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Evaluation"]

_FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What was measured, user by user."""

    name: str
    """"valid" or "test"."""
    protocol: str
    """"full" or "sampled(n)"."""
    cold: str
    """What users without an answer count: "zero" or "drop"."""
    queries: NDArray[np.int64]
    """(m,) user rows the means run over."""
    per_user: dict[str, NDArray[np.float64]]
    """Metric -> (m,) values in [0, 1], in the order of `queries`."""
    unserved: int
    """How many users with a target got no answer, counted as 0 or dropped."""
    fingerprint: str
    """Of the held-out data, the protocol and its candidates: equal where two evaluations may be compared."""
    notes: tuple[str, ...] = ()
    """What has to be known to read the figures, one sentence each."""
    like: str | None = None
    """Whose convention it is, "rectools"; None for ours. The mean of the values is then that library's figure; where it
    divides by something of all users, a value is a share of that figure and may exceed 1."""

    @property
    def how(self) -> str:
        """The protocol, and whose metrics: "full, like rectools"."""
        return self.protocol if self.like is None else f"{self.protocol}, like {self.like}"

    @property
    def means(self) -> dict[str, float]:
        """Metric -> mean over the users; what a training loop reads (no resampling)."""
        return {name: float(values.mean()) for name, values in self.per_user.items()}

    @cached_property
    def metrics(self) -> dict[str, Interval]:
        """Metric -> mean with its 95 % bootstrap interval and the number of users; computed at first use."""
        return {name: bootstrap_interval(values) for name, values in self.per_user.items()}

    def __getitem__(self, metric: str) -> Interval:
        """`evaluation["ndcg@10"]`."""
        return bootstrap_interval(self._values(metric))

    def versus(self, other: Evaluation, metric: str, *, seed: int = 0) -> PairedTest:
        """Whether this and `other` differ on `metric`, user by user.

        Raises:
            UsageError: the two were measured on different data, or `metric` was not measured.
        """
        self._comparable(other)
        return paired_test(self._values(metric), other._values(metric), seed=seed)

    def retention(self, teacher: Evaluation, metric: str, *, seed: int = 0) -> Interval:
        """How much of `teacher`'s quality is kept, in per cent, with its interval.

        Raises:
            UsageError: the two were measured on different data, or the teacher's mean is 0.
        """
        self._comparable(teacher)
        return retention(self._values(metric), teacher._values(metric), seed=seed)

    def to_json(self) -> str:
        """All of it, values per user included, as JSON; floats keep every bit."""
        content = {
            "format": _FORMAT,
            "name": self.name,
            "protocol": self.protocol,
            "cold": self.cold,
            "like": self.like,
            "unserved": self.unserved,
            "fingerprint": self.fingerprint,
            "notes": list(self.notes),
            "means": self.means,
            "queries": self.queries.tolist(),
            "per_user": {name: values.tolist() for name, values in self.per_user.items()},
        }
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Read what `to_json` wrote.

        Raises:
            DataError: not an evaluation, of a later format, or inconsistent.
        """
        remedy = "Evaluate again"
        try:
            content: Any = json.loads(text)
            if content["format"] != _FORMAT:
                allowed = str(_FORMAT)
                raise DataError(problem("The evaluation is of another format", content["format"], allowed=allowed))
            found = cls(
                name=str(content["name"]),
                protocol=str(content["protocol"]),
                cold=str(content["cold"]),
                queries=np.array(content["queries"], np.int64),
                per_user={str(k): np.array(v, np.float64) for k, v in content["per_user"].items()},
                unserved=int(content["unserved"]),
                fingerprint=str(content["fingerprint"]),
                notes=tuple(str(note) for note in content.get("notes", ())),
                like=None if content.get("like") is None else str(content["like"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(problem(f"This is not an evaluation ({error})", remedy=remedy)) from None
        if any(values.shape != found.queries.shape for values in found.per_user.values()):
            raise DataError(problem("The evaluation does not have one value a user", remedy=remedy))
        return found

    def __repr__(self) -> str:
        means = ", ".join(f"{name} {mean:.4f}" for name, mean in self.means.items())
        notes = "".join(f"; {note}" for note in self.notes)
        return f"Evaluation({self.name}, {self.how}, {len(self.queries):,} users: {means}{notes})"

    def _values(self, metric: str) -> NDArray[np.float64]:
        name = str(parse(metric))
        if name not in self.per_user:
            near = nearest(name, self.per_user)
            raise UsageError(problem(f"{name!r} was not measured", allowed=sorted(self.per_user), near=near))
        return self.per_user[name]

    def _comparable(self, other: Evaluation) -> None:
        if self.fingerprint != other.fingerprint or not np.array_equal(self.queries, other.queries):
            both = [f"{e.name} {e.how} {e.fingerprint}" for e in (self, other)]
            remedy = "Evaluate both on the same held-out data with the same protocol, candidates and cold rule"
            raise UsageError(problem("These evaluations were not made on the same users and data", both, remedy=remedy))
