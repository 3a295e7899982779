"""Engine 2: `generate()` in a thread a job, the same ids as engine 1."""

import asyncio

import pytest

from shared.errors import GenerationFailed
from tests.support import local_model
from tests.support.local_model import batching, generation, ids_of, streamer
from tests.support.waiting import wait_until
from worker.engine.streamer import THREADS

pytestmark = pytest.mark.model

COUNT = "Count from one to ten."


async def test_both_engines_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [generation(COUNT, 8), generation(COUNT, 8, temperature=1.2, top_p=0.9, seed=5), generation("Hi", 40)]
    async with batching(monkeypatch) as one, streamer() as two:
        assert [await ids_of(two, each) for each in wanted] == [await ids_of(one, each) for each in wanted]


async def test_a_job_goes_on_where_another_left_it() -> None:
    async with streamer() as engine:
        whole, _ = await ids_of(engine, generation(COUNT, 16))
        rest, _ = await ids_of(engine, generation((*local_model.prompt_of(COUNT), *whole[:9]), 7))
        assert whole[:9] + rest == whole


async def test_seeded_jobs_at_once_do_not_disturb_each_other() -> None:
    wanted = [generation(COUNT, 8, f"{seed}", temperature=1.0, seed=seed) for seed in (1, 2)]
    async with streamer() as engine:
        alone = [await ids_of(engine, one) for one in wanted]
        assert await asyncio.gather(*(ids_of(engine, one) for one in wanted)) == alone


async def test_leaving_stops_the_thread_and_gives_its_turn_away() -> None:
    async with streamer() as engine:
        async with engine.generate(generation(COUNT, 2_000)) as feed:
            await anext(feed)
            (run,) = engine._runs
        await wait_until(lambda: not run.thread.is_alive(), message="the thread ends")
        assert len((await ids_of(engine, generation(COUNT, 2)))[0]) == 2


async def test_more_jobs_than_threads_wait_their_turn() -> None:
    async with streamer() as engine:
        jobs = [asyncio.create_task(ids_of(engine, generation(COUNT, 4, f"{i}"))) for i in range(THREADS + 2)]
        most = 0
        for job in jobs:
            while not job.done():
                most = max(most, len(engine._runs))
                await asyncio.wait([job], timeout=0.02)
        assert most == THREADS
        assert all(len(job.result()[0]) == 4 for job in jobs)


async def test_who_stops_waiting_for_a_turn_takes_none() -> None:
    async with streamer() as engine:
        long = [asyncio.create_task(ids_of(engine, generation(COUNT, 2_000, f"{i}"))) for i in range(THREADS)]
        await wait_until(lambda: len(engine._runs) == THREADS)
        waiting = asyncio.create_task(ids_of(engine, generation(COUNT, 2)))
        await asyncio.sleep(0)
        for job in (waiting, *long):
            job.cancel()
        await asyncio.gather(waiting, *long, return_exceptions=True)
        assert len((await ids_of(engine, generation(COUNT, 2)))[0]) == 2


async def test_what_generate_raises_reaches_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    async with streamer() as engine:
        monkeypatch.setattr(local_model.loaded_model().model, "generate", lambda *_, **__: 1 / 0)
        with pytest.raises(GenerationFailed, match="division by zero") as caught:
            await ids_of(engine, generation(COUNT))
        assert caught.value.code == "internal"


async def test_closing_ends_open_streams() -> None:
    async with streamer() as engine, engine.generate(generation(COUNT, 2_000)) as feed:
        await anext(feed)
        (run,) = engine._runs
        await engine.close()
        with pytest.raises(GenerationFailed) as caught:
            async for _ in feed:
                pass
        assert caught.value.code == "incomplete"
        await wait_until(lambda: not run.thread.is_alive(), message="the thread ends")
