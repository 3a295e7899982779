"""Stock arq: `python -m arq bench.queues.arq_queue.WorkerSettings` works, `python -m bench.queues.arq_queue` submits.

`BENCH_POLL_DELAY` is arq's `poll_delay` in seconds, `BENCH_QUEUE` the queue's name.
"""

import os
import time
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from bench.queues import submitter


async def stamped(ctx: dict[str, Any]) -> None:
    at = time.monotonic_ns()
    print(ctx["job_id"], at, flush=True)


class WorkerSettings:
    functions: ClassVar = [stamped]
    redis_settings = RedisSettings.from_dsn(os.environ.get("BENCH_REDIS_URL", "redis://"))
    queue_name = os.environ.get("BENCH_QUEUE", "arq:queue")
    poll_delay = float(os.environ.get("BENCH_POLL_DELAY", "0.5"))  # arq's own default
    keep_result = 0


async def main() -> None:
    pool = await create_pool(WorkerSettings.redis_settings)

    async def enqueue() -> str:
        job = await pool.enqueue_job("stamped", _queue_name=WorkerSettings.queue_name)
        assert job is not None, "ids are random, none comes twice"
        return str(job.job_id)

    await submitter.submit_when_told(enqueue)


if __name__ == "__main__":
    submitter.run(main)
