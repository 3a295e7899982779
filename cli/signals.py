"""The signals that tell a command to stop, as one event to wait for."""

import asyncio
import signal
import time
from collections.abc import Callable

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
