"""`lastevent up` as a user runs it: a process of its own, its output read line by line."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
READY_S = 60.0
"""Loading the local model takes seconds, converting it once some more."""


class UpProcess:
    """A running `lastevent up`. `out` and `err` hold the lines so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self._process = process
        self._children: dict[int, psutil.Process] = {}
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(_collect(process.stdout, self.out)),
            asyncio.create_task(_collect(process.stderr, self.err)),
        ]

    @classmethod
    async def start(cls, *arguments: str, **env: str) -> "UpProcess":
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LASTEVENT_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cli.main", "up", *arguments),
            env={**clean, "PYTHONPATH": str(ROOT), **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self) -> str:
        """The URL that it prints once it serves."""
        deadline = asyncio.get_running_loop().time() + READY_S
        while not self.out:
            if self._process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise AssertionError("not ready:\n" + "\n".join(self.err[-40:]))
            await asyncio.sleep(0.02)
        return self.out[0].removeprefix("ready ")

    def children(self) -> dict[str, psutil.Process]:
        """Its child processes by name: `redis`, `web`, `worker`, `worker-2` …; a zombie is none."""
        found: dict[str, psutil.Process] = {}
        for child in psutil.Process(self.pid).children(recursive=True):
            self._children[child.pid] = child
            name = _name_of(child)
            if name:
                found[name if name not in found else f"{name}-{sum(key.startswith(name) for key in found) + 1}"] = child
        return found

    def left(self) -> list[psutil.Process]:
        """Which of the children that `children` ever saw still run."""
        return [child for child in self._children.values() if _runs(child)]

    async def stop(self, number: int = signal.SIGINT) -> int:
        """Signals it and waits; the exit code."""
        self._process.send_signal(number)
        return await self.wait()

    async def wait(self, timeout: float = 30.0) -> int:
        code = await asyncio.wait_for(self._process.wait(), timeout)
        await asyncio.gather(*self._readers)
        return code

    async def clean_up(self) -> None:
        """Ends it whatever state it is in. Killed only if it does not stop: its Redis would then still be at its files."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await self.wait(15)
        except TimeoutError:
            self._process.kill()
            await self.wait()


@asynccontextmanager
async def running_up(*arguments: str, **env: str) -> AsyncIterator[UpProcess]:
    """`lastevent up` with these arguments, ended at the end of the block."""
    up = await UpProcess.start(*arguments, **env)
    try:
        yield up
    finally:
        await up.clean_up()


async def _collect(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode().rstrip("\n"))


def _name_of(process: psutil.Process) -> str | None:
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    if "redis-server" in " ".join(words[:1]):
        return "redis"
    return next((name for name in ("web", "worker") if name in words[3:5]), None)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
