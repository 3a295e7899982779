"""The tiers as processes of their own, to be killed for real: `lastevent web` and `lastevent worker`."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from tests.support.redis_server import free_port
from tests.support.waiting import wait_until


class Processes:
    """A stack on one Redis. Everything started is ended by `close`, and its log is shown when a test fails."""

    def __init__(self, redis_url: str, **settings: object) -> None:
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._dir = Path(tempfile.mkdtemp(prefix="lastevent-processes-"))
        self._all: list[subprocess.Popen[bytes]] = []
        self._env = {**os.environ, "LASTEVENT_REDIS_URL": redis_url, "LASTEVENT_LANES": "api"}
        self._env |= {f"LASTEVENT_{name.upper()}": str(value) for name, value in settings.items()}

    def start(self, *command: str, **settings: object) -> subprocess.Popen[bytes]:
        env = {**self._env, **{f"LASTEVENT_{name.upper()}": str(value) for name, value in settings.items()}}
        with (self._dir / f"{len(self._all)}-{command[0]}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "cli.main", *command], env=env, stdout=log, stderr=log)
        self._all.append(process)
        return process

    def web(self, port: int | None = None) -> subprocess.Popen[bytes]:
        return self.start("web", "--port", str(port or self.port))

    def worker(self, lane: str = "api", **settings: object) -> subprocess.Popen[bytes]:
        return self.start("worker", "--lane", lane, **settings)

    async def ready(self, workers: int = 1) -> None:
        """Returns once web answers and so many workers are live."""
        async with httpx2.AsyncClient(base_url=self.base_url) as client:

            async def live() -> bool:
                for process in self._all:
                    assert process.poll() is None or process.returncode == -signal.SIGKILL, self.logs()
                try:
                    return len((await client.get("/v1/workers")).json()["data"]) == workers
                except (httpx2.TransportError, KeyError):
                    return False

            await wait_until(live, timeout=30, message=f"{workers} workers behind {self.base_url}")

    async def worker_of(self, job_id: str) -> dict[str, Any]:
        """The live worker that runs a job, as `GET /v1/workers` shows it."""
        async with httpx2.AsyncClient(base_url=self.base_url) as client:
            job = (await client.get(f"/v1/jobs/{job_id}")).json()
            workers = (await client.get("/v1/workers")).json()["data"]
        found: dict[str, Any] = next(w for w in workers if w["id"] == job["attempts"][-1]["worker"])
        return found

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self._dir.iterdir()))

    async def close(self) -> None:
        for process in self._all:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self._all:
            await asyncio.to_thread(process.wait)
        print(self.logs())
