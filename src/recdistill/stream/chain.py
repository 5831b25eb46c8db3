"""Where a stream stands and goes on from, as its journal tells it.

Which cycle is unfinished, which student passed, what was best, and which settings cannot be edited any more: not as
today's settings would have it, but as it was when a cycle began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recdistill.errors import SettingsError, UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recdistill.ledger import Block
    from recdistill.stream.journal import Journal, Told
    from recdistill.stream.protocol import Stages

__all__ = [
    "best",
    "distilled",
    "of",
    "put_off",
    "refuse_other_shape",
    "stage_names",
    "start",
    "teaches",
    "unfinished",
    "unserved",
]


def stage_names(*, members: int, teachers: bool) -> list[str]:
    """The stages of a cycle, in order; both halves end it, the second where a teacher update is due."""
    first = ["collect", "holdout", "student", "gate", "publish"]
    each = [f"teacher[{m}]" for m in range(members)]
    second = [*each, "ensemble", "distil", "gate[distil]", "publish[distil]", "proxies"]
    return [*first, *second] if teachers else first


def teaches(journal: Journal, cycle: int, every: int) -> bool:
    """Whether the second half belongs to a cycle: as its first stage has it on record; before that, by `every`."""
    told = journal.find(cycle, "collect")
    decided = None if told is None else told.measured.get("teachers")
    return cycle % every == 0 if decided is None else decided


def unfinished(journal: Journal, blocks: Iterable[Block], every: int) -> list[Block]:
    """The blocks whose cycles have something left to do; they run in order, so of those that began only the last."""
    begun = journal.newest()
    if begun is not None:
        last = stage_names(members=0, teachers=teaches(journal, begun, every))[-1]
        begun = begun - (journal.find(begun, last) is None)
    return [block for block in blocks if begun is None or block.number > begun]


def refuse_other_shape(journal: Journal, stages: Stages, cycle: int) -> None:
    """Hold a method against what it is to go on from.

    Raises:
        SettingsError: a setting in `Stages.fixed` is not what the stream began with.
    """
    told = journal.latest("student", cycle + 1)
    if told is None or not journal.objects.has(told.object):
        return
    was, now = journal.objects.get(told.object).about["made"]["identity"], stages.identity("student")
    for name in stages.fixed:
        before, after = _at(was, name), _at(now, name)
        if before is not None and before != after:
            what = f"The setting 'method.{name}' cannot be edited once a stream has begun"
            remedy = f"Put {before!r} back into stream.toml, or begin another stream with the same events"
            raise SettingsError(problem(what, after, allowed=repr(before), remedy=remedy))


def best(journal: Journal, cycle: int, k: int) -> dict[int, float]:
    """Block -> the best recall@k of any student that passed before a cycle."""
    found: dict[int, float] = {}
    for told in journal.lines():
        gate = told.stage.startswith("gate") and told.cycle < cycle
        if gate and told.measured["passed"] and told.measured.get("k", k) == k:
            for block, value in told.measured["recall"].items():
                found[int(block)] = max(found.get(int(block), 0.0), value)
    return found


def put_off(journal: Journal, cycle: int) -> str | None:
    """Why the teachers of a cycle could not be taught; None where they were, or were not due."""
    told = journal.find(cycle, "proxies")
    why = None if told is None else told.measured.get("failed")
    return None if why is None else f"the teachers wait for the next update: {why}"


def unserved(journal: Journal) -> UsageError:
    """That nothing is served yet: because no student was asked, or because the gates refused each."""
    what = "No version has been published yet"
    gates = [line for line in journal.lines() if line.stage.startswith("gate")]
    if not gates or any(line.measured["passed"] for line in gates):
        return UsageError(problem(what, remedy="Run `recdistill stream step`"))
    last = gates[-1]
    name, why = next((c["name"], c["why"]) for c in last.measured["checks"] if not c["passed"])
    what = f"{what}: the gates refused every student, the last one in cycle {last.cycle} by the check {name!r}: {why}"
    remedy = "`recdistill stream status` tells the others; [gates] in stream.toml holds the bounds"
    return UsageError(problem(what, remedy=remedy))


def of(stage: str, what: str) -> str:
    """The stage "gate" or "publish" of an output of "student" or "distil"."""
    return stage if what == "student" else f"{stage}[{what}]"


def start(journal: Journal, cycle: int) -> Told | None:
    """The student that a cycle goes on from: the newest, updated or distilled, that its own gate let through.

    As long as none has passed it is the newest there is; what could not be trained is none.
    """
    found = _students(journal, cycle)
    return next((told for told in found if _passed(journal, told)), found[0] if found else None)


def distilled(journal: Journal, cycle: int) -> Told | None:
    """The student distilled last before a cycle that its gate let through."""
    found = (told for told in _students(journal, cycle) if told.stage == "distil")
    return next((told for told in found if _passed(journal, told)), None)


def _students(journal: Journal, cycle: int) -> list[Told]:
    """Of all cycles before, the newest first; what was distilled in a cycle comes after what was updated in it."""
    told = (line for line in journal.lines() if line.stage in ("student", "distil") and line.cycle < cycle)
    made = [line for line in told if "failed" not in line.measured]
    return sorted(made, key=lambda line: (-line.cycle, line.stage))


def _passed(journal: Journal, told: Told) -> bool:
    """Whether the gate let it through; a stream that began without the gate of what is distilled had none."""
    verdict = journal.find(told.cycle, of("gate", told.stage))
    return verdict is None or verdict.measured["passed"]


def _at(identity: Mapping[str, Any], name: str) -> object:
    found: Any = identity
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
