"""worker/providers/openai.py, through the real SDK against a server on loopback that speaks OpenAI's wire format."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.errors import ConfigurationError, GenerationFailed
from shared.events import Reasoning, Refusal, Token, ToolCall, Usage
from shared.job import JobRequest
from tests.support.openai_server import (
    DONE,
    Cut,
    OpenAIServer,
    Pause,
    Stall,
    Status,
    Step,
    answer,
    error_body,
    error_event,
    finish,
    reasoning,
    refusal,
    role,
    text,
    tool_call,
    usage,
)
from tests.support.provider_calls import config_of
from tests.support.waiting import wait_until
from worker.providers.base import Call, Delta, Finish, Prefix
from worker.providers.openai import OpenAIProvider, arguments_of

KEY = "sk-test-8f14e45fceea167a5a36dedd4bea2543"
CLOSED_WITHIN_S = 0.1


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def provider(server: OpenAIServer) -> AsyncIterator[OpenAIProvider]:
    provider = provider_for(server.url)
    await provider.start()
    yield provider
    await provider.close()


def provider_for(base_url: str | None, key: str | None = KEY, **settings: object) -> OpenAIProvider:
    return OpenAIProvider(config_of("openai", openai_api_key=key, openai_base_url=base_url, **settings))


def call_of(model: str = "gpt-4o-mini", max_tokens: int | None = None, prefix: Prefix | None = None, **request: Any) -> Call:
    body = {"model": f"openai/{model}", "prompt": "Say hello.", **request}
    return Call("job_x", model, JobRequest.model_validate(body), max_tokens, prefix)


async def collected(provider: OpenAIProvider, call: Call) -> list[Delta]:
    async with provider.stream(call) as deltas:
        return [delta async for delta in deltas]


async def failed(provider: OpenAIProvider, model: str) -> tuple[GenerationFailed, str]:
    """How a call fails, and the text that came before."""
    said = ""

    async def read() -> None:
        nonlocal said
        async with provider.stream(call_of(model)) as deltas:
            async for delta in deltas:
                said += delta.text if isinstance(delta, Token) else ""

    with pytest.raises(GenerationFailed) as caught:
        await read()
    return caught.value, said


# --- what comes ----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_its_tokens_then_usage_then_finish(server: OpenAIServer, provider: OpenAIProvider) -> None:
    server.on("m", *answer("one two three"))
    assert await collected(provider, call_of("m")) == [
        Token("one "), Token("two "), Token("three"), Usage(9, 3), Finish("stop")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("from_the_future", "stop"),
    ],
)
async def test_finish_reasons(server: OpenAIServer, provider: OpenAIProvider, sent: str, reason: str) -> None:
    server.on("m", role(), text("x"), finish(sent), usage(1, 1), DONE)
    assert (await collected(provider, call_of("m")))[-1] == Finish(reason)  # type: ignore[arg-type]


async def test_every_kind_of_delta(server: OpenAIServer, provider: OpenAIProvider) -> None:
    server.on(
        "m",
        role(),
        reasoning("hm "),
        reasoning("well", name="reasoning"),
        text("é🙂"),
        refusal("No."),
        tool_call(0, id="call_1", name="weather"),
        tool_call(0, '{"city":'),
        tool_call(0, '"Rome"}'),
        tool_call(1, id="call_2", name="time"),
        finish("tool_calls"),
        usage(4, 7),
        DONE,
    )
    assert await collected(provider, call_of("m")) == [
        Reasoning("hm "),
        Reasoning("well"),
        Token("é🙂"),
        Refusal("No."),
        ToolCall(0, "call_1", "weather"),
        ToolCall(0, arguments='{"city":'),
        ToolCall(0, arguments='"Rome"}'),
        ToolCall(1, "call_2", "time"),
        Usage(4, 7),
        Finish("tool_calls"),
    ]


async def test_a_character_split_between_packets_arrives_whole(server: OpenAIServer, provider: OpenAIProvider) -> None:
    whole = b'data: {"choices":[{"index":0,"delta":{"content":"\xf0\x9f\x99\x82"}}]}\n\n'
    cut = whole.index(b"\x9f")
    server.on("m", whole[:cut], Pause(0.02), whole[cut:], finish(), DONE)
    assert await collected(provider, call_of("m")) == [Token("🙂"), Finish("stop")]


async def test_an_answer_without_usage_ends_well(server: OpenAIServer, provider: OpenAIProvider) -> None:
    server.on("m", role(), text("x"), finish(), DONE)
    assert await collected(provider, call_of("m")) == [Token("x"), Finish("stop")]


@pytest.mark.parametrize("then", [(), (Cut(),), (Stall(),), (b"data: {broken\n\n",)])
async def test_after_the_finish_reason_nothing_spoils_the_answer(
    server: OpenAIServer, provider: OpenAIProvider, monkeypatch: pytest.MonkeyPatch, then: tuple[Step, ...]
) -> None:
    monkeypatch.setattr("worker.providers.openai.USAGE_WAIT_S", 0.1)
    server.on("m", text("whole"), finish(), *then)
    assert await collected(provider, call_of("m")) == [Token("whole"), Finish("stop")]


async def test_the_connection_serves_the_next_call(server: OpenAIServer, provider: OpenAIProvider) -> None:
    for _ in range(3):
        await collected(provider, call_of("m"))
    assert len({request.client_port for request in server.requests}) == 1


# --- what is sent --------------------------------------------------------------------------------------------------------


async def test_the_request_carries_what_was_set_and_nothing_else(server: OpenAIServer, provider: OpenAIProvider) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    call = call_of(
        "m", 64, system="Be brief.", temperature=0.5, top_p=0.9, stop=["\n"], seed=7, tools=tools, tool_choice="auto",
        metadata={"secret": "ours"}, token_budget=100,
    )  # fmt: skip
    await collected(provider, call)
    [request] = server.requests
    assert request.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 7,
        "tools": tools,
        "tool_choice": "auto",
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_a_bare_request_is_sent_bare() -> None:
    assert set(arguments_of(call_of(stop=[], tools=[], tool_choice="none"), own=True)) == {
        "model", "messages", "stream_options"
    }  # fmt: skip


def test_the_token_limit_has_another_name_at_openai_itself() -> None:
    assert arguments_of(call_of(max_tokens=5), own=True)["max_completion_tokens"] == 5
    assert arguments_of(call_of(max_tokens=5), own=False)["max_tokens"] == 5


def test_messages_pass_as_they_came() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    assert arguments_of(call_of(prompt=None, messages=messages), own=True)["messages"] == messages


@pytest.mark.parametrize(
    ("url", "own"),
    [
        (None, True),
        ("https://eu.api.openai.com/v1", True),
        ("https://us.openai.azure.com/openai/v1", True),
        ("http://127.0.0.1:8000/v1", False),
        ("https://notopenai.com/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
    ],
)
def test_which_servers_are_openai(url: str | None, own: bool) -> None:
    assert provider_for(url)._is_openai() is own


# --- keys and addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "  "])
async def test_without_a_key_the_worker_starts_and_the_call_fails(key: str | None) -> None:
    provider = provider_for(None, key)
    await provider.start()
    failure, _ = await failed(provider, "gpt-4o-mini")
    assert (failure.code, failure.retryable) == ("auth", False)
    assert str(failure) == "OPENAI_API_KEY is not set where the workers run: set it and start them again."


async def test_servers_without_keys_get_a_placeholder(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = provider_for(server.url, None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    await collected(provider, call_of("m"))
    await provider.close()
    assert server.requests[0].headers["authorization"] == "Bearer none"


@pytest.mark.parametrize("key", ["sk-two\nlines", "sk-schlüssel"])
async def test_a_key_that_no_header_can_hold_is_named_and_not_shown(server: OpenAIServer, key: str) -> None:
    failure, _ = await failed(provider_for(server.url, key), "m")
    assert failure.code == "auth"
    assert key not in everything_shown(failure)
    assert server.requests == []


async def test_white_space_around_a_key_does_no_harm(server: OpenAIServer) -> None:
    provider = provider_for(server.url, f"{KEY}\n")
    await collected(provider, call_of("m"))
    await provider.close()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://[::1/v1", "/v1"])
async def test_a_base_url_that_is_no_address_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL must be an address"):
        await provider_for(url).start()


# --- failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code", "retryable"),
    [
        (Status(400, error_body("too long", code="context_length_exceeded")), "bad_request", False),
        (Status(401, error_body("Incorrect API key provided", code="invalid_api_key")), "auth", False),
        (Status(403, error_body("Country not supported")), "auth", False),
        (Status(404, error_body("no such model", code="model_not_found")), "bad_request", False),
        (Status(422, b'{"detail":"bad"}'), "bad_request", False),
        (Status(429, error_body("slow down", "requests", "rate_limit_exceeded")), "rate_limit", True),
        (Status(429, error_body("pay", "insufficient_quota", "insufficient_quota")), "rate_limit", False),
        (Status(500, error_body("The server had an error", "server_error")), "overloaded", True),
        (Status(502, b"<html>Bad Gateway</html>", {"content-type": "text/html"}), "overloaded", True),
        (Status(503, b""), "overloaded", True),
        (Status(504, b""), "overloaded", True),
        (Cut(), "connection", True),
    ],
)
async def test_failures_before_the_first_token(
    server: OpenAIServer, provider: OpenAIProvider, step: Step, code: str, retryable: bool
) -> None:
    server.on("m", step)
    failure, said = await failed(provider, "m")
    assert (failure.code, failure.retryable, said) == (code, retryable, "")
    assert "openai/m" in str(failure)
    assert not isinstance(step, Status) or str(step.status) in str(failure)
    assert len(server.requests) == 1, "the SDK retried"


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((error_event("The server had an error"),), "overloaded"),
        ((error_event("slow down", "tokens", "rate_limit_exceeded"),), "rate_limit"),
        ((error_event("upstream says", "", 429),), "rate_limit"),
        ((error_event("filtered", "", "content_filter"),), "content_filter"),
        ((b'data: {"error":"just words"}\n\n',), "overloaded"),
        ((b'data: {"object":"error","message":"old vLLM","code":500}\n\n',), "overloaded"),
        ((b"data: {broken\n\n",), "connection"),
        ((b'data: {"x":"\xff"}\n\n',), "connection"),
        ((Cut(),), "connection"),
        ((), "incomplete"),
        ((DONE,), "incomplete"),
        ((finish("error"),), "incomplete"),
        ((finish("insufficient_system_resource"),), "overloaded"),
    ],
)
async def test_failures_in_mid_stream_leave_the_text_so_far(
    server: OpenAIServer, provider: OpenAIProvider, steps: tuple[Step, ...], code: str
) -> None:
    server.on("m", role(), text("Hel"), text("lo"), *steps)
    failure, said = await failed(provider, "m")
    assert (failure.code, said) == (code, "Hello")
    assert "openai/m" in str(failure)


@pytest.mark.parametrize("steps", [(Stall(),), (role(), Stall())])
async def test_silence_past_the_read_timeout(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, steps: tuple[Step, ...]
) -> None:
    monkeypatch.setattr("worker.providers.upstream.READ_MARGIN_S", 0.05)
    provider = provider_for(server.url, first_token_timeout_s=0.05, idle_timeout_s=0.05)
    server.on("m", *steps)
    failure, _ = await failed(provider, "m")
    await provider.close()
    assert (failure.code, failure.retryable) == ("timeout", True)


async def test_nobody_there(unused_tcp_port: int) -> None:
    provider = provider_for(f"http://127.0.0.1:{unused_tcp_port}/v1")
    failure, _ = await failed(provider, "m")
    await provider.close()
    assert failure.code == "connection"
    assert "could not be reached at 127.0.0.1" in str(failure)


async def test_retry_after_is_kept(server: OpenAIServer, provider: OpenAIProvider) -> None:
    server.on("m", Status(429, error_body("slow down"), {"retry-after": "7"}))
    failure, _ = await failed(provider, "m")
    assert failure.retry_after_s == 7


async def test_a_failed_call_is_followed_by_a_good_one(server: OpenAIServer, provider: OpenAIProvider) -> None:
    server.on("m", Status(503))
    server.on("m", *answer("fine"))
    await failed(provider, "m")
    assert (await collected(provider, call_of("m")))[0] == Token("fine")


# --- secrets -------------------------------------------------------------------------------------------------------------


def everything_shown(error: BaseException) -> str:
    """What a log could make of an error: its words, its repr, its traceback, and those of what led to it."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
    for earlier in (error.__cause__, error.__context__):
        shown += everything_shown(earlier) if earlier is not None else ""
    return shown


@pytest.mark.parametrize(
    "steps",
    [
        (Status(401, error_body(f"Incorrect API key provided: {KEY}.", code="invalid_api_key")),),
        (Status(400, error_body(f"{'x' * 380} header Bearer {KEY} is odd")),),
        (Status(500, f"trace: {KEY}".encode()),),
        (text("x"), error_event(f"failed for {KEY}")),
    ],
)
async def test_a_key_that_the_server_repeats_is_not_shown(
    server: OpenAIServer, provider: OpenAIProvider, capsys: pytest.CaptureFixture[str], steps: tuple[Step, ...]
) -> None:
    server.on("m", *steps)
    failure, _ = await failed(provider, "m")
    shown = everything_shown(failure) + "".join(capsys.readouterr()) + repr(provider) + str(vars(provider))
    assert KEY[:14] not in shown


# --- closing -------------------------------------------------------------------------------------------------------------


async def test_leaving_the_context_closes_upstream_at_once(server: OpenAIServer, provider: OpenAIProvider) -> None:
    server.on("m", text("x"), Stall())
    async with provider.stream(call_of("m")) as deltas:
        assert await anext(deltas) == Token("x")
        left = time.monotonic()
    await closed(server, since=left)


@pytest.mark.parametrize("steps", [(Stall(),), (text("x"), Stall()), (finish(), Stall())])
async def test_cancelling_the_task_closes_upstream_at_once(
    server: OpenAIServer, provider: OpenAIProvider, steps: tuple[Step, ...]
) -> None:
    server.on("m", *steps)
    task = asyncio.create_task(collected(provider, call_of("m")))
    await wait_until(lambda: bool(server.requests) and server.requests[0].chunks_sent == len(steps) - 1)
    cancelled = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await closed(server, since=cancelled)


async def test_cancelling_while_tokens_flow_closes_upstream_at_once(server: OpenAIServer, provider: OpenAIProvider) -> None:
    task = asyncio.create_task(collected(provider, call_of("count:100000:200")))
    await wait_until(lambda: bool(server.requests) and server.requests[0].chunks_sent > 10)
    cancelled = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await closed(server, since=cancelled)


async def test_the_consumers_own_error_passes_unchanged(server: OpenAIServer, provider: OpenAIProvider) -> None:
    async def consume() -> None:
        async with provider.stream(call_of("m")) as deltas:
            async for _ in deltas:
                raise ValueError("mine")

    server.on("m", text("x"), Stall())
    with pytest.raises(ValueError, match="mine"):
        await consume()
    await wait_until(lambda: server.requests[0].left_at is not None)


async def test_closing_the_provider_ends_open_streams(server: OpenAIServer, provider: OpenAIProvider) -> None:
    server.on("m", text("x"), Stall())
    task = asyncio.create_task(failed(provider, "m"))
    await wait_until(lambda: bool(server.requests) and server.requests[0].chunks_sent == 1)
    await provider.close()
    failure, _ = await asyncio.wait_for(task, 5)
    assert failure.code == "connection"


async def closed(server: OpenAIServer, since: float) -> None:
    await wait_until(lambda: server.requests[0].left_at is not None, message="upstream is still open")
    left_at = server.requests[0].left_at
    assert left_at is not None
    assert left_at - since <= CLOSED_WITHIN_S, f"upstream closed after {left_at - since:.3f} s"
