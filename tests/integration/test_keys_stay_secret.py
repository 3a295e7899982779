"""A provider's key never appears in logs, errors, events or Redis, whatever its server says of it.

One real worker at log level debug, with a key of its own for each kind; servers that repeat the key wherever a server can. What
the worker printed, every frame, every Job and every key of Redis is then searched for it.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from tests.support import anthropic_server as messages
from tests.support import ollama_server as ollama
from tests.support import openai_server as chat
from tests.support.processes import Processes
from tests.support.redis_contents import everything_in
from tests.support.redis_server import RedisServer
from tests.support.servers import Making, web_server
from tests.support.upstream import ScriptedUpstream, Status, Step

KEYS = {
    "openai": "Qz4mOpenai8f14e45fceea167a",
    "vllm": "Qz4mVllm5a36dedd4bea2543",
    "anthropic": "Qz4mAnthropic1679091c5a880faf",
    "ollama": "Qz4mOllamaE4da3b7fbbce2345",
}
"""Of no form that is known for a key, so that nothing finds them but knowing them."""
_MARK = "Qz4m"
_PROMPT = "Say something memorable"


def repeated(key: str, status: int, body: bytes) -> Status:
    return Status(status, body, {"x-request-id": key, "request-id": key, "www-authenticate": f"Bearer {key}"})


def of_chat(key: str) -> dict[str, list[Step]]:
    return {
        "fine": chat.answer(),
        "refused": [repeated(key, 401, chat.error_body(f"Incorrect API key provided: {key}", code="invalid_api_key"))],
        "bad": [repeated(key, 400, chat.error_body(f"{'x' * 390} {key}", type=key))],
        "page": [repeated(key, 400, f"no JSON, but {key}".encode())],
        "midway": [chat.text("so far"), chat.error_event(f"failed for {key}", "invalid_request_error", key)],
    }


def of_messages(key: str) -> dict[str, list[Step]]:
    return {
        "fine": messages.answer(),
        "refused": [repeated(key, 401, messages.error_body(f"invalid x-api-key: {key}", "authentication_error"))],
        "bad": [repeated(key, 400, messages.error_body(f"{'x' * 390} {key}", key))],
        "page": [repeated(key, 400, f"no JSON, but {key}".encode())],
        "midway": [messages.start(), *messages.block("so far"), messages.error_event(f"for {key}", "invalid_request_error")],
    }


def of_ollama(key: str) -> dict[str, list[Step]]:
    return {
        "fine": ollama.answer(),
        "refused": [repeated(key, 401, ollama.error_body(f"unauthorized: {key}"))],
        "bad": [repeated(key, 400, ollama.error_body(f"{'x' * 390} {key}"))],
        "page": [repeated(key, 400, f"no JSON, but {key}".encode())],
        "midway": [ollama.text("so far"), ollama.error_line(f"failed for {key}")],
    }


SCRIPTS = {"openai": of_chat, "vllm": of_chat, "anthropic": of_messages, "ollama": of_ollama}


@pytest.fixture
async def servers() -> AsyncIterator[dict[str, ScriptedUpstream]]:
    async with (
        chat.OpenAIServer() as openai,
        chat.OpenAIServer() as vllm,
        messages.AnthropicServer() as anthropic,
        ollama.OllamaServer() as attic,
    ):
        found: dict[str, ScriptedUpstream] = {"openai": openai, "vllm": vllm, "anthropic": anthropic, "ollama": attic}
        for name, server in found.items():
            for model, steps in SCRIPTS[name](KEYS[name]).items():
                server.on(model, *steps)
                server.on(model, *server.answer())  # whoever tries again finds it well
        yield found


@pytest.fixture
async def worker(
    redis: Redis, redis_server: RedisServer, servers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Processes]:
    """A process of its own: what it prints is all that its logs are."""
    path = tmp_path / "lastevent.toml"
    path.write_text(f'[providers.vllm]\nkind = "openai"\nbase_url = "{servers["vllm"].url}"\napi_key_env = "VLLM_API_KEY"\n')
    for variable, value in {
        "LASTEVENT_CONFIG": str(path),
        "LASTEVENT_OPENAI_BASE_URL": servers["openai"].url,
        "ANTHROPIC_BASE_URL": servers["anthropic"].url,
        "OLLAMA_HOST": servers["ollama"].url,
        "OPENAI_LOG": "debug",
        "ANTHROPIC_LOG": "debug",
        **{f"{name.upper()}_API_KEY": key for name, key in KEYS.items()},
    }.items():
        monkeypatch.setenv(variable, value)
    processes = Processes(redis_server.url, log_level="debug", poll_s=0.1)
    yield processes
    await processes.close()


async def streamed(client: httpx2.AsyncClient, model: str) -> tuple[str, str]:
    """All frames of a job for this model, one an entry; and the Job."""
    job = (await client.post("/v1/jobs", json={"model": model, "prompt": _PROMPT})).json()
    frames = await client.get(f"/v1/jobs/{job['id']}/events?merge=0")
    return frames.text, (await client.get(f"/v1/jobs/{job['id']}")).text


async def test_a_key_appears_nowhere(
    worker: Processes, servers: dict[str, ScriptedUpstream], redis: Redis, make_settings: Making
) -> None:
    worker.worker()
    told: dict[str, str] = {}
    tables = {"vllm": {"kind": "openai"}}
    async with web_server(make_settings(providers=tables)) as url, httpx2.AsyncClient(base_url=url, timeout=30) as client:
        for name, script in SCRIPTS.items():
            for model in script(""):
                frames, job = await streamed(client, f"{name}/{model}")
                assert json.loads(job)["status"] in ("done", "failed")
                told[f"{name}/{model}"] = frames + job

    for name, server in servers.items():
        assert {KEYS[name] in request.headers["authorization"] for request in server.requests} == {True}
        assert {request.model for request in server.requests} == set(SCRIPTS[name](""))
    logs, stored = worker.logs(), await everything_in(redis)
    assert "refused the key (401" in told["vllm/refused"]
    assert "so far" in told["anthropic/midway"]
    assert logs.count("upstream failed") >= 4 * len(SCRIPTS)
    assert _PROMPT not in logs
    assert stored.count(_PROMPT) >= len(told)
    found_in = [place for place, text in {**told, "logs": logs, "redis": stored}.items() if _MARK.lower() in text.lower()]
    assert found_in == []
