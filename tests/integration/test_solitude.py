"""A job that lost several workers runs alone, and whoever ran beside it is not charged (docs/decisions/0027)."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.errors import Superseded
from shared.event_log import EventLog
from shared.events import Cancelled, Error
from shared.job import Solitude
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from tests.integration.conftest import NewAuthor
from tests.support.author import MODEL, Author, request
from tests.support.bare_worker import BareWorker
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, running_worker
from tests.support.waiting import until_time, wait_until
from worker.control import Control, Leave, StopReason

Suspect = tuple[Author, Control, "asyncio.Task[Leave]"]


@pytest.fixture
def suspect(orphan: NewAuthor, redis: Redis) -> NewAuthor:
    """A job whose last worker died, and one before that."""

    async def make(*words: str, **fields: object) -> Author:
        author = await orphan(*words, **fields)
        await redis.hset(keys.job(author.job_id), "losses", "1")  # type: ignore[misc]
        return author

    return make


async def solitude_of(store: JobStore, job_id: str) -> Solitude | None:
    return (await store.record(job_id)).solitude


async def until_solitude(store: JobStore, job_id: str, wanted: Solitude | None) -> None:
    async def reached() -> bool:
        return await solitude_of(store, job_id) == wanted

    await wait_until(reached, message=f"{job_id} is {wanted}")


# --- what the record says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solitude", "counted"), [(None, (1, 0)), ("alone", (1, 1)), ("waits", (0, 0))])
async def test_a_loss_is_counted_by_how_its_worker_had_the_job(
    new_queued: NewAuthor, job_store: JobStore, solitude: Solitude | None, counted: tuple[int, int]
) -> None:
    author = await new_queued()
    await author.claim(solitude=solitude)
    assert await solitude_of(job_store, author.job_id) == solitude
    assert (await author.claim()).reason == "takeover"
    record = await job_store.record(author.job_id)
    assert ((record.losses, record.lost_alone), record.solitude) == (counted, None)


async def test_a_claim_says_in_the_same_step_that_another_is_alone_no_more(new_queued: NewAuthor, job_store: JobStore) -> None:
    first, second = await new_queued(), await new_queued()
    await first.claim(solitude="alone")
    await second.claim(beside=first.job_id)
    assert await solitude_of(job_store, first.job_id) is None


async def test_only_the_owner_says_anew_how_it_has_the_job(
    new_queued: NewAuthor, job_store: JobStore, event_log: EventLog
) -> None:
    author = await new_queued()
    old = await author.claim(solitude="waits")
    await event_log.note_solitude(old, "alone")
    assert await solitude_of(job_store, author.job_id) == "alone"
    await author.claim(solitude="waits")
    with pytest.raises(Superseded):
        await event_log.note_solitude(old, None)
    assert await solitude_of(job_store, author.job_id) == "waits"


@pytest.mark.parametrize("company", ["comes", "goes"])
async def test_company_that_changes_during_a_claim_is_told_before_the_provider_is_called(
    bare: BareWorker,
    suspect: NewAuthor,
    new_queued: NewAuthor,
    job_store: JobStore,
    provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
    company: str,
) -> None:
    author = await (new_queued() if company == "comes" else suspect("Hello"))
    other = None if company == "comes" else bare.company.enter("another")
    claim, said = bare.log.claim, []

    async def changing(*args: Any, **kwargs: Any) -> Any:
        if other is None:
            bare.company.enter("another")
        else:
            other.leave()
        said.append(kwargs["solitude"])
        return await claim(*args, **kwargs)

    monkeypatch.setattr(bare.log, "claim", changing)
    provider.gate = asyncio.Event()
    running = asyncio.create_task(bare.run(author.job_id))
    await wait_until(lambda: provider.open == 1)
    assert (said, await solitude_of(job_store, author.job_id)) == (
        (["alone"], None) if company == "comes" else (["waits"], "alone")
    )
    provider.gate.set()
    assert await running == Leave("over")


# --- waiting -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def waiting(bare: BareWorker, suspect: NewAuthor, job_store: JobStore) -> AsyncIterator[Suspect]:
    """A suspect, claimed by a worker that runs another job."""
    author, control = await suspect("Hello"), Control()
    other = bare.company.enter("another")
    assert other is not None
    running = asyncio.create_task(bare.run(author.job_id, control))
    await until_solitude(job_store, author.job_id, "waits")
    yield author, control, running
    other.leave()
    await running


@pytest.mark.parametrize(
    ("reason", "leave"), [("cancel", Leave("over")), ("handover", Leave("handover")), ("lost", Leave("lost"))]
)
async def test_its_wait_ends_at_once_when_it_is_told_to_stop(
    bare: BareWorker, waiting: Suspect, provider: ScriptedProvider, reason: StopReason, leave: Leave
) -> None:
    author, control, running = waiting
    assert (await bare.started(author.job_id, 2)).reason == "takeover", "claimed as promptly as any"
    control.stop(reason)
    assert await running == leave
    assert (provider.calls, bare.company.wanted) == ([], False)
    if reason == "cancel":
        assert isinstance(await bare.end_of(author.job_id), Cancelled)


async def test_its_wait_ends_with_its_time(bare: BareWorker, suspect: NewAuthor, provider: ScriptedProvider) -> None:
    author = await suspect("Hello", timeouts={"total_s": 0.3})
    bare.company.enter("another")
    assert await bare.run(author.job_id) == Leave("over")
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, end.partial, provider.calls) == ("timeout", False, [])


async def test_one_that_would_disturb_it_is_left_to_another_worker(bare: BareWorker, new_queued: NewAuthor) -> None:
    author = await new_queued()
    bare.company.enter("suspect", 0)
    assert await bare.run(author.job_id) == Leave("handover")
    assert (await bare.store.record(author.job_id)).status == "queued"


# --- a whole worker ------------------------------------------------------------------------------------------------------


async def test_it_waits_for_the_others_and_no_more_are_taken_until_it_is_past_where_it_was_lost(
    suspect: NewAuthor,
    job_queue: JobQueue,
    job_store: JobStore,
    redis: Redis,
    make_settings: Making,
    provider: ScriptedProvider,
) -> None:
    provider.gate, poll_s = asyncio.Event(), 0.05
    async with running_worker(make_settings(poll_s=poll_s), provider):
        before = (await job_queue.submit(request(), MODEL)).job_id
        await wait_until(lambda: provider.open == 1)
        lost = (await suspect("Hello")).job_id
        await redis.delete(keys.arq_in_progress(lost))
        await until_solitude(job_store, lost, "waits")
        after = (await job_queue.submit(request(), MODEL)).job_id
        await until_time(time.monotonic() + 4 * poll_s)
        assert [call.job_id for call in provider.calls] == [before]

        await job_queue.cancel(before)
        await wait_until(lambda: len(provider.calls) == 2)
        assert await solitude_of(job_store, lost) == "alone"
        await until_time(time.monotonic() + 4 * poll_s)
        assert [call.job_id for call in provider.calls] == [before, lost]

        provider.gate.set()
        for job_id in (lost, after):
            await wait_until(lambda: _done(job_store, job_id), message="both end")  # noqa: B023
    assert [call.job_id for call in provider.calls] == [before, lost, after]
    assert (await job_store.record(lost)).losses == 2


async def test_once_it_is_past_the_worker_looks_for_others_at_once(
    suspect: NewAuthor,
    job_queue: JobQueue,
    job_store: JobStore,
    redis: Redis,
    make_settings: Making,
    provider: ScriptedProvider,
) -> None:
    """It was not listening for wake-ups, and its poll is set to seconds here."""
    provider.gate = asyncio.Event()
    lost = (await suspect("Hello")).job_id
    await redis.delete(keys.arq_in_progress(lost))
    async with running_worker(make_settings(poll_s=5.0), provider):
        await wait_until(lambda: provider.open == 1)
        await wait_until(lambda: _sleeps(redis), message="the worker waits for signals alone")
        after = (await job_queue.submit(request(), MODEL)).job_id
        provider.gate.set()
        await wait_until(lambda: _done(job_store, after), timeout=3)


async def _sleeps(redis: Redis) -> bool:
    return any(client["cmd"] == "blpop" for client in await redis.client_list())


async def _done(store: JobStore, job_id: str) -> bool:
    return (await store.record(job_id)).status == "done"
