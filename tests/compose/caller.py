"""Somebody who goes on submitting, a small job ten times a second, and writes down what was answered."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx2

EVERY_S: Final = 0.1


class Calls:
    """`refused`: by status, or by the connection's own error."""

    def __init__(self) -> None:
        self.made = 0
        self.refused: Counter[str] = Counter()

    def __str__(self) -> str:
        told = ", ".join(f"{count} × {what}" for what, count in self.refused.most_common())
        return f"{self.made - self.refused.total()} of {self.made} submits taken{f'; {told}' if told else ''}"


@asynccontextmanager
async def calling(client: httpx2.AsyncClient, url: str) -> AsyncIterator[Calls]:
    """Submits while the block runs."""
    calls = Calls()
    running: set[asyncio.Task[None]] = set()

    async def forever() -> None:
        while True:
            one = asyncio.create_task(_submit(client, url, calls))
            running.add(one)
            one.add_done_callback(running.discard)
            await asyncio.sleep(EVERY_S)

    caller = asyncio.create_task(forever())
    try:
        yield calls
    finally:
        caller.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await caller
        await asyncio.gather(*running)


async def _submit(client: httpx2.AsyncClient, url: str, calls: Calls) -> None:
    calls.made += 1
    try:
        answer = await client.post(f"{url}/v1/jobs", json={"model": "openai/count:3:0", "prompt": "Count"})
    except httpx2.TransportError as error:
        calls.refused[type(error).__name__] += 1
        return
    if answer.status_code != 202:
        calls.refused[str(answer.status_code)] += 1
