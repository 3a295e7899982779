"""`lastevent doctor` on a real Redis: what it says of one that is well, of one that is not, and of none."""

import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cli.doctor import run_doctor
from cli.finding import Finding
from cli.redis_checks import redis_findings
from shared.errors import ConfigurationError
from shared.redis_client import make_client
from shared.settings import Settings
from tests.support.redis_server import RedisServer, free_port
from tests.support.servers import Making, running_worker, web_server
from tests.support.terminal import Streams


async def found(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in await redis_findings(settings)}


@pytest.fixture
async def configured(redis: Redis) -> AsyncIterator[Redis]:
    """The session's Redis, to be configured; set back afterwards."""
    names = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
    before = {name: (await redis.config_get(name))[name] for name in names}
    yield redis
    for name, value in before.items():
        await redis.config_set(name, value)


async def test_a_redis_that_is_as_it_should_be(configured: Redis, settings: Settings) -> None:
    await configured.config_set("appendonly", "yes")
    await configured.config_set("appendfsync", "everysec")
    await configured.config_set("maxmemory-policy", "noeviction")
    await configured.config_set("maxmemory", "0")
    well = await found(settings)
    assert [finding.state for name, finding in well.items() if name != "lane api"] == ["ok"] * 4, well
    assert well["append-only"].detail == "on, synced everysec"
    assert "no limit" in well["memory"].detail


async def test_one_that_forgets_and_drops(configured: Redis, settings: Settings) -> None:
    await configured.config_set("appendonly", "no")
    await configured.config_set("maxmemory-policy", "allkeys-lru")
    await configured.config_set("maxmemory", "0")
    ill = await found(settings)
    assert (ill["append-only"].state, ill["eviction"].state) == ("warn", "warn")
    assert "without effect so long as maxmemory is 0" in ill["eviction"].detail

    used = (await configured.info("memory"))["used_memory"]
    await configured.config_set("maxmemory", int(used * 1.1))
    ill = await found(settings)
    assert (ill["eviction"].state, ill["memory"].state) == ("fail", "warn")
    assert ill["eviction"].advice.startswith("CONFIG SET maxmemory-policy noeviction")


async def test_workers_are_counted_by_lane(redis: Redis, make_settings: Making) -> None:
    settings = make_settings(lanes=("api", "local"), api_slots=7)
    async with running_worker(settings):
        lanes = await found(settings)
    assert lanes["lane api"] == Finding("lane api", "ok", "1 live, 0 of 7 slots in use")
    assert (lanes["lane local"].state, lanes["lane local"].advice) == (
        "warn",
        "lastevent worker --lane local, or lastevent up",
    )


async def test_a_redis_that_was_named_and_does_not_answer_is_a_failure() -> None:
    (finding,) = await redis_findings(Settings(redis_url=f"redis://:secret@127.0.0.1:{free_port()}/0"))
    assert finding.state == "fail"
    assert "does not answer at redis://127.0.0.1" in finding.detail
    assert finding.advice == "start it, or set LASTEVENT_REDIS_URL."


async def test_where_none_was_named_up_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = make_client(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    monkeypatch.setattr("cli.redis_checks.make_client", lambda _: nobody)
    (finding,) = await redis_findings(Settings(data_dir=tmp_path))
    assert finding.state == "ok"
    assert "not running; `lastevent up` starts /" in finding.detail


async def test_where_none_was_named_the_one_of_a_running_up_is_found() -> None:
    with tempfile.TemporaryDirectory(prefix="le-") as folder:  # short, because a socket's path is
        server = RedisServer(unixsocket=f"{folder}/redis.sock").start()
        try:
            here = await found(Settings(data_dir=Path(folder)))
        finally:
            server.close()
    assert here["Redis"].detail.endswith(f" at unix://{folder}/redis.sock")


async def test_the_whole_visit_is_a_line_each_and_a_failure_is_exit_code_one(redis: Redis, make_settings: Making) -> None:
    settings = make_settings()
    async with web_server(settings) as url:
        serving = make_settings(port=int(url.rpartition(":")[2]))
        streams = Streams(terminal=False, width=200)
        assert await run_doctor(serving, streams.output()) == 0
        lines = streams.stdout.splitlines()
        assert f"ok   port           Lastevent serves at {url}" in lines
        assert all(line.split()[0] in ("ok", "warn") for line in lines), lines
    broken = make_settings(host="0.0.0.0", port=0)
    streams = Streams(terminal=False)
    assert await run_doctor(broken, streams.output(as_json=True)) == 1
    told = json.loads(streams.stdout)
    assert told["ok"] is False
    assert [finding["name"] for finding in told["findings"] if finding["state"] == "fail"] == ["access"]


async def test_wrong_settings_end_the_visit_after_what_needs_none(redis_server: RedisServer) -> None:
    streams = Streams(terminal=False, width=200)
    assert await run_doctor(ConfigurationError("LASTEVENT_LEASE_S: must be a number"), streams.output()) == 1
    names = [line.split()[1] for line in streams.stdout.splitlines()]
    assert names == ["Python", "tiktoken", "settings"]
