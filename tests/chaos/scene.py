"""The processes of a chaos run, each started again when it dies, as a supervisor would: Redis, upstream, webs, workers."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import httpx2
from redis.asyncio import Redis

from cli import tether
from cli.data_dir import DataDir
from cli.embedded_redis import EmbeddedRedis, find_redis_server
from cli.supervisor import CONFIGURATION_EXIT
from shared.event_log import EventLog
from shared.job_store import JobStore
from shared.redis_client import UNREACHABLE, make_client
from shared.settings import Settings
from tests.chaos.plan import WEBS, WORKERS, Plan
from tests.chaos.wire import Wire
from tests.support.redis_server import free_port
from tests.support.waiting import wait_until

ROOT: Final = Path(__file__).parents[2]
READY_S: Final = 60.0
_PAUSE_S: Final = 0.2
"""Between a death that nobody planned and the next start: what ends because Redis was away when it started."""


class Actor:
    """A process that is started again whenever it has ended, until `leave`."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.pause_s = _PAUSE_S
        """Until the next start after its next death."""
        self.fell: list[str] = []
        """Ends that no fault explains."""
        self._command, self._env, self._log = command, env, log
        self._process: asyncio.subprocess.Process | None = None
        self._struck = False
        self._playing = asyncio.create_task(self._play(), name=name)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def signal(self, number: signal.Signals) -> None:
        """To whatever runs of it now; harmless while nothing does."""
        if self._process is None:
            return
        self._struck = self._struck or number in (signal.SIGKILL, signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def leave(self) -> None:
        self._playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._playing
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _play(self) -> None:
        while True:
            self._struck = False
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(int(signal.SIGKILL)), *self._command),
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, cwd=ROOT, start_new_session=True,
                )  # fmt: skip
            code = await self._process.wait()
            self._process = None
            if not self._struck and code != CONFIGURATION_EXIT:
                self.fell.append(f"{self.name} ended by itself, with {code}")
            pause_s, self.pause_s = self.pause_s, _PAUSE_S
            await asyncio.sleep(pause_s)


class Scene:
    """Use as `async with`; everything it started is gone afterwards. `folder` keeps the logs until `tidy`."""

    def __init__(self, plan: Plan) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lastevent-chaos-"))
        self.worker_ids: dict[int, str] = {}
        """By pid, as of the last look."""
        self.redis_kills: list[float] = []
        """`time.monotonic()` of each."""
        self._plan = plan
        self._exits = contextlib.AsyncExitStack()
        self._ports = [free_port() for _ in range(WEBS)]

    async def __aenter__(self) -> Self:
        try:
            await self._set_up()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def tidy(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def urls(self) -> list[str]:
        """Where readers reach the webs."""
        return [wire.url for wire in self.wires]

    @property
    def fell(self) -> list[str]:
        return [line for actor in (self.redis, *self.webs, *self.workers) for line in actor.fell]

    async def redis_is_up(self) -> None:
        """Returns once Redis answers, its data loaded."""
        await self._server.wait_ready()

    async def ready(self) -> None:
        """Returns once every process stands."""
        await wait_until(self._stands, READY_S, f"the stack stands; its logs are in {self.folder}")

    async def _set_up(self) -> None:
        data_dir = await DataDir.open(self.folder / "data")
        self._exits.callback(data_dir.close)
        self._server = EmbeddedRedis(find_redis_server(), data_dir)
        self._exits.callback(self._server.clean_up)
        self.redis = self._enter("redis", self._server.command(), _clean_environment())
        async with asyncio.timeout(READY_S):
            await self.redis_is_up()
        options = Settings(redis_url=self._server.url, lanes=("api",), _env_file=None)
        self.client: Redis = make_client(options)
        self._exits.push_async_callback(self.client.aclose)
        self.store = JobStore(self.client, EventLog(self.client, options))
        self.http = await self._exits.enter_async_context(_http_client())
        self.wires = [await self._exits.enter_async_context(Wire(port)) for port in self._ports]
        self.upstream_wire = await self._exits.enter_async_context(Wire(await self._upstream()))
        env = self._environment(f"{self.upstream_wire.url}/v1")
        self.webs = [
            self._enter(f"web-{i}", (*_LASTEVENT, "web", "--port", str(port)), env) for i, port in enumerate(self._ports)
        ]
        self.workers = [self._enter(f"worker-{i}", (*_LASTEVENT, "worker", "--lane", "api"), env) for i in range(WORKERS)]
        watching = asyncio.create_task(self._watch_workers())
        self._exits.callback(watching.cancel)
        await self.ready()

    def _enter(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> Actor:
        actor = Actor(name, command, env, self.folder / f"{name}.log")
        self._exits.push_async_callback(actor.leave)
        return actor

    async def _upstream(self) -> int:
        """Its port. The one process that nothing strikes: what it says is the truth."""
        self._enter("upstream", (sys.executable, "-m", "tests.chaos.upstream"), _clean_environment())
        log = self.folder / "upstream.log"
        await wait_until(lambda: log.exists() and log.read_text().endswith("\n"), READY_S, "the upstream answers")
        return int(log.read_text())

    def _environment(self, upstream_url: str) -> dict[str, str]:
        """The product's own settings, but for the lease asked for, short drains, and limits that no storm reaches."""
        changed = {
            "redis_url": self._server.url, "lanes": "api", "openai_base_url": upstream_url, "lease_s": self._plan.lease_s,
            "drain_s": 1, "web_drain_s": 2, "max_losses": 100, "max_failures": 100, "model_tries": 20,
        }  # fmt: skip
        return _clean_environment() | {f"LASTEVENT_{name.upper()}": str(value) for name, value in changed.items()}

    async def _stands(self) -> bool:
        try:
            pids = {info.pid for info in await self.store.workers()}
            healthy = [(await self.http.get(f"{url}/healthz")).status_code == 200 for url in self.urls]
        except (*UNREACHABLE, httpx2.TransportError):
            return False
        return all(healthy) and {worker.pid for worker in self.workers} <= pids

    async def _watch_workers(self) -> None:
        while True:
            try:
                self.worker_ids |= {info.pid: info.id for info in await self.store.workers()}
            except UNREACHABLE:
                continue
            finally:
                await asyncio.sleep(0.2)


_LASTEVENT: Final = (sys.executable, "-m", "cli.main")


def _http_client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=10, limits=httpx2.Limits(max_connections=None))


def _clean_environment() -> dict[str, str]:
    """Ours without what would change the run: the user's own settings and keys."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LASTEVENT_", "OPENAI_"))}
    return kept | {"PYTHONUNBUFFERED": "1"}
