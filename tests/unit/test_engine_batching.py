"""Engine 1: all jobs in each forward pass."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import msgspec
import pytest

from shared.errors import GenerationFailed
from tests.support import local_model
from tests.support.local_model import batching, generation, ids_of
from tests.support.waiting import wait_until
from worker.engine.feed import Generation, TokenFeed

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


def sizes_of_passes(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each forward pass from now on; it grows."""
    processor, sizes = engine._batch._manager.batch_processor, list[int]()
    step = processor._generation_step

    def counted(model: Any) -> None:
        sizes.append(processor.inputs_and_outputs.num_q_tokens)
        step(model)

    monkeypatch.setattr(processor, "_generation_step", counted)
    return sizes


def jobs_put_back(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each shortage of cache took out of the batch from now on; it grows."""
    manager, put_back = engine._batch._manager.batch_processor.offloading_manager, list[int]()
    offload = manager.offload_requests

    def counted() -> Any:
        before = len(manager.scheduler.active_requests)
        freed = offload()
        put_back.append(before - len(manager.scheduler.active_requests))
        return freed

    monkeypatch.setattr(manager, "offload_requests", counted)
    return put_back


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
        ids, reason = await ids_of(engine, generation("Hi", 200))
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
    n = 8
    sampled = generation(COUNT, n, temperature=1.2, seed=5)
    async with batching(monkeypatch) as engine:
        for wanted in (generation(COUNT, n), sampled):
            whole, _ = await ids_of(engine, wanted)
            for cut in (1, 4, n - 1):
                rest = generation(
                    (*wanted.ids, *whole[:cut]), n - cut, temperature=wanted.sampling.temperature, seed=wanted.sampling.seed
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
        assert engine._batch.requests == {}


async def test_what_prompts_begin_with_in_common_is_read_once_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are the same either way: what another job left in the cache is what this one would have put there."""
    from worker.engine.batching import PAGE_TOKENS

    before, wanted = generation("Say the number 1.", 2), generation("Name the days of the week.", 4)
    common = next(i for i, (one, other) in enumerate(zip(before.ids, wanted.ids, strict=False)) if one != other)
    assert common > PAGE_TOKENS, "the system turn of the chat template"
    read, answers = [], []
    for share_prompts in (True, False):
        async with batching(monkeypatch, share_prompts=share_prompts) as engine:
            await ids_of(engine, before)
            sizes = sizes_of_passes(engine, monkeypatch)
            answers.append(await ids_of(engine, wanted))
            read.append(sizes[0])
    assert read == [len(wanted.ids) - common // PAGE_TOKENS * PAGE_TOKENS, len(wanted.ids)]
    assert answers[0] == answers[1]


async def test_a_tenants_prompts_are_read_anew_for_everybody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """By how soon an answer begins nobody can tell what another has asked."""
    from worker.engine.batching import PAGE_TOKENS

    wanted = generation(COUNT, 4)
    whole = len(wanted.ids)
    rest = whole - (whole - 1) // PAGE_TOKENS * PAGE_TOKENS
    async with batching(monkeypatch) as engine:
        await ids_of(engine, generation("Hi", 2))
        sizes, read, answers = sizes_of_passes(engine, monkeypatch), [], []
        for tenant in ("one", "two", "one", "two", ""):
            sizes.clear()
            answers.append(await ids_of(engine, msgspec.structs.replace(wanted, tenant=tenant)))
            read.append(sizes[0])
    assert read[:4] == [whole, whole, rest, rest]
    assert rest < read[4] < whole, "the system turn of the chat template, which nobody's other prompt began with"
    assert answers == answers[:1] * 5


async def test_a_conversations_next_turn_reads_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.engine.batching import PAGE_TOKENS

    asked = generation(COUNT, 9)
    async with batching(monkeypatch) as engine:
        answer, _ = await ids_of(engine, asked)
        later = generation((*asked.ids, *answer, *asked.ids[-5:]), 1)
        sizes = sizes_of_passes(engine, monkeypatch)
        await ids_of(engine, later)
    known = len(asked.ids) + len(answer) - 1  # the last id was made, and never read
    assert sizes[0] == len(later.ids) - known // PAGE_TOKENS * PAGE_TOKENS


async def test_more_jobs_than_slots_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch, slots=2) as engine:
        together = await asyncio.gather(*(ids_of(engine, generation(COUNT, 4, f"{i}")) for i in range(5)))
    assert all(len(ids) == 4 for ids, _ in together)


async def test_jobs_that_outgrow_the_cache_together_all_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds one of them at full length: the other is put back, and goes on after it."""
    ids = local_model.prompt_of(COUNT)  # 28 take four pages of the cache's eight, and 39 a fifth; nothing begins alike
    wanted = [generation(ids[i : i + 28], 12, f"{i}", temperature=1.0, seed=i) for i in range(2)]
    async with batching(monkeypatch, context=64) as engine:
        assert engine.context == 64
        await ids_of(engine, generation(ids[:4], 1))  # too short to leave a page behind
        put_back = jobs_put_back(engine, monkeypatch)
        together = await asyncio.gather(*(ids_of(engine, one) for one in wanted))
        assert sum(put_back) > 0
        assert together == [await ids_of(engine, one) for one in wanted]


def break_at(monkeypatch: pytest.MonkeyPatch, poison: Generation, made: int = 0) -> list[int]:
    """From now on a forward pass raises whenever it is to compute for this prompt, once so many ids are made of its answer.
    Returns how many jobs were in each batch that died of it."""
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchProcessor

    step, died = ContinuousBatchProcessor._generation_step, []

    def failing(self: Any, model: Any) -> None:
        for state in self.scheduler.active_requests.values():
            ids = (*state.initial_tokens, *state.generated_tokens)
            if ids[: len(poison.ids)] == poison.ids and len(ids) >= len(poison.ids) + made:
                died.append(len(self.scheduler.active_requests) + len(self.scheduler.waiting_requests))
                raise RuntimeError("no kernel for this")
        step(self, model)

    monkeypatch.setattr(ContinuousBatchProcessor, "_generation_step", failing)
    return died


async def until_made(feed: TokenFeed, n: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < n:
        ids += await anext(feed)
    return ids


@pytest.mark.parametrize("made", [0, 3])
async def test_a_prompt_that_breaks_the_batch_fails_alone(monkeypatch: pytest.MonkeyPatch, made: int) -> None:
    """Its mates' answers are, id for id, what each gives alone: their readers notice nothing."""
    mates = [generation(f"Say the number {i}.", 7, f"mate-{i}", temperature=float(i), seed=i) for i in range(2)]
    poison = generation("Break it.", 7, "poison")
    async with batching(monkeypatch) as engine:
        alone = [await ids_of(engine, one) for one in mates]
        died = break_at(monkeypatch, poison, made)
        *answers, failure = await asyncio.gather(*(ids_of(engine, one) for one in [*mates, poison]), return_exceptions=True)
        assert answers == alone
        assert isinstance(failure, GenerationFailed)
        assert (failure.code, failure.retryable) == ("internal", False)
        assert "fails at this prompt: no kernel for this" in str(failure)
        assert died[-1] == 1, "it was alone when it was found guilty"
        assert len((await ids_of(engine, generation(COUNT, 3)))[0]) == 3


async def test_new_jobs_wait_while_others_are_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    poison = generation("Break it.", 8, "poison")
    async with batching(monkeypatch) as engine:
        died = break_at(monkeypatch, poison, 1)
        broken = asyncio.create_task(ids_of(engine, poison))
        await wait_until(lambda: engine._reviving is not None, message="the batch died")
        assert len((await ids_of(engine, generation(COUNT, 3)))[0]) == 3
        assert broken.done(), "what was lost came first"
        with pytest.raises(GenerationFailed):
            await broken
    assert died == [1, 1]


async def test_a_batch_that_dies_by_itself_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch) as engine:
        whole, _ = await ids_of(engine, generation(COUNT, 6))
        first = engine._batch
        async with engine.generate(generation(COUNT, 6)) as feed:
            ids = await until_made(feed, 3)
            monkeypatch.setattr(first._manager.batch_processor, "update_batch", lambda: 1 / 0)
            ids += [token async for batch in feed for token in batch]
        assert ids == whole
        assert engine._batch is not first


async def test_a_job_that_came_while_the_batch_was_dying_runs_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch) as engine:
        await ids_of(engine, generation(COUNT, 1))
        monkeypatch.setattr(engine._batch._manager, "add_request", lambda *_, request_id, **__: request_id)  # lost
        async with engine.generate(generation(COUNT, 3)) as feed:
            engine._batch._halt()
            assert len(await until_made(feed, 3)) == 3


async def test_an_error_of_one_request_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers reports it while the loop lives."""
    refused = generation("Break it.", 4, "refused")
    async with batching(monkeypatch) as engine, engine.generate(generation(COUNT, 16)) as feed:
        await anext(feed)
        batch, scheduler = engine._batch, engine._batch._manager.batch_processor.scheduler
        add = scheduler.add_waiting_request
        monkeypatch.setattr(
            scheduler, "add_waiting_request", lambda state: 1 / 0 if "refused" in state.request_id else add(state)
        )
        with pytest.raises(GenerationFailed, match="division by zero") as caught:
            await ids_of(engine, refused)
        assert caught.value.code == "internal"
        async for _ in feed:
            pass
        assert (feed.reason, engine._batch) == ("length", batch)


async def test_a_reader_may_leave_while_its_job_is_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    poison = generation("Break it.", 8, "poison")
    async with batching(monkeypatch) as engine:
        break_at(monkeypatch, poison)
        async with engine.generate(poison), engine.generate(generation(COUNT, 3)) as feed:
            await wait_until(lambda: engine._reviving is not None, message="the batch died")
        await wait_until(lambda: engine._reviving is None, message="nobody is left to be brought back")
        assert not feed.ended
        assert len((await ids_of(engine, generation(COUNT, 3)))[0]) == 3


async def test_a_batch_that_cannot_even_start_blames_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching(monkeypatch) as engine:
        from transformers import ContinuousBatchingManager

        def no_memory(_manager: Any) -> None:
            raise MemoryError("no room for a cache")

        monkeypatch.setattr(ContinuousBatchingManager, "_create_batch_processor", no_memory)
        with pytest.raises(GenerationFailed, match="cannot run: no room") as caught:
            await ids_of(engine, generation(COUNT, 3))
    assert caught.value.retryable


async def test_closing_ends_jobs_that_are_being_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    poison = generation("Break it.", 8, "poison")
    async with batching(monkeypatch) as engine, engine.generate(poison) as feed:
        break_at(monkeypatch, poison)
        await wait_until(lambda: engine._reviving is not None, message="the batch died")
        await engine.close()
        with pytest.raises(GenerationFailed) as caught:
            async for _ in feed:
                pass
        assert caught.value.code == "incomplete"


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
