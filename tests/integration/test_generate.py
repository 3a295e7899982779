"""The job function without arq: from a leased job to exactly one terminal event (protocol 3, P2)."""

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import keys
from shared.errors import GenerationFailed
from shared.events import Done, Error, Reasoning, Token, ToolCall, Usage
from tests.integration.conftest import NewAuthor
from tests.support.bare_worker import BareWorker, bare_worker
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making
from worker.control import Leave
from worker.providers.base import Finish
from worker.tokens import load_encoding

OVER = Leave("over")


# --- the plain way -------------------------------------------------------------------------------------------------------


async def test_a_job_from_its_claim_to_its_end(bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider) -> None:
    provider.script = ["Hel", "lo"]
    author = await new_queued()
    assert await bare.run(author.job_id) == OVER
    entries = await bare.entries(author.job_id)
    assert [str(entry.id) for entry in entries] == ["0-1", "1-0", "1-1", "1-2", "1-3"]
    assert await bare.texts(author.job_id) == ["Hel", "lo"]
    end = entries[-1].event
    assert isinstance(end, Done)
    assert (end.finish_reason, end.usage) == ("stop", Usage(7, 2))
    assert provider.calls[0].prefix is None


async def test_all_timings_are_told(bare: BareWorker, new_queued: NewAuthor) -> None:
    author = await new_queued()
    await bare.run(author.job_id)
    timing = (await bare.end_of(author.job_id)).timing
    assert None not in msgspec.structs.astuple(timing)
    assert timing.queue_s is not None
    assert timing.ttft_s is not None
    assert timing.total_s is not None
    assert 0 <= timing.queue_s <= timing.ttft_s + 0.002 <= timing.total_s + 0.004
    job = await bare.store.job(author.job_id)
    assert job.timing == timing


async def test_every_kind_of_delta_becomes_an_entry(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    call = ToolCall(0, id="c1", name="f", arguments="{}")
    provider.script = [Reasoning("hm"), "text", call, Usage(5, 3), Finish("tool_calls")]
    author = await new_queued()
    await bare.run(author.job_id)
    entries = await bare.entries(author.job_id)
    assert [entry.event for entry in entries[2:-1]] == [Reasoning("hm"), Token("text"), call]
    end = entries[-1].event
    assert isinstance(end, Done)
    assert (end.finish_reason, end.usage) == ("tool_calls", Usage(5, 3))


async def test_without_usage_of_the_providers_own_it_is_estimated(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    """Output by its joined text; input as OpenAI's cookbook counts a prompt: "user", "Say hello" and six for the framing."""
    provider.script = ["un", "believ", "able", ", ", "really", Finish("stop")]
    author = await new_queued()
    await bare.run(author.job_id)
    output = len(load_encoding().encode_ordinary("unbelievable, really"))
    assert (await bare.end_of(author.job_id)).usage == Usage(1 + 2 + 6, output, estimated=True)


async def test_a_provider_that_refused_the_call_has_read_nothing(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    provider.refuses = GenerationFailed("auth", "No key.")
    author = await new_queued()
    await bare.run(author.job_id)
    assert (await bare.end_of(author.job_id)).usage == Usage(0, 0, estimated=True)


@pytest.mark.parametrize("limit", ["max_tokens", "token_budget"])
async def test_it_stops_at_its_limit(bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, limit: str) -> None:
    """Protocol 2.1: `token_budget` ends as `done`, `budget`; `max_tokens` is the provider's to keep."""
    provider.script = ["one", " two", " three", " four"]
    author = await new_queued(**{limit: 3})
    await bare.run(author.job_id)
    entries = await bare.entries(author.job_id)
    assert await bare.texts(author.job_id) == ["one", " two", " three"]
    end = entries[-1].event
    assert isinstance(end, Done)
    assert end.finish_reason == {"max_tokens": "length", "token_budget": "budget"}[limit]
    assert provider.open == 0


# --- failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["so ", "far"]])
async def test_a_failure_of_the_provider_is_told(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, words: list[str]
) -> None:
    """Protocol 4.1: the text so far stands and stays readable; `partial` says whether there is any."""
    provider.script = [*words, GenerationFailed("rate_limit", "Slow down.")]
    author = await new_queued()
    assert await bare.run(author.job_id) == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, end.message, end.retryable, end.partial) == ("rate_limit", "Slow down.", True, bool(words))
    job = await bare.store.job(author.job_id)
    assert (job.status, job.text) == ("failed", "".join(words))
    assert job.error is not None
    assert job.attempts[-1].error == job.error


@pytest.mark.parametrize("fault", [ValueError("secret"), ConnectionResetError("secret"), RedisConnectionError("secret")])
async def test_a_fault_of_ours_is_internal_and_tells_no_secret(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, fault: Exception
) -> None:
    """Also one that looks like Redis being away: it came from the provider."""
    provider.script = ["a", fault]
    author = await new_queued()
    assert await bare.run(author.job_id) == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, end.partial, end.retryable) == ("internal", True, False)
    assert "secret" not in end.message
    assert len(provider.calls) == 1


async def test_a_fault_between_attempts_ends_with_what_the_log_holds(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text was written, and somebody paid for it."""

    async def fault(*_: object) -> int:
        raise RuntimeError("secret")

    monkeypatch.setattr(bare.tokens, "prompt", fault)
    provider.script = ["so ", "far", GenerationFailed("connection", "Cut.")]
    author = await new_queued()
    assert await bare.run(author.job_id) == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, end.partial, end.usage) == ("internal", True, Usage(0, 2, estimated=True))
    assert end.timing.ttft_s is not None
    assert "secret" not in end.message


async def test_a_log_that_cannot_be_read_ends_all_the_same(
    bare: BareWorker, redis: Redis, new_author: NewAuthor, provider: ScriptedProvider
) -> None:
    author = await new_author()
    await redis.xadd(keys.log(author.job_id), {"e": "no JSON"}, id="1-1")
    assert await bare.run(author.job_id) == OVER
    assert (await bare.store.record(author.job_id)).status == "failed"
    assert provider.calls == []


async def test_a_stream_without_its_end_marker_is_incomplete(
    bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_short(_call: object) -> AsyncIterator[Token]:
        yield Token("half")

    monkeypatch.setattr(provider, "_deltas", cut_short)
    author = await new_queued()
    await bare.run(author.job_id)
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, end.partial) == ("incomplete", True)


@pytest.mark.parametrize(
    ("timeouts", "words", "said"),
    [
        ({"first_token_s": 0.05}, [], "sent nothing"),
        ({"idle_s": 0.05}, ["a"], "fell silent"),
        ({"total_s": 0.1}, ["a"], "longer than its 0.1 s"),
    ],
)
async def test_a_provider_that_is_late_is_a_timeout(
    bare: BareWorker,
    new_queued: NewAuthor,
    provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
    timeouts: dict[str, float],
    words: list[str],
    said: str,
) -> None:
    """Protocol 2.1 `timeouts`."""

    async def falls_silent(_call: object) -> AsyncIterator[Token]:
        for word in words:
            yield Token(word)
        await asyncio.Event().wait()

    monkeypatch.setattr(provider, "_deltas", falls_silent)
    author = await new_queued(timeouts=timeouts)
    await bare.run(author.job_id)
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, end.retryable) == ("timeout", True)
    assert said in end.message
    assert provider.open == 0


async def test_the_servers_bound_wins_over_a_longer_wish(
    redis: Redis, make_settings: Making, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    provider.gate = asyncio.Event()
    async with bare_worker(redis, make_settings(lease_s=60, first_token_timeout_s=0.05), provider) as bare:
        author = await new_queued(timeouts={"first_token_s": 1000})
        await bare.run(author.job_id)
        end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert end.code == "timeout"


@pytest.mark.parametrize(("timeouts", "code"), [({"queue_s": 1}, "expired"), ({"total_s": 1}, "timeout")])
async def test_a_job_that_waited_too_long_never_starts(
    redis: Redis, bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider, timeouts: dict[str, float], code: str
) -> None:
    author = await new_queued(timeouts=timeouts)
    await redis.hset(keys.job(author.job_id), "created_at", str(time.time() - 2))  # type: ignore[misc]
    assert await bare.run(author.job_id) == OVER
    entries = await bare.entries(author.job_id)
    assert [str(entry.id) for entry in entries] == ["0-1", "0-2"]
    end = entries[-1].event
    assert isinstance(end, Error)
    assert (end.code, end.retryable) == (code, True)
    assert provider.calls == []


async def test_a_model_that_is_not_configured_any_more(
    redis: Redis, bare: BareWorker, new_queued: NewAuthor, provider: ScriptedProvider
) -> None:
    """A deploy between the submit and the claim."""
    author = await new_queued()
    await redis.hset(keys.job(author.job_id), "model", "nobody/knows")  # type: ignore[misc]
    assert await bare.run(author.job_id) == OVER
    end = await bare.end_of(author.job_id)
    assert isinstance(end, Error)
    assert (end.code, provider.calls) == ("bad_request", [])
