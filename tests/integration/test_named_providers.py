"""Several servers of one kind side by side, as lastevent.toml names them: each job goes to its own, with that one's key."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from shared.settings import load_settings
from tests.support.anthropic_server import AnthropicServer
from tests.support.ollama_server import OllamaServer
from tests.support.openai_server import OpenAIServer, answer
from tests.support.reading import Reading
from tests.support.redis_server import RedisServer
from tests.support.servers import running_worker, web_server

FILE = """
lanes = ["api"]
lease_s = 1
poll_s = 0.1

[providers.vllm]
kind = "openai"
base_url = "{vllm}"
api_key_env = "VLLM_API_KEY"
models = ["q"]

[providers.openai]
base_url = "{openai}"
models = ["y"]

[providers.claude-proxy]
kind = "anthropic"
base_url = "{anthropic}"
api_key_env = "PROXY_API_KEY"

[providers.attic]
kind = "ollama"
base_url = "{ollama}"
"""


@pytest.fixture
async def servers() -> AsyncIterator[dict[str, Any]]:
    async with OpenAIServer() as vllm, OpenAIServer() as openai, AnthropicServer() as anthropic, OllamaServer() as ollama:
        yield {"vllm": vllm, "openai": openai, "anthropic": anthropic, "ollama": ollama}


@pytest.fixture
async def client(
    redis: Redis, redis_server: RedisServer, servers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    """Web and worker, both as the file and the environment say."""
    path = tmp_path / "lastevent.toml"
    path.write_text(FILE.format(**{name: server.url for name, server in servers.items()}))
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OLLAMA_HOST", "OLLAMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "LASTEVENT_CONFIG": str(path),
        "LASTEVENT_REDIS_URL": redis_server.url,
        "VLLM_API_KEY": "key-of-vllm",
        "OPENAI_API_KEY": "key-of-openai",
        "PROXY_API_KEY": "key-of-the-proxy",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    async with (
        web_server(settings) as url,
        running_worker(settings),
        httpx2.AsyncClient(base_url=url, timeout=10) as http,
    ):
        yield http


async def told(client: httpx2.AsyncClient, model: str, request_id: str = "edge-1") -> str:
    """The answer of a job for this model."""
    headers = {"X-Request-ID": request_id}
    job = (await client.post("/v1/jobs", json={"model": model, "prompt": "Say hello"}, headers=headers)).json()
    reading = Reading(str(client.base_url), job["id"], client)
    await reading.to_the_end()
    assert reading.ended == "done", reading.reader.terminal
    return reading.reader.text


async def test_a_job_reaches_the_server_that_its_model_names_with_that_servers_key(
    client: httpx2.AsyncClient, servers: dict[str, Any]
) -> None:
    servers["vllm"].on("x", *answer("from vllm"))
    servers["openai"].on("y", *answer("from openai"))
    assert await told(client, "vllm/x") == "from vllm"
    assert await told(client, "openai/y") == "from openai"
    [at_vllm], [at_openai] = servers["vllm"].requests, servers["openai"].requests
    assert (at_vllm.model, at_vllm.headers["authorization"]) == ("x", "Bearer key-of-vllm")
    assert (at_openai.model, at_openai.headers["authorization"]) == ("y", "Bearer key-of-openai")


async def test_each_kind_can_have_a_name(client: httpx2.AsyncClient, servers: dict[str, Any]) -> None:
    for model in ("claude-proxy/c", "attic/llama3.2:1b"):
        assert await told(client, model)
    [at_proxy], [at_attic] = servers["anthropic"].requests, servers["ollama"].requests
    assert (at_proxy.model, at_proxy.headers["x-api-key"]) == ("c", "key-of-the-proxy")
    assert at_attic.model == "llama3.2:1b"
    assert "authorization" not in at_attic.headers


async def test_the_id_of_the_submit_arrives_at_the_provider_whichever_kind_it_is(
    client: httpx2.AsyncClient, servers: dict[str, Any]
) -> None:
    """From the edge to the provider: whoever reads any of the logs finds the others."""
    for model in ("vllm/x", "claude-proxy/c", "attic/llama3.2:1b"):
        await told(client, model, request_id=f"edge/{model}")
    assert servers["vllm"].requests[0].headers["x-request-id"] == "edge/vllm/x"
    assert servers["anthropic"].requests[0].headers["x-request-id"] == "edge/claude-proxy/c"
    assert servers["ollama"].requests[0].headers["x-request-id"] == "edge/attic/llama3.2:1b"


async def test_the_models_of_a_table_are_listed(client: httpx2.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()["data"]
    shown = {model["id"]: (model["owned_by"], model["lane"]) for model in listed}
    assert (shown["vllm/q"], shown["openai/y"]) == (("vllm", "api"), ("openai", "api"))
    assert (await client.get("/readyz")).json()["status"] == "ready"


async def test_a_provider_that_nobody_named_is_refused_at_the_submit(client: httpx2.AsyncClient) -> None:
    answered = await client.post("/v1/jobs", json={"model": "vlm/x", "prompt": "Hi"})
    assert answered.status_code == 400
    assert "vllm/…" in answered.text
