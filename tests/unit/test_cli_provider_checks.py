"""`lastevent doctor`, what it says of providers: the key of each, and whether a server of one's own answers."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from cli import provider_checks
from cli.finding import Finding
from cli.provider_checks import provider_findings
from shared.settings import Settings
from tests.support.redis_server import free_port
from tests.support.scripted_sse import ScriptedServer, scripted_server

SECRET = "8f14e45fceea167a5a36dedd4bea2543"


async def found(**changed: Any) -> dict[str, Finding]:
    """Without the Ollama that this machine may have: its port is one where nobody is."""
    none = dict.fromkeys(("openai_api_key", "openai_base_url", "anthropic_api_key"))
    settings = Settings(**{"ollama_host": f"127.0.0.1:{free_port()}", **none, **changed})
    return {finding.name: finding for finding in await provider_findings(settings)}


def assert_found(finding: Finding, state: str, detail: str, advice: str = "") -> None:
    assert finding.state == state, finding
    assert detail in finding.detail
    assert advice in finding.advice


async def test_without_the_lane_nobody_asks() -> None:
    assert await found(lanes=("local",)) == {}


# --- keys ----------------------------------------------------------------------------------------------------------------


async def test_a_key_that_is_not_set_is_a_warning() -> None:
    told = await found(ollama_host="127.0.0.1:1")
    assert_found(told["key openai"], "warn", "OPENAI_API_KEY is not set", "Until then openai/… fails.")
    assert_found(told["key anthropic"], "warn", "ANTHROPIC_API_KEY is not set")
    assert_found(told["key ollama"], "ok", "none is wanted at http://127.0.0.1:1")


async def test_one_that_is_set_is_never_shown() -> None:
    told = await found(openai_api_key="sk-secret", anthropic_api_key="sk-söcret")
    assert_found(told["key openai"], "ok", "OPENAI_API_KEY is set")
    assert_found(told["key anthropic"], "warn", "holds characters that no key has")
    assert "cret" not in str(told)


async def test_a_server_of_ones_own_wants_none_unless_its_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    table = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}
    assert_found((await found(providers={"vllm": table}))["key vllm"], "ok", "none is wanted at http://127.0.0.1:1/v1")
    told = (await found(providers={"vllm": {**table, "api_key_env": "VLLM_API_KEY"}}))["key vllm"]
    assert_found(told, "fail", "VLLM_API_KEY is not set")
    assert_found((await found(openai_base_url="http://127.0.0.1:1/v1"))["key openai"], "ok", "none is wanted")


# --- servers -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


async def test_a_server_that_answers_is_well_whatever_it_says_and_gets_no_key(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", SECRET)
    vllm = {"kind": "openai", "base_url": f"{server.url}/v1", "api_key_env": "VLLM_API_KEY"}
    own = server.url.replace("http://", f"http://user:{SECRET}@")
    told = await found(
        providers={"vllm": vllm}, openai_base_url=f"{own}/own", openai_api_key=SECRET,
        ollama_host=server.url.removeprefix("http://"), ollama_api_key=SECRET,
    )  # fmt: skip
    assert_found(told["server vllm"], "ok", f"{server.url}/v1 answers")
    assert_found(told["server openai"], "ok", f"{server.url}/own answers")
    assert_found(told["server ollama"], "ok", f"{server.url} answers")
    assert sorted(seen.path for seen in server.seen) == ["/", "/own", "/v1"]
    assert SECRET not in str([seen.headers for seen in server.seen])
    assert not any("authorization" in seen.headers for seen in server.seen)
    assert SECRET not in str(told)


async def test_where_nothing_answers_it_is_a_warning_that_names_what_to_look_at() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    told = await found(providers={"vllm": {"kind": "openai", "base_url": f"{nowhere}/v1"}}, anthropic_base_url="llm:80")
    advice = "start it, or check base_url of [providers.vllm]. Until then vllm/… fails."
    assert told["server vllm"] == Finding("server vllm", "warn", f"nothing answers at {nowhere}/v1", advice)
    assert_found(told["server ollama"], "warn", "nothing answers at http://127.0.0.1:", "start it, or check OLLAMA_HOST.")
    assert_found(told["server anthropic"], "fail", "ANTHROPIC_BASE_URL is no address as http://host:port/v1", "mend it")


async def test_silent_ones_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_checks, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tables = {name: {"kind": "openai", "base_url": f"{url}/{name}"} for name in ("a", "b", "c", "d")}
        began = asyncio.get_running_loop().time()
        told = await found(providers=tables)
        assert asyncio.get_running_loop().time() - began < 0.6
    assert_found(told["server d"], "warn", f"{url}/d says nothing for 0.2 s")


async def test_the_makers_are_not_asked_though_somebody_wrote_their_address_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx2.AsyncClient, "stream", None)
    told = await found(
        openai_base_url="https://eu.api.openai.com/v1", anthropic_base_url="https://api.anthropic.com",
        ollama_host="no address", providers={"other": {"kind": "openai"}},
    )  # fmt: skip
    assert [name for name in told if name.startswith("server")] == ["server ollama"]
