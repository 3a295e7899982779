"""A failed call is followed by another, where readers see it: every retry and fallback is an attempt (protocol 4.1)."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.errors import GenerationFailed
from shared.event_log import EventLog
from shared.events import Cancelled, Done, Error, Reasoning, Started, StartReason, Usage
from shared.fold import AttemptEnd
from shared.ids import EventId
from shared.job import JobFailure
from shared.job_queue import JobQueue
from shared.ownership import Ownership
from tests.integration.conftest import NewAuthor
from tests.support.bare_worker import BareWorker, bare_worker
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making
from tests.support.waiting import wait_until
from worker.control import Control, Leave

OVER = Leave("over")
BUSY = GenerationFailed("overloaded", "openai/any failed (503).")
LOCAL = "local/smollm2-135m-instruct"


async def starts(bare: BareWorker, job_id: str) -> list[Started]:
    return [entry.event for entry in await bare.log.read(job_id) if isinstance(entry.event, Started)]


def told(started: list[Started]) -> list[tuple[StartReason, str, bool]]:
    return [(event.reason, event.model, event.reset) for event in started]


# --- retries -------------------------------------------------------------------------------------------------------------


async def test_a_retry_that_succeeds_gives_the_text_once(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    provider.scripts = [[BUSY], [BUSY]]
    author = await new_queued()
    assert await bare.run(author.job_id) == OVER
    entries = await bare.entries(author.job_id)
    assert [str(entry.id) for entry in entries[:4]] == ["0-1", "1-0", "2-0", "3-0"]
    assert told(await starts(bare, author.job_id)) == [
        ("first", "openai/any", False),
        ("retry", "openai/any", False),
        ("retry", "openai/any", False),
    ]
    job = await bare.store.job(author.job_id)
    assert (job.status, job.text, job.error) == ("done", "Hello, world", None)


async def test_the_attempts_of_the_job_tell_what_each_failed_with(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    provider.scripts = [["Hel", Usage(5, 1), BUSY]]
    author = await new_queued()
    await bare.run(author.job_id)
    first, second = (await bare.store.job(author.job_id)).attempts
    assert first.error == JobFailure("overloaded", "openai/any failed (503).", retryable=True)
    assert (first.usage, second.error, second.usage) == (Usage(5, 1), None, Usage(7, 3))


async def test_usage_is_what_all_attempts_cost(bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider) -> None:
    """Protocol 2.2: what was paid."""
    provider.scripts = [["Hel", Usage(5, 1), BUSY]]
    author = await new_queued()
    await bare.run(author.job_id)
    assert (await bare.end_of(author.job_id)).usage == Usage(12, 4)


async def test_after_text_was_streamed_a_model_that_can_goes_on_from_it(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    provider.continues = True
    provider.script = ["one ", "two ", "three"]
    provider.scripts = [["one ", BUSY]]
    author = await new_queued()
    await bare.run(author.job_id)
    assert told(await starts(bare, author.job_id))[1] == ("retry", "openai/any", False)
    assert await bare.texts(author.job_id) == ["one ", "two ", "three"]
    assert provider.calls[1].prefix is not None
    assert provider.calls[1].prefix.text == "one "


@pytest.mark.parametrize(
    ("continues", "on_interrupt", "said"),
    [(False, "continue", "one "), (True, "restart", "one "), (True, "continue", Reasoning("hm"))],
)
async def test_else_the_reader_discards_it(
    bare: BareWorker,
    new_queued: NewAuthor,
    provider: ScriptedProvider,
    continues: bool,
    on_interrupt: str,
    said: str | Reasoning,
) -> None:
    """A model that cannot go on, a caller who wants it anew, half a thought: `reset: true`, and the text is there once."""
    provider.continues = continues
    provider.scripts = [[said, BUSY]]
    author = await new_queued(on_interrupt=on_interrupt)
    await bare.run(author.job_id)
    assert told(await starts(bare, author.job_id))[1] == ("retry", "openai/any", True)
    job = await bare.store.job(author.job_id)
    assert (job.text, job.reasoning) == ("Hello, world", "")


async def test_it_gives_up_with_what_it_failed_with_last(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    provider.script = ["so far", GenerationFailed("rate_limit", "Slow down.")]
    author = await new_queued()
    await bare.run(author.job_id)
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, end.partial, end.usage.output_tokens) == ("rate_limit", True, 6)
    assert len(provider.calls) == 3
    assert (await bare.store.job(author.job_id)).text == "so far"


@pytest.mark.parametrize("code", ["auth", "bad_request"])
async def test_what_only_a_person_can_mend_is_not_tried_again(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, code: str
) -> None:
    provider.script = [GenerationFailed(code, "Mend it.")]  # type: ignore[arg-type]
    author = await new_queued()
    await bare.run(author.job_id)
    assert len(provider.calls) == 1


async def test_a_retry_waits_as_long_as_it_was_asked_to(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    provider.scripts = [[GenerationFailed("rate_limit", "…", retry_after_s=0.3)]]
    author = await new_queued()
    begun = time.monotonic()
    await bare.run(author.job_id)
    assert time.monotonic() - begun >= 0.3
    assert isinstance(await bare.end_of(author.job_id), Done)


# --- told to stop in the pause -------------------------------------------------------------------------------------------


@pytest.fixture
async def pausing(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> AsyncIterator[tuple[str, Control, "asyncio.Task[Leave]"]]:
    """A job whose first call failed, and which waits for its second."""
    provider.scripts = [["so far", GenerationFailed("rate_limit", "…", retry_after_s=20)]]
    author, control = await new_queued(), Control()
    running = asyncio.create_task(bare.run(author.job_id, control))
    await wait_until(lambda: bool(provider.calls) and provider.open == 0, message="the first call has failed")
    await asyncio.sleep(0)
    yield author.job_id, control, running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


Pausing = tuple[str, Control, "asyncio.Task[Leave]"]


async def test_a_cancel_in_the_pause_ends_it_once_and_calls_nobody(
    bare: BareWorker, pausing: Pausing, provider: ScriptedProvider
) -> None:
    job_id, control, running = pausing
    control.stop("cancel")
    assert await running == OVER
    end = await bare.end_of(job_id)
    assert isinstance(end, Cancelled)
    assert end.partial
    assert len(provider.calls) == 1


async def test_a_cancel_whose_signal_is_still_on_its_way_is_seen_by_the_next_claim(
    redis: Redis, bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    """The durable flag behind the signal."""
    provider.scripts = [[GenerationFailed("rate_limit", "…", retry_after_s=0.2)]]
    author = await new_queued()
    running = asyncio.create_task(bare.run(author.job_id))
    await wait_until(lambda: bool(provider.calls), message="the first call")
    await redis.hset(keys.job(author.job_id), "cancel", "1")  # type: ignore[misc]
    assert await running == OVER
    assert isinstance(await bare.end_of(author.job_id), Cancelled)
    assert len(provider.calls) == 1


async def test_a_hand_over_in_the_pause_counts_as_no_failed_call(
    bare: BareWorker, pausing: Pausing, provider: ScriptedProvider, redis: Redis
) -> None:
    job_id, control, running = pausing
    control.stop("handover")
    assert await running == Leave("handover")
    await redis.hset(keys.job(job_id), "handover", "1")  # type: ignore[misc]  # what `release` does
    await redis.hdel(keys.job(job_id), "owner")  # type: ignore[misc]
    assert await bare.run(job_id) == OVER
    assert [event.reason for event in await starts(bare, job_id)] == ["first", "handover"]


async def test_a_job_lost_in_the_pause_is_left_alone(bare: BareWorker, pausing: Pausing) -> None:
    job_id, control, running = pausing
    control.stop("lost")
    assert await running == Leave("lost")
    assert len(await starts(bare, job_id)) == 1


# --- fallbacks -----------------------------------------------------------------------------------------------------------


async def test_fallbacks_are_tried_in_order(bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider) -> None:
    provider.scripts = [[GenerationFailed("auth", "No key.")], [GenerationFailed("bad_request", "No such model.")]]
    author = await new_queued(fallbacks=["openai/second", "openai/third"])
    await bare.run(author.job_id)
    assert told(await starts(bare, author.job_id)) == [
        ("first", "openai/any", False),
        ("fallback", "openai/second", False),
        ("fallback", "openai/third", False),
    ]
    assert [call.model for call in provider.calls] == ["any", "second", "third"]
    job = await bare.store.job(author.job_id)
    assert (job.status, job.model, job.text) == ("done", "openai/any", "Hello, world")


async def test_a_takeover_stays_with_the_model_that_the_job_was_at(
    bare: BareWorker, redis: Redis, event_log: EventLog, new_author: NewAuthor, provider: ScriptedProvider
) -> None:
    """Its worker died at a fallback; what failed before that is not tried again."""
    author = await new_author(fallbacks=["openai/second"])
    assert author.owner is not None
    before = AttemptEnd(Usage(1, 0), JobFailure("auth", "No key.", retryable=False))
    await event_log.again(author.owner, author.last, "w1", "openai/second", "fallback", reset=False, before=before)
    await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]
    await bare.run(author.job_id)
    assert told(await starts(bare, author.job_id))[2] == ("takeover", "openai/second", False)
    assert provider.calls[0].model == "second"


async def test_a_fallback_in_another_lane_goes_to_a_worker_there(
    redis: Redis, make_settings: Making, job_queue: JobQueue, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    settings = make_settings(lease_s=60, lanes=("api", "local"))
    here, there = ScriptedProvider([GenerationFailed("auth", "No key.")]), ScriptedProvider(["by ", "heart"], name="local")
    author = await new_queued(fallbacks=[LOCAL])
    async with bare_worker(redis, settings, here) as api, bare_worker(redis, settings, there) as local:
        # A worker of a lane has the providers of all that the job asks for only in its own lane.
        api.providers["local"] = there
        assert await api.run(author.job_id) == Leave("lost")
        assert there.calls == []
        assert await redis.zscore(keys.queue("api"), author.job_id) is None
        assert await redis.zscore(keys.queue("local"), author.job_id) is not None
        assert await redis.lrange(keys.wake("local"), 0, -1) == [b"1"]  # type: ignore[misc]

        assert await local.run(author.job_id) == OVER
        assert told(await starts(local, author.job_id)) == [("first", "openai/any", False), ("fallback", LOCAL, False)]
        job = await local.store.job(author.job_id)
    assert (job.status, job.text) == ("done", "by heart")
    assert job.attempts[0].error == JobFailure("auth", "No key.", retryable=False)
    assert await redis.zrange(keys.open_jobs("api"), 0, -1) == await redis.zrange(keys.open_jobs("local"), 0, -1) == []


async def test_a_cancel_on_the_way_to_another_lane_reaches_no_provider(
    redis: Redis, make_settings: Making, job_queue: JobQueue, new_queued: NewAuthor
) -> None:
    settings = make_settings(lease_s=60, lanes=("api", "local"))
    here, there = ScriptedProvider([GenerationFailed("auth", "No key.")]), ScriptedProvider(name="local")
    author = await new_queued(fallbacks=[LOCAL])
    async with bare_worker(redis, settings, here) as api, bare_worker(redis, settings, there) as local:
        api.providers["local"] = there
        await api.run(author.job_id)
        assert await job_queue.cancel(author.job_id) == "asked"
        assert await local.run(author.job_id) == OVER
        assert isinstance(await local.end_of(author.job_id), Cancelled)
    assert there.calls == []


# --- the scripts ---------------------------------------------------------------------------------------------------------


async def test_the_next_attempt_is_claimed_once_however_often_it_is_asked_for(
    event_log: EventLog, new_author: NewAuthor
) -> None:
    """A reply may be lost."""
    author = await new_author()
    assert author.owner is not None
    await author.say("so far")
    before = AttemptEnd(Usage(1, 1), JobFailure("overloaded", "…", retryable=True))

    async def ask(owner: Ownership) -> Ownership | None:
        return await event_log.again(owner, author.last, "w1", "openai/any", "retry", reset=True, before=before)

    asked = await ask(author.owner)
    assert asked is not None
    assert (asked.lease, asked.attempt, asked.reason) == (author.owner.lease, 2, "retry")
    assert await ask(author.owner) == asked
    assert [str(entry.id) for entry in await event_log.read(author.job_id)] == ["0-1", "1-0", "1-1", "2-0"]


async def test_the_attempt_before_may_write_no_more(
    redis: Redis, bare: BareWorker, event_log: EventLog, new_author: NewAuthor
) -> None:
    """P5: one owner, and of its attempts the newest."""
    author = await new_author()
    assert author.owner is not None
    before = AttemptEnd(Usage(), JobFailure("overloaded", "…", retryable=True))
    await event_log.again(author.owner, EventId(1, 0), "w1", "openai/any", "retry", reset=False, before=before)
    out = bare.writer.open(author.owner)
    await out.append(Reasoning("late"))
    with pytest.raises(Exception, match="ends at 2-0"):
        await out.flush()
