"""Where a stream stands: what came in, what is served, what each cycle measured, what is due. Reads; needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recdistill.stream.chain import put_off, stage_names, teaches, unfinished
from recdistill.stream.disk import least, sizes
from recdistill.stream.measure import accuracy

if TYPE_CHECKING:
    from recdistill.ledger import Block
    from recdistill.stream.journal import Told
    from recdistill.stream.stream import Stream

__all__ = ["CycleStatus", "Status", "status"]


@dataclass(frozen=True, slots=True)
class CycleStatus:
    """One cycle."""

    cycle: int
    events: int
    pairs: int
    """Distinct (user, item) pairs of its block."""
    late: int
    new_users: int
    new_items: int
    passed: bool | None
    """Whether its student passed the gate; None before it was asked."""
    distilled: bool | None
    """Whether the student distilled at its end passed; None before it was asked, and where no teacher was due."""
    why: tuple[str, ...]
    """The checks that failed, in words; of a distilled student they begin with "distilled:"."""
    notes: tuple[str, ...]
    """What else is to be known of it: checks with too few people to judge by, teachers that could not be taught."""
    student: dict[str, float] | None
    """LA, RA and H of the students up to it, those that were refused among them."""
    teacher: dict[str, float] | None
    """The same of the ensembles."""
    newest: float | None
    """The student's recall on the newest block, whether it passed or not."""
    served: float | None
    """Recall on the newest block of what was served at the end of the cycle: the distilled student's if it passed, the
    student's if that did, else that of the version before; None while nothing was."""
    gap: float | None
    """The ensemble's mean recall over all holdouts less the student's."""
    replay: float | None
    """Share of replay in the student's loss."""
    segments: dict[str, float]
    """The student's recall on the newest block: of new users, of known ones, of popularity."""
    seconds: dict[str, float]
    """Of each stage that is done."""
    done: bool


@dataclass(frozen=True, slots=True)
class Status:
    """The whole stream."""

    folder: str
    method: str
    k: int
    """Cut-off of every recall."""
    ledger: dict[str, int]
    """Events, users, items, segments and their bytes."""
    batches: dict[str, int]
    """Over all that was ingested: events read, new, repeated, late, refused."""
    open_block: dict[str, Any]
    """Its number, events so far, events that fill it, seconds of age, seconds that close it or None."""
    cycles: tuple[CycleStatus, ...]
    serving: str | None
    versions: tuple[str, ...]
    rollbacks: int
    bytes: dict[str, int]
    budget: int | None
    least: int | None
    """Bytes that the folder cannot go below as it stands; None without a budget."""
    due: tuple[str, ...]
    """What is due next, in words, the first one first."""

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def status(stream: Stream, *, now: float) -> Status:
    """Where a stream stands.

    Args:
        stream: it is only read.
        now: Unix seconds.
    """
    index, settings, ledger = stream.ledger.index, stream.settings, stream.ledger
    journal = stream.journal()
    lines = journal.lines()
    by_cycle: dict[int, dict[str, Told]] = {}
    for line in lines:
        by_cycle.setdefault(line.cycle, {})[line.stage] = line
    left = unfinished(journal, ledger.blocks(), settings.teacher.every)
    undone = {block.number for block in left}
    cycles = tuple(
        _cycle(number, by_cycle, done=number not in undone, waits=put_off(journal, number))
        for number in sorted(by_cycle)
    )
    block = ledger.open_block(now)
    batches = index.row(
        "SELECT coalesce(sum(read), 0), coalesce(sum(new), 0), coalesce(sum(repeated), 0), coalesce(sum(late), 0), "
        "coalesce(sum(refused), 0) FROM batch"
    )
    assert batches is not None  # noqa: S101 - sums always give a row
    opened = {
        "number": block.number,
        "events": len(block),
        "full": settings.rule.size(block.number),
        "age": max(now - block.opened, 0.0) if len(block) else 0.0,
        "oldest": settings.blocks.age,
    }
    return Status(
        folder=str(stream.folder),
        method=settings.method_name,
        k=settings.gates.k,
        ledger=ledger.counts(),
        batches=dict(zip(("read", "new", "repeated", "late", "refused"), batches, strict=True)),
        open_block=opened,
        cycles=cycles,
        serving=stream.versions.serving(),
        versions=tuple(stream.versions.names()),
        rollbacks=index.value("SELECT count(*) FROM rollback"),
        bytes=sizes(stream),
        budget=settings.disk.budget,
        least=None if settings.disk.budget is None else least(stream),
        due=_due(stream, by_cycle, left, opened),
    )


def _cycle(number: int, cycles: dict[int, dict[str, Told]], *, done: bool, waits: str | None) -> CycleStatus:
    stages = cycles[number]
    measured = {name: line.measured for name, line in stages.items()}
    block, gate, later = measured.get("collect", {}), measured.get("gate"), measured.get("gate[distil]")
    kept = (gate or {}).get("recall", {})
    ensemble = measured.get("ensemble", {}).get("recall", {})
    common = [block for block in kept if block in ensemble]
    gap = sum(ensemble[block] - kept[block] for block in common) / len(common) if common else None
    return CycleStatus(
        cycle=number,
        events=block.get("events", 0),
        pairs=block.get("pairs", 0),
        late=block.get("late", 0),
        new_users=block.get("n_users", 0) - block.get("old_users", 0),
        new_items=block.get("n_items", 0) - block.get("old_items", 0),
        passed=None if gate is None else gate["passed"],
        distilled=None if later is None else later["passed"],
        why=(*_failed(gate, ""), *_failed(later, "distilled: ")),
        notes=(*_notes(measured), *([] if waits is None else [waits])),
        student=_accuracy(cycles, "gate", number),
        teacher=_accuracy(cycles, "ensemble", number),
        newest=kept.get(str(number)),
        served=_served(number, gate, later),
        gap=gap,
        replay=measured.get("student", {}).get("replay_share"),
        segments=(gate or {}).get("segments", {}),
        seconds={name: line.seconds for name, line in sorted(stages.items(), key=lambda pair: pair[1].at)},
        done=done,
    )


def _served(number: int, gate: dict[str, Any] | None, later: dict[str, Any] | None) -> float | None:
    for verdict in (later, gate):
        if verdict is not None and verdict["passed"]:
            return verdict["recall"].get(str(number))
    return (gate or {}).get("served")


def _failed(gate: dict[str, Any] | None, who: str) -> tuple[str, ...]:
    return tuple(who + check["why"] for check in (gate or {}).get("checks", []) if not check["passed"])


def _notes(measured: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    checks = [
        (who, check)
        for who, stage in (("", "gate"), ("distilled: ", "gate[distil]"))
        for check in measured.get(stage, {}).get("checks", [])
    ]
    return tuple(f"{who}{check['name']} {check['why']}" for who, check in checks if not check.get("judged", True))


def _accuracy(cycles: dict[int, dict[str, Told]], stage: str, last: int) -> dict[str, float] | None:
    if stage not in cycles[last] or not cycles[last][stage].measured.get("recall"):
        return None
    rows = {
        number: cycles[number][stage].measured["recall"]
        for number in cycles
        if number <= last and stage in cycles[number]
    }
    return accuracy({number: {int(block): value for block, value in row.items()} for number, row in rows.items()})


def _due(
    stream: Stream, cycles: dict[int, dict[str, Told]], left: list[Block], opened: dict[str, Any]
) -> tuple[str, ...]:
    out: list[str] = []
    if stream.ledger.index.value("SELECT count(*) FROM forgetting"):
        out.append("a forgetting that was interrupted: `recdistill stream step` goes on with it")
    for block in left:
        second = teaches(stream.journal(), block.number, stream.settings.teacher.every)
        names = stage_names(members=0, teachers=second)
        first = next(name for name in names if name not in cycles.get(block.number, {}))
        what = "teachers" if first == "ensemble" else first
        out.append(f"cycle {block.number}: {what} ({block.why}, {len(block):,} events)")
    missing = opened["full"] - opened["events"]
    age = "" if opened["oldest"] is None else f" or {max(opened['oldest'] - opened['age'], 0):,.0f} s"
    out.append(f"block {opened['number']} closes after {missing:,} more events{age}")
    what = {"proxies": "the proxies begin anew", "retrain": "teachers are trained from scratch"}
    rows = stream.ledger.index.rows("SELECT what, min(cycle), why, count(*) FROM due WHERE NOT done GROUP BY what, why")
    out += [f"cycle {cycle}: {what[kind]} ({why}{f', {n} times' if n > 1 else ''})" for kind, cycle, why, n in rows]
    return tuple(out)
