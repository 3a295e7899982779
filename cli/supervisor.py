"""Keeps children running: starts them, restarts what dies, stops all of them in order.

    start ─► running ──died──► waiting (0, 0.5, 1, 2 … 10 s) ─► running …
                │
                └─ before ready, exit code 2 ─► fatal: nothing that a restart could mend

The first restart comes at once, because most deaths are single accidents; later ones wait, doubling, because most repeated
deaths have a reason that stays. A child that lived for 30 s starts over.
"""

import asyncio
import contextlib

from cli.child import ChildProcess, ChildSpec, Report, describe_exit
from shared.errors import ConfigurationError

CONFIGURATION_EXIT = 2
"""The exit code of every `lastevent` command that found its configuration wrong."""

BACKOFF_FIRST_S = 0.5
BACKOFF_LAST_S = 10.0
HEALTHY_S = 30.0
"""After so long a life a death counts as the first again."""

KILL_AFTER_S = 8.0
"""Whoever is left so long after the stop began is SIGKILLed: `up` promises to be gone within 10 s."""

STAGE_ENDS_S = (2.5, 6.5)
"""By when, after the stop began, the first and the second stage no longer hold up the next one; whoever is still at it may
go on until the kill. A quick first stage (web) leaves its time to the second (workers), and Redis always has 1.5 s."""


class Backoff:
    """How long to wait before the next restart of one child."""

    def __init__(self) -> None:
        self._deaths = 0

    def after(self, lived_s: float) -> float:
        """Seconds to wait, after a life of `lived_s` seconds."""
        if lived_s >= HEALTHY_S:
            self._deaths = 0
        self._deaths += 1
        return 0.0 if self._deaths == 1 else min(BACKOFF_FIRST_S * 2.0 ** (self._deaths - 2), BACKOFF_LAST_S)


class Supervisor:
    """One per stack. Use it from one event loop, in the main thread (see tether.py)."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._running: dict[str, ChildProcess] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._spawning = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._ready = False
        self._fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def start(self, spec: ChildSpec) -> None:
        """Starts a child and keeps it running until `stop`."""
        keeper = self._keepers[spec.name] = asyncio.create_task(self._keep(spec), name=f"keeper of {spec.name}")
        keeper.add_done_callback(self._note_failure)

    def mark_ready(self) -> None:
        """From now on every death is met with a restart: a stack that once ran is configured rightly."""
        self._ready = True

    async def fatal(self) -> None:
        """Waits until a child ended for a reason that no restart can mend.

        Raises:
            ConfigurationError: with the child's last words.
            Exception: whatever else ended the keeping of a child: a bug.
        """
        raise await asyncio.shield(self._fatal)

    def pids(self) -> dict[str, int]:
        """The pids of the children that run now, by name."""
        return {name: child.pid for name, child in self._running.items()}

    async def stop(self) -> None:
        """Stops all children, stage by stage, and returns when none is left: at the latest a moment after KILL_AFTER_S."""
        async with self._spawning:  # from here on nothing is started any more
            self._stopping.set()
        loop = asyncio.get_running_loop()
        began = loop.time()
        killer = loop.call_at(began + KILL_AFTER_S, self.kill)
        try:
            for stage, end in enumerate((*STAGE_ENDS_S, KILL_AFTER_S)):
                await self._stop_stage(stage, began + end)
            await asyncio.gather(*self._keepers.values())
        finally:
            killer.cancel()

    def strike(self, name: str) -> None:
        """SIGKILL to a child that runs, as an accident would: it is started again."""
        self._running[name].kill()

    def kill(self) -> None:
        """SIGKILL to all that still run; `stop` then returns at once."""
        for name, child in self._running.items():
            self._report(name, "does not stop: killed")
            child.kill()

    async def _stop_stage(self, stage: int, deadline: float) -> None:
        names = [name for name, child in self._running.items() if child.spec.stage == stage]
        for name in names:
            self._running[name].terminate()
        if names:
            timeout = deadline - asyncio.get_running_loop().time()
            await asyncio.wait([self._keepers[name] for name in names], timeout=max(0.0, timeout))

    async def _keep(self, spec: ChildSpec) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                child = await self._spawn(spec)
            except OSError as error:  # no process or descriptor to be had now
                end, delay = f"cannot be started: {error.strerror}", BACKOFF_FIRST_S
            else:
                if child is None or (code := await self._see_out(child)) is None:
                    return
                end, delay = _obituary(code, child.last_words), backoff.after(child.lived_s)
            self._report(spec.name, f"{end}; restarted {f'in {delay:g} s' if delay else 'at once'}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _see_out(self, child: ChildProcess) -> int | None:
        """Waits for a child's end; its exit code if there shall be another run."""
        try:
            code = await child.wait()
        finally:
            del self._running[child.spec.name]
        return None if self._stopping.is_set() or self._is_fatal(child.spec, code, child) else code

    async def _spawn(self, spec: ChildSpec) -> ChildProcess | None:
        """None once the stop has begun. Start and stop exclude each other, so that no child slips through a stop."""
        async with self._spawning:
            if self._stopping.is_set():
                return None
            child = self._running[spec.name] = await ChildProcess.start(spec, self._report)
            return child

    def _is_fatal(self, spec: ChildSpec, code: int, child: ChildProcess) -> bool:
        if self._ready or not (spec.must_start or code == CONFIGURATION_EXIT):
            return False
        if not self._fatal.done():
            words = child.last_words.removeprefix("lastevent: ")
            if not child.last_words.startswith("lastevent: "):
                words = f"{spec.name} {describe_exit(code)} at its start{': ' + words if words else ''}"
            self._fatal.set_result(ConfigurationError(words))
        return True

    def _note_failure(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and (error := keeper.exception()) is not None and not self._fatal.done():
            self._fatal.set_result(error)


def _obituary(code: int, last_words: str) -> str:
    why = f" ({last_words.removeprefix('lastevent: ')})" if last_words.startswith("lastevent: ") else ""
    return f"{describe_exit(code)}{why}"
