"""How late an event loop is: what no other figure shows when a process is overloaded or something blocks it."""

import asyncio
from typing import Final

from shared.spread import Spread

_PERIOD_S: Final = 0.25
"""Four looks a second: a stall of a tenth of a second is met by every third of them, and they cost some 10 µs a second."""

_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class LoopLag:
    """A timer, not a task: how much later than asked for it is called is how long anything else had to wait."""

    def __init__(self) -> None:
        self.seconds = Spread(_BOUNDS)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Looks until `stop`, at the loop that runs now."""
        loop = asyncio.get_running_loop()
        due = (loop.time() // _PERIOD_S + 1) * _PERIOD_S  # on the beat, where other timers wake the process anyway
        self._timer = loop.call_at(due, self._look, due)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, due: float) -> None:
        self.seconds.add(max(0.0, asyncio.get_running_loop().time() - due))
        self.start()
