"""What the commands of a stream share: its settings as a file, its table, its page."""

from __future__ import annotations

import json
import time
import tomllib
from typing import TYPE_CHECKING, Any, cast

from rich.console import Group
from rich.table import Table
from rich.text import Text

from recdistill.recipes.cells import write_text
from recdistill.report.stream import StreamPage
from recdistill.report.words import megabytes
from recdistill.settings import load, overlay
from recdistill.stream.status import status
from recdistill.stream.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from recdistill.stream.status import CycleStatus, Status

__all__ = ["TEMPLATE", "begin", "overrun", "settings_text", "table", "write_page"]

_SHOWN = 12

TEMPLATE = """\
# Settings of a stream of recdistill. What is commented out is the default, or an example of its kind.
# They may be edited between two steps; what was made before stays as it is.

seed = 7
# device = "auto"               # train on a GPU where there is one; by default on the CPU, "cpu"

[blocks]
base = 100000                   # events of block 0: the first student and the teachers are trained from it
events = 20000                  # events that close every later block ...
# age = 86400                   # ... or seconds since its first event, whichever comes first
least = 100                     # a block with fewer events waits for more, whatever its age
held_out = 0.1                  # of a user's pairs of a block, the last ones: for the gates, and as much for validation
holdout_users = 20000           # at most so many users of a block

[method]
name = "finetune"               # or "ccd", with the settings of docs/ccd.md; its settings follow
dim = 16                        # the student
teacher_dim = 64
members = 2                     # teachers; they differ by their seeds
depth = 100                     # items of the ensemble's list of a user, which the student is distilled from
weight = 0.01                   # of the distillation in that loss
slow = 0.9                      # how much of the slow proxy stays at a cycle
fast = 0.0                      # how much of the fast one
# Training from nothing, on a later block, and from the ensemble: the most epochs, Adam's learning rate, pairs a step,
# L2, epochs between two validations, and how many of these without improvement end it.
# base = { epochs = 100, lr = 5e-3, batch = 2048, weight_decay = 1e-4, every = 5, patience = 2 }
# update = { epochs = 100, lr = 1e-3, batch = 2048, weight_decay = 1e-4, every = 5, patience = 2 }
# distil = { epochs = 100, lr = 5e-3, batch = 1024, weight_decay = 1e-4, every = 5, patience = 2 }

[teacher]
every = 1                       # blocks, and so student updates, between two teacher updates

[gates]                         # what a student must pass before it is served
k = 20
worse = 0.1                     # recall on the newest block: at most this share below the serving version
newest_least = 20               # with fewer users held out of the newest block that is not judged, and status says so
forgetting = 0.5                # recall on old blocks: at most this share below their best
new_users = true                # recall of new users: at least that of popularity; not judged of a first version
new_users_least = 50            # with fewer new users held out that is not judged, and status says so
overlap = [0.02, 1.0]           # share of a list in common with the serving version's
coverage = [0.5, 2.0]           # distinct items, as a multiple of the serving version's
users = 2000                    # users whose lists are compared
holdouts = 32                   # old blocks whose holdouts are measured, spread evenly over the past

[proxies]
# rebuild = 10                  # cycles after which the proxies begin anew

[forget]                        # what deletion cannot remove
proxies = 1                     # teacher cycles until the proxies begin anew
retrain = 4                     # teacher cycles until the teachers are trained from scratch

[disk]
versions = 3                    # published versions that are kept
cycles = 2                      # cycles whose stage outputs are kept
# budget = 10000000000          # bytes of the whole folder; above it, only what the next cycle and a rollback need
drop_events = false             # whether old events may go too, where that is enough to stay within the budget
"""


def begin(folder: Path, *, settings: Path | None = None, assign: Sequence[str] = ()) -> Stream:
    """A new stream.

    Args:
        folder: which must not be there, or be empty.
        settings: a TOML file; None takes `TEMPLATE`.
        assign: `a.b=c`, laid over.
    """
    return Stream.create(folder, settings_text(settings, assign))


def settings_text(settings: Path | None, assign: Sequence[str]) -> str:
    """The text of `stream.toml`: as it was written, or without comments where something was assigned."""
    if settings is not None:
        load(settings)  # for its errors
    text = TEMPLATE if settings is None else settings.read_text(encoding="utf-8")
    if not assign:
        return text
    below = tomllib.loads(text)
    whole = overlay(below, assign)
    if settings is None and whole["method"].get("name") != below["method"]["name"]:
        whole = overlay({**below, "method": {}}, assign)  # the template's keys are of its own method
    return _toml(whole)


def overrun(found: Status) -> str | None:
    """Where the budget cannot be kept, that it cannot, and what would do."""
    if found.budget is None or found.least is None or found.least <= found.budget:
        return None
    what = f"The budget of {megabytes(found.budget)} cannot be kept: {megabytes(found.least)} have to stay"
    return f"{what}, so no events go for it. Raise disk.budget above that."


def table(found: Status) -> RenderableType:
    """A stream for people."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))  # 79 columns
    for name in ("cycle", "events", "newest", "served", "LA", "RA", "H", "teacher", "gap", "replay", "passed"):
        table.add_column(name, justify="left" if name == "passed" else "right", no_wrap=True)
    for cycle in found.cycles[-_SHOWN:]:
        student, teacher = cycle.student or {}, cycle.teacher or {}
        table.add_row(
            f"{cycle.cycle}{'' if cycle.done else ' …'}",
            f"{cycle.events:,}",
            _figure(cycle.newest),
            _figure(cycle.served),
            *(_figure(student.get(name)) for name in ("LA", "RA", "H")),
            _figure(teacher.get("H")),
            "" if cycle.gap is None else f"{cycle.gap:+.4f}",
            "" if cycle.replay is None else f"{cycle.replay:.0%}",
            Text("/").join(_answer(one) for one in (cycle.passed, cycle.distilled) if one is not None),
        )
    ledger, batches, size = found.ledger, found.batches, sum(found.bytes.values())
    budget = "" if found.budget is None else f" of {megabytes(found.budget)}"
    lines = [
        f"{found.folder}: {ledger['events']:,} events, {ledger['users']:,} users, {ledger['items']:,} items; "
        f"{batches['repeated']:,} repeated, {batches['late']:,} late, {batches['refused']:,} refused",
        f"serving {found.serving or 'nothing yet'}; {len(found.versions)} versions kept, {found.rollbacks} rollbacks; "
        f"{megabytes(size)}{budget}",
    ]
    below = [] if not found.cycles else [_refused(found.cycles[-1].cycle, why) for why in found.cycles[-1].why]
    over = overrun(found)
    below += [] if over is None else [over]
    notes = [f"cycle {cycle.cycle}: {note}" for cycle in found.cycles[-1:] for note in cycle.notes]
    due = [f"{'next' if n == 0 else 'then'}: {one}" for n, one in enumerate(found.due)]
    parts: list[RenderableType] = [Text(line) for line in lines]
    if found.cycles:
        head = (
            f"recall@{found.k} on holdouts; newest block: of the student, of what is served; teacher: the ensemble's H"
        )
        parts += [Text(head, style="dim"), table, Text(_times(found.cycles[-1]))]
    return Group(*parts, *(Text(line, style="red") for line in below), *map(Text, (*notes, *due)))


def write_page(stream: Stream, out: Path) -> None:
    """Write the page of a stream."""
    text = (stream.folder / "stream.toml").read_text(encoding="utf-8")
    write_text(out, StreamPage(status(stream, now=time.time()), settings=text).render())


def _answer(passed: bool) -> Text:  # noqa: FBT001 - a cell of the table
    return Text("yes" if passed else "no", style="" if passed else "red")


def _refused(cycle: int, why: str) -> str:
    who, of_distilled, rest = why.partition(": ")
    if who == "distilled" and of_distilled:
        return f"the student distilled in cycle {cycle} is not served: {rest}"
    return f"the student of cycle {cycle} is not served: {why}"


def _times(cycle: CycleStatus) -> str:
    """The time of a cycle, and of what took most of it; teachers together."""
    stages: dict[str, float] = {}
    for name, seconds in cycle.seconds.items():
        kind = name.partition("[")[0]
        stages[kind] = stages.get(kind, 0.0) + seconds
    most = sorted(stages.items(), key=lambda pair: -pair[1])[:4]
    parts = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in most)
    return f"cycle {cycle.cycle} took {sum(stages.values()):,.1f} s: {parts}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _toml(table: Mapping[str, Any]) -> str:
    """Tables of plain values as TOML: values first, then tables."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"{key} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            inner = cast("dict[str, Any]", value)
            lines += ["", f"[{key}]", *(f"{name} = {_value(one)}" for name, one in inner.items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value)
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in pairs.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in cast("list[object]", value)) + "]"
    return json.dumps(value, ensure_ascii=False)
