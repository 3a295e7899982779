"""One chaos run: jobs come, readers read, faults strike; then all is left in peace, and each text is held against the truth."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final

import httpx2

from tests.chaos.plan import JobPlan, Plan, ReaderPlan
from tests.chaos.reader import Forgotten, StreamLost, StreamRefused, Wanderer
from tests.chaos.scene import Scene
from tests.chaos.strikes import Strikes
from tests.chaos.verdict import Differences, Totals
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text

SETTLE_S: Final = 60.0
"""After the last fault: whatever has not ended by then is stuck."""
FORGETS_S: Final = 3.0
"""What a killed Redis may forget of `everysec`: the second, and what a slow fsync held back, up to two more (docs/PROTOCOL.md,
section 6)."""


class Job:
    """A submitted job; submitted again, under its Idempotency-Key, when Redis forgot it."""

    def __init__(self, number: int, plan: JobPlan) -> None:
        self.plan = plan
        self.id = ""
        self.accepted_at = 0.0
        self.key = f"chaos-{number}"
        self.lock = asyncio.Lock()


class Run:
    def __init__(self, plan: Plan, scene: Scene) -> None:
        self.totals = Totals()
        self.strikes = Strikes(scene, lambda: self._reading)
        self._plan, self._scene = plan, scene
        self._reading: set[Wanderer] = set()
        self._jobs: list[Job] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()

    @property
    def faults_left(self) -> int:
        return len(self._plan.faults) - self.strikes.felt.strokes.total()

    async def run(self) -> None:
        """Returns when everything has ended, or is stuck."""
        self._began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._submit_all())
                group.create_task(self._strike_all())
            await self._scene.ready()
            await self._settle()
            await self._check_logs()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _submit_all(self) -> None:
        for number, plan in enumerate(self._plan.jobs):
            await self._until(plan.at_s)
            self._spawn(self._serve(Job(number, plan)))

    async def _strike_all(self) -> None:
        """Faults overlap: one that lasts does not keep the next one waiting."""
        async with asyncio.TaskGroup() as group:
            for fault in self._plan.faults:
                await self._until(fault.at_s)
                group.create_task(self.strikes.strike(fault))

    async def _settle(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SETTLE_S)
        self.totals.stuck += len(self._reading)
        self.totals.faults += [f"stuck: {self._describe(reader)}" for reader in self._reading]
        self.totals.faults += self._scene.fell

    async def _check_logs(self) -> None:
        """What Redis holds in the end: sound logs, and nothing that was left behind."""
        job_ids = [job.id for job in self._jobs if job.id]
        for check in (assert_all_sound, assert_nothing_is_left_in_the_queue):
            try:
                await check(self._scene.client, job_ids)
            except AssertionError as error:
                self.totals.faults.append(f"{check.__name__}: {error}")

    # --- one job -----------------------------------------------------------------------------------------------------

    async def _serve(self, job: Job) -> None:
        await self._submit(job, "")
        self._jobs.append(job)
        self.totals.jobs += 1
        for plan in job.plan.readers:
            self._spawn(self._read(job, plan))

    async def _submit(self, job: Job, forgotten: str) -> None:
        """Until it is accepted, as a good client does: under one key, at one web after the other."""
        body = {"model": job.plan.model, "prompt": "Count"}
        async with job.lock:
            tries = 0
            while job.id == forgotten:
                url = self._scene.urls[tries % len(self._scene.urls)]
                tries += 1
                try:
                    answer = await self._scene.http.post(f"{url}/v1/jobs", json=body, headers={"Idempotency-Key": job.key})
                except httpx2.TransportError:
                    await asyncio.sleep(0.2)
                    continue
                if answer.status_code == 202:
                    job.id, job.accepted_at = answer.json()["id"], time.monotonic()
                elif answer.status_code == 503 and "retry-after" in answer.headers:
                    await asyncio.sleep(0.2)  # sooner than asked: a storm is no time for manners
                else:
                    self.totals.faults.append(f"a submit was answered {answer.status_code}: {answer.text[:200]}")
                    await asyncio.sleep(1)

    async def _read(self, job: Job, plan: ReaderPlan) -> None:
        reader = Wanderer(self._scene, job.plan, plan)
        self.totals.readers += 1
        self._reading.add(reader)
        try:
            await self._read_to_the_end(job, reader)
        except (StreamRefused, StreamLost) as error:
            self.totals.faults.append(f"sent away: {error!r}: {self._describe(reader)}")
        self._reading.discard(reader)
        self._judge(reader)

    async def _read_to_the_end(self, job: Job, reader: Wanderer) -> None:
        while True:
            job_id, accepted_at = job.id, job.accepted_at
            try:
                return await reader.read(job_id)
            except Forgotten:
                self._forgot(job_id, accepted_at)
                await self._submit(job, job_id)

    def _forgot(self, job_id: str, accepted_at: float) -> None:
        """Protocol P2 allows it for a submit that came right before a kill of Redis, and for no other."""
        if any(0 <= killed_at - accepted_at <= FORGETS_S for killed_at in self._scene.redis_kills):
            self.totals.forgotten += 1
        else:
            self.totals.faults.append(f"job {job_id} is unknown, though no kill of Redis followed its submit")

    def _judge(self, reader: Wanderer) -> None:
        held, totals = reader.reader, self.totals
        assert held is not None, "it has read"
        totals.ended += 1
        totals.connections += held.connections
        totals.attempts += len(held.attempts)
        totals.rewinds += reader.rewinds
        totals.words += held.text.count(" ")
        totals.lost += held.lost
        totals.doubled += held.doubled
        totals.differ(Differences.of(held.text, reader.job.words))
        if held.terminal is None or held.terminal["type"] != "done":
            totals.faults.append(f"not done: {self._describe(reader)}")
        elif held.text != counted_text(reader.job.words) or held.lost or held.doubled:
            totals.faults.append(f"not exact: {self._describe(reader)}")

    def _describe(self, reader: Wanderer) -> str:
        held = reader.reader
        if held is None:
            return "a reader that never came to read"
        return (
            f"{held.url} at {held.cursor}, lost {held.lost}, doubled {held.doubled}, terminal {held.terminal}, "
            f"holds {held.text.count(' ')} of {reader.job.words} words: …{held.text[-40:]!r}"
        )

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, self._began + at_s - time.monotonic()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
