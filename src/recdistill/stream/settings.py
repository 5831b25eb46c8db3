"""The settings of a stream: `stream.toml` in its folder.

They may be edited between steps, and count from the next cycle; `Stages.fixed` names what may not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from recdistill.ledger.blocks import Rule
from recdistill.settings import Settings, load, overlay, parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "BlockSettings",
    "DiskSettings",
    "ForgetSettings",
    "GateSettings",
    "StreamSettings",
    "TeacherSettings",
    "read",
]

_DEVICES = r"^(auto|cpu|cuda(:[0-9]+)?)$"
_DEVICES_IN_WORDS = '"auto", "cpu", "cuda" or "cuda:<index>"'


class BlockSettings(Settings):
    """When a block closes, and what is held out of it."""

    base: int = Field(default=100_000, ge=1)
    """Events of block 0, from which the first student and the teachers are trained."""
    events: int = Field(default=20_000, ge=1)
    """Events that close every later block."""
    age: int | None = Field(default=None, ge=1)
    """Seconds after which a block closes though not full: by the events' own times, and by the clock at `step`."""
    least: int = Field(default=100, ge=1)
    """A block with fewer events waits for more, whatever its age: it could not be validated."""
    held_out: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of a user's pairs of a block, the last ones, at least one, held out for the gates; as much for
    validation. Users with fewer than three pairs in a block keep all of them in training."""
    holdout_users: int = Field(default=20_000, ge=1)
    """At most so many users of a block are held out; what the others did is all learned from."""


class TeacherSettings(Settings):
    """The second clock."""

    every: int = Field(default=1, ge=1)
    """Blocks, and so student updates, between two teacher updates."""


class GateSettings(Settings):
    """What a student must pass before it is served."""

    k: int = Field(default=20, ge=1)
    """Cut-off of recall and of the lists that are compared."""
    worse: float = Field(default=0.1, ge=0)
    """Newest block: its recall may be less than the serving version's by this share of it. A tenth is two standard
    errors where 4,000 people of a recall of .09 are held out; fewer people need more."""
    newest_least: int = Field(default=20, ge=1)
    """With fewer users held out of the newest block, that check is not judged, and says so: one person's luck would
    decide."""
    forgetting: float = Field(default=0.5, ge=0, le=1)
    """Old blocks: the mean recall on their frozen holdouts may be below the mean of their best ever by this share. A
    half stops what has broken: five increments of Yelp cost CCD an eighth, and months cost more."""
    new_users: bool = True
    """Whether recall of users new in the block must reach that of the block's most popular items. Of a first version,
    to which everybody is new, it is not judged, and says so with both figures."""
    new_users_least: int = Field(default=50, ge=1)
    """With fewer new users held out, that check is not judged, and says so."""
    overlap: tuple[float, float] = (0.02, 1.0)
    """Share of a user's list that it may have in common with the serving version's, mean over users."""
    coverage: tuple[float, float] = (0.5, 2.0)
    """Distinct items in all those lists, as a multiple of the serving version's."""
    holdouts: int = Field(default=32, ge=2)
    """Old blocks whose holdouts are measured: so many, spread evenly over the past, and always the newest."""
    users: int = Field(default=2_000, ge=1)
    """Users whose lists are compared."""


class ProxySettings(Settings):
    """The memory of the slow proxy is bounded."""

    rebuild: int | None = Field(default=None, ge=1)
    """Cycles after which the proxies begin anew from the newest student; None keeps them for ever."""


class ForgetSettings(Settings):
    """What deletion cannot remove: the influence of a person on the vectors of others."""

    proxies: int = Field(default=1, ge=1)
    """Teacher cycles until the proxies begin anew."""
    retrain: int = Field(default=4, ge=1)
    """Teacher cycles until every teacher is trained from scratch on the events that are kept."""


class DiskSettings(Settings):
    """What is kept."""

    versions: int = Field(default=3, ge=2)
    """Published versions kept, the serving one and its predecessor among them."""
    cycles: int = Field(default=2, ge=2)
    """Cycles whose stage outputs are kept; holdouts are kept for ever."""
    budget: int | None = Field(default=None, ge=1)
    """Bytes of the whole folder. Above it, stage outputs and versions go down to what the next cycle and one rollback
    need; then the oldest events, if `drop_events` says so and that is enough."""
    drop_events: bool = False
    """Whether events that have been learned from may go to stay within the budget; a retrain then sees what is left."""


class StreamSettings(Settings):
    """A stream."""

    seed: int = Field(default=7, ge=0)
    """Of every draw."""
    device: str = Field(default="cpu", pattern=_DEVICES, json_schema_extra={"words": _DEVICES_IN_WORDS})
    """Where models train: "cpu", or "auto", "cuda", "cuda:<index>" for a GPU, on which no two runs give the same bytes,
    killed or not."""
    blocks: BlockSettings = BlockSettings()
    teacher: TeacherSettings = TeacherSettings()
    gates: GateSettings = GateSettings()
    proxies: ProxySettings = ProxySettings()
    forget: ForgetSettings = ForgetSettings()
    disk: DiskSettings = DiskSettings()
    method: dict[str, Any] = Field(default_factory=lambda: {"name": "finetune"})
    """`name`, and the settings of that method."""

    @property
    def rule(self) -> Rule:
        """When blocks close."""
        b = self.blocks
        return Rule(b.base, b.events, b.age, b.least)

    @property
    def method_name(self) -> str:
        """The method's registered name."""
        return str(self.method.get("name", "finetune"))


def read(path: Path, assignments: Sequence[str] = ()) -> StreamSettings:
    """Settings from a file, with `--set` laid over.

    Raises:
        SettingsError: no such file, unknown keys, values out of range.
    """
    return parse(StreamSettings, overlay(load(path), assignments))
