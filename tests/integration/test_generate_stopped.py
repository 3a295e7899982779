"""The job function, told to stop, superseded, or cut off from Redis (protocol P2, P5, P6)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.event_log import ClaimRefused, EventLog
from shared.events import Cancelled, Done, Usage
from shared.ids import EventId
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.ownership import Lease, Ownership
from shared.redis_client import Arg, scripts
from tests.integration.conftest import NewAuthor
from tests.support.author import Author, lease
from tests.support.bare_worker import BareWorker
from tests.support.scripted_provider import ScriptedProvider
from tests.support.waiting import wait_until
from worker.control import Control, Leave
from worker.writer import Writer

OVER = Leave("over")


# --- being stopped -------------------------------------------------------------------------------------------------------


async def _until_text(bare: BareWorker, job_id: str) -> None:
    await wait_until(lambda: _has_text(bare, job_id), message="the first token is in the log")


async def _has_text(bare: BareWorker, job_id: str) -> bool:
    return bool(await bare.texts(job_id))


@pytest.fixture
async def streaming(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> AsyncIterator[tuple[Author, Control, "asyncio.Task[Leave]"]]:
    """A job in mid-stream: one token is in the log, the provider is silent."""
    provider.script, provider.gate = [" a", " b", " c", " d", " e", " f"], asyncio.Event()
    provider.pace_s = 0.02
    provider.gate.set()
    author, control = await new_queued(), Control()
    running = asyncio.create_task(bare.run(author.job_id, control))
    await _until_text(bare, author.job_id)
    provider.gate.clear()
    yield author, control, running
    provider.gate.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


Streaming = tuple[Author, Control, "asyncio.Task[Leave]"]


async def test_a_cancel_in_mid_stream(bare: BareWorker, streaming: Streaming, provider: ScriptedProvider) -> None:
    """P6: text and usage so far are kept."""
    author, control, running = streaming
    control.stop("cancel")
    assert await running == OVER
    assert provider.open == 0
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Cancelled)
    assert end.partial
    assert end.usage.output_tokens == len(await bare.texts(author.job_id))


async def test_a_hand_over_in_mid_stream_leaves_the_job_open(
    bare: BareWorker, streaming: Streaming, provider: ScriptedProvider
) -> None:
    author, control, running = streaming
    control.stop("handover")
    assert await running == Leave("handover")
    assert provider.open == 0
    assert (await bare.store.record(author.job_id)).is_open
    entries = await bare.log.read(author.job_id)
    assert not any(entry.event.terminal for entry in entries)


async def test_a_lost_lease_stops_the_attempt(bare: BareWorker, streaming: Streaming, provider: ScriptedProvider) -> None:
    author, control, running = streaming
    control.stop("lost")
    assert await running == Leave("lost")
    assert provider.open == 0
    assert (await bare.store.record(author.job_id)).is_open


async def test_an_attempt_that_was_superseded_stops_by_itself(
    bare: BareWorker, streaming: Streaming, provider: ScriptedProvider, redis: Redis
) -> None:
    """P5: the log refuses the next token."""
    author, _, running = streaming
    author.last = (await bare.log.last_ids([author.job_id]))[0] or author.last
    await author.claim(worker="w3")
    assert provider.gate is not None
    provider.gate.set()
    assert await running == Leave("lost")
    last = (await bare.log.read(author.job_id))[-1]
    assert last.id == EventId(2, 0)


async def test_an_erased_job_stops_by_itself(
    bare: BareWorker, streaming: Streaming, provider: ScriptedProvider, job_queue: JobQueue, redis: Redis
) -> None:
    author, _, running = streaming
    await job_queue.erase(author.job_id)
    assert provider.gate is not None
    provider.gate.set()
    assert await running == OVER
    assert not await redis.exists(keys.log(author.job_id), keys.job(author.job_id))


async def test_a_log_that_lost_its_tail_is_written_again(
    bare: BareWorker, streaming: Streaming, provider: ScriptedProvider
) -> None:
    author, _, running = streaming
    await author.lose_after(EventId(1, 0))
    assert provider.gate is not None
    provider.gate.set()
    assert await running == OVER
    assert "".join(await bare.texts(author.job_id)) == " a b c d e f"
    assert [str(entry.id) for entry in await bare.entries(author.job_id)][:3] == ["0-1", "1-0", "1-1"]


async def test_a_log_that_lost_what_is_held_no_longer_hands_the_job_over(
    bare: BareWorker, streaming: Streaming, provider: ScriptedProvider
) -> None:
    """What the log holds is the truth; the next attempt goes on from it."""
    author, _, running = streaming
    (out,) = bare.writer._logs
    out.let_go(0.0, alive_at=0.0)
    out.let_go(0.0, alive_at=1e9)
    await author.lose_after(EventId(1, 0))
    assert provider.gate is not None
    provider.gate.set()
    assert await running == Leave("handover")


@pytest.mark.parametrize("option", [("maxmemory", 1_000_000), ("min-replicas-to-write", 1)])
async def test_a_redis_that_takes_no_writes_is_a_pause(
    bare: BareWorker, streaming: Streaming, provider: ScriptedProvider, redis: Redis, option: tuple[str, int]
) -> None:
    """Full, or with too few replicas (protocol P5)."""
    author, _, running = streaming
    await redis.config_set(*option)
    try:
        assert provider.gate is not None
        provider.gate.set()
        await wait_until(lambda: bare.writer._pause > 0.1, message="a second try was refused")
        assert not running.done()
    finally:
        await redis.config_set(option[0], 0)
    assert await running == OVER
    assert "".join(await bare.texts(author.job_id)) == " a b c d e f"


@pytest.mark.parametrize("reason", ["cancel", "handover", "lost"])
async def test_told_to_stop_before_it_began_it_calls_no_provider(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, reason: str
) -> None:
    author, control = await new_queued(), Control()
    control.stop(reason)  # type: ignore[arg-type]
    leave = await bare.run(author.job_id, control)
    assert leave == {"cancel": OVER, "handover": Leave("handover"), "lost": Leave("lost")}[reason]
    assert provider.calls == []


async def test_a_cancel_asked_for_after_its_worker_died(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider, job_queue: JobQueue
) -> None:
    """Protocol 2: the next claim writes `cancelled` without calling a provider."""
    author = await orphan("a")
    assert await job_queue.cancel(author.job_id) == "asked"
    assert await bare.run(author.job_id) == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Cancelled)
    assert (end.partial, end.usage.output_tokens, provider.calls) == (True, 1, [])


# --- claims that are not granted, and replies that are lost --------------------------------------------------------------


async def test_a_job_that_is_over_or_gone_is_left_alone(
    bare: BareWorker, new_author: NewAuthor, provider: ScriptedProvider
) -> None:
    author = await new_author()
    await author.end()
    assert await bare.run(author.job_id) == OVER
    assert await bare.run("job_" + "a" * 26) == OVER
    assert provider.calls == []


async def test_a_takeover_waits_for_an_owner_that_may_live(
    bare: BareWorker, new_author: NewAuthor, provider: ScriptedProvider
) -> None:
    author = await new_author()
    leave = await bare.run(author.job_id)
    assert leave.how == "later"
    assert 0 < leave.after_ms <= 60_000
    assert provider.calls == []


async def test_a_lease_that_is_anothers(bare: BareWorker, new_queued: NewAuthor, redis: Redis) -> None:
    author = await new_queued()
    mine = await lease(redis, author.job_id)
    await lease(redis, author.job_id)
    assert await bare.run(author.job_id, given=mine) == Leave("lost")


@pytest.mark.parametrize("on_interrupt", ["continue", "fail"])
async def test_a_claim_whose_reply_was_lost_is_ours_all_the_same(
    bare: BareWorker,
    new_queued: NewAuthor,
    provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
    on_interrupt: str,
) -> None:
    """Redis went away between the script and its answer: no worker was lost, nothing was paid twice."""
    real = EventLog.claim
    calls = 0

    async def claim(self: EventLog, given: Lease, *args: object, **more: object) -> Ownership | ClaimRefused:
        nonlocal calls
        answer = await real(self, given, *args, **more)  # type: ignore[arg-type]
        calls += 1
        if calls == 1:
            raise RedisConnectionError("the reply is lost")
        return answer

    monkeypatch.setattr(EventLog, "claim", claim)
    author = await new_queued(on_interrupt=on_interrupt)
    assert await bare.run(author.job_id) == OVER
    entries = await bare.entries(author.job_id)
    assert [str(entry.id) for entry in entries] == ["0-1", "1-0", "1-1", "1-2", "1-3", "1-4"]
    assert (await bare.end_of(author.job_id)).usage == Usage(7, 3)


async def test_redis_away_right_after_the_claim(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reads = JobStore.record, 0

    async def record(self: JobStore, job_id: str) -> object:
        nonlocal reads
        reads += 1
        if reads == 2:
            raise RedisConnectionError("away")
        return await real(self, job_id)

    monkeypatch.setattr(JobStore, "record", record)
    author = await new_queued(on_interrupt="fail")
    assert await bare.run(author.job_id) == OVER
    assert (await bare.end_of(author.job_id)).usage == Usage(7, 3)
    assert len(provider.calls) == 1


async def test_an_end_that_redis_did_not_take_is_offered_until_it_does(
    bare: BareWorker, new_queued: NewAuthor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = Writer._run, 0
    end = scripts.command("end", [], [])[1]

    async def run(self: Writer, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        nonlocal tries
        if not any(command[1] == end for command in commands):
            return await real(self, commands)
        tries += 1
        if tries == 2:
            await real(self, commands)  # written, but the reply is lost
        if tries < 3:
            raise RedisConnectionError("away")
        return await real(self, commands)

    monkeypatch.setattr(Writer, "_run", run)
    author = await new_queued()
    assert await bare.run(author.job_id) == OVER
    assert isinstance(await bare.end_of(author.job_id), Done)
    assert tries == 3
