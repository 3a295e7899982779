"""The Job of protocol 2.2 in each state, listings, live workers."""

import time

import msgspec
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.errors import JobNotFound
from shared.events import Cancelled, Error, Reasoning, Timing, ToolCall, Usage
from shared.job import Status
from shared.job_queue import JobQueue
from shared.job_store import JobStore, WorkerInfo
from tests.integration.conftest import NewAuthor
from tests.support.author import MODEL, Author, request


async def test_a_queued_job(job_store: JobStore, new_queued: NewAuthor) -> None:
    author = await new_queued(metadata={"who": "me"})
    job = await job_store.job(author.job_id)
    assert (job.status, job.last_event_id, job.text, job.attempts) == ("queued", "0-1", "", [])
    assert (job.started_at, job.finished_at, job.error, job.metadata) == (None, None, None, {"who": "me"})
    assert job.events_url == f"/v1/jobs/{author.job_id}/events"
    assert job.created_at == pytest.approx(time.time(), abs=5)


async def test_a_running_job_is_folded_up_to_its_last_event_id(job_store: JobStore, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.put(Reasoning("hm"))
    await author.say("Hel", "lo")
    await author.put(ToolCall(0, id="c", name="f"), ToolCall(0, arguments="{}"))
    job = await job_store.job(author.job_id)
    assert (job.status, job.last_event_id, job.text, job.reasoning) == ("running", "1-5", "Hello", "hm")
    assert job.tool_calls == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert job.usage == Usage(0, 5, estimated=True)
    assert job.started_at is not None
    assert job.timing.queue_s is not None
    assert job.finished_at is None
    [attempt] = job.attempts
    assert (attempt.number, attempt.worker, attempt.reason, attempt.error) == (1, "w1", "first", None)


async def test_a_reset_discards_what_came_before(job_store: JobStore, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("old")
    await author.claim(reset=True)
    await author.say("new")
    job = await job_store.job(author.job_id)
    assert job.text == "new"
    assert [attempt.number for attempt in job.attempts] == [1, 2]


async def test_a_done_job(job_store: JobStore, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a")
    await author.end()
    job = await job_store.job(author.job_id)
    assert (job.status, job.finish_reason, job.usage, job.timing) == ("done", "stop", Usage(3, 4), Timing(total_s=1.5))
    assert job.finished_at is not None
    assert job.error is None


async def test_a_failed_job_keeps_its_text(job_store: JobStore, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("so far")
    await author.end(Error("rate_limit", "Slow down.", True, True, Usage(), Timing()))
    job = await job_store.job(author.job_id)
    assert (job.status, job.text, job.finish_reason) == ("failed", "so far", None)
    assert job.error is not None
    assert (job.error.code, job.error.message, job.error.retryable) == ("rate_limit", "Slow down.", True)


async def test_a_cancelled_job(job_store: JobStore, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.end(Cancelled("user", False, Usage(), Timing()))
    assert (await job_store.job(author.job_id)).status == "cancelled"


async def test_the_json_has_exactly_the_fields_of_the_protocol(job_store: JobStore, new_author: NewAuthor) -> None:
    """Protocol 2.2, and `refusal` beside `reasoning`."""
    author = await new_author()
    raw = msgspec.to_builtins(await job_store.job(author.job_id))
    assert set(raw) == {
        "id", "object", "status", "model", "created_at", "started_at", "finished_at", "text", "reasoning", "refusal",
        "tool_calls", "finish_reason", "usage", "timing", "attempts", "error", "last_event_id", "metadata", "events_url",
    }  # fmt: skip
    assert set(raw["attempts"][0]) == {"number", "model", "worker", "reason", "usage", "error"}
    assert set(raw["usage"]) == {"input_tokens", "output_tokens", "estimated"}
    assert set(raw["timing"]) == {
        "queue_s", "ttft_s", "total_s", "tokens_per_s", "inter_token_p50_s", "inter_token_p99_s",
    }  # fmt: skip


@pytest.mark.parametrize("job_id", ["job_" + "a" * 26, "$", "job_1"])
async def test_an_unknown_job(job_store: JobStore, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        await job_store.job(job_id)


# --- listings ------------------------------------------------------------------------------------------------------------


async def submit_aged(redis: Redis, queue: JobQueue, n: int) -> list[str]:
    """Jobs, newest first, one a second apart."""
    ids = [(await queue.submit(request(), MODEL)).job_id for _ in range(n)]
    await redis.zadd(keys.JOBS, {job_id: i for i, job_id in enumerate(ids)})
    return ids[::-1]


async def test_newest_first_page_by_page(redis: Redis, job_queue: JobQueue, job_store: JobStore) -> None:
    ids = await submit_aged(redis, job_queue, 5)
    seen, after = [], None
    for size, more in ((2, True), (2, True), (1, False)):
        page = await job_store.page(limit=2, after=after)
        assert len(page.jobs) == size
        assert (page.next is not None) == more
        seen += [job.id for job in page.jobs]
        after = page.next
    assert seen == ids


async def test_a_page_that_is_just_full_is_the_last(redis: Redis, job_queue: JobQueue, job_store: JobStore) -> None:
    await submit_aged(redis, job_queue, 2)
    assert (await job_store.page(limit=2)).next is None


@pytest.mark.parametrize(("status", "expected"), [("queued", [1]), ("running", [2]), ("done", [0]), ("failed", [])])
async def test_by_status(redis: Redis, job_store: JobStore, new_queued: NewAuthor, status: Status, expected: list[int]) -> None:
    authors: list[Author] = [await new_queued() for _ in range(3)]
    await authors[0].claim()
    await authors[0].end()
    await authors[2].claim()
    page = await job_store.page(status=status)
    assert [job.id for job in page.jobs] == [authors[i].job_id for i in expected]


async def test_expired_and_erased_jobs_are_left_out(redis: Redis, job_queue: JobQueue, job_store: JobStore) -> None:
    ids = await submit_aged(redis, job_queue, 3)
    await redis.delete(keys.job(ids[0]), keys.log(ids[0]))  # expired; the index outlives it for a while
    await job_queue.erase(ids[1])
    assert [job.id for job in (await job_store.page()).jobs] == [ids[2]]


async def test_after_an_unknown_job(job_store: JobStore) -> None:
    with pytest.raises(JobNotFound):
        await job_store.page(after="job_" + "a" * 26)


async def test_the_index_does_not_grow_for_ever(redis: Redis, job_queue: JobQueue) -> None:
    await redis.zadd(keys.JOBS, {"job_of_old": 1})
    await job_queue.submit(request(), MODEL)
    assert await redis.zscore(keys.JOBS, "job_of_old") is None


# --- workers -------------------------------------------------------------------------------------------------------------


async def announce(redis: Redis, worker_id: str, lane: str, started_at: float, alive_ms: float) -> None:
    info = WorkerInfo(worker_id, lane, "host", 1, 0, 4, started_at)
    await redis.set(keys.worker(worker_id), msgspec.json.encode(info), px=5000)
    await redis.zadd(keys.WORKERS, {worker_id: time.time() * 1000 + alive_ms})


async def test_only_live_workers_by_lane_and_age(redis: Redis, job_store: JobStore) -> None:
    assert await job_store.workers() == []
    await announce(redis, "l", "local", 1.0, 5000)
    await announce(redis, "young", "api", 2.0, 5000)
    await announce(redis, "old", "api", 1.0, 5000)
    await announce(redis, "dead", "api", 0.0, -1)
    assert [worker.id for worker in await job_store.workers()] == ["old", "young", "l"]
