"""OpenAI in background mode: a response that goes on upstream is read on by whoever takes the job over, or cancelled there."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.events import Cancelled, Done, Error, Started, ToolCall, Usage, private_of
from shared.job_queue import JobQueue
from shared.ownership import KeptUpstream
from shared.providers import provider_configs
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.author import Author
from tests.support.bare_worker import BareWorker, bare_worker
from tests.support.openai_responses_server import (
    Cut,
    LifeStep,
    ResponsesServer,
    Stall,
    Status,
    Until,
    answer,
    arguments,
    called,
    completed,
    failed,
    incomplete,
    opening,
    text,
    tool_call,
)
from tests.support.servers import Making, running_worker
from tests.support.waiting import wait_until
from worker.control import Control, Leave
from worker.providers.openai_background import OpenAIBackgroundProvider

OVER = Leave("over")
CANCELLED_WITHIN_S = 0.1
"""Protocol P6."""


@pytest.fixture
async def server() -> AsyncIterator[ResponsesServer]:
    async with ResponsesServer() as server:
        yield server


@pytest.fixture
def settings(make_settings: Making, server: ResponsesServer) -> Settings:
    return make_settings(openai_base_url=server.url, openai_background=True)


@pytest.fixture
async def bare(redis: Redis, make_settings: Making, server: ResponsesServer) -> AsyncIterator[BareWorker]:
    settings = make_settings(openai_base_url=server.url, lease_s=60)
    provider = background_provider(settings)
    async with bare_worker(redis, settings, provider) as worker:
        yield worker
    await provider.close()


def background_provider(settings: Settings) -> OpenAIBackgroundProvider:
    return OpenAIBackgroundProvider(provider_configs(settings)["openai"])


async def killed(bare: BareWorker, redis: Redis, author: Author, *words: str) -> None:
    """A worker ran the job and died without a word, once these were in the log."""
    running = asyncio.create_task(bare.run(author.job_id))
    await until_said(bare, author, *words)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]  # Redis was up all the time: nobody has to wait


async def until_said(bare: BareWorker, author: Author, *words: str) -> None:
    async def said() -> bool:
        return await bare.texts(author.job_id) == list(words)

    await wait_until(said, message=f"the log holds {words}")


async def starts(bare: BareWorker, author: Author) -> list[tuple[str, bool]]:
    """Reason and `reset` of each attempt."""
    events = [entry.event for entry in await bare.entries(author.job_id)]
    return [(event.reason, event.reset) for event in events if isinstance(event, Started)]


def cancelled_upstream(server: ResponsesServer) -> list[str]:
    return [response_id for response_id, _ in server.cancels]


# --- read on -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def go(server: ResponsesServer) -> asyncio.Event:
    """`any` says "a", "b", and "c" once this is set."""
    event = asyncio.Event()
    server.on("any", text("a"), text("b"), Until(event), text("c"), completed(counts=(9, 3)))
    return event


async def test_a_takeover_reads_the_same_response_on_and_pays_once(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer, go: asyncio.Event
) -> None:
    author = await new_queued()
    await killed(bare, redis, author, "a", "b")
    go.set()
    assert await bare.run(author.job_id) == OVER
    assert await starts(bare, author) == [("first", False), ("takeover", False)]
    assert await bare.texts(author.job_id) == ["a", "b", "c"]
    assert (len(server.creates), server.resumes, server.cancels) == (1, [("resp_0", 4)], [])
    job = await bare.store.job(author.job_id)
    assert (job.text, job.usage) == ("abc", Usage(9, 3))
    assert [attempt.usage for attempt in job.attempts] == [Usage(), Usage(9, 3)]


async def test_what_is_stored_for_it(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer, go: asyncio.Event
) -> None:
    """The id in the record before anything of it is in the log, and with each entry how far it was read."""
    author = await new_queued()
    await killed(bare, redis, author, "a", "b")
    assert (await bare.store.record(author.job_id)).upstream == KeptUpstream("openai/any", "resp_0")
    positions = [private_of(entry.fields).get("u") for entry in await bare.log.read(author.job_id)]
    assert positions == [None, None, 3, 4]
    go.set()
    await bare.run(author.job_id)
    assert (await bare.store.record(author.job_id)).upstream is None


async def test_an_id_that_redis_forgot_is_noted_again(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer, go: asyncio.Event
) -> None:
    """A restart or failover may forget the last second; the writer compares what it holds."""
    author = await new_queued()
    running = asyncio.create_task(bare.run(author.job_id))
    await until_said(bare, author, "a", "b")
    await redis.hdel(keys.job(author.job_id), "upstream")  # type: ignore[misc]
    bare.writer.doubt_all()
    await wait_until(lambda: _noted(bare, author), message="it is in the record again")
    go.set()
    assert await running == OVER
    assert len(server.creates) == 1


async def test_a_worker_lost_before_the_first_token_has_its_response_read_from_its_start(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer
) -> None:
    go = asyncio.Event()
    server.on("any", *opening(), Until(go), text("a"), completed())
    author = await new_queued()
    running = asyncio.create_task(bare.run(author.job_id))
    await wait_until(lambda: _noted(bare, author), message="the id is noted")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]
    go.set()
    await bare.run(author.job_id)
    assert (len(server.creates), server.resumes) == (1, [("resp_0", 0)])
    assert await bare.texts(author.job_id) == ["a"]


async def _noted(bare: BareWorker, author: Author) -> bool:
    return (await bare.store.record(author.job_id)).upstream is not None


async def test_half_a_tool_call_is_no_reason_to_start_over(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer
) -> None:
    go, call = asyncio.Event(), called(1, "call_1", "weather", '{"a":1}')
    server.on(
        "any", text("Hm."), tool_call(1, "call_1", "weather"), arguments('{"a"', 1), Until(go), arguments(":1}", 1),
        completed(call["item"]),
    )  # fmt: skip
    author = await new_queued()
    running = asyncio.create_task(bare.run(author.job_id))

    async def called_half() -> bool:
        return (await bare.log.read(author.job_id))[-1].event == ToolCall(1, arguments='{"a"')

    await wait_until(called_half)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]
    go.set()
    await bare.run(author.job_id)
    job = await bare.store.job(author.job_id)
    assert (job.text, job.finish_reason) == ("Hm.", "tool_calls")
    assert job.tool_calls == [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}}]
    assert await starts(bare, author) == [("first", False), ("takeover", False)]


async def test_a_broken_connection_is_a_retry_that_reads_on(
    bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer
) -> None:
    server.on("any", text("a"), text("b"), Cut(), text("c"), completed(counts=(9, 3)))
    author = await new_queued()
    await bare.run(author.job_id)
    assert await starts(bare, author) == [("first", False), ("retry", False)]
    assert (await bare.store.job(author.job_id)).text == "abc"
    assert (await bare.end_of(author.job_id)).usage == Usage(9, 3)
    assert (len(server.creates), server.resumes, server.cancels) == (1, [("resp_0", 4)], [])


async def test_a_response_that_is_at_its_limit_says_so_itself(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer
) -> None:
    """Our own count of `max_tokens` is of entries; the provider's is of tokens, and it may have more to say."""
    go = asyncio.Event()
    server.on("any", *map(text, "abcdefghijklmnop"), Until(go), text("q"), incomplete("max_output_tokens"))
    author = await new_queued(max_tokens=16)
    await killed(bare, redis, author, *"abcdefghijklmnop")
    go.set()
    await bare.run(author.job_id)
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Done)
    assert (end.finish_reason, (await bare.store.job(author.job_id)).text) == ("length", "abcdefghijklmnopq")


async def test_a_stopped_worker_hands_its_response_over_and_cancels_nothing(
    settings: Settings, bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer, go: asyncio.Event
) -> None:
    author = await new_queued()
    async with running_worker(settings, background_provider(settings)):
        await until_said(bare, author, "a", "b")
    assert server.cancels == []
    go.set()
    async with running_worker(settings, background_provider(settings)):
        await until_said(bare, author, "a", "b", "c")
        await wait_until(lambda: _ended(bare, author))
    assert await starts(bare, author) == [("first", False), ("handover", False)]
    assert (len(server.creates), server.resumes, server.cancels) == (1, [("resp_0", 4)], [])


async def _ended(bare: BareWorker, author: Author) -> bool:
    return not (await bare.store.record(author.job_id)).is_open


# --- started anew --------------------------------------------------------------------------------------------------------


async def test_a_response_that_has_expired_is_asked_for_anew(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer
) -> None:
    server.on("any", text("a"), text("b"), Stall())
    server.on("any", *answer("x y"))
    author = await new_queued()
    await killed(bare, redis, author, "a", "b")
    server.expire("resp_0")
    await bare.run(author.job_id)
    assert await starts(bare, author) == [("first", False), ("takeover", False), ("retry", True)]
    assert (await bare.store.job(author.job_id)).text == "x y"
    assert len(server.creates) == 2


async def test_so_is_one_that_is_only_not_streamed_any_more_and_it_is_cancelled(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer
) -> None:
    server.on("any", text("a"), Stall())
    server.on("any", *answer("x y"))
    author = await new_queued()
    await killed(bare, redis, author, "a")
    server.refused_resumes.append(Status(400))
    await bare.run(author.job_id)
    assert await starts(bare, author) == [("first", False), ("takeover", False), ("retry", True)]
    assert (len(server.creates), cancelled_upstream(server)) == (2, ["resp_0"])
    assert server.responses["resp_0"].status == "cancelled"


async def test_a_response_that_failed_is_asked_for_anew(
    bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer
) -> None:
    server.on("any", text("a"), failed("server_error"))
    server.on("any", *answer("x y"))
    author = await new_queued()
    await bare.run(author.job_id)
    assert await starts(bare, author) == [("first", False), ("retry", True)]
    assert ((await bare.store.job(author.job_id)).text, len(server.creates), server.resumes) == ("x y", 2, [])


async def test_restart_asks_anew_and_cancels_what_went_on(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer
) -> None:
    server.on("any", text("a"), Stall())
    server.on("any", *answer("x y"))
    author = await new_queued(on_interrupt="restart")
    await killed(bare, redis, author, "a")
    await bare.run(author.job_id)
    assert await starts(bare, author) == [("first", False), ("takeover", True)]
    assert (len(server.creates), server.resumes, cancelled_upstream(server)) == (2, [], ["resp_0"])
    assert (await bare.store.job(author.job_id)).text == "x y"


async def test_a_fallback_cancels_what_went_on(bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer) -> None:
    server.on("any", text("a"), Cut(), Stall())
    server.on("other", *answer("x y"))
    server.refused_resumes.append(Status(401))
    author = await new_queued(fallbacks=["openai/other"])
    await bare.run(author.job_id)
    assert await starts(bare, author) == [("first", False), ("retry", False), ("fallback", True)]
    assert (cancelled_upstream(server), server.responses["resp_1"].status) == (["resp_0"], "completed")


# --- cancelled upstream --------------------------------------------------------------------------------------------------


@pytest.fixture
def endless(server: ResponsesServer) -> None:
    """`any` says "a", and then nothing for ever."""
    server.on("any", text("a"), Stall())


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("call", ["cancel", "erase"])
async def test_a_cancel_reaches_upstream_at_once(
    settings: Settings, bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer, job_queue: JobQueue, call: str
) -> None:
    """P6: within 100 ms of the answer to the call; DELETE is a cancel too."""
    author = await new_queued()
    async with running_worker(settings, background_provider(settings)):
        await until_said(bare, author, "a")
        await (job_queue.cancel(author.job_id) if call == "cancel" else job_queue.erase(author.job_id))
        answered = time.monotonic()
        await wait_until(lambda: bool(server.cancels), message="it is cancelled upstream")
        assert server.cancels[0][1] - answered < CANCELLED_WITHIN_S
    assert server.responses["resp_0"].status == "cancelled"


@pytest.mark.usefixtures("endless")
async def test_a_cancel_keeps_text_and_usage(bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer) -> None:
    author, control = await new_queued(), Control()
    running = asyncio.create_task(bare.run(author.job_id, control))
    await until_said(bare, author, "a")
    control.stop("cancel")
    assert await running == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Cancelled)
    assert (end.partial, end.usage.output_tokens, cancelled_upstream(server)) == (True, 1, ["resp_0"])


@pytest.mark.parametrize(
    ("timeouts", "script"),
    [
        ({"first_token_s": 0.2}, (*opening(), Stall())),
        ({"idle_s": 0.2}, (text("a"), Stall())),
        ({"total_s": 0.4}, (text("a"), Stall())),
    ],
)
async def test_each_deadline_cancels_upstream(
    bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer, timeouts: dict[str, float], script: tuple[LifeStep, ...]
) -> None:
    server.on("any", *script)
    author = await new_queued(timeouts=timeouts)
    assert await bare.run(author.job_id) == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert end.code == "timeout"
    await wait_until(lambda: bool(server.cancels))  # the first token's deadline may pass before the response's id is known
    assert cancelled_upstream(server) == ["resp_0"]


async def test_a_budget_cancels_upstream(bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer) -> None:
    server.on("any", text("one"), text(" two"), text(" three"), Stall())
    author = await new_queued(token_budget=2)
    assert await bare.run(author.job_id) == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Done)
    assert (end.finish_reason, cancelled_upstream(server)) == ("budget", ["resp_0"])


async def test_a_failure_that_nothing_follows_cancels_upstream(
    bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer
) -> None:
    server.on("any", text("a"), Cut(), Stall())
    server.refused_resumes.append(Status(401))
    author = await new_queued()
    await bare.run(author.job_id)
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, cancelled_upstream(server)) == ("auth", ["resp_0"])


@pytest.mark.usefixtures("endless")
async def test_the_claim_that_writes_cancelled_for_a_dead_worker_cancels_upstream(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer, job_queue: JobQueue
) -> None:
    author = await new_queued()
    await killed(bare, redis, author, "a")
    assert await job_queue.cancel(author.job_id) == "asked"
    assert await bare.run(author.job_id) == OVER
    assert isinstance(await bare.end_of(author.job_id), Cancelled)
    assert (cancelled_upstream(server), server.resumes) == (["resp_0"], [])


@pytest.mark.usefixtures("endless")
async def test_what_a_dead_worker_read_of_an_erased_job_is_cancelled_by_the_next_sweep(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer, job_queue: JobQueue
) -> None:
    author = await new_queued()
    await killed(bare, redis, author, "a")
    await job_queue.erase(author.job_id)
    assert server.cancels == []
    await bare.upstreams.sweep()
    assert cancelled_upstream(server) == ["resp_0"]
    await bare.upstreams.sweep()
    assert len(server.cancels) == 1, "once is enough"


@pytest.mark.usefixtures("endless")
async def test_a_superseded_worker_leaves_the_response_to_the_one_that_has_the_job(
    bare: BareWorker, new_queued: NewAuthor, server: ResponsesServer
) -> None:
    author, control = await new_queued(), Control()
    running = asyncio.create_task(bare.run(author.job_id, control))
    await until_said(bare, author, "a")
    control.stop("lost")
    assert await running == Leave("lost")
    assert server.cancels == []


async def test_but_not_one_that_nobody_else_knows_of(
    bare: BareWorker, new_queued: NewAuthor, redis: Redis, server: ResponsesServer
) -> None:
    """It was superseded between the create and the note: the record takes no note of it any more."""
    go = asyncio.Event()
    server.on("any", Until(go), *opening(), Stall())
    author = await new_queued()
    running = asyncio.create_task(bare.run(author.job_id))
    await wait_until(lambda: bool(server.creates))
    await author.claim(worker="w3")
    go.set()
    assert await running == Leave("lost")
    assert cancelled_upstream(server) == ["resp_0"]
