"""One run of one child process: how it is started, what it says, how it is stopped."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cli import tether

Report = Callable[[str, str], None]
"""Takes a child's name and one line that it printed, or that is about it."""

LAST_WORDS_S = 1.0
"""How long a dead child's pipe is read on: what it printed before its death is in there."""

_CHUNK = 65_536


@dataclass(frozen=True)
class ChildSpec:
    """What to run, under which name, and when it is stopped."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment, not an addition to one."""
    stage: int
    """Children are stopped stage by stage: 0, 1, 2."""
    must_start: bool = False
    """Whether any end before the stack is ready is fatal; else only exit code 2 is, a configuration error."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """What it gets from the kernel when its supervisor dies (see tether.py)."""
    pass_fds: tuple[int, ...] = ()
    """File descriptors that the child keeps open."""


class ChildProcess:
    """A child while it runs. Its process group is its own: a terminal's Ctrl-C reaches the supervisor alone."""

    def __init__(self, process: asyncio.subprocess.Process, spec: ChildSpec) -> None:
        self.spec = spec
        self.pid = process.pid
        self.last_words = ""
        """The last line it printed; one that starts with `lastevent: ` says why it ends."""
        self._process = process
        self._started = time.monotonic()

    @classmethod
    async def start(cls, spec: ChildSpec, report: Report) -> "ChildProcess":
        """Starts it, tethered to this process (see tether.py).

        Raises:
            OSError: no process could be made.
        """
        # A pipe of our own: asyncio's `stdout=PIPE` makes `wait()` wait for the end of the pipe too, which a grandchild
        # can hold open for ever.
        read_end, write_end = os.pipe()
        tethered = (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(int(spec.orphan_signal)), *spec.argv)
        try:
            process = await asyncio.create_subprocess_exec(
                *tethered,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                env=dict(spec.env),
                start_new_session=True,
                pass_fds=spec.pass_fds,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        child = cls(process, spec)
        child._pump = asyncio.create_task(child._report_lines(read_end, report), name=f"lines of {spec.name}")
        return child

    _pump: asyncio.Task[None]

    @property
    def lived_s(self) -> float:
        return time.monotonic() - self._started

    async def wait(self) -> int:
        """Waits for its end, sweeps up what it started itself, and gives the exit code (negative: the signal)."""
        code = await self._process.wait()
        self.kill()  # whatever is left in its process group
        await asyncio.wait([self._pump], timeout=LAST_WORDS_S)
        self._pump.cancel()  # without effect on one that has ended
        with contextlib.suppress(asyncio.CancelledError):
            await self._pump
        return code

    def terminate(self) -> None:
        """Asks it to stop (SIGTERM). What it started itself is its own business until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _report_lines(self, read_end: int, report: Report) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
        )
        rest = b""
        try:
            while chunk := await reader.read(_CHUNK):  # not readline(): it raises on a line over its limit
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._say(line, report)
        finally:
            self._say(rest, report)
            transport.close()

    def _say(self, raw: bytes, report: Report) -> None:
        line = raw.decode(errors="replace").rstrip()
        if not line:
            return
        self.last_words = line
        if not line.startswith("lastevent: "):  # that line is told once, by the one who tells of the end
            report(self.spec.name, line)


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
