"""Events in once each, blocks out."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.sources import read
from recdistill.data.synthetic import planted
from recdistill.errors import DataError, UsageError
from recdistill.ledger import Events, Ledger
from recdistill.ledger.blocks import Block, Rule, cut
from recdistill.ledger.events import gathered
from recdistill.ledger.locks import held
from recdistill.ledger.pipe import chunks
from recdistill.ledger.segments import Rows

DAY = 86_400


def frame(*rows, names=("user", "item", "timestamp")):
    return pl.DataFrame(list(rows), schema=list(names), orient="row")


def test_ids_that_differ_after_a_nul_are_different_ids_in_every_batch(ledger):
    said = [("a", "i", 1), ("a\0b", "i\0", 2), ("a\0c", "i", 3), ("\0", "i\0", 4)]
    for row in [*said, said[1], ("a\0b", "i\0", 5)]:
        ledger.ingest(gathered(frame(row)))
    assert ledger.ids("user", 9) == ["a", "a\0b", "a\0c", "\0"]
    assert ledger.ids("item", 9) == ["i", "i\0"]
    assert ledger.rows().user.tolist() == [0, 1, 2, 3, 1]
    assert ledger.row_of("a\0b") == 1
    assert ledger.items_of(["a\0b", "nobody"]) == {"a\0b": ["i\0"]}


def batch(*rows, names=("user", "item", "timestamp")):
    return gathered(frame(*rows, names=names))


def test_the_same_file_twice_counts_once(ledger):
    events = batch(("a", "x", 1), ("b", "y", 2), ("a", "x", 3))
    assert ledger.ingest(events, now=9.0).new == 3
    again = ledger.ingest(events, now=10.0)
    assert (again.new, again.repeated) == (0, 3)
    assert len(ledger.rows()) == 3


def test_equal_lines_of_one_batch_are_as_many_events_and_the_same_again_in_the_next(ledger):
    twice = batch(("a", "x", 1), ("a", "x", 1))
    assert ledger.ingest(twice, now=0.0).new == 2
    thrice = batch(("a", "x", 1), ("a", "x", 1), ("a", "x", 1))
    done = ledger.ingest(thrice, now=0.0)
    assert (done.new, done.repeated) == (1, 2)


def test_an_event_id_names_an_event_whatever_it_says(ledger):
    names = ("event_id", "user", "item", "timestamp")
    assert ledger.ingest(batch(("e1", "a", "x", 1), ("e2", "a", "x", 1), names=names), now=0.0).new == 2
    done = ledger.ingest(batch(("e2", "a", "corrected", 5), ("e3", "a", "x", 1), names=names), now=0.0)
    assert (done.new, done.repeated) == (1, 1)
    done = ledger.ingest(batch(("e4", "b", "x", 1), ("e4", "b", "y", 1), names=names), now=0.0)
    assert (done.new, done.repeated) == (1, 1)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ".csv.gz"])
def test_an_event_is_the_same_event_from_every_format(ledger, tmp_path, suffix):
    table = frame(("12", "x", 100), ("13", "y", 200))
    ledger.ingest(gathered(table), now=0.0)
    path = tmp_path / f"log{suffix}"
    match suffix:
        case ".parquet":
            table.write_parquet(path)
        case ".arrow":
            table.write_ipc(path)
        case ".jsonl":
            path.write_text(
                '{"user": 12, "item": "x", "timestamp": 100}\n{"user": "13", "item": "y", "timestamp": 200}\n'
            )
        case ".csv.gz":
            path.write_bytes(__import__("gzip").compress(table.write_csv().encode()))
        case _:
            table.write_csv(path, separator="\t" if suffix == ".tsv" else ",")
    assert ledger.ingest(gathered(path), now=0.0).new == 0


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_column_of_event_ids_is_found_in_a_file(tmp_path, suffix):
    table = pl.DataFrame({"message-id": ["m1", "m1"], "user": ["a", "a"], "item": ["x", "y"]})
    path = tmp_path / f"log{suffix}"
    {".csv": table.write_csv, ".jsonl": table.write_ndjson, ".parquet": table.write_parquet}[suffix](path)
    key = gathered(path).key
    assert key[0] == key[1]
    assert len(set(gathered(table, columns={"event": "item"}).key.tolist())) == 2


def test_a_column_of_kinds_names_no_event_and_two_columns_of_ids_have_to_be_told_apart():
    kinds = frame(("a", "x", "view"), ("b", "y", "view"), names=("user", "item", "event"))
    assert len(np.unique(gathered(kinds).key)) == 2
    assert len(np.unique(gathered(kinds, columns={"event": "event"}).key)) == 1
    both = frame(("a", "x", 1, 2), names=("user", "item", "event_id", "message_id"))
    with pytest.raises(
        DataError, match=r"2 columns could hold the event: 'event_id', 'message_id'.*--column event=event_id"
    ):
        gathered(both)
    np.testing.assert_array_equal(
        gathered(both, columns={"event": "message_id"}).key,
        gathered(frame(("b", "y", 2), names=("user", "item", "event_id"))).key,
    )
    with pytest.raises(UsageError, match="names the event twice"):
        gathered(both, columns={"event": "message_id", "event_id": "event_id"})


def lines(path, *events):
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return gathered(path, repeats=False)


@pytest.mark.parametrize("ids", [("E1", "E2"), (1, 2)])
def test_of_json_lines_each_says_whether_it_has_an_id(ledger, tmp_path, ids):
    bare = {"user": "a", "item": "x", "timestamp": 1}
    first, second = ({**bare, "item": item, "event_id": one} for item, one in zip("yz", ids, strict=True))
    done = ledger.ingest(lines(tmp_path / "1.jsonl", bare, first, second), now=0.0)
    assert done.new == 3
    again = ledger.ingest(lines(tmp_path / "2.jsonl", {**first, "item": "corrected"}, bare), now=0.0)
    assert (again.new, again.repeated) == (0, 2)
    alone = ledger.ingest(lines(tmp_path / "3.jsonl", bare), now=0.0)
    assert alone.repeated == 1, "whatever stands beside it"


def test_rows_without_an_event_id_among_rows_with_one_are_refused():
    log = read(frame(("a", "x", 1), ("b", "y", 2)), echo=None)
    with pytest.raises(DataError, match="There are 1 event ids for 2 events"):
        Events.of(log, np.array(["e1"], dtype=object))


def test_rows_are_numbered_in_order_of_first_appearance_by_time(ledger):
    ledger.ingest(batch(("late", "z", 30), ("early", "x", 10), ("mid", "x", 20)), now=0.0)
    assert ledger.ids("user", 9) == ["early", "mid", "late"]
    ledger.ingest(batch(("new", "x", 5), ("mid", "w", 6)), now=0.0)
    assert ledger.ids("user", 9) == ["early", "mid", "late", "new"]
    assert ledger.ids("item", 9) == ["x", "z", "w"]
    assert ledger.rows().user.tolist() == [0, 1, 2, 3, 1]


def test_blocks_close_by_count_and_cut_a_batch_where_they_are_full(ledger):
    done = ledger.ingest(batch(*[(f"u{n}", "x", n) for n in range(8)]), now=5.0)
    assert done.closed == (0, 1)
    first, second = ledger.blocks()
    assert (first.first, first.last, first.users, first.why) == (0, 4, 4, "count")
    assert (second.first, second.last, second.users) == (4, 7, 7)
    assert len(ledger.open_block()) == 1
    assert ledger.rows(first.first, first.last).timestamp.tolist() == [0, 1, 2, 3]


def test_a_late_event_stands_in_the_block_that_is_open_when_it_comes(ledger):
    ledger.ingest(batch(*[("a", f"x{n}", 100 + n) for n in range(4)]), now=0.0)
    done = ledger.ingest(batch(("b", "x0", 50), ("b", "x1", 200)), now=0.0)
    assert done.late == 1
    block = ledger.open_block()
    assert (block.number, len(block), block.late, block.high) == (1, 2, 1, 200)


def test_a_block_closes_by_age_in_the_time_of_its_events(tmp_path):
    rule = Rule(base=100, events=100, age=DAY, least=2)
    ledger = Ledger.create(tmp_path / "s", rule)
    days = [0, 1, 2, DAY + 5, DAY + 6, 2 * DAY + 4, 2 * DAY + 5]
    done = ledger.ingest(batch(*[("a", f"x{n}", t) for n, t in enumerate(days)]), now=0.0)
    # block 0 begins at 0, block 1 at DAY + 5: its last event is DAY - 1 s younger; the event after that begins block 2
    assert [(b.first, b.last, b.why) for b in ledger.blocks()] == [(0, 3, "age"), (3, 6, "age")]
    assert done.closed == (0, 1)


def test_a_block_closes_by_age_by_the_clock_but_not_below_its_least_size(tmp_path):
    ledger = Ledger.create(tmp_path / "s", Rule(base=100, events=100, age=DAY, least=2))
    ledger.ingest(batch(("a", "x", 1)), now=1000.0)
    assert ledger.close_open(now=1000.0 + DAY) is None
    ledger.ingest(batch(("a", "y", 2)), now=1001.0)
    assert ledger.close_open(now=1000.0 + DAY - 1) is None
    assert ledger.close_open(now=1000.0 + DAY).why == "age"
    assert ledger.close_open(now=9e9, asked=True) is None  # the next one is empty
    ledger.ingest(batch(("a", "z", 3)), now=2000.0)
    assert ledger.close_open(now=2001.0, asked=True).why == "asked"


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), max_size=8),
    base=st.integers(1, 9),
    events=st.integers(1, 9),
    age=st.one_of(st.none(), st.integers(1, 20)),
    seed=st.integers(0, 99),
)
def test_blocks_concatenate_to_the_whole_and_are_of_the_size_that_was_asked(sizes, base, events, age, seed):
    rule, chance = Rule(base, events, age, least=2), np.random.default_rng(seed)
    block, closed, at, high = Block(0, 0, 0, 0, 0, None, None, 0, 0.0), [], 0, None
    for size in sizes:
        times = np.sort(chance.integers(0, 60, size))
        zeros = np.zeros(size, np.int32)
        *done, block = cut(
            block, Rows(at + np.arange(size), zeros, zeros, times, None, times), rule, high=high, now=0.0
        )
        closed, at, high = [*closed, *done], at + size, done[-1].high if done else high
    ends = [b.last for b in closed]
    assert [b.first for b in closed] == [0, *ends][: len(closed)]
    assert (block.first, block.last) == ([0, *ends][-1], at)
    for one in closed:
        assert len(one) <= rule.size(one.number)
        assert one.why == "count" if len(one) == rule.size(one.number) else one.why == "age"
        assert len(one) >= min(2, rule.size(one.number))
    if age is None:
        assert all(one.why == "count" for one in closed)


def test_lines_of_a_pipe_are_read_in_parts_and_none_is_left_behind(tmp_path):
    lines = "\n".join(json.dumps({"user": f"u{n}", "item": "x"}) for n in range(5))
    read_parts = []
    for part in chunks(io.StringIO(lines), tmp_path / "spool", size=2):
        read_parts.append(len(gathered(part.path)))
    assert read_parts == [2, 2, 1]
    assert not list((tmp_path / "spool").iterdir())
    assert list(chunks(io.StringIO("\n \n"), tmp_path / "spool", size=2)) == []


def test_a_pipe_that_does_not_end_is_read_as_it_comes(tmp_path):
    lines, writer = os.pipe()
    with os.fdopen(lines) as reading, os.fdopen(writer, "w") as writing:
        parts = chunks(reading, tmp_path / "spool", size=1000, seconds=0.0)
        for n in range(2):
            writing.write(f'{{"user": "u{n}", "item": "x"}}\n')
            writing.flush()
            assert gathered(next(parts).path).users == [f"u{n}"]
        writing.close()
        assert list(parts) == []


def test_what_may_be_delivered_twice_counts_once(ledger):
    lines = frame(("a", "x", 1), ("a", "x", 1))
    assert ledger.ingest(gathered(lines, repeats=False), now=0.0).new == 1
    done = ledger.ingest(gathered(lines), now=0.0)  # a file of two equal lines holds one event more
    assert (done.new, done.repeated) == (1, 1)


def test_columns_that_a_later_batch_lacks_are_lacking_where_the_two_are_read_together(ledger):
    ledger.ingest(batch(("a", "x", 1), ("b", "x", 2)), now=0.0)
    ledger.ingest(batch(("c", "x"), names=("user", "item")), now=0.0)
    assert ledger.rows(0, 2).timestamp.tolist() == [1, 2]
    assert ledger.rows().timestamp is None
    assert len(ledger.rows()) == 3


def test_what_a_killed_process_has_left_is_removed_and_an_uncommitted_batch_is_taken_in_again(ledger, monkeypatch):
    class Cut(BaseException):
        pass

    def cut_off(*_):
        raise Cut

    events = batch(("a", "x", 1), ("b", "y", 2))
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_write", cut_off)  # after the segment is in place, before the commit
        with pytest.raises(Cut):
            ledger.ingest(events, now=0.0)
    assert len(list((ledger.folder / "segments").iterdir())) == 1
    assert len(ledger.rows()) == 0
    assert ledger.ingest(batch(("c", "z", 3)), now=0.0).new == 1
    assert len(list((ledger.folder / "segments").iterdir())) == 1
    assert ledger.ingest(events, now=0.0).new == 2


KILLED = """
import sys
from pathlib import Path
from recdistill.ledger import Ledger
from recdistill.ledger.blocks import Rule
from recdistill.ledger.events import gathered
ledger = Ledger(Path(sys.argv[1]), Rule(base=4, events=3))
print("ready", flush=True)
for path in sys.argv[2:]:
    ledger.ingest(gathered(path), now=0.0)
"""


def test_two_processes_that_ingest_at_once_lose_nothing_and_count_nothing_twice(tmp_path):
    Ledger.create(tmp_path / "s", Rule(base=4, events=3)).close()
    log = planted(users=40, items=30, interactions=420, dim=4, seed=2)
    files = []
    for n in range(6):
        part = log.take(np.arange(n * 50, n * 50 + 100))  # half of each file is in the next one too
        table = pl.DataFrame({"user": part.users.external(part.user), "item": part.items.external(part.item)})
        files.append(tmp_path / f"{n}.parquet")
        table.with_columns(pl.Series("timestamp", part.timestamp)).write_parquet(files[-1])
    words = [sys.executable, "-c", KILLED, str(tmp_path / "s")]
    one = subprocess.Popen([*words, *map(str, files)])
    two = subprocess.Popen([*words, *map(str, reversed(files))])
    killed = subprocess.Popen([*words, *map(str, files)], stdout=subprocess.PIPE)
    killed.stdout.readline()
    os.kill(killed.pid, signal.SIGKILL)
    assert (one.wait(), two.wait(), killed.wait()) == (0, 0, -signal.SIGKILL)
    killed.stdout.close()
    ledger = Ledger(tmp_path / "s", Rule(base=4, events=3))
    rows = ledger.rows()
    whole = gathered_of(log.take(np.arange(350)))
    assert len(rows) == len(np.unique(whole.key)) == len(np.unique(rows.key))
    assert sorted(rows.key.tolist()) == sorted(whole.key.tolist())
    assert rows.number.tolist() == list(range(len(rows)))
    ledger.close()


def gathered_of(log):
    return Events.of(replace(log, weight=None))


def test_a_lock_says_who_holds_it(tmp_path):
    with held(tmp_path / "lock", "steps it"):
        wanted = rf"is in use: process {os.getpid()} steps it. Wait until"
        with pytest.raises(UsageError, match=wanted) as caught, held(tmp_path / "lock", "steps it"):
            pass
        assert "a process that was killed holds nothing" in str(caught.value)
    with held(tmp_path / "lock", "steps it"):
        pass


def test_pairs_are_those_of_all_events_before_and_no_other_column_is_read(ledger, monkeypatch):
    assert [len(side) for side in ledger.pairs(9)] == [0, 0]
    for n in range(0, 6, 2):
        ledger.ingest(batch(("a", f"x{n}", n), (f"u{n}", "y", n + 1)), now=0.0)
    read_parquet, asked = pl.read_parquet, []
    monkeypatch.setattr(
        pl, "read_parquet", lambda path, **how: asked.append(how["columns"]) or read_parquet(path, **how)
    )
    user, item = ledger.pairs(3)
    assert asked == [["user", "item"], ["user", "item", "number"]], "numbers only where a segment goes on"
    rows = ledger.rows(0, 3)
    assert (user.tolist(), item.tolist()) == (rows.user.tolist(), rows.item.tolist())
    assert len(user) == 3


@pytest.mark.parametrize("ask", [lambda ledger: ledger.rows(), lambda ledger: ledger.pairs(9)])
def test_a_segment_that_is_gone_or_damaged_is_an_error_of_the_user(ledger, ask):
    ledger.ingest(batch(("a", "x", 1)), now=0.0)
    (segment,) = (ledger.folder / "segments").iterdir()
    segment.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=rf"The segment of events .*{segment.name} cannot be read .*Restore"):
        ask(ledger)
    segment.unlink()
    with pytest.raises(DataError, match=rf"The segment of events .*{segment.name} is gone"):
        ask(ledger)


def test_compaction_merges_the_segments_of_a_block_and_changes_no_event(ledger):
    for n in range(9):
        ledger.ingest(batch(("a", f"x{n}", n)), now=0.0)
    before = ledger.rows()
    assert ledger.counts()["segments"] == 9
    assert ledger.compact() == 5  # 4 into 1, 3 into 1; the open block's stay
    assert ledger.counts()["segments"] == len(list((ledger.folder / "segments").iterdir())) == 4
    after = ledger.rows()
    assert after.key.tolist() == before.key.tolist()
    assert after.number.tolist() == before.number.tolist()


def test_compaction_loses_no_time_where_a_batch_had_none(ledger):
    for n in range(2):
        ledger.ingest(batch(("a", f"x{n}", n)), now=0.0)
    for n in range(2):
        ledger.ingest(batch(("a", f"y{n}"), names=("user", "item")), now=0.0)
    assert len(ledger.blocks()) == 1
    assert ledger.compact() == 2
    assert ledger.compact() == 0
    assert ledger.rows(0, 2).timestamp.tolist() == [0, 1]
    assert ledger.rows(2, 4).timestamp is None
    assert ledger.rows().number.tolist() == [0, 1, 2, 3]


def test_events_that_were_dropped_are_not_taken_in_again(ledger):
    events = batch(*[("a", f"x{n}", n) for n in range(4)])
    ledger.ingest(events, now=0.0)
    assert ledger.drop(4) > 0
    assert len(ledger.rows()) == 0
    assert ledger.ingest(events, now=0.0).new == 0


def test_of_a_segment_that_reaches_into_the_next_block_the_old_events_are_dropped(ledger):
    events = batch(*[("a", f"x{n}", n) for n in range(6)])
    ledger.ingest(events, now=0.0)
    assert ledger.counts()["segments"] == 1
    size = ledger.counts()["segment_bytes"]
    assert ledger.drop(4) == size - ledger.counts()["segment_bytes"]
    assert ledger.rows().number.tolist() == [4, 5]
    assert ledger.rows().timestamp.tolist() == [4, 5]
    assert ledger.ingest(events, now=0.0).new == 0
    assert len(list((ledger.folder / "segments").iterdir())) == 1


def test_a_folder_without_a_stream_and_an_index_of_another_version_are_refused(tmp_path, ledger):
    with pytest.raises(UsageError, match=r"There is no stream at .*Begin one with `recdistill stream init`"):
        Ledger(tmp_path / "none", Rule(1, 1))
    ledger.index.run("UPDATE about SET value = '99' WHERE name = 'version'")
    with pytest.raises(DataError, match="has another version; got '99'"):
        Ledger(tmp_path / "s", Rule(1, 1))
    with pytest.raises(UsageError, match="needs at least 1 as 'events'; got 0"):
        Rule(1, 0)


@pytest.mark.parametrize("module", ["recdistill.ledger", "recdistill.stream.stream", "recdistill.stream.status"])
def test_importing_it_loads_neither_torch_nor_polars(module):
    code = f"import sys, {module}\nassert not {{'torch', 'polars'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
