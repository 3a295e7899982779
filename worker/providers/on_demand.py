"""What costs seconds to import is imported when it is needed, and not on the event loop."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class OnDemand(Generic[T]):
    """One value, made once, in a thread: a provider's SDK and its client.

    The anthropic SDK takes 1.3 s of CPU to import (measured; 2,900 modules), and most workers never call it. Those
    that will may `begin` it at their start: they take jobs meanwhile, and the first call waits for what is left.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._making: asyncio.Task[T] | None = None

    def begin(self) -> None:
        """Starts making it, if nobody has; returns at once."""
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(self._make))
            self._making.add_done_callback(_seen)

    async def get(self) -> T:
        """The value, once it is made. Raises what making it raised, each time."""
        self.begin()
        assert self._making is not None
        return await asyncio.shield(self._making)  # a call that is cancelled must not take it from the others

    def made(self) -> T | None:
        """The value if it is made already, else None; starts nothing."""
        making = self._making
        done = making is not None and making.done() and not making.cancelled() and making.exception() is None
        return making.result() if making is not None and done else None

    async def if_begun(self) -> T | None:
        """The value to be closed, or None where there is none: it was never asked for, or could not be made."""
        if self._making is None:
            return None
        await asyncio.wait({self._making})  # a thread cannot be stopped, and may not outlive what it works on
        return None if self._making.exception() else self._making.result()


def _seen(making: "asyncio.Task[T]") -> None:
    """Where nobody asked for it, nobody is to hear that it failed."""
    if not making.cancelled():
        making.exception()
