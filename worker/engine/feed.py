"""One job's ids on their way from an engine's thread to the event loop. No torch.

    engine's thread ──call_soon_threadsafe──▶ push / end / fail ──▶ async for batch in feed

All methods belong to the event loop; an engine reaches them through `call_soon_threadsafe` and never waits for them. What
piled up while the reader was busy comes as one batch.
"""

import asyncio
from typing import Literal, Self

import msgspec

from worker.engine.sampling import Sampling

EndReason = Literal["stop", "length"]


class Generation(msgspec.Struct, frozen=True):
    """What an engine is asked for."""

    job_id: str
    ids: tuple[int, ...]
    """The prompt, and after it the answer so far where there is one."""
    max_new_tokens: int
    sampling: Sampling
    tenant: str = ""
    """Whose job it is: what the cache holds of one tenant's prompts is never used for another's."""


class TokenFeed:
    """Ends with `StopAsyncIteration`, then `reason` says why; or raises what the engine failed with."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._news = asyncio.Event()
        self._error: Exception | None = None
        self.reason: EndReason | None = None

    def push(self, ids: list[int]) -> None:
        self._ids += ids
        self._news.set()

    def end(self, reason: EndReason) -> None:
        if not self.ended:
            self.reason = reason
            self._news.set()

    def fail(self, error: Exception) -> None:
        if not self.ended:
            self._error = error
            self._news.set()

    @property
    def ended(self) -> bool:
        return self.reason is not None or self._error is not None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[int]:
        """The ids since the last call, at least one. What came before a failure is given before it is raised."""
        while not self._ids:
            if self._error is not None:
                raise self._error
            if self.reason is not None:
                raise StopAsyncIteration
            await self._news.wait()
            self._news.clear()
        ids, self._ids = self._ids, []
        return ids
