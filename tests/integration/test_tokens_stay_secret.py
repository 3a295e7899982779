"""Neither a key nor a stream token stands in what a web process writes: its logs, the server's access log, problems, Redis."""

import json
import logging
from collections.abc import AsyncIterator

import httpx2
import pytest
import uvicorn
from redis.asyncio import Redis

from shared import keys
from shared.settings import Settings
from tests.support.redis_contents import everything_in
from tests.support.servers import Making, web_server
from tests.support.tenants import API_KEYS, KEYS, bearer

BODY = {"model": "openai/any", "prompt": "hi"}


@pytest.fixture
def settings(make_settings: Making) -> Settings:
    return make_settings(api_keys=API_KEYS, token_secret="Zq9" * 12, log_level="debug")


@pytest.fixture
def access_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """uvicorn's access log, which `lastevent web` leaves out, and every other logger at its most talkative."""

    class Talkative(uvicorn.Config):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **{**kwargs, "access_log": True})  # type: ignore[arg-type]

    monkeypatch.setattr("tests.support.servers.uvicorn.Config", Talkative)
    for name in (None, "uvicorn.access", "uvicorn.error"):  # other tests' servers silence the last two
        caplog.set_level(logging.DEBUG, name)
    return caplog


@pytest.fixture
async def client(settings: Settings, access_log: object) -> AsyncIterator[httpx2.AsyncClient]:
    async with web_server(settings) as url, httpx2.AsyncClient(base_url=url, timeout=10) as http:
        yield http


def lines_of(log: pytest.LogCaptureFixture) -> str:
    """What the server logged; this test's own HTTP client does too, and knows the token."""
    server = [record for record in log.records if not record.name.startswith(("httpx2", "httpcore2"))]
    return "\n".join(logging.Formatter().format(record) for record in server)


async def test_neither_appears_anywhere(
    client: httpx2.AsyncClient,
    access_log: pytest.LogCaptureFixture,
    settings: Settings,
    redis: Redis,
    capfd: pytest.CaptureFixture[str],
) -> None:
    job = (await client.post("/v1/jobs", json=BODY, headers=bearer(KEYS["web"]))).json()
    path, token = f"/v1/jobs/{job['id']}", job["events_url"].partition("token=")[2]
    await client.post(f"{path}/cancel", headers=bearer(KEYS["web"]))
    told = {
        "the stream": await client.get(f"{path}/events?merge=0&token={token}&heartbeat=event"),
        "a bad option": await client.get(f"{path}/events?token={token}&merge=7"),
        "a call that is not for it": await client.post(f"{path}/cancel?token={token}"),
        "another job": await client.get(f"/v1/jobs/job_{'a' * 26}?token={token}"),
        "a token that was cut": await client.get(f"{path}?token={token[:-5]}"),
        "a wrong key": await client.get(path, headers=bearer(KEYS["web"] + "x")),
        "no such path": await client.get("/v1/nothing", headers=bearer(KEYS["web"])),
    }
    await redis.hset(keys.job(job["id"]), "created_at", "no number")  # type: ignore[misc]
    told["a fault of ours"] = await client.get(f"{path}?token={token}")
    statuses = [answer.status_code for answer in told.values()]

    stored, printed, logs = await everything_in(redis), capfd.readouterr(), lines_of(access_log)
    written = {"logs": logs, "out": printed.out, "err": printed.err, "redis": stored, "settings": repr(settings)}
    written |= {name: answer.text + json.dumps(dict(answer.headers)) for name, answer in told.items()}
    assert statuses == [200, 400, 403, 403, 401, 401, 404, 500]
    assert f"GET {path}/events?merge=0&heartbeat=event HTTP/1.1" in logs, "it is cut out, and nothing else"
    assert "no number" in logs, "the fault was logged, with its traceback"
    secrets = (KEYS["web"], token, token.rpartition(".")[2], token[:-5], "Zq9Zq9", API_KEYS[0].digest.get_secret_value())
    assert [place for place, text in written.items() if any(secret in text for secret in secrets)] == []
