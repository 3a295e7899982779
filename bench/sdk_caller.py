"""Calls a provider through the openai SDK at random times, as a program without a queue does.

Run as `python -m bench.sdk_caller BASE_URL MODEL PER_S SECONDS`. Prints "begins" once it is warm, and at the end one line of
JSON: each call's seconds to its first token. In a process of its own, so that the SDK's work delays nobody else's clock.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any, Final

import openai
import uvloop

WARM_UP: Final = 20
MESSAGES: Any = [{"role": "user", "content": "Hello"}]


async def first_token(client: openai.AsyncOpenAI, model: str) -> float:
    """Makes one call and reads it to its end; seconds from the request to its first token."""
    begun = time.perf_counter()
    first = 0.0
    async with await client.chat.completions.create(model=model, messages=MESSAGES, stream=True) as chunks:
        async for chunk in chunks:
            if not first and chunk.choices and chunk.choices[0].delta.content:
                first = time.perf_counter()
    return first - begun


async def main(base_url: str, model: str, per_s: float, seconds: float) -> None:
    async with openai.AsyncOpenAI(api_key="none", base_url=base_url, max_retries=0) as client:
        for _ in range(WARM_UP):
            await first_token(client, model)
        print("begins")
        calls = []
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            await asyncio.sleep(random.expovariate(per_s))
            calls.append(asyncio.create_task(first_token(client, model)))
        print(json.dumps(await asyncio.gather(*calls)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
