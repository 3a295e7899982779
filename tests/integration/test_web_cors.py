"""Pages from elsewhere: those that are listed may call, and read what they need; no other may (LASTEVENT_CORS_ORIGINS)."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from shared.settings import Settings
from tests.support.servers import Making, web_server
from tests.support.tenants import API_KEYS, KEYS, bearer

APP, OTHER = "https://app.example.com", "https://evil.example.com"
BODY = {"model": "openai/any", "prompt": "hi"}


@pytest.fixture
def settings(make_settings: Making) -> Settings:
    return make_settings(api_keys=API_KEYS, cors_origins=(APP, "http://localhost:5173"))


async def preflight(client: httpx2.AsyncClient, path: str, method: str, headers: str, origin: str = APP) -> httpx2.Response:
    """What a browser asks before it sends what no form could; it shows no key."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return await client.options(path, headers=asked)


async def test_a_preflight_allows_what_the_calls_need(client: httpx2.AsyncClient) -> None:
    for method, path, headers in (
        ("POST", "/v1/jobs", "authorization,content-type,idempotency-key,x-request-id"),
        ("DELETE", "/v1/jobs/job_x", "x-api-key"),
        ("GET", "/v1/jobs/job_x/events", "authorization,last-event-id"),
    ):
        answer = await preflight(client, path, method, headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, APP)
        assert method in answer.headers["access-control-allow-methods"]
        allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
        assert set(headers.split(",")) <= allowed
        assert "access-control-allow-credentials" not in answer.headers, "there are no cookies to be sent along"


async def test_a_page_that_is_not_listed_may_not_call(client: httpx2.AsyncClient) -> None:
    refused = await preflight(client, "/v1/jobs", "POST", "content-type", OTHER)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    answer = await client.get("/v1/models", headers={"Origin": OTHER, **bearer(KEYS["web"])})
    assert "access-control-allow-origin" not in answer.headers, "its browser keeps the answer from it"


async def test_a_listed_page_reads_answers_and_the_headers_that_matter(client: httpx2.AsyncClient) -> None:
    submitted = await client.post("/v1/jobs", json=BODY, headers={"Origin": APP, **bearer(KEYS["web"])})
    assert (submitted.status_code, submitted.headers["access-control-allow-origin"]) == (202, APP)
    exposed = {name.strip() for name in submitted.headers["access-control-expose-headers"].split(",")}
    assert exposed == {"Location", "Retry-After", "Idempotency-Replayed", "X-Request-ID"}
    assert "Origin" in submitted.headers["vary"]
    refused = await client.get("/v1/models", headers={"Origin": APP})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, APP), "it can tell what is wrong"


async def test_a_native_event_source_reads_the_stream_from_there(client: httpx2.AsyncClient) -> None:
    """It asks no preflight, sends no key, and reads nothing unless the answer names its page."""
    job = (await client.post("/v1/jobs", json=BODY, headers=bearer(KEYS["web"]))).json()
    await client.post(f"/v1/jobs/{job['id']}/cancel", headers=bearer(KEYS["web"]))
    as_event_source = {"Origin": APP, "Accept": "text/event-stream", "Cache-Control": "no-store", "Last-Event-ID": "0-1"}
    stream = await client.get(job["events_url"], headers=as_event_source)
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream")
    assert stream.headers["access-control-allow-origin"] == APP
    assert {"Accept", "Last-Event-ID", "Origin"} == {name.strip() for name in stream.headers["vary"].split(",")}
    assert '"type":"cancelled"' in stream.text


@pytest.fixture
async def closed(make_settings: Making) -> AsyncIterator[httpx2.AsyncClient]:
    async with web_server(make_settings()) as url, httpx2.AsyncClient(base_url=url) as client:
        yield client


async def test_by_itself_no_page_from_elsewhere_may_call(closed: httpx2.AsyncClient) -> None:
    assert (await preflight(closed, "/v1/jobs", "POST", "content-type")).status_code == 405
    assert "access-control-allow-origin" not in (await closed.get("/v1/models", headers={"Origin": APP})).headers
