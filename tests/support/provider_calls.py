"""One call of a provider, read to its end, to its failure, or cut off."""

import asyncio
import time
import traceback

import pytest

from shared.errors import GenerationFailed
from shared.events import Token
from shared.providers import ProviderConfig, provider_configs
from shared.settings import Settings
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import wait_until
from worker.providers.base import Call, Delta, Provider

CLOSED_WITHIN_S = 0.1
"""Protocol P6."""


def config_of(name: str, **settings: object) -> ProviderConfig:
    """The configuration of one provider under these settings."""
    return provider_configs(Settings(**settings))[name]  # type: ignore[arg-type]  # validated by pydantic


async def collected(provider: Provider, call: Call) -> list[Delta]:
    async with provider.stream(call) as deltas:
        return [delta async for delta in deltas]


async def failed(provider: Provider, call: Call) -> tuple[GenerationFailed, str]:
    """How a call fails, and the text that came before."""
    said = ""

    async def read() -> None:
        nonlocal said
        async with provider.stream(call) as deltas:
            async for delta in deltas:
                said += delta.text if isinstance(delta, Token) else ""

    with pytest.raises(GenerationFailed) as caught:
        await read()
    return caught.value, said


async def cancelled(provider: Provider, call: Call, server: ScriptedUpstream, after_chunks: int) -> float:
    """Cancels a call once the server has sent so many chunks. Seconds from the cancel to the closed connection."""
    task = asyncio.create_task(collected(provider, call))
    await wait_until(lambda: bool(server.requests) and server.requests[0].chunks_sent >= after_chunks)
    since = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: server.requests[0].left_at is not None, message="upstream is still open")
    left_at = server.requests[0].left_at
    assert left_at is not None
    return left_at - since


def everything_shown(error: BaseException) -> str:
    """What a log could make of an error: its words, its repr, its traceback, and those of what led to it."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
    for earlier in (error.__cause__, error.__context__):
        shown += everything_shown(earlier) if earlier is not None else ""
    return shown
