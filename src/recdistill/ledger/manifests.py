"""A manifest for each closed block: its numbers, why it closed, the segments that hold its events.

    ledger/blocks/000003-9f2c4e6a8b0d1f35.json

It says what the index says, and its name ends with the hash of its bytes, so that no file ever changes: where segments
are merged, or a person is forgotten, another one takes its place. Numbers and names of segments are in it, no ids.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from recdistill.bundle.folder import sync, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from recdistill.ledger.blocks import Block

__all__ = ["settle", "text_of"]

_DIGITS = 16


def text_of(block: Block, before: Block | None, segments: Sequence[str]) -> bytes:
    """The manifest of a closed block, as it stands in its file.

    Args:
        block: the block; `events` counts those that it closed with, whoever was forgotten since.
        before: the block before it.
        segments: names of the files that hold its events, in order.
    """
    known = (0, 0) if before is None else (before.users, before.items)
    told = {
        **asdict(block),
        "events": len(block),
        "new_users": block.users - known[0],
        "new_items": block.items - known[1],
        "segments": list(segments),
    }
    return f"{json.dumps(told, indent=1, sort_keys=True, allow_nan=False)}\n".encode()


def settle(folder: Path, wanted: Mapping[int, bytes], *, only: bool = False) -> None:
    """Have the manifests of these blocks, and no other ones of them; each appears whole, before the old one goes.

    Args:
        folder: of the manifests.
        wanted: number of a block -> its manifest.
        only: whether whatever else is in the folder goes too.
    """
    folder.mkdir(exist_ok=True)
    names = {f"{number:06d}-{hashlib.sha256(text).hexdigest()[:_DIGITS]}.json": text for number, text in wanted.items()}
    there = {file.name for file in folder.iterdir()}
    for name in names.keys() - there:
        beside = folder / f".manifest.{os.getpid()}"
        beside.unlink(missing_ok=True)
        write_whole(beside, names[name])
        beside.replace(folder / name)
    sync(folder)
    for name in there - names.keys():
        number, _, _ = name.partition("-")
        if only or (number.isdecimal() and int(number) in wanted):
            (folder / name).unlink(missing_ok=True)  # it may have been half of one of these
