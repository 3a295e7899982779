"""Whatever is sent, the server answers as the protocol says, never 500; and what it accepts ends, whatever a provider makes of
it."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.job_queue import JobQueue
from tests.properties.requests import JSON, right_requests, wrong_requests
from tests.support.anthropic_server import AnthropicServer
from tests.support.author import MODEL, request
from tests.support.ollama_server import OllamaServer
from tests.support.openai_server import OpenAIServer
from tests.support.servers import Making, running_worker
from tests.support.streams import OpenStream

A_FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
"""The fixtures are there for all examples of a test."""

ids = st.sampled_from(["job_" + "a" * 26, "known", "job_", "$", "..", "%00", "%2e%2e", "a%2Fb", "🙂"]) | st.text(max_size=8)
cursors = st.sampled_from(["0-0", "0-1", "1-5", "9007199254740991-9007199254740991", "9007199254740992-0", "-1-1", "$", "*"])
odd_values = cursors | st.text(max_size=12) | st.integers().map(str)
queries = st.dictionaries(
    st.sampled_from(["last_event_id", "merge", "heartbeat", "status", "limit", "after", "x"]) | st.text(max_size=4),
    odd_values,
    max_size=3,
)
header_values = odd_values | st.sampled_from(["application/json", "text/event-stream", "a" * 300, "*/*;q=x", "\xff", "😀"])
headers = st.dictionaries(
    st.sampled_from(["last-event-id", "accept", "content-type", "idempotency-key", "if-none-match", "x-odd"]),
    header_values,
    max_size=3,
)
calls = st.tuples(
    st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"]),
    st.sampled_from(
        ["/v1/jobs", "/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/jobs/{}/cancel", "/v1/models", "/v1/workers", "/{}"]
    ),
)


@pytest.fixture
async def providers(make_settings: Making) -> AsyncIterator[None]:
    """A worker with the real providers of its lane, and an upstream for each."""
    async with OpenAIServer() as openai, AnthropicServer() as anthropic, OllamaServer() as ollama:
        options = make_settings(
            openai_base_url=openai.url,
            anthropic_base_url=anthropic.url,
            anthropic_api_key="test",
            ollama_host=ollama.url,
        )
        async with running_worker(options):
            yield


@A_FEW
@given(right_requests())
async def test_what_is_accepted_ends_and_for_no_reason_of_ours(client: httpx2.AsyncClient, providers: None, body: JSON) -> None:
    """Protocol P2: exactly one terminal event, the last; `internal` would be a fault of the worker."""
    async with client.stream("POST", "/v1/jobs", json=body, headers={"accept": "text/event-stream"}) as response:
        stream = OpenStream(response)
        if stream.status == 400:
            assert (await response.aread()).startswith(b'{"type":"urn:lastevent:problem:invalid_request"')
            return
        assert stream.status == 200
        frames = await stream.to_end()
    ends = [frame["type"] in ("done", "error", "cancelled") for frame in frames]
    assert ends == [False] * (len(frames) - 1) + [True]
    assert frames[-1].get("code") != "internal", frames[-1]
    job = await client.get(stream.headers["location"])
    assert (job.status_code, job.json()["last_event_id"]) == (200, frames[-1]["id"])


@A_FEW
@given(wrong_requests())
async def test_no_body_breaks_the_server(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (202, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["code"] == "invalid_request"
        assert answer.json()["errors"]


@A_FEW
@given(calls, ids, queries, headers)
async def test_no_path_query_or_header_breaks_the_server(
    client: httpx2.AsyncClient,
    job_queue: JobQueue,
    call: tuple[str, str],
    job_id: str,
    query: dict[str, str],
    sent: dict[str, str],
) -> None:
    """An event stream may stay open, and is left; every error is a problem with its slug."""
    method, path = call
    known = (await job_queue.submit(request(), MODEL)).job_id
    url = path.format(known if job_id == "known" else job_id)
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    try:
        answer = await client.send(client.build_request(method, url, params=query, headers=raw), stream=True)
    except (httpx2.InvalidURL, httpx2.LocalProtocolError):  # not even the client sends this
        return
    try:
        assert answer.status_code < 500, await answer.aread()
        if not all(value.isprintable() for value in sent.values()) and answer.status_code == 400:
            return  # a control character in a header: perhaps the HTTP parser's own answer, before anything of ours is asked
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json"
            assert (await answer.aread()).startswith(b'{"type":"urn:lastevent:problem:')
    finally:
        await answer.aclose()
