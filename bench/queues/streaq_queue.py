"""streaq: `python -m streaq run bench.queues.streaq_queue:worker` works, `python -m bench.queues.streaq_queue` submits."""

import os
import time

from streaq import Worker

from bench.queues import submitter

worker = Worker(redis_url=os.environ["BENCH_REDIS_URL"], queue_name="bench-streaq", anyio_kwargs={"use_uvloop": True})


@worker.task  # type: ignore[untyped-decorator]  # not installed where types are checked
async def stamped() -> None:
    at = time.monotonic_ns()
    print(stamped.context.task_id, at, flush=True)


async def main() -> None:
    async def enqueue() -> str:
        return str((await stamped.enqueue()).id)

    async with worker:
        await submitter.submit_when_told(enqueue)


if __name__ == "__main__":
    submitter.run(main)
