"""worker/providers/ollama.py, through the official client against a server on loopback that speaks Ollama's wire format."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.errors import ConfigurationError
from shared.events import Reasoning, Token, ToolCall, Usage
from shared.job import JobRequest
from tests.support.ollama_server import (
    OllamaServer,
    answer,
    done,
    error_body,
    error_line,
    line,
    text,
    thinking,
    tool_call,
)
from tests.support.provider_calls import CLOSED_WITHIN_S, cancelled, collected, config_of, everything_shown, failed
from tests.support.upstream import Cut, Pause, Stall, Status, Step
from tests.support.waiting import wait_until
from worker.providers.base import Call, Finish, Prefix
from worker.providers.ollama import OllamaProvider, server_url

KEY = "8f14e45fceea167a5a36dedd4bea2543.ollama"


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with OllamaServer() as server:
        yield server


@pytest.fixture
async def provider(server: OllamaServer) -> AsyncIterator[OllamaProvider]:
    provider = provider_for(server.url)
    await provider.start()
    yield provider
    await provider.close()


def provider_for(host: str | None, key: str | None = KEY, **settings: object) -> OllamaProvider:
    return OllamaProvider(config_of("ollama", ollama_host=host, ollama_api_key=key, **settings))


def call_of(model: str = "m", max_tokens: int | None = None, prefix: str | None = None, **request: Any) -> Call:
    body = {"model": f"ollama/{model}", "prompt": "Say hello.", **request}
    kept = Prefix(prefix) if prefix is not None else None
    return Call("job_x", model, JobRequest.model_validate(body), max_tokens, kept)


# --- what comes ----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_its_tokens_then_usage_then_finish(server: OllamaServer, provider: OllamaProvider) -> None:
    server.on("m", *answer("one two three"))
    assert await collected(provider, call_of()) == [
        Token("one "), Token("two "), Token("three"), Usage(9, 3), Finish("stop")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "reason"), [("stop", "stop"), ("length", "length"), (None, "stop"), ("from_the_future", "stop")]
)
async def test_done_reasons(server: OllamaServer, provider: OllamaProvider, sent: str | None, reason: str) -> None:
    server.on("m", text("x"), done(sent))
    assert (await collected(provider, call_of()))[-1] == Finish(reason)  # type: ignore[arg-type]


async def test_every_kind_of_delta(server: OllamaServer, provider: OllamaProvider) -> None:
    server.on(
        "m",
        thinking("hm "),
        text("é🙂"),
        tool_call("weather", {"city": "Köln"}, id="call_1"),
        tool_call("time", {}, id="call_2", index=1),
        done(output_tokens=7),
    )
    assert await collected(provider, call_of()) == [
        Reasoning("hm "),
        Token("é🙂"),
        ToolCall(0, "call_1", "weather", '{"city": "Köln"}'),
        ToolCall(1, "call_2", "time", "{}"),
        Usage(9, 7),
        Finish("tool_calls"),
    ]


async def test_a_character_split_between_packets_arrives_whole(server: OllamaServer, provider: OllamaProvider) -> None:
    whole = text("🙂")
    cut = whole.index(b"\x9f")
    server.on("m", whole[:cut], Pause(0.02), whole[cut:], done())
    assert await collected(provider, call_of()) == [Token("🙂"), Usage(9, 1), Finish("stop")]


async def test_an_answer_without_counts_ends_well(server: OllamaServer, provider: OllamaProvider) -> None:
    """Half a count would look like a whole one."""
    server.on("m", text("x"), done(input_tokens=None))
    assert await collected(provider, call_of()) == [Token("x"), Finish("stop")]


@pytest.mark.parametrize("then", [(Cut(),), (Stall(),), (b"{broken\n",), (error_line("too late"),)])
async def test_after_the_end_nothing_spoils_the_answer(
    server: OllamaServer, provider: OllamaProvider, then: tuple[Step, ...]
) -> None:
    server.on("m", text("whole"), done(), *then)
    assert await collected(provider, call_of()) == [Token("whole"), Usage(9, 1), Finish("stop")]


async def test_the_connection_serves_the_next_call(server: OllamaServer, provider: OllamaProvider) -> None:
    for _ in range(3):
        await collected(provider, call_of())
    assert len({request.client_port for request in server.requests}) == 1


# --- what is sent --------------------------------------------------------------------------------------------------------


async def test_the_request_carries_what_was_set_and_nothing_else(server: OllamaServer, provider: OllamaProvider) -> None:
    """Nested parameters and ids too, which the client's own types would drop."""
    where = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    schema = {"type": "object", "properties": {"where": where}, "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    written = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"where":{"city":"Rome"}}'}}
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [written]},
        {"role": "tool", "content": "Sunny", "tool_call_id": "c1"},
    ]
    await collected(
        provider,
        call_of(
            max_tokens=64, prompt=None, messages=chat, temperature=1.5, top_p=0.9, stop="END", seed=7, tools=tools,
            metadata={"secret": "ours"}, token_budget=100,
        ),
    )  # fmt: skip
    [request] = server.requests
    assert request.body == {
        "model": "m",
        "stream": True,
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": {"where": {"city": "Rome"}}}}],
            },
            {"role": "tool", "content": "Sunny", "tool_call_id": "c1", "tool_name": "weather"},
        ],
        "options": {"num_predict": 64, "temperature": 1.5, "top_p": 0.9, "stop": ["END"], "seed": 7},
        "tools": tools,
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_servers_without_keys_get_none(server: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    provider = provider_for(server.url, None)
    await collected(provider, call_of())
    await provider.close()
    assert "authorization" not in server.requests[0].headers


async def test_no_file_of_the_worker_is_sent_as_an_image(server: OllamaServer, provider: OllamaProvider) -> None:
    """The client's own types open what looks like a path: `/etc/hosts` is base64 too."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,/etc/hostsAA"}}
    await collected(provider, call_of(prompt=None, messages=[{"role": "user", "content": [part]}]))
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "", "images": ["/etc/hostsAA"]}]


def test_it_cannot_go_on_from_a_text() -> None:
    provider = provider_for(None)
    assert provider.can_continue(call_of())
    assert provider.can_continue(call_of(prefix=""))
    assert not provider.can_continue(call_of(prefix="Once"))


# --- keys and addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":567", "http://127.0.0.1:567"),
        ("1.2.3.4:80", "http://1.2.3.4:80"),
        ("ollama", "http://ollama:11434"),
        ("http://ollama", "http://ollama"),
        ("https://ollama:1/path/", "https://ollama:1/path"),
        ("ollama/path/", "http://ollama:11434/path"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:5", "http://[::1]:5"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:5", "http://127.0.0.1:5"),
    ],
)
def test_a_host_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    assert server_url(host) == url


@pytest.mark.parametrize("host", ["::1", "host:port", "ftp://host", "http://[::1", "a b"])
async def test_a_host_that_is_no_address_stops_the_start(host: str) -> None:
    with pytest.raises(ConfigurationError, match="OLLAMA_HOST must be"):
        await provider_for(host).start()


async def test_a_key_that_no_header_can_hold_is_named_and_not_shown(server: OllamaServer) -> None:
    failure, _ = await failed(provider_for(server.url, "two\nlines"), call_of())
    assert failure.code == "auth"
    assert "two" not in everything_shown(failure)
    assert server.requests == []


def test_what_openais_calls_look_at_is_never_half_imported() -> None:
    """httpx, which that SDK takes for whole as soon as it finds it; the rest may be left to a thread."""
    code = """if True:
        import asyncio, sys
        from shared.providers import provider_configs
        from shared.settings import Settings
        from worker.providers.ollama import OllamaProvider
        provider = OllamaProvider(provider_configs(Settings(ollama_host="llm:1"))["ollama"])
        async def start():
            await provider.start()
            print(hasattr(sys.modules.get("httpx"), "Timeout"))
            await provider.close()
        asyncio.run(start())
    """
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert shown.stdout == "True\n"


# --- failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code", "retryable", "words"),
    [
        (Status(400, error_body("m does not support tools")), "bad_request", False, ": m does not support tools."),
        (Status(401, error_body("unauthorized")), "auth", False, "check OLLAMA_API_KEY"),
        (Status(403, error_body("this model requires a subscription")), "auth", False, "requires a subscription"),
        (Status(404, error_body("model 'm' not found")), "bad_request", False, "run `ollama pull m` where Ollama runs"),
        (Status(404, b"404 page not found"), "bad_request", False, "check OLLAMA_HOST"),
        (Status(429, error_body("too many requests")), "rate_limit", True, "limits the rate (429)"),
        (Status(500, error_body("llama runner process has terminated")), "overloaded", True, "process has terminated"),
        (Status(500, b'"just words"'), "overloaded", True, "(500)"),
        (Status(502, b"<html>Bad Gateway</html>", {"content-type": "text/html"}), "overloaded", True, "(502)."),
        (Status(503, error_body("server busy, please try again")), "overloaded", True, "server busy"),
        (Cut(), "connection", True, "broke"),
    ],
)
async def test_failures_before_the_first_token(
    server: OllamaServer, provider: OllamaProvider, step: Step, code: str, retryable: bool, words: str
) -> None:
    server.on("m", step)
    failure, said = await failed(provider, call_of())
    assert (failure.code, failure.retryable, said) == (code, retryable, "")
    assert "ollama/m" in str(failure)
    assert words in str(failure)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((error_line("an error was encountered while running the model: CUDA error"),), "overloaded"),
        ((b'{"error":{"message":"an object"}}\n',), "connection"),
        ((b'{"error":"500"}\n',), "connection"),
        ((b"{broken\n",), "connection"),
        ((b"[1]\n",), "connection"),
        ((b"7\n",), "connection"),
        ((line(message={"content": ["a part"]}, done=False),), "unsupported"),
        ((Cut(),), "connection"),
        ((), "incomplete"),
        ((line(done=False),), "incomplete"),
        ((done("unload"),), "incomplete"),
    ],
)
async def test_failures_in_mid_stream_leave_the_text_so_far(
    server: OllamaServer, provider: OllamaProvider, steps: tuple[Step, ...], code: str
) -> None:
    server.on("m", text("Hel"), text("lo"), *steps)
    failure, said = await failed(provider, call_of())
    assert (failure.code, said) == (code, "Hello")
    assert "ollama/m" in str(failure)


async def test_the_words_of_an_error_in_mid_stream_are_kept(server: OllamaServer, provider: OllamaProvider) -> None:
    server.on("m", text("x"), error_line("CUDA error: out of memory"))
    failure, _ = await failed(provider, call_of())
    assert str(failure) == "ollama/m failed (in mid-stream): CUDA error: out of memory."


@pytest.mark.parametrize("steps", [(Stall(),), (text("x"), Stall())])
async def test_silence_past_the_read_timeout(
    server: OllamaServer, monkeypatch: pytest.MonkeyPatch, steps: tuple[Step, ...]
) -> None:
    monkeypatch.setattr("worker.providers.upstream.READ_MARGIN_S", 0.05)
    provider = provider_for(server.url, first_token_timeout_s=0.05, idle_timeout_s=0.05)
    server.on("m", *steps)
    failure, _ = await failed(provider, call_of())
    await provider.close()
    assert (failure.code, failure.retryable) == ("timeout", True)


async def test_nobody_there(unused_tcp_port: int) -> None:
    provider = provider_for(f"127.0.0.1:{unused_tcp_port}")
    failure, _ = await failed(provider, call_of())
    await provider.close()
    assert (failure.code, failure.retryable) == ("connection", True)
    assert f"nothing answers at http://127.0.0.1:{unused_tcp_port}" in str(failure)
    assert "start Ollama" in str(failure)


async def test_retry_after_is_kept(server: OllamaServer, provider: OllamaProvider) -> None:
    server.on("m", Status(429, error_body("slow down"), {"retry-after": "7"}))
    failure, _ = await failed(provider, call_of())
    assert failure.retry_after_s == 7


async def test_a_failed_call_is_followed_by_a_good_one(server: OllamaServer, provider: OllamaProvider) -> None:
    server.on("m", Status(503))
    server.on("m", *answer("fine"))
    await failed(provider, call_of())
    assert (await collected(provider, call_of()))[0] == Token("fine")


@pytest.mark.parametrize(
    "steps",
    [
        (Status(401, error_body(f"invalid key {KEY}")),),
        (Status(500, error_body(f"{'x' * 380} header {KEY} is odd")),),
        (text("x"), error_line(f"failed for {KEY}")),
    ],
)
async def test_a_key_that_the_server_repeats_is_not_shown(
    server: OllamaServer, provider: OllamaProvider, capsys: pytest.CaptureFixture[str], steps: tuple[Step, ...]
) -> None:
    server.on("m", *steps)
    failure, _ = await failed(provider, call_of())
    shown = everything_shown(failure) + "".join(capsys.readouterr()) + repr(provider) + str(vars(provider))
    assert KEY[:14] not in shown


# --- closing -------------------------------------------------------------------------------------------------------------


async def test_cancelling_before_the_first_token_closes_upstream_at_once(
    server: OllamaServer, provider: OllamaProvider
) -> None:
    server.on("m", Stall())
    await collected(provider, call_of("warm"))
    server.requests.clear()
    assert await cancelled(provider, call_of(), server, after_chunks=0) <= CLOSED_WITHIN_S


async def test_cancelling_between_tokens_closes_upstream_at_once(server: OllamaServer, provider: OllamaProvider) -> None:
    server.on("m", text("x"), Stall())
    assert await cancelled(provider, call_of(), server, after_chunks=1) <= CLOSED_WITHIN_S


async def test_cancelling_while_tokens_flow_closes_upstream_at_once(server: OllamaServer, provider: OllamaProvider) -> None:
    assert await cancelled(provider, call_of("count:100000:200"), server, after_chunks=10) <= CLOSED_WITHIN_S


async def test_leaving_early_closes_upstream(server: OllamaServer, provider: OllamaProvider) -> None:
    server.on("m", text("x"), Stall())
    async with provider.stream(call_of()) as deltas:
        assert await anext(deltas) == Token("x")
    await wait_until(lambda: server.requests[0].left_at is not None)


async def test_the_consumers_own_error_passes_unchanged(server: OllamaServer, provider: OllamaProvider) -> None:
    """Also one that the client itself may raise."""

    async def consume() -> None:
        async with provider.stream(call_of()) as deltas:
            async for _ in deltas:
                raise TypeError("mine")

    server.on("m", text("x"), Stall())
    with pytest.raises(TypeError, match="mine"):
        await consume()
    await wait_until(lambda: server.requests[0].left_at is not None)


async def test_closing_the_provider_ends_open_streams(server: OllamaServer, provider: OllamaProvider) -> None:
    server.on("m", text("x"), Stall())
    task = asyncio.create_task(failed(provider, call_of()))
    await wait_until(lambda: bool(server.requests) and server.requests[0].chunks_sent == 1)
    await provider.close()
    failure, _ = await asyncio.wait_for(task, 5)
    assert failure.code == "connection"
