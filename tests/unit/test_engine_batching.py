"""Engine 1: all jobs in each forward pass."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

from shared.errors import GenerationFailed
from tests.support import local_model
from tests.support.local_model import batching, generation, ids_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.model

COUNT = "Count from one to ten."


def active(engine: Any) -> int:
    """Jobs that the manager still computes for."""
    scheduler = engine._batch._manager.batch_processor.scheduler
    return len(scheduler.active_requests) + len(scheduler.waiting_requests)


def forward_passes(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each forward pass from now on was over; it grows."""
    processor, passes = engine._batch._manager.batch_processor, list[float]()
    update = processor.update_batch

    def counted(*args: Any) -> Any:
        passes.append(time.monotonic())
        return update(*args)

    monkeypatch.setattr(processor, "update_batch", counted)
    return passes


async def test_jobs_at_once_give_what_each_gives_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [generation(f"Say the number {i}.", 6 + i, f"job-{i}") for i in range(3)]
    async with batching(monkeypatch) as engine:
        alone = [await ids_of(engine, one) for one in wanted]
        together = await asyncio.gather(*(ids_of(engine, one) for one in wanted))
    assert together == alone
    assert [len(ids) for ids, reason in alone if reason == "length"] == [
        one.max_new_tokens for one, (_, reason) in zip(wanted, alone, strict=True) if reason == "length"
    ]


async def test_it_is_what_plain_generate_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    wanted, model = generation(COUNT, 16), local_model.loaded_model().model
    ids = torch.tensor([wanted.ids])
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
    async with batching(monkeypatch) as engine:
        assert (await ids_of(engine, wanted))[0] == plain[0, ids.shape[1] :].tolist()


async def test_the_end_token_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch) as engine:
        ids, reason = await ids_of(engine, generation("Say hi", 200))
    assert reason == "stop"
    assert ids[-1] in local_model.loaded_model().eos_ids


async def test_each_job_has_its_own_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = [generation(COUNT, job_id=f"{seed}", temperature=1.5, top_p=0.95, seed=seed) for seed in (1, 1, 2)]
    async with batching(monkeypatch) as engine:
        greedy = await ids_of(engine, generation(COUNT))
        *seeded, between = await asyncio.gather(*(ids_of(engine, one) for one in [*hot, generation(COUNT)]))
    assert between == greedy
    assert seeded[0] == seeded[1]
    assert seeded[0] != seeded[2]
    assert greedy not in seeded


async def test_a_job_goes_on_where_another_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = generation(COUNT, 16, temperature=1.2, seed=5)
    async with batching(monkeypatch) as engine:
        for wanted in (generation(COUNT, 16), sampled):
            whole, _ = await ids_of(engine, wanted)
            for cut in (1, 7, 15):
                rest = generation(
                    (*wanted.ids, *whole[:cut]), 16 - cut, temperature=wanted.sampling.temperature, seed=wanted.sampling.seed
                )
                assert whole[:cut] + (await ids_of(engine, rest))[0] == whole


async def test_leaving_frees_the_slot_within_a_forward_pass_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch, slots=1) as engine:
        async with engine.generate(generation(COUNT, 500)) as feed:
            await anext(feed)
            passes = forward_passes(engine, monkeypatch)
        left_at = len(passes)
        await wait_until(lambda: active(engine) == 0, message="the cancelled job leaves the batch")
        assert len(passes) - left_at <= 1, "the one that was under way"
        assert len((await ids_of(engine, generation(COUNT, 3)))[0]) == 3
        assert engine._batch._manager.output_router.result_handlers == {}
        assert engine._batch._requests == {}


async def test_more_jobs_than_slots_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch, slots=2) as engine:
        together = await asyncio.gather(*(ids_of(engine, generation(COUNT, 4, f"{i}")) for i in range(5)))
    assert all(len(ids) == 4 for ids, _ in together)


async def test_jobs_that_outgrow_the_cache_together_all_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds one of them at full length: the others are put back and read again."""
    wanted = [generation(COUNT, 50, f"{i}", temperature=1.0, seed=i) for i in range(2)]
    async with batching(monkeypatch, context=96) as engine:
        assert engine.context == 96
        alone = [await ids_of(engine, one) for one in wanted]
        assert await asyncio.gather(*(ids_of(engine, one) for one in wanted)) == alone


async def test_a_dying_batch_fails_its_jobs_and_the_next_job_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch) as engine:
        async with engine.generate(generation(COUNT, 500)) as feed:
            await anext(feed)
            first = engine._batch
            monkeypatch.setattr(first._manager.batch_processor, "update_batch", lambda: 1 / 0)
            with pytest.raises(GenerationFailed, match="division by zero") as caught:
                async for _ in feed:
                    pass
        assert caught.value.code == "internal"
        assert len((await ids_of(engine, generation(COUNT, 3)))[0]) == 3
        assert engine._batch is not first


async def test_a_job_that_came_while_the_batch_was_dying_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch) as engine:
        await ids_of(engine, generation(COUNT, 1))
        monkeypatch.setattr(engine._batch._manager, "add_request", lambda *_, request_id, **__: request_id)  # lost
        async with engine.generate(generation(COUNT)) as feed:
            engine._batch._halt()
            with pytest.raises(GenerationFailed, match="batch died"):
                await anext(feed)


async def test_closing_ends_open_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch) as engine, engine.generate(generation(COUNT, 500)) as feed:
        await anext(feed)
        thread = engine._batch._thread
        await engine.close()
        with pytest.raises(GenerationFailed) as caught:
            async for _ in feed:
                pass
        assert caught.value.code == "incomplete"
        thread.join(1)
        assert not thread.is_alive()


@pytest.mark.parametrize("ending", ["closed", "left"])
def test_a_process_ends_while_it_generates(ending: str) -> None:
    """As a worker at SIGTERM, and as one that forgot to close: no thread keeps it, and it does not crash."""
    script = f"""
        import asyncio, signal, sys
        from shared.settings import Settings
        from tests.support.local_model import call
        from worker.providers.local import LocalProvider

        async def main():
            provider, stop = LocalProvider(Settings()), asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            await provider.start()
            async with provider.stream(call("Count to one thousand.", 5000)) as deltas:
                await anext(deltas)
                print("generating", flush=True)
                await stop.wait()
                if {ending!r} == "closed":
                    await provider.close()
                else:
                    sys.exit(0)

        asyncio.run(main())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=dict(os.environ))
    try:
        assert process.stdout is not None
        while process.stdout.readline() not in (b"generating\n", b""):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.communicate()
