"""Every call of a server that has keys, by whoever may come: nobody, a stranger, another tenant, the holder of a token.

The calls are those of the application's own routes: one that is added is tried too, and fails here if it lets anybody in.
"""

import io
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import httpx2
import pytest
from redis.asyncio import Redis
from rich.console import Console
from starlette.routing import Route

from cli.ask import run_ask
from cli.output import Output
from shared import keys
from shared.event_log import EventLog
from shared.job_queue import JobQueue
from shared.settings import Settings
from tests.support.author import MODEL, request
from tests.support.servers import Making, web_server
from tests.support.tenants import API_KEYS, KEYS, SECRET, bearer, tenant_client
from web.assets import asset_routes
from web.main import build_app
from web.stream_tokens import StreamTokens

OPEN = {"/healthz", "/readyz", "/openapi.json", *(route.path for route in asset_routes())}
OF_NO_TENANT = {"/v1/models", "/v1/workers", "/metrics", "/v1/operations"}
"""What tells of no job, and therefore every tenant."""


class Call(NamedTuple):
    method: str
    path: str

    @property
    def is_open(self) -> bool:
        return self.path in OPEN

    @property
    def is_of_a_job(self) -> bool:
        return "{job_id}" in self.path

    @property
    def reads_a_job(self) -> bool:
        return self.method in ("GET", "HEAD") and self.path in ("/v1/jobs/{job_id}", "/v1/jobs/{job_id}/events")


@pytest.fixture
def settings(make_settings: Making) -> Settings:
    return make_settings(api_keys=API_KEYS, token_secret=SECRET, retention_s=3600)


@pytest.fixture
async def calls(settings: Settings) -> list[Call]:
    app = build_app(settings)
    await app.state.context.redis.aclose()
    found = [Call(method, route.path) for route in app.routes if isinstance(route, Route) for method in route.methods or ()]
    assert len(found) == len(set(found)) > 15
    return found


@pytest.fixture
async def job_id(job_queue: JobQueue) -> str:
    """A job of the tenant `web`, which has ended: its stream ends too."""
    submitted = await job_queue.submit(request(), MODEL, tenant="web")
    await job_queue.cancel(submitted.job_id, "web")
    return submitted.job_id


@pytest.fixture
async def anyone(base_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with tenant_client(base_url, None) as client:
        yield client


Answers = dict[Call, tuple[int, str | None]]
"""Status, and the problem's code where it is one."""


async def answers(
    client: httpx2.AsyncClient, calls: list[Call], job_id: str, headers: dict[str, str] | None = None, query: str = ""
) -> Answers:
    found: Answers = {}
    for call in calls:
        url = call.path.replace("{job_id}", job_id) + query
        answer = await client.request(call.method, url, headers=headers)
        is_problem = "problem" in answer.headers.get("content-type", "") and answer.content
        found[call] = (answer.status_code, answer.json()["code"] if is_problem else None)
    return found


def refused(calls: list[Call], status: int, code: str, unless: Callable[[Call], bool] = lambda _: False) -> Answers:
    """Every closed call is refused so; HEAD has no body to say why."""
    closed = [call for call in calls if not call.is_open and not unless(call)]
    return {call: (status, None if call.method == "HEAD" else code) for call in closed}


def closed(found: Answers) -> Answers:
    return {call: answer for call, answer in found.items() if not call.is_open}


async def make_token(settings: Settings, job_id: str, tenant: str = "web", life_s: int = 60) -> str:
    no_redis: Redis = None  # type: ignore[assignment]  # the secret is in the settings
    return (await StreamTokens(no_redis, settings).make(job_id, tenant, life_s)).text


# --- the matrix ----------------------------------------------------------------------------------------------------------


NO_KEYS: dict[str, dict[str, str]] = {
    "no key": {},
    "a wrong key": bearer("le_" + "x" * 43),
    "an empty key": {"X-API-Key": ""},
    "a part of a key": bearer(KEYS["web"][:-1]),
    "a digest": bearer(API_KEYS[0].digest.get_secret_value()),
    "an entry of the settings": bearer(API_KEYS[0].entry),
    "no scheme": {"Authorization": KEYS["web"]},
    "another scheme": {"Authorization": f"Basic {KEYS['web']}"},
    "a wrong key elsewhere": {"X-API-Key": "le_" + "x" * 43},
}


async def test_without_a_key_of_this_server_every_closed_call_is_401(
    anyone: httpx2.AsyncClient, calls: list[Call], job_id: str
) -> None:
    """The page, and what balancers ask, are open."""
    for name, headers in NO_KEYS.items():
        found = await answers(anyone, calls, job_id, headers)
        assert closed(found) == refused(calls, 401, "unauthorized"), name
        assert {found[call][0] for call in calls if call.is_open} <= {200, 503}, name


async def test_the_job_is_untouched_by_those_who_were_refused(
    anyone: httpx2.AsyncClient, calls: list[Call], job_id: str, redis: Redis
) -> None:
    before = await redis.hgetall(keys.job(job_id))  # type: ignore[misc]
    await answers(anyone, calls, job_id)
    async with tenant_client(str(anyone.base_url), "batch") as other:
        await answers(other, [call for call in calls if call.is_of_a_job], job_id)
    assert await redis.hgetall(keys.job(job_id)) == before  # type: ignore[misc]


async def test_another_tenants_job_is_404_in_every_call(base_url: str, calls: list[Call], job_id: str) -> None:
    of_jobs = [call for call in calls if call.is_of_a_job]
    async with tenant_client(base_url, "batch") as other:
        assert await answers(other, of_jobs, job_id) == refused(of_jobs, 404, "job_not_found")
        unknown = await answers(other, of_jobs, "job_" + "a" * 26)
        assert unknown == refused(of_jobs, 404, "job_not_found"), "nothing tells it from one that never was"


async def test_all_other_calls_are_known_to_tell_of_no_job(calls: list[Call]) -> None:
    """A new call that is not about one job has to be thought about: what does it tell one tenant of another?"""
    others = {call.path for call in calls if not call.is_open and not call.is_of_a_job}
    assert others - OF_NO_TENANT == {"/v1/jobs"}


async def test_an_expired_token_is_403_for_every_call(
    anyone: httpx2.AsyncClient, calls: list[Call], job_id: str, settings: Settings
) -> None:
    query = f"?token={await make_token(settings, job_id, life_s=-1)}"
    assert closed(await answers(anyone, calls, job_id, query=query)) == refused(calls, 403, "forbidden")


async def test_a_token_of_another_job_is_403_for_every_call(
    anyone: httpx2.AsyncClient, calls: list[Call], job_id: str, settings: Settings, job_queue: JobQueue
) -> None:
    other = (await job_queue.submit(request(), MODEL, tenant="web")).job_id
    query = f"?token={await make_token(settings, other)}"
    assert closed(await answers(anyone, calls, job_id, query=query)) == refused(calls, 403, "forbidden")


async def test_a_token_opens_its_jobs_stream_and_snapshot_and_nothing_else(
    anyone: httpx2.AsyncClient, calls: list[Call], job_id: str, settings: Settings
) -> None:
    """In the URL, and for those who can send a header in the place of a key."""
    token = await make_token(settings, job_id)
    readable = [call for call in calls if call.reads_a_job]
    assert len(readable) == 4, "GET and HEAD"
    for headers, query in (({}, f"?token={token}"), (bearer(token), "")):
        found = closed(await answers(anyone, calls, job_id, headers, query))
        assert {call: found.pop(call) for call in readable} == dict.fromkeys(readable, (200, None))
        assert found == refused(calls, 403, "forbidden", unless=lambda call: call.reads_a_job)


async def test_what_is_no_token_is_401(anyone: httpx2.AsyncClient, calls: list[Call], job_id: str) -> None:
    for token in ("", "lt_", "x", "lt_a.1.web.sig"):
        found = await answers(anyone, calls, job_id, query=f"?token={token}")
        assert closed(found) == refused(calls, 401, "unauthorized"), token


async def test_a_token_ends_with_the_last_key_of_its_tenant(
    anyone: httpx2.AsyncClient, job_queue: JobQueue, settings: Settings
) -> None:
    gone = (await job_queue.submit(request(), MODEL, tenant="gone")).job_id
    answer = await anyone.get(f"/v1/jobs/{gone}", params={"token": await make_token(settings, gone, "gone")})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


async def test_a_token_of_a_tenant_opens_no_job_of_another(anyone: httpx2.AsyncClient, job_id: str, settings: Settings) -> None:
    """Were one ever made: whose job it is stands in its record."""
    answer = await anyone.get(f"/v1/jobs/{job_id}/events", params={"token": await make_token(settings, job_id, "batch")})
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


# --- what is refused, and how --------------------------------------------------------------------------------------------


async def test_a_refusal_says_how_to_be_let_in(anyone: httpx2.AsyncClient) -> None:
    answer = await anyone.get("/v1/models")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Authorization: Bearer le_" in answer.json()["detail"]


async def test_no_spelling_of_a_path_goes_past_the_door(anyone: httpx2.AsyncClient) -> None:
    for path in ("/v1", "/v1/jobs/", "/healthz/", "/healthz/../v1/jobs", "/%2e/v1/jobs", "/V1/jobs", "/v1%2fjobs", "/x"):
        assert (await anyone.get(path)).status_code == 401, path


async def test_a_key_comes_by_either_header(anyone: httpx2.AsyncClient) -> None:
    for headers in (bearer(KEYS["web"]), {"authorization": f"bearer  {KEYS['web']}"}, {"X-API-Key": KEYS["web"]}):
        assert (await anyone.get("/v1/models", headers=headers)).status_code == 200


async def test_what_a_proxy_in_front_is_shown_does_not_hide_a_token(
    anyone: httpx2.AsyncClient, job_id: str, settings: Settings
) -> None:
    token = await make_token(settings, job_id)
    answer = await anyone.get(f"/v1/jobs/{job_id}?token={token}", headers={"Authorization": "Basic dXNlcjpwYXNz"})
    assert answer.status_code == 200


async def test_with_keys_the_server_may_have_any_name(anyone: httpx2.AsyncClient) -> None:
    """No page of another site has a key to send along, whatever name it points here."""
    elsewhere = {"Host": "lastevent.example.com"}
    assert (await anyone.get("/v1/models", headers={**elsewhere, **bearer(KEYS["web"])})).status_code == 200
    assert (await anyone.get("/v1/models", headers=elsewhere)).status_code == 401


async def test_without_keys_all_is_as_it_was(make_settings: Making, event_log: EventLog) -> None:
    """A key that is sent all the same is not looked at; a token can be had, and is not needed."""
    async with web_server(make_settings()) as url, tenant_client(url, "web") as client:
        job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "hi"})).json()
        assert job["events_url"] == f"/v1/jobs/{job['id']}/events"
        made = await client.post(f"/v1/jobs/{job['id']}/token")
        assert made.status_code == 201
        await client.post(f"/v1/jobs/{job['id']}/cancel")
        assert "cancelled" in (await client.get(made.json()["events_url"])).text
        assert (await client.get("/v1/jobs", headers={"Host": "evil.example.com"})).status_code == 421


async def test_the_command_line_shows_the_key_of_its_environment(
    base_url: str, worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, code, said in (
        (KEYS["web"], 0, "Hello, world"),
        ("", 2, "LASTEVENT_API_KEY is not set"),
        ("le_wrong", 2, "The key is none of this server's"),
    ):
        monkeypatch.setenv("LASTEVENT_API_KEY", key)
        shown = io.StringIO()
        screen = Console(file=shown, width=500)
        asked = {"model": "openai/any", "prompt": "hi"}
        assert await run_ask(base_url, asked, Output(out=screen, err=screen)) == code
        assert said in shown.getvalue()


# --- tokens --------------------------------------------------------------------------------------------------------------


async def test_every_job_answer_carries_a_url_that_a_browser_can_use_as_it_is(
    base_url: str, anyone: httpx2.AsyncClient
) -> None:
    async with tenant_client(base_url, "web") as client:
        body = {"model": "openai/any", "prompt": "hi"}
        key = {"Idempotency-Key": "k"}
        submitted = (await client.post("/v1/jobs", json=body, headers=key)).json()
        path = f"/v1/jobs/{submitted['id']}"
        shown = [
            submitted,
            (await client.post("/v1/jobs", json=body, headers=key)).json(),
            (await client.get(path)).json(),
            *(await client.get("/v1/jobs")).json()["data"],
            (await client.post(f"{path}/cancel")).json(),
        ]
    assert len(shown) == 5
    for job in shown:
        assert re.fullmatch(rf"{path}/events\?token=lt_[\w.-]+", job["events_url"])
        stream = await anyone.get(job["events_url"])
        assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream")
        assert '"type":"cancelled"' in stream.text


async def test_a_token_does_not_renew_itself(anyone: httpx2.AsyncClient, job_id: str, settings: Settings) -> None:
    """Who came with one sees its own in the Job, and no younger one."""
    token = await make_token(settings, job_id, life_s=30)
    job = (await anyone.get(f"/v1/jobs/{job_id}", params={"token": token})).json()
    assert job["events_url"] == f"/v1/jobs/{job_id}/events?token={token}"


async def test_a_token_can_be_asked_for(base_url: str, anyone: httpx2.AsyncClient, job_id: str, settings: Settings) -> None:
    async with tenant_client(base_url, "web") as client:
        made = await client.post(f"/v1/jobs/{job_id}/token")
        short = await client.post(f"/v1/jobs/{job_id}/token", json={"expires_in": 60})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    assert set(made.json()) == {"token", "expires_at", "events_url"}
    assert made.json()["expires_at"] == pytest.approx(time.time() + settings.token_ttl_s, abs=5)
    assert short.json()["expires_at"] == pytest.approx(time.time() + 60, abs=5)
    for answer in (made, short):
        assert answer.json()["events_url"] == f"/v1/jobs/{job_id}/events?token={answer.json()['token']}"
        assert (await anyone.get(answer.json()["events_url"])).status_code == 200


async def test_a_wrong_life_names_the_field(base_url: str, job_id: str) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"expires_in": 0}, "expires_in"), ({"expires_in": "1"}, "expires_in"), ({"expires_in": 10**9}, "expires_in"),
        ({"expire": 1}, "expire"),
    ]  # fmt: skip
    async with tenant_client(base_url, "web") as client:
        for body, field in wrong:
            answer = await client.post(f"/v1/jobs/{job_id}/token", json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
            assert answer.json()["errors"][0]["field"] == field


# --- the secret that web processes share ---------------------------------------------------------------------------------


async def test_two_web_processes_without_a_secret_of_their_own_take_each_others_tokens(
    make_settings: Making, redis: Redis, job_id: str
) -> None:
    settings = make_settings(api_keys=API_KEYS)
    first, second = StreamTokens(redis, settings), StreamTokens(redis, settings)
    made = [await tokens.make(job_id, "web") for tokens in (first, second)]
    for tokens in (first, second, StreamTokens(redis, settings)):
        assert [await tokens.read(token.text) is not None for token in made] == [True, True]


async def test_a_secret_that_redis_forgot_is_put_back(
    make_settings: Making, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever process uses it next: a token outlives a Redis that lost everything, if a web process does."""
    monkeypatch.setattr("web.stream_tokens._LOOK_EVERY_S", 0)
    settings = make_settings(api_keys=API_KEYS)
    tokens = StreamTokens(redis, settings)
    made = await tokens.make("job_x", "web")
    await redis.flushdb()
    await tokens.make("job_y", "web")
    assert await StreamTokens(redis, settings).read(made.text) is not None
