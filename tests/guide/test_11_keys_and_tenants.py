"""Keys: who may call, whose a job is, and how a browser reads it without a key."""

import json

import httpx2
import pytest

from cli.keys import made_key
from shared.settings import Settings
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making

BODY = {"model": "openai/any", "prompt": "Say hello"}


class Made:
    """What `lastevent keys new NAME` prints: the key for whoever calls, and the entry that the server is told."""

    def __init__(self, name: str) -> None:
        printed = json.loads(made_key(name, as_json=True))
        self.headers = {"Authorization": f"Bearer {printed['key']}"}
        self.entry: str = printed["entry"]


WEB, BATCH = Made("web"), Made("batch")


@pytest.fixture
def settings(make_settings: Making) -> Settings:
    """The server knows no key, only its SHA-256: LASTEVENT_API_KEYS=web:5f0c…,batch:91ab…"""
    return make_settings(api_keys=f"{WEB.entry},{BATCH.entry}", tenant_jobs_at_once=2)


async def test_with_keys_nobody_gets_in_without_one(client: httpx2.AsyncClient) -> None:
    refused = await client.post("/v1/jobs", json=BODY)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")

    taken = await client.post("/v1/jobs", json=BODY, headers=WEB.headers)
    assert taken.status_code == 202
    assert (await client.get("/healthz")).status_code == 200, "a balancer needs none"


async def test_a_job_belongs_to_the_name_of_its_key(client: httpx2.AsyncClient) -> None:
    """The name is the tenant. To all others its jobs do not exist."""
    job = (await client.post("/v1/jobs", json=BODY, headers=WEB.headers)).json()

    assert (await client.get(f"/v1/jobs/{job['id']}", headers=WEB.headers)).status_code == 200
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/token"), ("DELETE", "")):
        assert (await client.request(method, f"/v1/jobs/{job['id']}{path}", headers=BATCH.headers)).status_code == 404
    assert (await client.get("/v1/jobs", headers=BATCH.headers)).json()["data"] == []


async def test_a_browser_reads_the_stream_by_the_url_in_the_job(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider
) -> None:
    """An `EventSource` can send no key. Your own server submits, and hands `events_url` to the page: it carries a signed token
    for this one job, which reads and does nothing else."""
    provider.script = ["Hello", ", ", "world"]
    job = (await client.post("/v1/jobs", json=BODY, headers=WEB.headers)).json()

    stream = await client.get(job["events_url"])
    assert '"type":"done"' in stream.text

    path, _, token = job["events_url"].partition("/events?token=")
    after_a_reload = await client.get(path, params={"token": token})
    assert after_a_reload.json()["text"] == "Hello, world"
    no_more = await client.delete(path, params={"token": token})
    assert (no_more.status_code, no_more.json()["code"]) == (403, "forbidden")


async def test_a_token_for_somebody_else_can_be_short(client: httpx2.AsyncClient) -> None:
    job = (await client.post("/v1/jobs", json=BODY, headers=WEB.headers)).json()
    made = await client.post(f"/v1/jobs/{job['id']}/token", json={"expires_in": 60}, headers=WEB.headers)

    assert made.status_code == 201
    assert set(made.json()) == {"token", "expires_at", "events_url"}


async def test_each_tenant_has_its_share(client: httpx2.AsyncClient) -> None:
    """LASTEVENT_TENANT_JOBS_AT_ONCE, and LASTEVENT_TENANT_SUBMITS_PER_MINUTE for how fast they may come."""
    for _ in range(2):
        job = (await client.post("/v1/jobs", json=BODY, headers=WEB.headers)).json()
    refused = await client.post("/v1/jobs", json=BODY, headers=WEB.headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
    assert int(refused.headers["retry-after"]) > 0

    assert (await client.post("/v1/jobs", json=BODY, headers=BATCH.headers)).status_code == 202
    await client.post(f"/v1/jobs/{job['id']}/cancel", headers=WEB.headers)
    assert (await client.post("/v1/jobs", json=BODY, headers=WEB.headers)).status_code == 202
