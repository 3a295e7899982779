"""Everything dies, again and again, in an order drawn by chance, while jobs come and readers drop: nobody is told anything
twice, or not at all, and every job ends once. A storm that found something is repeated by its seed."""

import asyncio
import random
import signal
import subprocess
import time

import httpx2

from cli.supervisor import CONFIGURATION_EXIT
from tests.support.reading import Reading
from tests.support.stack import Stack
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text
from tests.support.waiting import until_time, wait_until

SEED = 21
LASTS_S = 8.0
WORKERS = 3


async def test_nothing_is_lost_in_a_storm(stack: Stack) -> None:
    storm = Storm(stack, random.Random(SEED))
    await storm.run(LASTS_S)
    for reading, n in storm.readings:
        await reading.to_the_end(60)
        reading.assert_whole(counted_text(n))
    print(f"figure: {storm.strokes} struck {len(storm.job_ids)} jobs and {len(storm.readings)} readers; lost 0, doubled 0")
    assert len(set(storm.strokes)) > 2
    await assert_all_sound(stack.redis, storm.job_ids)
    await assert_nothing_is_left_in_the_queue(stack.redis, storm.job_ids)


class Storm:
    """Strikes one of the processes every second or so, and starts again what has ended, as a supervisor would."""

    def __init__(self, stack: Stack, chance: random.Random) -> None:
        self.stack = stack
        self.job_ids: list[str] = []
        self.readings: list[tuple[Reading, int]] = []
        self.strokes: list[str] = []
        self._chance = chance
        self._web = self._start_web()
        self._struck: list[subprocess.Popen[bytes]] = []
        self._workers = [self._start_worker() for _ in range(WORKERS)]

    async def run(self, seconds: float) -> None:
        await self.stack.processes.ready(WORKERS)
        ends_at = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rain(ends_at))
            group.create_task(self._thunder(ends_at))
        await wait_until(self._stands_again, timeout=30, message="the stack stands again")
        for worker in self._struck:
            code = await asyncio.to_thread(worker.wait)
            assert code in (0, -signal.SIGKILL, -signal.SIGTERM, CONFIGURATION_EXIT), self.stack.processes.logs()

    async def _stands_again(self) -> bool:
        self._mend()
        try:
            return len(await self.stack.live_workers()) == WORKERS
        except (httpx2.TransportError, KeyError):
            return False

    async def _rain(self, ends_at: float) -> None:
        """Jobs, each with two readers that drop. Refused ones are not missed: nothing was promised."""
        while time.monotonic() < ends_at:
            n, rate = self._chance.randint(5, 100), self._chance.choice((0, 20, 50))
            try:
                job_id = await self.stack.submit(n, rate)
            except (httpx2.TransportError, AssertionError):
                job_id = ""
            if job_id:
                self.job_ids.append(job_id)
                for _ in range(2):
                    reading = self.stack.read(job_id)
                    reading.drop_at(*self._chance.sample(range(1, 150), 2))
                    self.readings.append((reading, n))
            await until_time(time.monotonic() + 0.2)

    async def _thunder(self, ends_at: float) -> None:
        strokes = {"kill": self._kill, "term": self._term, "stop": self._stop, "redis": self._redis, "web": self._kill_web}
        while time.monotonic() < ends_at:
            await until_time(time.monotonic() + self._chance.uniform(0.2, 0.8))
            self._mend()
            self.strokes.append(self._chance.choice(("kill", "term", "stop", "stop", "redis", "redis", "web")))
            await strokes[self.strokes[-1]]()

    async def _kill(self) -> None:
        self._end(self._chance.randrange(WORKERS), signal.SIGKILL)

    async def _term(self) -> None:
        self._end(self._chance.randrange(WORKERS), signal.SIGTERM)

    async def _stop(self) -> None:
        sleeper = self._chance.choice(self._workers)
        sleeper.send_signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(self._chance.uniform(0.2, 3.0), sleeper.send_signal, signal.SIGCONT)

    async def _redis(self) -> None:
        self.stack.redis_server.kill()
        await until_time(time.monotonic() + self._chance.choice((0.05, 0.5, 2.0)))
        await asyncio.to_thread(self.stack.redis_server.start)

    async def _kill_web(self) -> None:
        self._web.kill()
        await asyncio.to_thread(self._web.wait)

    def _end(self, i: int, number: signal.Signals) -> None:
        """A worker that is still starting up is struck as well."""
        self._workers[i].send_signal(number)
        self._struck.append(self._workers[i])
        self._workers[i] = self._start_worker()

    def _mend(self) -> None:
        """Starts again what gave up because Redis was away when it started, and the web process."""
        if self._web.poll() is not None:
            self._web = self._start_web()
        for i, worker in enumerate(self._workers):
            if worker.poll() is not None:
                assert worker.returncode == CONFIGURATION_EXIT, self.stack.processes.logs()
                self._workers[i] = self._start_worker()

    def _start_web(self) -> "subprocess.Popen[bytes]":
        return self.stack.processes.start("web", "--port", str(self.stack.processes.port), log_check_s=2)

    def _start_worker(self) -> "subprocess.Popen[bytes]":
        return self.stack.worker(max_losses=50, drain_s=0.2)
