"""Names to things, registered explicitly; a second thing under a name is refused, an unknown name gets a neighbour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from recdistill.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

__all__ = ["Registry"]


class Registry(Generic[T]):
    """A table of named things of one kind ("model", "method", "metric")."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def add(self, name: str, thing: T) -> T:
        """Register `thing`; a name that is taken is a programming error."""
        if name in self._things:
            msg = f"{self.kind} {name!r} is registered twice"
            raise ValueError(msg)
        self._things[name] = thing
        return thing

    def __getitem__(self, name: str) -> T:
        """The thing of that name; `UnknownName` with the nearest match otherwise."""
        try:
            return self._things[name]
        except KeyError:
            raise UnknownName(self.kind, name, self._things) from None

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._things))

    def __len__(self) -> int:
        return len(self._things)
