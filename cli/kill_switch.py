"""What `lastevent up --allow-chaos` hands to its web process: a pipe on which to ask for a worker's death.

    page ── POST /v1/chaos/kill-worker ──► web ── "1234\\n" ──► pipe ──► up: is 1234 a worker of mine? SIGKILL

The web process signals nobody. Whoever holds the pipe's other end knows its children, so a pid that the system has given to
another process meanwhile, or that is no worker, is left alone. The pipe has no name: only the child that inherits it can ask.
"""

import asyncio
import os
from collections.abc import Collection

from cli.child import Report
from cli.supervisor import Supervisor


class KillSwitch:
    """`fd` is what the web process inherits; `run_forever` obeys; `close` gives the pipe back."""

    def __init__(self, supervisor: Supervisor, victims: Collection[str], report: Report) -> None:
        """`victims`: the names of the children that may be killed."""
        self._supervisor = supervisor
        self._victims = victims
        self._report = report
        self._read_end, self.fd = os.pipe()

    async def run_forever(self) -> None:
        """Kills what is asked for, until it is cancelled."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._read_end, "rb", buffering=0, closefd=False)
        )
        try:
            while line := await reader.readline():
                self._kill(int(line))
        finally:
            transport.close()

    def close(self) -> None:
        """Once no child is left that could write."""
        os.close(self._read_end)
        os.close(self.fd)

    def _kill(self, pid: int) -> None:
        name = next((name for name, child in self._supervisor.pids().items() if child == pid), None)
        if name is None or name not in self._victims:
            self._report("up", f"the page asked for the death of pid {pid}, which is no worker of this stack: left alone")
            return
        self._report(name, f"gets SIGKILL (pid {pid}): the page asked for it")
        self._supervisor.strike(name)
