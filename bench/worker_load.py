"""Scenario W: one worker process under all the jobs it may be given, and where a token's CPU goes.

The provider is a process of its own that keeps an exact pace and says when it could not. Jobs are submitted all at once, so
that opening hundreds of streams is part of what is measured. A job is as slow as its own record says: from the accepted
submit to the end. Then the same load is read, and written, by processes that do nothing else.
"""

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import httpx2
from redis.asyncio import Redis

from bench.figures import OURS, Finding, Row, Target
from bench.stage import BenchFailed, Child, Stage
from shared.event_log import EventLog
from shared.events import Token
from shared.job import JobRequest
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.models import resolve
from shared.redis_client import make_client
from worker.output_count import OutputCount
from worker.tokens import load_encoding

WAYS: Final = {
    "bytes": "HTTP client alone: bytes, dropped",
    "sdk": "openai SDK: its chunk objects",
    "ours": "our provider: the SDK's raw stream",
}
COUNTING: Final = "counting: tiktoken"
WRITER: Final = "the writer: tokens into logs"
_COUNTED: Final = 20_000


class Load(NamedTuple):
    """So many jobs at once, each with a token so many times a second."""

    jobs: int
    per_s: int

    @property
    def name(self) -> str:
        return f"{self.jobs} jobs at {self.per_s}/s"

    def model(self, seconds: int) -> str:
        return f"count:{seconds * self.per_s}:{self.per_s}"


LOADS: Final = (Load(200, 20), Load(500, 5))
_LENGTH_S, _LENGTH_QUICK_S = 20, 6
_PART_S, _PART_QUICK_S = 4, 3
_LATEST_S: Final = 60.0
"""How long the slowest job may take beyond its nominal time before the bench gives up."""


class Upstream(NamedTuple):
    process: Child
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def latest_ms(self) -> float:
        """By how much its most belated chunk was late since the last call."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            return float((await client.get(f"http://127.0.0.1:{self.port}/")).json()["latest_ms"])


async def run(stage: Stage) -> Finding:
    await stage.redis()
    process = await stage.python("bench.paced_server")
    upstream = Upstream(process, int(await process.line()))
    split: list[Row] = []
    async with _worker(stage, upstream) as worker:
        rows = [await _under(stage, worker, upstream, load) for load in LOADS]
    taken_apart = LOADS if stage.full else LOADS[:1]
    for load in taken_apart:
        split += await _split(stage, upstream, load)
    return Finding(
        letter="W",
        title="One worker process under load",
        rows=rows + split,
        compare="CPU µs/token",
        targets=[target for row in rows for target in _targets(row)],
        notes=[
            *(_saved(split, load) for load in taken_apart),
            "The parts: reading and writing, each by a process that does nothing else. The worker's own figure is all of its "
            "CPU, and has the jobs' beginnings and ends in it.",
        ],
    )


def _targets(row: Row) -> list[Target]:
    return [
        Target(f"{row.case}: slowest / nominal", row.figures["slowest / nominal"], 1.2, ""),
        Target(f"{row.case}: loop lag p99", row.figures["lag p99 ms"], 50, "ms"),
        Target(f"{row.case}: RSS", row.figures["RSS MB"], 400, "MB"),
    ]


@asynccontextmanager
async def _worker(stage: Stage, upstream: Upstream) -> AsyncIterator[Child]:
    slots = max(load.jobs for load in LOADS)
    env = stage.environment(openai_base_url=upstream.base_url, api_slots=slots, log_level="info", log_json="1")
    worker = await stage.python("bench.probed_worker", may_end=True, **env)
    await worker.logged("worker is ready")
    yield worker
    await worker.stop()  # else it would take the writer's jobs


async def _under(stage: Stage, worker: Child, upstream: Upstream, load: Load) -> Row:
    seconds = _LENGTH_QUICK_S if stage.quick else _LENGTH_S
    stage.say(f"worker: {load.name}, {seconds} s")
    redis = make_client(stage.settings())
    try:
        await _told(worker)
        await upstream.latest_ms()
        before = worker.cpu_s
        ids = await _submit(stage, redis, load, seconds)
        for _ in ids:
            await worker.line(seconds + _LATEST_S)
        cpu_s, told = worker.cpu_s - before, await _told(worker)
        slowest = await _slowest(stage, redis, ids)
    finally:
        await redis.aclose()
    figures = {
        "slowest / nominal": round(slowest / seconds, 3),
        "lag p50 ms": told["lag_p50_ms"],
        "lag p99 ms": told["lag_p99_ms"],
        "lag max ms": told["lag_p100_ms"],
        "RSS MB": told["rss_mb"],
        "CPU µs/token": round(cpu_s / (load.jobs * seconds * load.per_s) * 1e6, 1),
        "upstream late ms": await upstream.latest_ms(),
    }
    return Row(load.name, OURS, figures)


async def _submit(stage: Stage, redis: Redis, load: Load, seconds: int) -> list[str]:
    settings = stage.settings()
    queue, model_id = JobQueue(redis, settings), f"openai/{load.model(seconds)}"
    model = resolve(model_id, settings)
    return [(await queue.submit(JobRequest(model=model_id, prompt="Hello"), model)).job_id for _ in range(load.jobs)]


async def _told(worker: Child) -> dict[str, Any]:
    os.kill(worker.pid, signal.SIGUSR1)
    told: dict[str, Any] = json.loads(await worker.line())
    return told


async def _slowest(stage: Stage, redis: Redis, ids: list[str]) -> float:
    """Seconds from submit to end, of the job that took longest. Raises BenchFailed where one did not end well."""
    store = JobStore(redis, EventLog(redis, stage.settings()))
    slowest = 0.0
    for job_id in ids:
        job = await store.job(job_id)
        if job.status != "done" or job.timing.total_s is None:
            raise BenchFailed(f"a job under load is {job.status}: {job.error}")
        slowest = max(slowest, job.timing.total_s)
    return slowest


async def _split(stage: Stage, upstream: Upstream, load: Load) -> list[Row]:
    """The parts of a token's CPU, each by a process that does nothing else under the same load."""
    seconds = _PART_QUICK_S if stage.quick else _PART_S
    parts = {}
    for way, server in WAYS.items():
        stage.say(f"worker: {load.name}, {server}")
        arguments = (way, upstream.base_url, str(load.jobs), load.model(seconds))
        child = await stage.python("bench.chunk_source", *arguments, may_end=True, **stage.environment())
        said = json.loads(await child.line(seconds + _LATEST_S))
        parts[server] = said["cpu_s"] / said["tokens"]
        await child.stop()
    parts[COUNTING] = _counting()
    parts[WRITER] = await _writer(stage, load, seconds)
    return [Row(load.name, part, {"CPU µs/token": round(cpu_s * 1e6, 1)}) for part, cpu_s in parts.items()]


def _counting() -> float:
    """CPU seconds a token of counting its text, settled every so often."""
    encoding = load_encoding()
    count, token = OutputCount(lambda: encoding), Token(" token")
    before = time.process_time()
    for _ in range(_COUNTED):
        count.add(token)
    return (time.process_time() - before) / _COUNTED


async def _writer(stage: Stage, load: Load, seconds: int) -> float:
    """CPU seconds a token of the worker's writer alone, as in scenario E."""
    stage.say(f"worker: {load.name}, {WRITER}")
    arguments = ("ours", str(load.jobs), str(load.per_s), str(seconds))
    child = await stage.python("bench.token_source", *arguments, may_end=True, **stage.environment())
    await child.line(seconds + _LATEST_S)  # "begins"
    said = json.loads(await child.line(seconds + _LATEST_S))
    await child.stop()
    return float((said["cpu_s"] - said["idle_cpu_s"]) / said["tokens"])


def _saved(rows: list[Row], load: Load) -> str:
    """What reading the SDK's raw stream saves, in words."""
    cpu = {row.server: row.figures["CPU µs/token"] for row in rows if row.case == load.name}
    saved = cpu[WAYS["sdk"]] - cpu[WAYS["ours"]]
    cores = saved * load.jobs * load.per_s / 1e6
    return f"{load.name}: reading the SDK's raw stream saves {saved:.0f} µs a token, {cores:.2f} of a core."
