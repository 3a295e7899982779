"""`transformers serve --continuous-batching`, for scenario F: the same model behind an HTTP server that is none of ours."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx2

from bench import installing
from bench.peers.base import PeerMissing
from bench.prompts import Prompts
from bench.stage import Child, Stage

NAME: Final = "transformers serve"
PACKAGES: Final = ("fastapi==0.165.0", "accelerate==1.15.0")
"""What it needs beyond the local lane's packages."""

_START_S: Final = 90.0
_ANSWER_S: Final = 120.0
_SIZES: Final = ("--cb-num-blocks", "128", "--cb-max-batch-tokens", "256")
"""Else it takes most of the machine's memory."""


class Serve:
    """The running server."""

    def __init__(self, process: Child, origin: str, model: str) -> None:
        self._process = process
        self._origin = origin
        self._model = model
        self._prompts = Prompts()

    async def case(self, jobs: int, tokens: int) -> dict[str, Any]:
        """So many jobs at once, as `bench.engine_jobs` tells a case."""
        cpu_s, begun = self._process.cpu_s, time.perf_counter()
        async with httpx2.AsyncClient(trust_env=False, timeout=_ANSWER_S) as client:
            made = await asyncio.gather(*(self._answer(client, tokens) for _ in range(jobs)))
        return {
            "jobs": jobs,
            "tokens": sum(tokens for _, tokens in made),
            "seconds": time.perf_counter() - begun,
            "cpu_s": self._process.cpu_s - cpu_s,
            "ttft_s": [ttft_s for ttft_s, _ in made],
        }

    async def stop(self) -> None:
        await self._process.stop()

    async def _answer(self, client: httpx2.AsyncClient, tokens: int) -> tuple[float, int]:
        """Seconds to the first text, and tokens; each chunk is one, unless the server counts them itself."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": self._prompts()}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        begun, first, made = time.perf_counter(), 0.0, 0
        async with client.stream("POST", f"{self._origin}/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if any(choice["delta"].get("content") for choice in chunk["choices"]):
                    first = first or time.perf_counter()
                if usage := chunk.get("usage"):
                    made = usage["completion_tokens"]
        return first - begun, made


async def serve(stage: Stage, model: str, device: str) -> Serve:
    """Starts it, half a minute on two cores. Raises PeerMissing."""
    program = Path(sys.executable).parent / "transformers"
    if not program.exists():
        raise PeerMissing("the command `transformers` is not installed")
    folder = await installing.packages("transformers-serve", PACKAGES, stage.say)
    port = _free_port()
    where = ("--device", device, "--host", "127.0.0.1", "--port", str(port))
    env = {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
    process = await stage.start(
        NAME, str(program), "serve", model, "--continuous-batching", *_SIZES, *where, may_end=True, **env
    )
    origin = f"http://127.0.0.1:{port}"
    await _until_up(process, origin, stage.say)
    server = Serve(process, origin, model)
    await server.case(1, 2)
    return server


async def _until_up(process: Child, origin: str, say: Callable[[str], None]) -> None:
    say(f"local engine: {NAME} starts")
    try:
        async with asyncio.timeout(_START_S), httpx2.AsyncClient(trust_env=False) as client:
            while not await _is_up(client, origin):
                if not process.lives:
                    raise PeerMissing(await process.end())
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise PeerMissing(f"did not start within {_START_S:g} s") from None


async def _is_up(client: httpx2.AsyncClient, origin: str) -> bool:
    try:
        return (await client.get(f"{origin}/health")).status_code == 200
    except httpx2.TransportError:
        return False


def _free_port() -> int:
    """One that was free a moment ago: the server has to be told a number."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
