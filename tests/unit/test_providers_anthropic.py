"""worker/providers/anthropic.py, through the real SDK against a server on loopback that speaks Anthropic's wire format."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anthropic._constants import ANTHROPIC_API_VERSION

from shared.errors import ConfigurationError
from shared.events import Reasoning, Refusal, Token, ToolCall, Usage
from shared.job import JobRequest
from tests.support.anthropic_server import (
    PING,
    STOP,
    AnthropicServer,
    answer,
    block,
    block_start,
    error_body,
    error_event,
    message_delta,
    start,
    text,
    thinking,
    tool_use,
)
from tests.support.provider_calls import CLOSED_WITHIN_S, cancelled, collected, config_of, everything_shown, failed
from tests.support.upstream import Cut, Pause, Stall, Status, Step
from tests.support.waiting import wait_until
from worker.providers.anthropic import AnthropicProvider
from worker.providers.base import Call, Finish, Prefix

KEY = "sk-ant-api03-8f14e45fceea167a5a36dedd4bea2543"


@pytest.fixture
async def server() -> AsyncIterator[AnthropicServer]:
    async with AnthropicServer() as server:
        yield server


@pytest.fixture
async def provider(server: AnthropicServer) -> AsyncIterator[AnthropicProvider]:
    provider = provider_for(server.url)
    await provider.start()
    yield provider
    await provider.close()


def provider_for(base_url: str | None, key: str | None = KEY, **settings: object) -> AnthropicProvider:
    return AnthropicProvider(config_of("anthropic", anthropic_api_key=key, anthropic_base_url=base_url, **settings))


def call_of(model: str = "m", max_tokens: int | None = None, prefix: str | None = None, **request: Any) -> Call:
    body = {"model": f"anthropic/{model}", "prompt": "Say hello.", **request}
    kept = Prefix(prefix) if prefix is not None else None
    return Call("job_x", model, JobRequest.model_validate(body), max_tokens, kept)


# --- what comes ----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_its_tokens_then_usage_then_finish(server: AnthropicServer, provider: AnthropicProvider) -> None:
    server.on("m", *answer("one two three"))
    assert await collected(provider, call_of()) == [
        Token("one "), Token("two "), Token("three"), Usage(9, 3), Finish("stop")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("from_the_future", "stop"),
    ],
)
async def test_stop_reasons(server: AnthropicServer, provider: AnthropicProvider, sent: str, reason: str) -> None:
    server.on("m", start(), *block("x"), message_delta(sent), STOP)
    assert (await collected(provider, call_of()))[-1] == Finish(reason)  # type: ignore[arg-type]


async def test_every_kind_of_delta(server: AnthropicServer, provider: AnthropicProvider) -> None:
    """Blocks are counted with the thoughts and texts between them, tool calls by themselves."""
    server.on(
        "m",
        start(),
        *thinking("hm ", "well", index=0),
        block_start(1, type="redacted_thinking", data="EmwKAhgBEgy3va3pzix/LafPsn4a"),
        PING,
        *block("é🙂", index=2),
        *tool_use("toolu_1", "weather", '{"city":', '"Rome"}', index=3),
        *block("and", index=4),
        *tool_use("toolu_2", "time", index=5),
        message_delta("tool_use", 40),
        STOP,
    )
    assert await collected(provider, call_of()) == [
        Reasoning("hm "),
        Reasoning("well"),
        Token("é🙂"),
        ToolCall(0, "toolu_1", "weather"),
        ToolCall(0, arguments='{"city":'),
        ToolCall(0, arguments='"Rome"}'),
        Token("and"),
        ToolCall(1, "toolu_2", "time"),
        ToolCall(1, arguments="{}"),
        Usage(9, 40),
        Finish("tool_calls"),
    ]


async def test_a_refusal_says_why(server: AnthropicServer, provider: AnthropicProvider) -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "This could enable harm."}
    server.on("m", start(), message_delta("refusal", stop_details=details), STOP)
    assert await collected(provider, call_of()) == [Refusal("This could enable harm."), Usage(9, 1), Finish("content_filter")]


async def test_what_a_cache_held_went_in_too(server: AnthropicServer, provider: AnthropicProvider) -> None:
    """And `output_tokens` is a running total: the last one stands."""
    opening = start(4, cache_creation_input_tokens=100, cache_read_input_tokens=2000)
    server.on("m", opening, *block("x"), message_delta(None, 5), message_delta("end_turn", 12), STOP)
    assert Usage(2104, 12) in await collected(provider, call_of())


async def test_a_character_split_between_packets_arrives_whole(server: AnthropicServer, provider: AnthropicProvider) -> None:
    delta = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"🙂"}}'
    whole = f"event: content_block_delta\ndata: {delta}\n\n".encode()
    cut = whole.index(b"\x9f")
    server.on("m", start(), block_start(), whole[:cut], Pause(0.02), whole[cut:], message_delta(), STOP)
    assert await collected(provider, call_of()) == [Token("🙂"), Usage(9, 1), Finish("stop")]


@pytest.mark.parametrize("then", [(Cut(),), (Stall(),), (b"event: message_stop\ndata: {broken\n\n",)])
async def test_after_the_end_nothing_spoils_the_answer(
    server: AnthropicServer, provider: AnthropicProvider, then: tuple[Step, ...]
) -> None:
    server.on("m", start(), *block("whole"), message_delta(), STOP, *then)
    assert await collected(provider, call_of()) == [Token("whole"), Usage(9, 1), Finish("stop")]


async def test_the_connection_serves_the_next_call(server: AnthropicServer, provider: AnthropicProvider) -> None:
    for _ in range(3):
        await collected(provider, call_of())
    assert len({request.client_port for request in server.requests}) == 1


# --- what is sent --------------------------------------------------------------------------------------------------------


async def test_the_request_carries_what_was_set_and_nothing_else(server: AnthropicServer, provider: AnthropicProvider) -> None:
    await collected(provider, call_of(max_tokens=64, stop="END", metadata={"secret": "ours"}, token_budget=100))
    [request] = server.requests
    assert request.body == {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}],
        "max_tokens": 64,
        "stop_sequences": ["END"],
        "stream": True,
    }
    assert request.headers["anthropic-version"] == ANTHROPIC_API_VERSION


async def test_sampling_is_asked_for_in_the_api_version_that_has_it(
    server: AnthropicServer, provider: AnthropicProvider
) -> None:
    """The newer one refuses it by name, even at its default."""
    await collected(provider, call_of(temperature=0.0, top_p=0.9))
    [request] = server.requests
    assert (request.body["temperature"], request.body["top_p"]) == (0.0, 0.9)
    assert request.headers["anthropic-version"] == "2023-06-01" != ANTHROPIC_API_VERSION


async def test_other_servers_get_the_key_both_ways(server: AnthropicServer, provider: AnthropicProvider) -> None:
    await collected(provider, call_of())
    headers = server.requests[0].headers
    assert (headers["authorization"], headers["x-api-key"]) == (f"Bearer {KEY}", KEY)


@pytest.mark.parametrize(("set_to", "sent"), [(None, 32_000), (99, 99)])
async def test_max_tokens_has_a_default_that_can_be_set(server: AnthropicServer, set_to: int | None, sent: int) -> None:
    provider = provider_for(server.url, **({"anthropic_max_tokens": set_to} if set_to else {}))  # type: ignore[arg-type]
    await collected(provider, call_of())
    await provider.close()
    assert server.requests[0].body["max_tokens"] == sent


# --- going on from a text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "takes_it"),
    [
        ("claude-haiku-4-5", True),
        ("claude-sonnet-4-5-20250929", True),
        ("claude-opus-4-6", False),
        ("claude-sonnet-5-5", False),
        ("m", False),
    ],
)
def test_only_older_models_go_on_from_a_text(model: str, takes_it: bool) -> None:
    provider = provider_for(None)
    assert provider.can_continue(call_of(model))
    assert provider.can_continue(call_of(model, prefix=""))
    assert provider.can_continue(call_of(model, prefix="Once")) is takes_it


async def test_the_text_so_far_is_the_last_message(server: AnthropicServer) -> None:
    """Without the white space at its end, which the model then most likely repeats."""
    provider = provider_for(server.url, anthropic_prefill_models="m")
    server.on("m", start(), *block("\n", " ", "upon", " a time"), message_delta(), STOP)
    call = call_of(prefix="Once \n")
    assert provider.can_continue(call)
    assert await collected(provider, call) == [Token("upon"), Token(" a time"), Usage(9, 1), Finish("stop")]
    await provider.close()
    assert server.requests[0].body["messages"][1:] == [{"role": "assistant", "content": [{"type": "text", "text": "Once"}]}]


async def test_a_model_that_takes_no_prefix_is_sent_none(server: AnthropicServer, provider: AnthropicProvider) -> None:
    server.on("m", *answer(" anew"))
    assert (await collected(provider, call_of(prefix="Once ")))[0] == Token(" ")
    assert [message["role"] for message in server.requests[0].body["messages"]] == ["user"]


# --- keys and addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "  "])
async def test_without_a_key_the_worker_starts_and_the_call_fails(key: str | None) -> None:
    provider = provider_for(None, key)
    await provider.start()
    failure, _ = await failed(provider, call_of())
    assert (failure.code, failure.retryable) == ("auth", False)
    assert str(failure) == "ANTHROPIC_API_KEY is not set where the workers run: set it and start them again."
    await provider.close()


async def test_servers_without_keys_get_a_placeholder(server: AnthropicServer, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = provider_for(server.url, None)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-from-the-environment")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-from-the-environment")
    await collected(provider, call_of())
    await provider.close()
    headers = server.requests[0].headers
    assert (headers["authorization"], headers["x-api-key"]) == ("Bearer none", "none")


@pytest.mark.parametrize("key", ["sk-ant-two\nlines", "sk-ant-schlüssel"])
async def test_a_key_that_no_header_can_hold_is_named_and_not_shown(server: AnthropicServer, key: str) -> None:
    failure, _ = await failed(provider_for(server.url, key), call_of())
    assert failure.code == "auth"
    assert key not in everything_shown(failure)
    assert server.requests == []


async def test_white_space_around_a_key_does_no_harm(server: AnthropicServer) -> None:
    provider = provider_for(server.url, f"{KEY}\n")
    await collected(provider, call_of())
    await provider.close()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("url", "own"),
    [
        (None, True),
        ("https://api.anthropic.com", True),
        ("http://127.0.0.1:8000", False),
        ("https://api.anthropic.com.evil.example", False),
    ],
)
def test_which_servers_are_anthropic(url: str | None, own: bool) -> None:
    assert provider_for(url)._is_anthropic() is own


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://[::1", "/v1", "http://a b"])
async def test_a_base_url_that_is_no_address_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match="ANTHROPIC_BASE_URL must be an address"):
        await provider_for(url).start()


def test_a_worker_without_a_key_does_not_import_the_sdk() -> None:
    """It takes more than a second of CPU; this one's start must not pay for it."""
    code = """if True:
        import asyncio, sys
        from shared.providers import provider_configs
        from shared.settings import Settings
        from worker.providers.anthropic import AnthropicProvider
        from worker.providers.ollama import OllamaProvider
        configs = provider_configs(Settings())
        for provider in (AnthropicProvider(configs["anthropic"]), OllamaProvider(configs["ollama"])):
            asyncio.run(provider.start())
        print(sorted({"anthropic", "ollama", "httpx"} & sys.modules.keys()))
    """
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert shown.stdout.strip() == "[]"


# --- failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code", "retryable"),
    [
        (Status(400, error_body("prompt is too long: 210000 tokens > 200000 maximum")), "bad_request", False),
        (Status(401, error_body("invalid x-api-key", "authentication_error")), "auth", False),
        (Status(402, error_body("Your credit balance is too low", "billing_error")), "rate_limit", False),
        (Status(403, error_body("not allowed", "permission_error")), "auth", False),
        (Status(404, error_body("model: m", "not_found_error")), "bad_request", False),
        (Status(413, error_body("Request exceeds the maximum size", "request_too_large")), "bad_request", False),
        (Status(429, error_body("slow down", "rate_limit_error")), "rate_limit", True),
        (Status(500, error_body("Internal server error", "api_error")), "overloaded", True),
        (Status(502, b"<html>Bad Gateway</html>", {"content-type": "text/html"}), "overloaded", True),
        (Status(503, b""), "overloaded", True),
        (Status(504, error_body("Request timed out", "timeout_error")), "timeout", True),
        (Status(529, error_body("Overloaded", "overloaded_error")), "overloaded", True),
        (Cut(), "connection", True),
    ],
)
async def test_failures_before_the_first_token(
    server: AnthropicServer, provider: AnthropicProvider, step: Step, code: str, retryable: bool
) -> None:
    server.on("m", step)
    failure, said = await failed(provider, call_of())
    assert (failure.code, failure.retryable, said) == (code, retryable, "")
    assert "anthropic/m" in str(failure)
    assert not isinstance(step, Status) or str(step.status) in str(failure)
    assert len(server.requests) == 1, "the SDK retried"


@pytest.mark.parametrize(
    ("steps", "code", "retryable"),
    [
        ((error_event("Overloaded"),), "overloaded", True),
        ((error_event("Internal server error", "api_error"),), "overloaded", True),
        ((error_event("slow down", "rate_limit_error"),), "rate_limit", True),
        ((error_event("Request timed out", "timeout_error"),), "timeout", True),
        ((error_event("bad", "invalid_request_error"),), "bad_request", False),
        ((error_event("new", "never_heard_of_error"),), "overloaded", True),
        ((b"event: error\ndata: just words\n\n",), "overloaded", True),
        ((b'event: error\ndata: ["a list"]\n\n',), "overloaded", True),
        ((b"event: content_block_delta\ndata: {broken\n\n",), "connection", True),
        ((b'event: content_block_delta\ndata: {"x":"\xff"}\n\n',), "connection", True),
        ((Cut(),), "connection", True),
        ((), "incomplete", True),
        ((message_delta(),), "incomplete", True),
        ((message_delta(None), STOP), "incomplete", True),
        ((message_delta("pause_turn"), STOP), "incomplete", False),
    ],
)
async def test_failures_in_mid_stream_leave_the_text_so_far(
    server: AnthropicServer, provider: AnthropicProvider, steps: tuple[Step, ...], code: str, retryable: bool
) -> None:
    server.on("m", start(), block_start(), text("Hel"), text("lo"), *steps)
    failure, said = await failed(provider, call_of())
    assert (failure.code, failure.retryable, said) == (code, retryable, "Hello")
    assert "anthropic/m" in str(failure)


@pytest.mark.parametrize("steps", [(Stall(),), (start(), Stall())])
async def test_silence_past_the_read_timeout(
    server: AnthropicServer, monkeypatch: pytest.MonkeyPatch, steps: tuple[Step, ...]
) -> None:
    monkeypatch.setattr("worker.providers.upstream.READ_MARGIN_S", 0.05)
    provider = provider_for(server.url, first_token_timeout_s=0.05, idle_timeout_s=0.05)
    server.on("m", *steps)
    failure, _ = await failed(provider, call_of())
    await provider.close()
    assert (failure.code, failure.retryable) == ("timeout", True)


async def test_nobody_there(unused_tcp_port: int) -> None:
    provider = provider_for(f"http://127.0.0.1:{unused_tcp_port}")
    failure, _ = await failed(provider, call_of())
    await provider.close()
    assert failure.code == "connection"
    assert "could not be reached at 127.0.0.1" in str(failure)


async def test_retry_after_is_kept(server: AnthropicServer, provider: AnthropicProvider) -> None:
    server.on("m", Status(429, error_body("slow down", "rate_limit_error"), {"retry-after": "7"}))
    failure, _ = await failed(provider, call_of())
    assert failure.retry_after_s == 7


async def test_a_failed_call_is_followed_by_a_good_one(server: AnthropicServer, provider: AnthropicProvider) -> None:
    server.on("m", Status(529))
    server.on("m", *answer("fine"))
    await failed(provider, call_of())
    assert (await collected(provider, call_of()))[0] == Token("fine")


# --- secrets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        (Status(401, error_body(f"invalid x-api-key: {KEY}.", "authentication_error")),),
        (Status(400, error_body(f"{'x' * 380} header {KEY} is odd")),),
        (Status(500, f"trace: {KEY}".encode()),),
        (start(), error_event(f"failed for {KEY}")),
    ],
)
async def test_a_key_that_the_server_repeats_is_not_shown(
    server: AnthropicServer, provider: AnthropicProvider, capsys: pytest.CaptureFixture[str], steps: tuple[Step, ...]
) -> None:
    server.on("m", *steps)
    failure, _ = await failed(provider, call_of())
    shown = everything_shown(failure) + "".join(capsys.readouterr()) + repr(provider) + str(vars(provider))
    assert KEY[:16] not in shown


# --- closing -------------------------------------------------------------------------------------------------------------


async def test_cancelling_before_the_first_token_closes_upstream_at_once(
    server: AnthropicServer, provider: AnthropicProvider
) -> None:
    server.on("m", Stall())
    await collected(provider, call_of("warm"))
    server.requests.clear()
    assert await cancelled(provider, call_of(), server, after_chunks=0) <= CLOSED_WITHIN_S


async def test_cancelling_between_tokens_closes_upstream_at_once(server: AnthropicServer, provider: AnthropicProvider) -> None:
    server.on("m", start(), block_start(), text("x"), Stall())
    assert await cancelled(provider, call_of(), server, after_chunks=3) <= CLOSED_WITHIN_S


async def test_cancelling_while_tokens_flow_closes_upstream_at_once(
    server: AnthropicServer, provider: AnthropicProvider
) -> None:
    assert await cancelled(provider, call_of("count:100000:200"), server, after_chunks=10) <= CLOSED_WITHIN_S


async def test_leaving_early_closes_upstream(server: AnthropicServer, provider: AnthropicProvider) -> None:
    server.on("m", start(), *block("x"), Stall())
    async with provider.stream(call_of()) as deltas:
        assert await anext(deltas) == Token("x")
    await wait_until(lambda: server.requests[0].left_at is not None)


async def test_the_consumers_own_error_passes_unchanged(server: AnthropicServer, provider: AnthropicProvider) -> None:
    async def consume() -> None:
        async with provider.stream(call_of()) as deltas:
            async for _ in deltas:
                raise ValueError("mine")

    server.on("m", start(), *block("x"), Stall())
    with pytest.raises(ValueError, match="mine"):
        await consume()
    await wait_until(lambda: server.requests[0].left_at is not None)


async def test_closing_the_provider_ends_open_streams(server: AnthropicServer, provider: AnthropicProvider) -> None:
    server.on("m", start(), *block("x"), Stall())
    task = asyncio.create_task(failed(provider, call_of()))
    await wait_until(lambda: bool(server.requests) and server.requests[0].chunks_sent == 4)
    await provider.close()
    failure, _ = await asyncio.wait_for(task, 5)
    assert failure.code == "connection"
