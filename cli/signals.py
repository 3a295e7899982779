"""The signals that tell a command to stop: as an event to wait for, or as an end to what it does."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

INTERRUPTED: Final = 130
"""The exit code of a command that Ctrl-C ended: 128 + SIGINT, as shells have it."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the service manager, and a terminal that was closed."""

IMPATIENT_S = 1.0
"""A signal so long after the first one means "now". Sooner it is the same wish come twice: `timeout` and `make` signal both
the process and its group."""


def on_stop_signals(kill: Callable[[], None]) -> asyncio.Event:
    """An event that is set by the first stop signal; a second one calls `kill`."""
    stopped = asyncio.Event()
    since = 0.0

    def on_signal() -> None:
        nonlocal since
        if not stopped.is_set():
            since = time.monotonic()
            stopped.set()
        elif time.monotonic() - since > IMPATIENT_S:
            kill()

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stopped


@contextmanager
def on_ctrl_c(call: Callable[[], object]) -> Iterator[None]:
    """While the block runs, Ctrl-C calls this and does nothing else."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, call)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def unless_ctrl_c(work: Coroutine[Any, Any, Result]) -> Result | None:
    """What the work results in; None when Ctrl-C came first, and the work is then cancelled."""
    task, me = asyncio.ensure_future(work), asyncio.current_task()
    assert me is not None
    with on_ctrl_c(task.cancel):
        try:
            return await task
        except asyncio.CancelledError:
            if me.cancelling():
                raise
            return None
