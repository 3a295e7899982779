"""Scenario C: how long a job waits for an idle worker, from the submit to the job function's first line.

Ours beside stock arq, which polls every half second, beside arq told to poll ten times as often, and beside queues that are
made to be prompt. Each worker is a process of its own, and so is each submitter, with its own client of Redis. Each round
submits one job to each worker, in random order and after a random pause, so that every phase of a poll is met.
"""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, Final

from bench import queue_peers
from bench.figures import OURS, Finding, Row, Target, spread
from bench.peers.base import PeerMissing
from bench.stage import START_S, Child, Stage

STOCK, QUICK_POLL = "arq 0.28", "arq 0.28, poll_delay=0.05"
_ROUNDS, _ROUNDS_QUICK, _WARM_UP = 60, 30, 10
_APART_S: Final = 0.02
"""Between two submits of a round, so that one's work is over before the other's begins."""
_PAUSE_S: Final = (0.02, 0.3)
_LATEST_S: Final = 10.0
_NO_PROMISE: Final = "taskiq: its list broker takes a job out of Redis before it runs, and loses it with its worker."


class Queue:
    """One queue: a worker, and a submitter that submits whenever it is told to. What its jobs wait."""

    def __init__(self, worker: Child, submitter: Child) -> None:
        self._worker = worker
        self._submitter = submitter
        self._submitted: dict[str, int] = {}
        self.started_again = 0
        """Job functions that were called for a job a second time."""

    async def submit(self) -> None:
        os.kill(self._submitter.pid, signal.SIGUSR1)
        job_id, at = (await self._submitter.line()).split(" ")
        self._submitted[job_id] = int(at)

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
    queues = {
        OURS: await _queue(stage, "bench.stamped_submits", ("bench.stamping_worker",), **stage.environment()),
        STOCK: await _arq(stage, "stock", 0.5),
        QUICK_POLL: await _arq(stage, "quick", 0.05),
    }
    absent = []
    try:
        python = await queue_peers.installed(stage.say)
    except PeerMissing as missing:
        absent = [f"{', '.join(peer.name for peer in queue_peers.PEERS)}: {missing}"]
    else:
        for peer in queue_peers.PEERS:
            queues[peer.name] = await _peer(stage, peer.module, peer.worker, python)
    waits = await _measure(queues, stage)
    rows = [Row("idle worker", name, spread(values)) for name, values in waits.items()]
    return Finding(
        letter="C",
        title="Queue latency: submit → first line of the job function",
        rows=rows,
        compare="p50 ms",
        targets=[*_targets(rows), Target("jobs started twice", queues[OURS].started_again, 0, "")],
        notes=[] if absent else [_NO_PROMISE],
        absent=absent,
    )


def _targets(rows: list[Row]) -> list[Target]:
    p50 = {row.server: row.figures["p50 ms"] for row in rows}
    targets = [Target("p50 / stock arq's", round(p50[OURS] / p50[STOCK], 4), 0.01, "")]
    prompt = [p50[peer.name] for peer in queue_peers.PEERS if peer.name in p50]
    if prompt:
        targets.append(Target("p50 / the best of the prompt ones'", round(p50[OURS] / min(prompt), 2), 1.2, ""))
    return targets


async def _measure(queues: dict[str, Queue], stage: Stage) -> dict[str, list[float]]:
    for queue in queues.values():  # the worker's start, and the first use of everything
        await queue.submit()
        await queue.seconds(START_S)
    rounds = (_ROUNDS_QUICK if stage.quick else _ROUNDS) + _WARM_UP
    order = list(queues.values())
    for done in range(rounds):
        stage.say(f"queue latency: round {done + 1} of {rounds}, a job for each of {len(queues)} workers")
        await asyncio.sleep(random.uniform(*_PAUSE_S))
        random.shuffle(order)
        for queue in order:
            await queue.submit()
            await asyncio.sleep(_APART_S)
    return {name: (await queue.seconds(_LATEST_S))[_WARM_UP:] for name, queue in queues.items()}


async def _arq(stage: Stage, name: str, poll_delay_s: float) -> Queue:
    env = {"BENCH_QUEUE": f"bench:{name}", "BENCH_POLL_DELAY": poll_delay_s}
    return await _peer(stage, "arq_queue", ("arq", "bench.queues.arq_queue.WorkerSettings"), Path(sys.executable), **env)


async def _peer(stage: Stage, module: str, worker: tuple[str, ...], python: Path, **env: Any) -> Queue:
    env["BENCH_REDIS_URL"] = stage.redis_url
    return await _queue(stage, f"bench.queues.{module}", worker, python, **env)


async def _queue(stage: Stage, submits: str, worker: tuple[str, ...], python: Path = Path(sys.executable), **env: Any) -> Queue:
    """A queue whose worker is `python -m` with these arguments. Raises BenchFailed where it does not start."""
    works = await stage.start(worker[0], str(python), "-m", *worker, **env)
    submitter = await stage.start(submits, str(python), "-m", submits, **env)
    await submitter.line()  # "ready"
    return Queue(works, submitter)
