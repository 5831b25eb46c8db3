"""Who a recipe tells what it does: the command line draws it, Python callers hear nothing unless they ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recdistill.training.watch import Watch

__all__ = ["Listener", "Silent"]


class Listener(Protocol):
    """Told of a recipe as it goes."""

    def say(self, text: str) -> None:
        """Something worth knowing: what was read, what was left out."""
        ...

    def begin(self, stage: str) -> None:
        """A stage begins; it ends when the next one begins."""
        ...

    def watch(self, run: str) -> Sequence[Watch]:
        """What follows the training of `run`."""
        ...


class Silent:
    """Hears and says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, stage: str) -> None:
        """Nothing."""

    def watch(self, run: str) -> Sequence[Watch]:
        """Nobody."""
        del run
        return ()
