"""A worker of the lane api as `lastevent worker` runs it, that also says how late its own event loop is.

It prints the id of each job that is over. On SIGUSR1 it prints one line of JSON about the time since the last one: the loop's
lag, by a timer that wants to fire every 10 ms, and the most memory that was ever resident. Settings come from the environment.

Run as `python -m bench.probed_worker`.
"""

import asyncio
import json
import resource
import signal
from typing import Final

import uvloop

from cli.bench_runs import percentile
from shared.logs import set_up_logs
from shared.settings import API_LANE, load_settings
from worker.control import Control, Leave
from worker.generate import generate
from worker.leases import Taken
from worker.main import WorkerProcess, new_identity
from worker.owned_job import Tools

EVERY_S: Final = 0.01


async def told(taken: Taken, control: Control, tools: Tools) -> Leave:
    leave = await generate(taken, control, tools)
    print(taken.lease.job_id)
    return leave


class LagProbe:
    """How much later than asked this process' timers fire: what every token, renewal and cancel waits longer."""

    def __init__(self) -> None:
        self._lags: list[float] = []

    async def run_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self._lags.append(loop.time() - due)

    def tell(self) -> None:
        lags, self._lags = self._lags, []
        ms = {f"lag_p{p}_ms": round(max(0.0, percentile(lags, p)) * 1000, 2) for p in (50, 99, 100)}
        rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB
        print(json.dumps({**ms, "rss_mb": round(rss_mb, 1)}))


async def main() -> None:
    settings = load_settings()
    set_up_logs(settings, lane=API_LANE)
    probe = LagProbe()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, probe.tell)
    probing = asyncio.create_task(probe.run_forever())
    try:
        await WorkerProcess(settings, new_identity(settings, API_LANE), job=told).serve()
    finally:
        probing.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
