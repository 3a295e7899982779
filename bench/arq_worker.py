"""Stock arq, run by arq's own command: `python -m arq bench.arq_worker.WorkerSettings`.

The first line of its function prints `<job id> <time.monotonic_ns()>`. `BENCH_POLL_DELAY` is arq's `poll_delay` in seconds,
`BENCH_QUEUE` the queue's name.
"""

import os
import time
from typing import Any, ClassVar

from arq.connections import RedisSettings


async def stamped(ctx: dict[str, Any]) -> None:
    at = time.monotonic_ns()
    print(ctx["job_id"], at)


class WorkerSettings:
    functions: ClassVar = [stamped]
    redis_settings = RedisSettings.from_dsn(os.environ.get("BENCH_REDIS_URL", "redis://"))
    queue_name = os.environ.get("BENCH_QUEUE", "arq:queue")
    poll_delay = float(os.environ.get("BENCH_POLL_DELAY", "0.5"))  # arq's own default
    keep_result = 0
