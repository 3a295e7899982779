"""A whole stack of real processes on a Redis of its own, with an upstream whose every word is known."""

import os
import signal
import subprocess
import time
from typing import Any

import httpx2
from redis.asyncio import Redis

from shared import keys
from shared.redis_client import make_client
from shared.settings import Settings
from tests.support.openai_server import OpenAIServer
from tests.support.processes import Processes
from tests.support.reading import Reading
from tests.support.redis_server import RedisServer
from tests.support.truth import Stored, stored_log

LEASE_S = 1.5
"""The stack's lease: short, so that a takeover does not take the suite's time."""
SLACK_S = 1.0
"""What P4 adds to the lease."""


class Stack:
    """`start` what the test needs. `close` ends the readers; the processes end with their own fixture."""

    def __init__(
        self, redis_server: RedisServer, upstream: OpenAIServer, processes: Processes, redis_url: str | None = None
    ) -> None:
        self.redis_server = redis_server
        self.upstream = upstream
        self.processes = processes
        self.http = httpx2.AsyncClient(base_url=processes.base_url, timeout=30, limits=httpx2.Limits(max_connections=None))
        self.redis: Redis = make_client(Settings(redis_url=redis_url or redis_server.url, _env_file=None))
        self._readings: list[Reading] = []

    async def start(self, workers: int = 1, **settings: object) -> list[subprocess.Popen[bytes]]:
        """One web process and so many workers; returns the workers once all are live."""
        self.processes.web()
        started = [self.worker(**settings) for _ in range(workers)]
        await self.processes.ready(workers)
        return started

    def worker(self, **settings: object) -> subprocess.Popen[bytes]:
        return self.processes.worker("api", openai_base_url=self.upstream.url, **settings)

    async def submit(self, n: int, per_second: float, **body: object) -> str:
        """A job whose answer is `n` numbered words at a rate; its id."""
        answer = await self.http.post("/v1/jobs", json={"model": f"openai/count:{n}:{per_second:g}", "prompt": "Count"} | body)
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def read(self, job_id: str, base_url: str = "", cursor: str | None = None) -> Reading:
        """A new reader, from the first event on or from where another one stood."""
        reading = Reading(base_url or self.processes.base_url, job_id, self.http, cursor)
        self._readings.append(reading)
        return reading

    async def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = (await self.http.get(f"/v1/jobs/{job_id}")).json()
        return job

    async def field(self, job_id: str, name: str) -> str | None:
        """A field of the job's record, as Redis has it."""
        value = await self.redis.hget(keys.job(job_id), name)  # type: ignore[misc]  # redis-py types both
        return value.decode() if value is not None else None

    async def log(self, job_id: str) -> list[Stored]:
        return await stored_log(self.redis, job_id)

    async def live_workers(self) -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = (await self.http.get("/v1/workers")).json()["data"]
        return workers

    async def owner_of(self, job_id: str) -> dict[str, Any]:
        """The live worker that runs a job."""
        return await self.processes.worker_of(job_id)

    async def kill_owner_of(self, job_id: str, number: signal.Signals = signal.SIGKILL) -> tuple[dict[str, Any], float]:
        """Signals the worker that runs a job; says which it was and when that was."""
        owner = await self.owner_of(job_id)
        at = time.monotonic()
        os.kill(owner["pid"], number)
        return owner, at

    async def close(self) -> None:
        for reading in self._readings:
            await reading.close()
        await self.http.aclose()
        await self.redis.aclose()


def figure(name: str, seconds: float, bound: float) -> None:
    """A measured time, for whoever reads the test's output (`pytest -rP`), and the bound that it has to keep."""
    print(f"figure: {name}: {seconds:.3f} s, at most {bound:g} s")
    assert seconds <= bound, f"{name} took {seconds:.3f} s, more than {bound:g} s"
