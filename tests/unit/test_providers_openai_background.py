"""worker/providers/openai_background.py, through the real SDK against a server on loopback that speaks the Responses API."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from shared.errors import UpstreamExpired, UpstreamOver
from shared.events import Reasoning, Refusal, Token, ToolCall, Usage
from shared.job import JobRequest
from tests.support.openai_responses_server import (
    Cut,
    LifeStep,
    Pause,
    ResponsesServer,
    Stall,
    Status,
    Until,
    answer,
    arguments,
    called,
    completed,
    error,
    error_body,
    failed,
    incomplete,
    nested_error,
    opening,
    refusal,
    text,
    thought,
    thought_part,
    tool_call,
)
from tests.support.provider_calls import CLOSED_WITHIN_S, collected, config_of, everything_shown
from tests.support.provider_calls import failed as failure_of
from tests.support.waiting import wait_until
from worker.providers.base import Call, Delta, Finish, Prefix, ResumableProvider, Upstream
from worker.providers.openai_background import OpenAIBackgroundProvider

KEY = "sk-test-8f14e45fceea167a5a36dedd4bea2543"


@pytest.fixture
async def server() -> AsyncIterator[ResponsesServer]:
    async with ResponsesServer() as server:
        yield server


@pytest.fixture
async def provider(server: ResponsesServer) -> AsyncIterator[OpenAIBackgroundProvider]:
    provider = provider_for(server.url)
    await provider.start()
    yield provider
    await provider.close()


def provider_for(base_url: str | None, key: str | None = KEY, **settings: object) -> OpenAIBackgroundProvider:
    return OpenAIBackgroundProvider(config_of("openai", openai_api_key=key, openai_base_url=base_url, **settings))


def call_of(model: str = "m", upstream: Upstream | None = None, **request: Any) -> Call:
    body = {"model": f"openai/{model}", "prompt": "Say hello.", **request}
    return Call("job_x", model, JobRequest.model_validate(body), upstream=upstream)


def without_places(deltas: list[Delta]) -> list[Delta]:
    return [delta for delta in deltas if not isinstance(delta, Upstream)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Token))


async def first(provider: OpenAIBackgroundProvider, call: Call, n: int) -> list[Delta]:
    """The first `n` pieces of content with all that came before; then the stream is left."""
    taken: list[Delta] = []
    async with provider.stream(call) as deltas:
        async for delta in deltas:
            taken.append(delta)
            if len(without_places(taken)) == n:
                break
    return taken


# --- a new response ------------------------------------------------------------------------------------------------------


async def test_an_answer_is_its_id_its_tokens_each_with_its_position_usage_and_finish(
    server: ResponsesServer, provider: OpenAIBackgroundProvider
) -> None:
    server.on("m", *answer("one two"))
    assert await collected(provider, call_of()) == [
        Upstream("resp_0", 0), Upstream("resp_0", 3), Token("one "), Upstream("resp_0", 4), Token("two"),
        Usage(9, 2), Finish("stop"),
    ]  # fmt: skip
    assert (len(server.creates), server.resumes, server.cancels) == (1, [], [])


async def test_the_create_asks_for_background_a_stream_and_a_store(
    server: ResponsesServer, provider: OpenAIBackgroundProvider
) -> None:
    await collected(provider, call_of(temperature=0.5))
    assert server.creates[0].body == {
        "model": "m", "input": [{"role": "user", "content": "Say hello."}], "temperature": 0.5,
        "stream": True, "background": True, "store": True,
    }  # fmt: skip


async def test_the_submits_id_is_sent_with_the_create(server: ResponsesServer, provider: OpenAIBackgroundProvider) -> None:
    await collected(provider, msgspec.structs.replace(call_of(), request_id="edge-1"))
    assert server.creates[0].headers["x-request-id"] == "edge-1"


async def test_every_kind_of_delta(server: ResponsesServer, provider: OpenAIBackgroundProvider) -> None:
    call = called(2, "call_1", "weather", '{"city":"Rome"}')
    server.on(
        "m",
        thought_part(0),
        thought("hm "),
        thought_part(1),
        thought("well", part=1),
        text("é🙂", item=1),
        refusal("No.", item=1),
        tool_call(2, "call_1", "weather"),
        arguments('{"city":', 2),
        arguments('"Rome"}', 2),
        call,
        completed(call["item"], counts=(4, 7)),
    )
    assert without_places(await collected(provider, call_of())) == [
        Reasoning("hm "),
        Reasoning("\n\n"),
        Reasoning("well"),
        Token("é🙂"),
        Refusal("No."),
        ToolCall(2, "call_1", "weather"),
        ToolCall(2, arguments='{"city":'),
        ToolCall(2, arguments='"Rome"}'),
        Usage(4, 7),
        Finish("tool_calls"),
    ]


@pytest.mark.parametrize(("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")])
async def test_an_answer_that_was_cut_at_a_limit(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, reason: str, finish: str
) -> None:
    server.on("m", text("x"), incomplete(reason))
    assert (await collected(provider, call_of()))[-2:] == [Usage(9, 3), Finish(finish)]  # type: ignore[arg-type]


async def test_the_connection_serves_the_next_call(server: ResponsesServer, provider: OpenAIBackgroundProvider) -> None:
    for _ in range(3):
        await collected(provider, call_of())
    assert len({request.client_port for request in server.requests}) == 1


# --- reading on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", range(1, 6))
async def test_any_cut_and_the_rest_are_the_whole(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, read: int
) -> None:
    """Nothing lost, nothing doubled, and asked for once."""
    server.on("m", *answer("one two three four five"))
    before = await first(provider, call_of(), read)
    place = [delta for delta in before if isinstance(delta, Upstream)][-1]
    after = await collected(provider, call_of(upstream=place))
    assert text_of(before) + text_of(after) == "one two three four five"
    assert after[-2:] == [Usage(9, 5), Finish("stop")]
    assert (len(server.creates), server.resumes, server.cancels) == (1, [("resp_0", place.position)], [])


async def test_a_response_goes_on_while_nobody_reads_it(server: ResponsesServer, provider: OpenAIBackgroundProvider) -> None:
    server.on("m", text("a"), text("b"), Cut(), Pause(0.02), text("c"), completed())
    failure, said = await failure_of(provider, call_of())
    assert (failure.code, said, isinstance(failure, UpstreamOver)) == ("connection", "ab", False)
    rest = await collected(provider, call_of(upstream=Upstream("resp_0", 4)))
    assert rest == [Upstream("resp_0", 5), Token("c"), Usage(9, 3), Finish("stop")]


async def test_a_tool_call_goes_on_under_its_index(server: ResponsesServer, provider: OpenAIBackgroundProvider) -> None:
    call = called(1, "call_1", "weather", '{"a":1}')
    server.on(
        "m", text("Hm."), tool_call(1, "call_1", "weather"), arguments('{"a"', 1), arguments(":1}", 1), completed(call["item"])
    )
    before = await first(provider, call_of(), 3)
    assert isinstance(before[-2], Upstream)
    after = await collected(provider, call_of(upstream=before[-2]))
    assert without_places(after)[0] == ToolCall(1, arguments=":1}")
    assert after[-1] == Finish("tool_calls")


async def test_it_can_go_on_from_a_response_and_not_from_a_text(provider: OpenAIBackgroundProvider) -> None:
    request = call_of().request
    assert isinstance(provider, ResumableProvider)
    assert provider.can_continue(Call("j", "m", request, prefix=Prefix("Once"), upstream=Upstream("resp_0", 4)))
    assert not provider.can_continue(Call("j", "m", request, prefix=Prefix("Once")))
    assert provider.can_continue(Call("j", "m", request))


@pytest.mark.parametrize(
    "status",
    [
        None,  # the server's own 404
        Status(400, error_body("This response can no longer be streamed because it is more than 5 minutes old.")),
        Status(410, b""),
    ],
)
async def test_a_response_that_is_not_handed_out_any_more(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, status: Status | None
) -> None:
    await first(provider, call_of(), 1)
    if status is None:
        server.expire("resp_0")
    else:
        server.refused_resumes.append(status)
    failure, _ = await failure_of(provider, call_of(upstream=Upstream("resp_0", 3)))
    assert isinstance(failure, UpstreamExpired)
    assert (failure.code, failure.retryable) == ("incomplete", True)
    assert str(failure) == f"openai/m does not hand its response out any more ({status.status if status else 404})."


@pytest.mark.parametrize(("status", "code"), [(503, "overloaded"), (429, "rate_limit"), (401, "auth")])
async def test_a_resume_that_is_refused_for_now_is_no_end(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, status: int, code: str
) -> None:
    server.refused_resumes.append(Status(status, b"", {"retry-after": "7"}))
    failure, _ = await failure_of(provider, call_of(upstream=Upstream("resp_0", 3)))
    assert (failure.code, failure.retry_after_s, isinstance(failure, UpstreamOver)) == (code, 7, False)


# --- failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (Status(400, error_body("too long", code="context_length_exceeded")), "bad_request", False),
        (Status(401, error_body("Incorrect API key provided", code="invalid_api_key")), "auth", False),
        (Status(404, error_body("no such model", code="model_not_found")), "bad_request", False),
        (Status(429, error_body("slow down", "requests", "rate_limit_exceeded")), "rate_limit", True),
        (Status(503, b""), "overloaded", True),
    ],
)
async def test_a_create_that_is_refused(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, status: Status, code: str, retryable: bool
) -> None:
    server.on("m", status)
    failure, _ = await failure_of(provider, call_of())
    assert (failure.code, failure.retryable, isinstance(failure, UpstreamOver)) == (code, retryable, False)
    assert len(server.requests) == 1, "the SDK retried"


@pytest.mark.parametrize(
    ("step", "code", "retryable"),
    [
        (failed("server_error"), "overloaded", True),
        (failed("rate_limit_exceeded"), "rate_limit", True),
        (failed("invalid_prompt"), "bad_request", False),
        (failed("failed_to_download_image"), "bad_request", False),
        (failed("image_content_policy_violation"), "content_filter", False),
        (error("server_error"), "overloaded", True),
        (error(None), "overloaded", True),
        (nested_error("rate_limit_exceeded"), "rate_limit", True),
        (incomplete("steered"), "incomplete", True),
    ],
)
async def test_a_response_that_fails_is_over(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, step: LifeStep, code: str, retryable: bool
) -> None:
    """Read on, it would only say so again."""
    server.on("m", text("Hel"), text("lo"), step)
    failure, said = await failure_of(provider, call_of())
    assert (failure.code, failure.retryable, said) == (code, retryable, "Hello")
    assert isinstance(failure, UpstreamOver)
    assert not isinstance(failure, UpstreamExpired)
    assert "openai/m" in str(failure)


@pytest.mark.parametrize(
    ("steps", "code"),
    [((Cut(),), "connection"), ((b"data: {broken\n\n",), "connection"), ((), "incomplete")],
)
async def test_a_stream_that_breaks_off_leaves_the_response_to_go_on(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, steps: tuple[LifeStep, ...], code: str
) -> None:
    server.on("m", text("Hel"), text("lo"), *steps)
    failure, said = await failure_of(provider, call_of())
    assert (failure.code, failure.retryable, said, isinstance(failure, UpstreamOver)) == (code, True, "Hello", False)


async def test_a_response_that_fails_with_its_first_event(server: ResponsesServer, provider: OpenAIBackgroundProvider) -> None:
    server.on("m", {"type": "response.created", "response": {}}, failed("server_error"))
    failure, _ = await failure_of(provider, call_of())
    assert (failure.code, isinstance(failure, UpstreamOver)) == ("overloaded", True)


async def test_without_its_id_there_is_nothing_to_read_on(server: ResponsesServer, provider: OpenAIBackgroundProvider) -> None:
    server.on("m", Cut(), *opening())
    failure, _ = await failure_of(provider, call_of())
    assert failure.code == "connection"


@pytest.mark.parametrize(
    "steps",
    [
        (Status(401, error_body(f"Incorrect API key provided: {KEY}.", code="invalid_api_key")),),
        (text("x"), failed("server_error", f"failed for {KEY}")),
        (text("x"), nested_error(None, f"failed for {KEY}")),
    ],
)
async def test_a_key_that_the_server_repeats_is_not_shown(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, capsys: pytest.CaptureFixture[str], steps: tuple[LifeStep, ...]
) -> None:
    server.on("m", *steps)
    failure, _ = await failure_of(provider, call_of())
    assert KEY[:14] not in everything_shown(failure) + "".join(capsys.readouterr())


# --- closing, and abandoning ---------------------------------------------------------------------------------------------


async def test_leaving_closes_the_connection_at_once_and_cancels_nothing(
    server: ResponsesServer, provider: OpenAIBackgroundProvider
) -> None:
    """A hand-over leaves the response to the next worker."""
    server.on("m", text("x"), Stall())
    await first(provider, call_of(), 1)
    since = time.monotonic()
    await wait_until(lambda: server.requests[0].left_at is not None, message="upstream is still open")
    left_at = server.requests[0].left_at
    assert left_at is not None
    assert left_at - since <= CLOSED_WITHIN_S
    assert (server.cancels, server.responses["resp_0"].over) == ([], False)


async def test_an_abandoned_response_is_cancelled_upstream(server: ResponsesServer, provider: OpenAIBackgroundProvider) -> None:
    server.on("m", text("x"), Stall())
    await first(provider, call_of(), 1)
    await provider.abandon("resp_0")
    assert [response_id for response_id, _ in server.cancels] == ["resp_0"]
    assert server.responses["resp_0"].status == "cancelled"


@pytest.mark.parametrize("status", [Status(503), Status(429), Status(408)])
async def test_a_cancel_is_tried_again(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    monkeypatch.setattr("worker.providers.openai_background._FIRST_PAUSE_S", 0.01)
    server.on("m", text("x"), Stall())
    await first(provider, call_of(), 1)
    server.refused_cancels.append(status)
    await provider.abandon("resp_0")
    assert (len(server.cancels), server.responses["resp_0"].status) == (2, "cancelled")


@pytest.mark.parametrize("status", [None, Status(400, error_body("Cannot cancel a completed response.")), Status(409)])
async def test_what_is_over_there_is_left_alone_without_a_word(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, capsys: pytest.CaptureFixture[str], status: Status | None
) -> None:
    if status is not None:
        server.refused_cancels.append(status)
    await provider.abandon("resp_unknown")
    assert (len(server.cancels), capsys.readouterr().out) == (1, "")


async def test_a_cancel_that_cannot_be_sent_is_told_in_the_log_and_to_nobody_else(
    server: ResponsesServer, provider: OpenAIBackgroundProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refused_cancels.append(Status(401, error_body(f"Incorrect API key provided: {KEY}.")))
    await provider.abandon("resp_0")
    told = capsys.readouterr().out
    assert "a response may go on upstream" in told
    assert "resp_0" in told
    assert KEY[:14] not in told


async def test_a_cancel_takes_bounded_time(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> None:
    monkeypatch.setattr("worker.providers.openai_background.ABANDON_S", 0.2)
    provider = provider_for(f"http://127.0.0.1:{unused_tcp_port}/v1")
    since = time.monotonic()
    await provider.abandon("resp_0")
    await provider.close()
    assert time.monotonic() - since < 2


async def left_before_its_id(server: ResponsesServer, provider: OpenAIBackgroundProvider, *then: LifeStep) -> asyncio.Event:
    """A create that nobody waits for any more; what it comes to follows once the event is set."""
    go = asyncio.Event()
    server.on("m", Until(go), *then)
    waiting = asyncio.create_task(collected(provider, call_of()))
    await wait_until(lambda: bool(server.creates))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, CLOSED_WITHIN_S)
    assert server.cancels == []
    return go


async def test_a_create_that_nobody_waits_for_is_abandoned_once_its_id_is_known(
    server: ResponsesServer, provider: OpenAIBackgroundProvider
) -> None:
    """A cancel, or the deadline for the first token, may come before the id; the response would be paid for to its end."""
    go = await left_before_its_id(server, provider, *opening(), Stall())
    go.set()
    await wait_until(lambda: bool(server.cancels), message="it is cancelled upstream")
    assert server.responses["resp_0"].status == "cancelled"


async def test_a_create_that_nobody_waits_for_and_that_fails_is_nobodys_business(
    server: ResponsesServer, provider: OpenAIBackgroundProvider
) -> None:
    go = await left_before_its_id(server, provider, Cut(), *opening())
    go.set()
    await provider.close()
    assert server.cancels == []


async def test_closing_waits_for_what_is_to_be_abandoned(server: ResponsesServer) -> None:
    provider = provider_for(server.url)
    go = await left_before_its_id(server, provider, *opening(), Stall())
    closing = asyncio.create_task(provider.close())
    go.set()
    await closing
    assert server.responses["resp_0"].status == "cancelled"


async def test_without_a_key_the_call_fails_and_an_abandon_does_not() -> None:
    provider = provider_for(None, None)
    failure, _ = await failure_of(provider, call_of())
    assert failure.code == "auth"
    await provider.abandon("resp_0")
