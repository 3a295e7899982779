"""cli/bench_direct.py: the three SDKs, each against a server on loopback that speaks its wire format."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cli.bench_direct import Direct, DirectFailed
from cli.bench_runs import Run
from shared.errors import ConfigurationError
from shared.settings import Settings
from tests.support.anthropic_server import AnthropicServer
from tests.support.ollama_server import OllamaServer
from tests.support.openai_server import OpenAIServer
from tests.support.upstream import Cut, ScriptedUpstream, Status

SERVERS: dict[str, tuple[type[ScriptedUpstream], str]] = {
    "openai": (OpenAIServer, "openai_base_url"),
    "anthropic": (AnthropicServer, "anthropic_base_url"),
    "ollama": (OllamaServer, "ollama_host"),
}
KEY = "sk-test-8f14e45fceea167a5a36dedd4bea2543"


@asynccontextmanager
async def calling(provider: str) -> AsyncIterator[tuple[Direct, Any]]:
    server_type, address = SERVERS[provider]
    async with server_type() as server:
        keys = {f"{name}_api_key": KEY for name in SERVERS}
        settings = Settings(**{**keys, address: server.url})  # type: ignore[attr-defined]  # each has one
        async with Direct(settings) as direct:
            assert direct.can_call(f"{provider}/m")
            yield direct, server


@pytest.mark.parametrize("provider", SERVERS)
async def test_an_answer_is_timed_and_its_tokens_are_the_providers_own(provider: str) -> None:
    async with calling(provider) as (direct, server):
        run = await direct.run(f"{provider}/count:20:200", "Hi", 64)
        assert isinstance(run, Run)
        assert 0 < run.ttft_s < run.total_s
        assert run.output_tokens == 20
        assert run.tokens_per_s is not None
        assert 0 < run.tokens_per_s < 220
        [request] = server.requests
        assert KEY in str(request.headers)
        assert 64 in (request.body.get("max_tokens"), request.body.get("options", {}).get("num_predict"))


@pytest.mark.parametrize("provider", SERVERS)
async def test_a_failure_has_a_code_and_no_words(provider: str) -> None:
    async with calling(provider) as (direct, server):
        server.on("busy", Status(429, f'{{"error": "for {KEY}"}}'.encode()))
        server.on("cut", Cut())
        for model, code in (("busy", "http_429"), ("cut", "Error")):
            with pytest.raises(DirectFailed) as caught:
                await direct.run(f"{provider}/{model}", "Hi", 64)
            assert caught.value.code.endswith(code)
            assert (str(caught.value), caught.value.__context__) == (caught.value.code, None)


def test_what_has_no_sdk_cannot_be_called_directly() -> None:
    assert not Direct(Settings()).can_call("local/smollm2-135m-instruct")


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_an_sdk_without_key_and_address_is_refused(provider: str) -> None:
    none = {f"{name}_{what}": None for name in ("openai", "anthropic") for what in ("api_key", "base_url")}
    with pytest.raises(ConfigurationError, match=f"needs {provider.upper()}_API_KEY"):
        Direct(Settings(**none)).can_call(f"{provider}/m")
