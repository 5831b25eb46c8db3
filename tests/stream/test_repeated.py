"""What comes again: a pair is learned from or held out for test, never one in one block and the other in the next."""

from __future__ import annotations

import pytest

from recdistill.stream.stream import Stream


@pytest.fixture
def again(tmp_path, log, write_csv, settings, toy):
    """Three blocks; in the second and third everything of the first is clicked once more, beside what is new."""
    path = write_csv(log, tmp_path / "log.csv")
    lines = path.read_text().splitlines()[1:]
    first, rest = lines[:1000], lines[1000:]
    late = max(int(line.split(",")[2]) for line in lines)
    with Stream.create(
        tmp_path / "again", settings.replace("base = 1500", "base = 100000") + "[disk]\ncycles = 9\n"
    ) as stream:
        for n in range(3):
            when = late + n
            old = [f"{','.join(line.split(',')[:2])},{when}" for line in first[::-1]] if n else first
            (tmp_path / "part.csv").write_text("\n".join(["user,item,timestamp", *old, *rest[n::3]]) + "\n")
            stream.ingest(tmp_path / "part.csv", now=float(n))
            stream.ledger.close_open(now=float(n), asked=True)
        yield stream


def pairs(arrays, part):
    return set(zip(arrays[f"{part}_user"].tolist(), arrays[f"{part}_item"].tolist(), strict=True))


def collected(stream):
    told = [stream.journal().find(block.number, "collect") for block in stream.ledger.blocks()]
    return [stream.objects.get(each.object).arrays for each in told]


def test_a_pair_that_was_held_out_is_not_learned_from_when_it_is_clicked_again(again, toy):
    again.step(stages=toy.Toy())
    first, *later = collected(again)
    held = pairs(first, "test")
    assert held
    for block in later:
        assert pairs(block, "train")
        assert not held & (pairs(block, "train") | pairs(block, "valid"))


def test_a_pair_that_was_learned_from_is_not_held_out_later(again, toy):
    again.step(stages=toy.Toy())
    learned = set()
    for block in collected(again):
        assert not learned & (pairs(block, "test") | pairs(block, "valid"))
        learned |= pairs(block, "train")
    assert sum(len(pairs(block, "test")) > 0 for block in collected(again)) > 1


def test_a_retrain_learns_from_no_pair_of_any_holdout(again, toy):
    seen = []

    class Looking(toy.Toy):
        def teacher(self, job, member, **given):
            if job.cycle == 2:
                seen.extend(job.blocks)
            return super().teacher(job, member, **given)

    again.ledger.index.run("INSERT INTO due (what, cycle, why) VALUES ('retrain', 2, 'somebody was forgotten')")
    again.step(stages=Looking())
    held = set().union(*(pairs(block, "test") for block in collected(again)))
    assert len({block.number for block in seen}) == 3
    for block in seen:
        assert not held & set(zip(block.user.tolist(), block.item.tolist(), strict=True))
