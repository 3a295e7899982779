"""What becomes of a job whose worker was lost, or handed it over (protocol P4)."""

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.events import Done, Error, Reasoning, Started, ToolCall, Usage
from shared.ids import EventId
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.bare_worker import BareWorker
from tests.support.scripted_provider import ScriptedProvider
from worker.control import Leave

OVER = Leave("over")


# --- takeovers -----------------------------------------------------------------------------------------------------------


async def test_continue_goes_on_where_the_text_stopped(bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider) -> None:
    """P4: `on_interrupt: continue` and a model that can go on: `reset: false`, and the text goes on."""
    provider.script, provider.continues = ["a", "b", "c", "d"], True
    author = await orphan("a", "b")
    await bare.run(author.job_id)
    entries = await bare.entries(author.job_id)
    assert await bare.texts(author.job_id) == ["a", "b", "c", "d"]
    started = entries[4].event
    assert isinstance(started, Started)
    assert (entries[4].id, started.reason, started.reset) == (EventId(2, 0), "takeover", False)
    assert provider.calls[0].prefix is not None
    assert (provider.calls[0].prefix.text, provider.calls[0].prefix.ids) == ("ab", ())
    assert (await bare.store.job(author.job_id)).text == "abcd"


@pytest.mark.parametrize(("continues", "on_interrupt"), [(False, "continue"), (True, "restart")])
async def test_else_it_starts_over(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider, continues: bool, on_interrupt: str
) -> None:
    provider.script, provider.continues = ["x", "y"], continues
    author = await orphan("a", "b", on_interrupt=on_interrupt)
    await bare.run(author.job_id)
    entries = await bare.entries(author.job_id)
    assert isinstance(entries[4].event, Started)
    assert entries[4].event.reset
    assert provider.calls[0].prefix is None
    assert (await bare.store.job(author.job_id)).text == "xy"


@pytest.mark.parametrize("kept", [Reasoning("hm"), ToolCall(0, id="c", name="f", arguments="{")])
async def test_an_open_thought_or_tool_call_starts_over(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider, kept: Reasoning | ToolCall
) -> None:
    """P4: "where a tool call or reasoning was open, `reset: true`"."""
    provider.continues = True
    author = await orphan("a")
    await author.put(kept)
    await bare.run(author.job_id)
    started = await bare.started(author.job_id, 2)
    assert started.reset
    job = await bare.store.job(author.job_id)
    assert (job.text, job.reasoning, job.tool_calls) == ("Hello, world", "", [])


async def test_a_worker_lost_before_its_first_token_is_no_reset(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider
) -> None:
    author = await orphan()
    await bare.run(author.job_id)
    started = await bare.started(author.job_id, 2)
    assert not started.reset
    assert provider.calls[0].prefix is None


async def test_fail_ends_with_interrupted(bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider) -> None:
    author = await orphan("a", on_interrupt="fail")
    assert await bare.run(author.job_id) == OVER
    entries = await bare.entries(author.job_id)
    assert [str(entry.id) for entry in entries[-2:]] == ["2-0", "2-1"]
    end = entries[-1].event
    assert isinstance(end, Error)
    assert (end.code, end.partial, provider.calls) == ("interrupted", True, [])


@pytest.mark.parametrize("on_interrupt", ["continue", "restart", "fail"])
async def test_a_hand_over_is_no_failure(
    redis: Redis, bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider, on_interrupt: str
) -> None:
    """Architecture 4: hand-overs count in no limit."""
    provider.script, provider.continues = ["a", "b"], True
    author = await orphan("a", on_interrupt=on_interrupt)
    await redis.hset(keys.job(author.job_id), mapping={"handover": "1", "losses": "99"})  # type: ignore[misc]
    await redis.hdel(keys.job(author.job_id), "owner")  # type: ignore[misc]
    await bare.run(author.job_id)
    assert isinstance(await bare.end_of(author.job_id), Done)
    started = await bare.started(author.job_id, 2)
    assert (started.reason, started.reset) == ("handover", on_interrupt == "restart")


async def test_a_job_that_kills_its_workers_is_given_up(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider, settings: Settings, redis: Redis
) -> None:
    author = await orphan("a")
    for _ in range(settings.max_losses):
        await author.claim(solitude="alone")
    assert await bare.run(author.job_id) == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, end.retryable, end.partial, provider.calls) == ("attempts_exhausted", True, True, [])


async def test_what_is_left_of_max_tokens_goes_to_the_next_attempt(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider
) -> None:
    """Protocol 2.2: "a continuing attempt gets what is left"."""
    provider.script, provider.continues = ["one", " two", " three", " four"], True
    author = await orphan("one", " two", max_tokens=3)
    await bare.run(author.job_id)
    assert provider.calls[0].max_tokens == 1
    assert await bare.texts(author.job_id) == ["one", " two", " three"]


async def test_what_is_kept_counts_by_its_tokens_and_not_by_its_pieces(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider
) -> None:
    """Protocol 2.2, with the count of all attempts joined: four tokens were kept, and a budget of six has room for two."""
    provider.script, provider.continues = ["Hel", "lo there,", " my", " dear old", " friend"], True
    author = await orphan("Hel", "lo there,", " my", token_budget=6)
    await bare.run(author.job_id)
    assert (await bare.store.job(author.job_id)).text == "Hello there, my dear old"
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Done)
    assert end.finish_reason == "budget"


@pytest.mark.parametrize(("limit", "reason"), [("max_tokens", "length"), ("token_budget", "budget")])
async def test_nothing_left_ends_it_without_a_call(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider, limit: str, reason: str
) -> None:
    """The worker died between the last token and the end."""
    provider.continues = True
    author = await orphan("one", " two", **{limit: 2})
    await bare.run(author.job_id)
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Done)
    assert (end.finish_reason, provider.calls) == (reason, [])


async def test_usage_sums_what_was_paid_over_all_attempts(
    bare: BareWorker, orphan: NewAuthor, provider: ScriptedProvider
) -> None:
    """Protocol 2.2. The lost attempt told nothing: its output is counted, its input taken to be the same."""
    provider.script, provider.continues = ["one", " two", " three"], True
    author = await orphan("one", " two")
    await bare.run(author.job_id)
    assert (await bare.end_of(author.job_id)).usage == Usage(14, 3, estimated=True)
    job = await bare.store.job(author.job_id)
    assert [attempt.usage for attempt in job.attempts] == [Usage(0, 2, estimated=True), Usage(7, 1)]
