"""What a scenario runs on: a Redis of its own and child processes, all gone when the stage is closed."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from bench.cost import busy_s, cpu_s, family, rss_bytes
from cli import tether
from cli.data_dir import DataDir
from cli.embedded_redis import EmbeddedRedis, find_redis_server
from shared.settings import Settings

ROOT: Final = Path(__file__).parent.parent
START_S: Final = 30.0
"""How long a child may take to say its first word: Python's imports, on a machine that is busy."""
_IDLE_AFTER_S: Final = 5.0

T = TypeVar("T")


class BenchFailed(Exception):
    """Something the bench runs did not do what it must: the message says what, with the end of its log."""


class Child:
    """A process of the bench's own. It talks to the bench in lines on its standard output."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that it and its children have used, in their own code and in the kernel's."""
        return sum(map(cpu_s, family(self.pid)))

    @property
    def lives(self) -> bool:
        return self._process.returncode is None

    @property
    def rss_bytes(self) -> int:
        return sum(map(rss_bytes, family(self.pid)))

    async def idle(self) -> None:
        """Returns once it has next to nothing to do, as after a crowd has left it, or after a few seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_AFTER_S):
                before = -1.0
                while self.cpu_s - before > 0.02:
                    before = self.cpu_s
                    await asyncio.sleep(0.25)

    async def line(self, timeout: float = START_S) -> str:
        """Its next line.

        Raises:
            BenchFailed: it said nothing in time, or ended.
        """
        assert self._process.stdout is not None, "opened as a pipe"
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchFailed(f"{self.name} said nothing for {timeout:g} s{self._last_words()}") from None
        if not line:
            raise BenchFailed(f"{self.name} ended{self._last_words()}")
        return line.decode().rstrip("\n")

    async def logged(self, mark: str) -> str:
        """The line of its log that holds `mark`, once there is one. Raises BenchFailed when it ends before."""
        found = ""

        async def look() -> None:
            nonlocal found
            while not found:
                await asyncio.sleep(0.02)  # a file tells nobody when it grows
                found = next((line for line in self._log.read_text(errors="replace").splitlines() if mark in line), "")

        await self.ready(look())
        return found

    async def ready(self, signs: Coroutine[None, None, None]) -> None:
        """Waits for `signs` of its being ready. Raises BenchFailed when it ends before, or takes too long."""
        waiting, ended = asyncio.create_task(signs), asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait([waiting, ended], timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise BenchFailed(f"{self.name} did not start{self._last_words()}")
            await waiting
        finally:
            waiting.cancel()
            ended.cancel()

    async def end(self) -> str:
        """Waits for its end; what there is to say about it, unless it was stopped from here."""
        await self._process.wait()
        return f"{self.name} ended{self._last_words()}"

    async def stop(self) -> None:
        """SIGKILL to it and what it started: nothing here is worth a farewell."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()

    def _last_words(self) -> str:
        return "".join(f"\n    {line}" for line in self._log.read_text(errors="replace").splitlines()[-15:])


class Stage:
    """Use as `async with`. `say` tells the person at the terminal what goes on; `others_cores` is how many cores everything
    else on the machine kept busy meanwhile: figures of a busy machine are figures of its scheduler."""

    def __init__(self, *, quick: bool, full: bool = False, say: Callable[[str], None]) -> None:
        self.quick = quick
        self.full = full
        self.say = say
        self.redis_url = ""
        self.dir = Path(tempfile.mkdtemp(prefix="lastevent-bench-"))
        self.others_cores = 0.0
        self._begun, self._busy, self._own_cpu_s = time.monotonic(), busy_s(), _own_cpu_s()
        self._children: list[Child] = []
        self._watches: list[asyncio.Task[None]] = []
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._data_dir: DataDir | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        ours_s = sum(child.cpu_s for child in self._children if child.lives) + _own_cpu_s() - self._own_cpu_s
        self.others_cores = max(0.0, busy_s() - self._busy - ours_s) / (time.monotonic() - self._begun)
        for watch in self._watches:
            watch.cancel()
        for child in reversed(self._children):
            await child.stop()
        if self._data_dir is not None:
            self._data_dir.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    async def run(self, scenario: Callable[["Stage"], Coroutine[None, None, T]]) -> T:
        """Runs a scenario on this stage. Raises BenchFailed as soon as a child ends that should not: its peers would wait."""
        work = asyncio.create_task(scenario(self))
        try:
            either: list[asyncio.Future[Any]] = [work, self._broken]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise BenchFailed(self._broken.result())
            return await work
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def redis(self) -> Child:
        """A Redis exactly as `lastevent up` runs it: append-only file, synced every second, on a unix socket."""
        self._data_dir = await DataDir.open(self.dir / "data")
        server = EmbeddedRedis(find_redis_server(), self._data_dir)
        child = await self.start("redis", *server.command())
        await child.ready(server.wait_ready())
        self.redis_url = server.url
        return child

    async def python(self, module: str, *args: str, may_end: bool = False, **env: Any) -> Child:
        """`python -m module`, with the settings given as `env`."""
        return await self.start(module, sys.executable, "-m", module, *args, may_end=may_end, **env)

    async def start(self, name: str, *command: str, may_end: bool = False, **env: Any) -> Child:
        """Starts a process that dies with this one, whatever kills it; Ctrl-C in the terminal reaches the bench alone.

        `may_end`: it is done at some time; the end of any other fails the scenario.
        """
        log = self.dir / f"{len(self._children)}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(int(signal.SIGKILL)), *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={**_clean_environment(), "PYTHONUNBUFFERED": "1", **{name: str(value) for name, value in env.items()}},
                cwd=ROOT,
                start_new_session=True,
                limit=1 << 20,
            )
        child = Child(name, process, log)
        self._children.append(child)
        if not may_end:
            self._watches.append(asyncio.create_task(self._watch(child)))
        return child

    async def _watch(self, child: Child) -> None:
        told = await child.end()
        if not self._broken.done():
            self._broken.set_result(told)

    def settings(self, **changed: object) -> Settings:
        """The defaults, on this stage's Redis; whatever is given wins."""
        return Settings(**{"redis_url": self.redis_url, "lanes": ("api",), **changed})  # type: ignore[arg-type]  # pydantic checks

    def environment(self, **changed: object) -> dict[str, Any]:
        """The same for a child process."""
        named = {f"LASTEVENT_{name.upper()}": value for name, value in changed.items()}
        return {"LASTEVENT_REDIS_URL": self.redis_url, "LASTEVENT_LANES": "api", "LASTEVENT_LOG_LEVEL": "warning", **named}


def _own_cpu_s() -> float:
    """Seconds of CPU of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _clean_environment() -> dict[str, str]:
    """Ours without what would change what is measured: the user's own settings and keys."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("LASTEVENT_", "OPENAI_", "PYTHONASYNCIODEBUG"))}
