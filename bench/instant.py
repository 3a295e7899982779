"""A provider that never makes anybody wait: what is left is the queue's own time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.events import Token, Usage
from worker.providers.base import Call, Delta, Finish


class InstantProvider:
    """Answers in the worker's own process, at once. See `worker.providers.base.Provider`."""

    name = "openai"

    def can_continue(self, call: Call) -> bool:
        return False

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        yield self._deltas()

    async def _deltas(self) -> AsyncIterator[Delta]:
        yield Token("Hello")
        yield Usage(input_tokens=1, output_tokens=1)
        yield Finish("stop")
