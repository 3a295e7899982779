"""taskiq on Redis: `python -m taskiq worker --workers 1 bench.queues.taskiq_queue:broker` works,
`python -m bench.queues.taskiq_queue` submits.

Its list broker is the faster of those that Redis has; a job that its worker takes and dies with is lost.
"""

import os
import time
from typing import Annotated

from taskiq import Context, TaskiqDepends
from taskiq_redis import ListQueueBroker

from bench.queues import submitter

broker = ListQueueBroker(os.environ["BENCH_REDIS_URL"], queue_name="bench-taskiq")


# Its own name would have the module in it, which is __main__ where it submits.
@broker.task("stamped")  # type: ignore[untyped-decorator]  # not installed where types are checked
async def stamped(context: Annotated[Context, TaskiqDepends()]) -> None:
    at = time.monotonic_ns()
    print(context.message.task_id, at, flush=True)


async def main() -> None:
    async def enqueue() -> str:
        return str((await stamped.kiq()).task_id)

    await broker.startup()
    await submitter.submit_when_told(enqueue)


if __name__ == "__main__":
    submitter.run(main)
