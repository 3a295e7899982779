"""web/health.py: alive is not ready, and neither depends on more than it must (protocol 2)."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from starlette.requests import Request

from shared.job_store import WorkerInfo
from shared.settings import Settings
from web import health


def request_to(
    *,
    stopping: bool = False,
    lanes: tuple[str, ...] = ("api",),
    alive: tuple[str, ...] = (),
    away: bool = False,
    missing_keys: tuple[dict[str, str], ...] = (),
) -> Request:
    """A request to a process whose Redis knows live workers of these lanes, or is away."""

    async def workers() -> list[WorkerInfo]:
        if away:
            raise RedisConnectionError("away")
        live = [WorkerInfo(f"w-{lane}", lane, "host", 1, 0, 4, 1.0) for lane in alive]
        return live + [WorkerInfo("w", "api", "host", 1, 0, 4, 1.0, missing) for missing in missing_keys]

    leaving = asyncio.Event()
    if stopping:
        leaving.set()
    context: Any = SimpleNamespace(
        leaving=leaving,
        settings=Settings(lanes=lanes, default_model="local/smollm2-135m-instruct"),
        store=SimpleNamespace(workers=workers),
    )
    return Request({"type": "http", "app": SimpleNamespace(state=SimpleNamespace(context=context)), "headers": []})


async def test_alive_whatever_redis_does() -> None:
    """Balancers route by it: a process that can tell its readers to wait is worth routing to."""
    assert (await health.healthz(request_to(away=True))).status_code == 200


async def test_not_alive_once_it_is_about_to_stop() -> None:
    answer = await health.healthz(request_to(stopping=True))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("alive", "missing"), [((), ["api", "local"]), (("api",), ["local"]), (("local",), ["api"]), (("api", "local"), [])]
)
async def test_ready_with_a_live_worker_in_each_lane(alive: tuple[str, ...], missing: list[str]) -> None:
    answer = await health.readyz(request_to(lanes=("api", "local"), alive=alive))
    assert answer.status_code == (503 if missing else 200)
    if missing:
        detail = json.loads(bytes(answer.body))["detail"]
        assert all(lane in detail for lane in missing)


async def test_not_ready_without_redis() -> None:
    answer = await health.readyz(request_to(away=True))
    assert (answer.status_code, b"Redis" in bytes(answer.body)) == (503, True)


async def test_models_are_listed_as_openai_does_the_default_first() -> None:
    body = json.loads(bytes((await health.models(request_to(lanes=("api", "local")))).body))
    assert body["object"] == "list"
    assert body["data"][0]["id"] == "local/smollm2-135m-instruct"
    assert all(model["object"] == "model" for model in body["data"])


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ((), None),
        (({},), None),
        (({"openai": "OPENAI_API_KEY"},), "OPENAI_API_KEY"),
        (({"openai": "OPENAI_API_KEY"}, {"openai": "OPENAI_API_KEY", "vllm": "VLLM_KEY"}), "OPENAI_API_KEY"),
        (({"openai": "OPENAI_API_KEY"}, {}), None),
    ],
)
async def test_a_models_key_is_missing_where_no_live_worker_has_it(
    told: tuple[dict[str, str], ...], missing: str | None
) -> None:
    body = json.loads(bytes((await health.models(request_to(missing_keys=told))).body))
    assert {m["missing_key"] for m in body["data"] if m["owned_by"] == "openai"} == {missing}


async def test_models_are_listed_without_redis_too() -> None:
    body = json.loads(bytes((await health.models(request_to(away=True))).body))
    assert {model["missing_key"] for model in body["data"]} == {None}


async def test_workers_are_listed_as_the_protocol_says() -> None:
    [worker] = json.loads(bytes((await health.workers(request_to(alive=("api",)))).body))["data"]
    assert worker == {
        "id": "w-api", "lane": "api", "host": "host", "pid": 1, "running": 0, "slots": 4, "started_at": 1.0,
        "missing_keys": {},
    }  # fmt: skip
