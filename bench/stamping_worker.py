"""A worker of ours as `lastevent worker` runs it, but for two things: its provider is instant, and the first line of the job
function prints `<job id> <time.monotonic_ns()>`, a clock that all processes of a machine share.

Run as `python -m bench.stamping_worker`; settings come from the environment.
"""

import asyncio
import time

import uvloop

from bench.instant import InstantProvider
from shared.logs import set_up_logs
from shared.settings import API_LANE, load_settings
from worker.control import Control, Leave
from worker.generate import generate
from worker.leases import Taken
from worker.main import WorkerProcess, new_identity
from worker.owned_job import Tools


async def stamped(taken: Taken, control: Control, tools: Tools) -> Leave:
    at = time.monotonic_ns()
    print(taken.lease.job_id, at, flush=True)
    return await generate(taken, control, tools)


async def main() -> None:
    settings = load_settings()
    set_up_logs(settings)
    provider = InstantProvider()
    worker = WorkerProcess(settings, new_identity(settings, API_LANE), {provider.name: provider}, job=stamped)
    await worker.serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
