"""Scenario C: how long a job waits for an idle worker, from the submit to the job function's first line.

Ours beside stock arq, which polls every half second, and beside arq told to poll ten times as often. Each worker is a process
of its own, and this process submits. Each round submits one job to each worker, in random order and after a random pause, so
that every phase of a poll is met.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from redis.asyncio import Redis

from bench.figures import OURS, Finding, Row, Target, spread
from bench.stage import START_S, Child, Stage
from shared.job import JobRequest
from shared.job_queue import JobQueue
from shared.models import resolve
from shared.redis_client import make_client
from shared.settings import Settings

MODEL: Final = "openai/instant"
STOCK, QUICK_POLL = "arq 0.28", "arq 0.28, poll_delay=0.05"
_ROUNDS, _ROUNDS_QUICK, _WARM_UP = 220, 30, 15
_APART_S: Final = 0.02
"""Between two submits of a round, so that one's work is over before the other's begins."""
_PAUSE_S: Final = (0.02, 0.3)
_LATEST_S: Final = 10.0

Enqueue = Callable[[], Awaitable[str]]


class Waits:
    """One worker, and what its jobs wait. `enqueue` submits a job and returns its id."""

    def __init__(self, enqueue: Enqueue, worker: Child) -> None:
        self._enqueue = enqueue
        self._worker = worker
        self._submitted: dict[str, int] = {}
        self.started_again = 0
        """Job functions that were called for a job a second time."""

    async def submit(self) -> None:
        before = time.monotonic_ns()
        self._submitted[await self._enqueue()] = before

    async def seconds(self, timeout: float) -> list[float]:
        """What each job submitted since the last call waited, in the order of the submits. Returns once all have started."""
        asked, self._submitted = self._submitted, {}
        waits: dict[str, float] = {}
        while len(waits) < len(asked):
            job_id, at = (await self._worker.line(timeout)).split(" ")
            if job_id in waits or job_id not in asked:
                self.started_again += 1
            else:
                waits[job_id] = (int(at) - asked[job_id]) / 1e9
        return [waits[job_id] for job_id in asked]


async def run(stage: Stage) -> Finding:
    await stage.redis()
    settings = stage.settings()
    ours, arq = make_client(settings), await create_pool(RedisSettings.from_dsn(stage.redis_url))
    try:
        servers = {
            OURS: Waits(_ours(ours, settings), await stage.python("bench.stamping_worker", **stage.environment())),
            STOCK: await _arq(stage, arq, "stock", 0.5),
            QUICK_POLL: await _arq(stage, arq, "quick", 0.05),
        }
        waits = await _measure(servers, stage)
    finally:
        await ours.aclose()
        await arq.aclose(close_connection_pool=True)
    rows = [Row("idle worker", name, spread(values)) for name, values in waits.items()]
    p50 = {row.server: row.figures["p50 ms"] for row in rows}
    return Finding(
        letter="C",
        title="Queue latency: submit → first line of the job function",
        rows=rows,
        compare="p50 ms",
        targets=[
            Target("p50", p50[OURS], 2.5, "ms"),
            Target("p50 / stock arq's", round(p50[OURS] / p50[STOCK], 4), 0.01, ""),
            Target("jobs started twice", servers[OURS].started_again, 0, ""),
        ],
    )


async def _measure(servers: dict[str, Waits], stage: Stage) -> dict[str, list[float]]:
    for waits in servers.values():  # the worker's start, and the first use of everything
        await waits.submit()
        await waits.seconds(START_S)
    rounds = (_ROUNDS_QUICK if stage.quick else _ROUNDS) + _WARM_UP
    order = list(servers.values())
    for done in range(rounds):
        stage.say(f"queue latency: round {done + 1} of {rounds}, a job for each of {len(servers)} workers")
        await asyncio.sleep(random.uniform(*_PAUSE_S))
        random.shuffle(order)
        for waits in order:
            await waits.submit()
            await asyncio.sleep(_APART_S)
    return {name: (await waits.seconds(_LATEST_S))[_WARM_UP:] for name, waits in servers.items()}


def _ours(redis: Redis, settings: Settings) -> Enqueue:
    queue = JobQueue(redis, settings)
    request, model = JobRequest(model=MODEL, prompt="Hello"), resolve(MODEL, settings)

    async def enqueue() -> str:
        return (await queue.submit(request, model)).job_id

    return enqueue


async def _arq(stage: Stage, pool: ArqRedis, name: str, poll_delay_s: float) -> Waits:
    queue = f"bench:{name}"
    env: dict[str, Any] = {"BENCH_REDIS_URL": stage.redis_url, "BENCH_QUEUE": queue, "BENCH_POLL_DELAY": poll_delay_s}
    worker = await stage.python("arq", "bench.arq_worker.WorkerSettings", **env)

    async def enqueue() -> str:
        job = await pool.enqueue_job("stamped", _queue_name=queue)
        assert job is not None, "ids are random, none comes twice"
        return str(job.job_id)

    return Waits(enqueue, worker)
