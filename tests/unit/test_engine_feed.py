"""One job's ids from an engine's thread to the event loop."""

import asyncio
import threading

import pytest

from shared.errors import GenerationFailed
from worker.engine.feed import TokenFeed


async def test_ids_come_in_order_and_what_piled_up_as_one() -> None:
    feed = TokenFeed()
    feed.push([1])
    feed.push([2, 3])
    assert await anext(feed) == [1, 2, 3]
    reading = asyncio.create_task(anext(feed))
    await asyncio.sleep(0)
    feed.push([4])
    assert await reading == [4]


async def test_it_ends_after_its_last_ids() -> None:
    feed = TokenFeed()
    feed.push([1])
    feed.end("length")
    assert [ids async for ids in feed] == [[1]]
    assert feed.reason == "length"


async def test_a_failure_comes_after_the_ids_before_it() -> None:
    feed = TokenFeed()
    feed.push([1])
    feed.fail(GenerationFailed("internal", "broken"))
    assert await anext(feed) == [1]
    for _ in range(2):
        with pytest.raises(GenerationFailed, match="broken"):
            await anext(feed)


async def test_the_first_ending_stands() -> None:
    feed = TokenFeed()
    feed.end("stop")
    feed.fail(GenerationFailed("internal", "late"))
    feed.end("length")
    assert [ids async for ids in feed] == []
    assert feed.reason == "stop"


async def test_a_thread_feeds_it_through_the_loop() -> None:
    feed, loop = TokenFeed(), asyncio.get_running_loop()

    def work() -> None:
        for i in range(100):
            loop.call_soon_threadsafe(feed.push, [i])
        loop.call_soon_threadsafe(feed.end, "stop")

    thread = threading.Thread(target=work)
    thread.start()
    assert [i async for ids in feed for i in ids] == list(range(100))
    thread.join()
