"""saq: `python -m saq bench.queues.saq_queue.settings` works, `python -m bench.queues.saq_queue` submits."""

import os
import time
from typing import Any

from redis.asyncio import Redis
from saq import Job
from saq.queue.redis import RedisQueue

from bench.queues import submitter

queue = RedisQueue(Redis.from_url(os.environ["BENCH_REDIS_URL"]), name="bench-saq")  # its own from_url takes no unix socket


async def stamped(ctx: dict[str, Any]) -> None:
    at = time.monotonic_ns()
    job: Job = ctx["job"]
    print(job.key, at, flush=True)


settings = {"queue": queue, "functions": [stamped]}


async def main() -> None:
    async def enqueue() -> str:
        job = await queue.enqueue("stamped")
        assert job is not None, "keys are random, none comes twice"
        return str(job.key)

    await queue.connect()
    await submitter.submit_when_told(enqueue)


if __name__ == "__main__":
    submitter.run(main)
