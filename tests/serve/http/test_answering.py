"""A batch answers every query as if it were alone, and one queue keeps its order."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from recdistill.data.csr import Csr
from recdistill.ids import IdTable
from recdistill.serve.http.answering import answer
from recdistill.serve.http.batching import Batcher
from recdistill.serve.http.messages import Query
from recdistill.serve.http.version import opened


@pytest.fixture(scope="module")
def version(tmp_path_factory, save):
    chance = np.random.default_rng(1)
    path = save(
        tmp_path_factory.mktemp("many") / "b",
        arrays={name: chance.normal(size=(n, 3)).astype(np.float32) for name, n in (("user", 9), ("item", 40))},
        users=IdTable.from_ids([f"u{n}" for n in range(9)]),
        items=IdTable.from_ids([f"i{n}" for n in range(40)]),
        seen=Csr.from_pairs(chance.integers(0, 9, 60), chance.integers(0, 40, 60), 9, 40),
        popular=np.arange(20),
    )
    return opened(path)


items = st.lists(st.integers(0, 45).map(lambda n: f"i{n}"), max_size=8)
queries = st.builds(
    Query,
    user=st.one_of(st.just(UNSET), st.integers(0, 11).map(lambda n: f"u{n}")),
    history=st.one_of(st.just(UNSET), items),
    k=st.integers(1, 60),
    exclude=items,
    candidates=st.one_of(st.just(UNSET), items),
    available=st.one_of(st.just(UNSET), items),
    filter_seen=st.booleans(),
)


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked=st.lists(queries, min_size=1, max_size=12))
def test_a_query_in_a_batch_is_answered_as_it_is_alone(version, asked):
    for together, query in zip(answer(version, asked), asked, strict=True):
        (alone,) = answer(version, [query])
        assert (together.items, together.scores, together.why) == (alone.items, alone.scores, alone.why)
        assert together.notes == alone.notes
        told = set(together.items)
        assert len(told) == len(together.items) <= query.k
        assert told.isdisjoint(query.exclude)
        for only in (query.candidates, query.available):
            assert only is UNSET or told <= set(only)
        if query.filter_seen and query.history is not UNSET and together.why != "popular":
            assert told.isdisjoint(query.history)


def doubled(queries):
    return [2 * query for query in queries]


def test_queries_that_come_together_are_one_batch_and_keep_their_order():
    sizes = []

    async def many():
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(doubled, worker, size=8, wait=0.02, watch=lambda n, *_: sizes.append(n))
            told = await asyncio.gather(*(batcher.ask([n, -n]) for n in range(10)))
            assert [[done.answer for done in pair] for pair in told] == [[2 * n, -2 * n] for n in range(10)]
            assert {done.size for pair in told for done in pair} == set(sizes)

    asyncio.run(many())
    assert sum(sizes) == 20
    assert max(sizes) == 8


def test_the_loop_stays_free_while_a_batch_is_computed_and_what_comes_meanwhile_waits_together():
    held = threading.Event()
    seen = []

    def work(queries):
        seen.append(list(queries))
        if len(seen) == 1:
            assert held.wait(10)
        return queries

    async def many():
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(work, worker, size=64, wait=0.0)
            first = asyncio.create_task(batcher.ask([1]))
            while not seen:
                await asyncio.sleep(0.001)
            rest = [asyncio.create_task(batcher.ask([n])) for n in (2, 3, 4)]
            await asyncio.sleep(0.01)  # the loop turns
            held.set()
            await asyncio.gather(first, *rest)

    asyncio.run(many())
    assert seen == [[1], [2, 3, 4]]


def test_who_stopped_waiting_is_not_computed_and_an_error_reaches_those_who_wait():
    seen = []

    def work(queries):
        seen.append(list(queries))
        time.sleep(0.02)
        if 7 in queries:
            raise ValueError("seven")
        return queries

    async def many():
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(work, worker, size=64, wait=0.0)
            first = asyncio.create_task(batcher.ask([1]))
            await asyncio.sleep(0.01)
            gone, stays = asyncio.create_task(batcher.ask([2])), asyncio.create_task(batcher.ask([3]))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(first, stays)
            with pytest.raises(ValueError, match="seven"):
                await batcher.ask([7])
            assert (await batcher.ask([8]))[0].answer == 8  # the queue goes on
            await batcher.drained()

    asyncio.run(many())
    assert seen == [[1], [3], [7], [8]]


def test_drained_waits_for_everything_that_was_asked():
    async def many():
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(doubled, worker, size=2, wait=60.0)
            asked = asyncio.create_task(batcher.ask([1]))
            await asyncio.sleep(0)
            await batcher.drained()
            assert asked.done() or (await asyncio.wait_for(asked, 1))[0].answer == 2

    asyncio.run(many())
