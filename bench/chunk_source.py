"""Many streams of one provider, read in one of three ways and dropped: what reading alone costs a process.

Run as `python -m bench.chunk_source WAY BASE_URL STREAMS TOKENS PER_S`, WAY being

    bytes   the HTTP client's bytes, nothing looked at
    sdk     the openai SDK's chunk objects
    ours    the worker's provider: the same bytes, decoded to the log's events

Prints one line of JSON once all streams have ended: CPU seconds from the first token of all streams to the last of any.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import uvloop

from shared.events import Token
from shared.job import JobRequest
from shared.logs import set_up_logs
from shared.providers import provider_configs
from shared.settings import load_settings
from worker.providers.base import Call
from worker.providers.openai import OpenAIProvider

MESSAGES: Any = [{"role": "user", "content": "Hello"}]


class Meter:
    """Counts from when the last of all streams has begun until the first one ends: opening them is not what is asked for."""

    def __init__(self, streams: int) -> None:
        self._to_begin = streams
        self._since = 0.0
        self.tokens = 0
        self.cpu_s: float | None = None

    def begun(self) -> None:
        self._to_begin -= 1
        if self._to_begin == 0:
            self._since, self.tokens = time.process_time(), 0

    def ended(self) -> None:
        if self.cpu_s is None:
            self.cpu_s, self.counted = time.process_time() - self._since, self.tokens


async def _bytes(client: openai.AsyncOpenAI, model: str) -> AsyncIterator[bool]:
    async with await client.chat.completions.create(model=model, messages=MESSAGES, stream=True) as upstream:
        async for _ in upstream.response.aiter_bytes():
            yield True


async def _sdk(client: openai.AsyncOpenAI, model: str) -> AsyncIterator[bool]:
    async with await client.chat.completions.create(model=model, messages=MESSAGES, stream=True) as upstream:
        async for chunk in upstream:
            yield bool(chunk.choices and chunk.choices[0].delta.content)


async def _ours(provider: OpenAIProvider, model: str) -> AsyncIterator[bool]:
    call = Call("job_bench", model, JobRequest(model=f"openai/{model}", prompt="Hello"))
    async with provider.stream(call) as deltas:
        async for delta in deltas:
            yield isinstance(delta, Token)


async def _read(stream: AsyncIterator[bool], meter: Meter) -> None:
    begun = False
    async for is_token in stream:
        meter.tokens += is_token
        if is_token and not begun:
            begun = True
            meter.begun()
    meter.ended()


async def main(way: str, base_url: str, streams: int, model: str) -> None:
    settings = load_settings(openai_base_url=base_url)
    set_up_logs(settings)
    provider = OpenAIProvider(provider_configs(settings)["openai"])
    await provider.start()
    client = provider._ready_client()
    meter = Meter(streams)

    def stream() -> AsyncIterator[bool]:
        return _ours(provider, model) if way == "ours" else {"bytes": _bytes, "sdk": _sdk}[way](client, model)

    await asyncio.gather(*(_read(stream(), meter) for _ in range(streams)))
    print(json.dumps({"cpu_s": meter.cpu_s, "tokens": meter.counted}))
    await provider.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
