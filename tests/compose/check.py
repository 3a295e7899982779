"""The check itself: jobs and readers, then one strike after the other while they stream, and the truth at the end."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, Final, NamedTuple

import httpx2
from playwright.async_api import Page

from tests.chaos.verdict import Differences
from tests.compose.caller import Calls, calling
from tests.compose.native import NativeReader, follow, readers
from tests.compose.project import Project
from tests.support.reading import Reading
from tests.support.truth import counted_text
from tests.support.waiting import wait_until

READERS_A_JOB: Final = 2
NATIVE: Final = 8
"""Jobs that a browser reads too, each by an EventSource: more than the six connections that HTTP/1.1 would give it."""
LOCAL_WORDS: Final = 120
"""`max_tokens` of each local job."""
_STUCK_S: Final = 120.0
"""A reader without a new token for so long is stuck."""


class Plan(NamedTuple):
    jobs: int
    local_jobs: int
    words: int
    per_second: float


class Strike(NamedTuple):
    """`waits`: for each reader, seconds from the strike to its next token. `calls`: what came of the submits meanwhile."""

    name: str
    waits: list[float]
    calls: Calls | None = None


class Check:
    def __init__(self, project: Project, http: httpx2.AsyncClient, page: Page, plan: Plan) -> None:
        self.project, self.plan = project, plan
        self.strikes: list[Strike] = []
        self.readings: list[Reading] = []
        self.local_readings: list[Reading] = []
        self.native: list[NativeReader] = []
        self.protocol = ""
        self.wrong: list[str] = []
        """What is not as it must be, a line each."""
        self._http, self._page = http, page

    async def run(self) -> None:
        await self._begin()
        await self._strike("a worker container killed", self._kill_a_worker)
        await self._strike("restart web, both at once", lambda: self.project.compose("restart", "web"))
        await self._strike("web servers restarted one by one", self._restart_one_by_one, with_calls=True)
        await self._to_the_end()

    # --- the readers -------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        model = f"openai/count:{self.plan.words}:{self.plan.per_second:g}"
        job_ids = [await self._submit({"model": model, "prompt": "Count"}) for _ in range(self.plan.jobs)]
        self.readings = [self._read(job_id) for job_id in job_ids for _ in range(READERS_A_JOB)]
        local = {"model": "local/smollm2-135m-instruct", "prompt": "Tell me about lighthouses.", "max_tokens": LOCAL_WORDS}
        self.local_readings = [self._read(await self._submit(local)) for _ in range(self.plan.local_jobs)]
        self.protocol = await follow(self._page, self.project.tls_url, job_ids[:NATIVE])
        for reading in self.readings:
            await reading.until_words(20, timeout=60)

    async def _submit(self, body: dict[str, Any]) -> str:
        answer = await self._http.post(f"{self.project.url}/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def _read(self, job_id: str) -> Reading:
        return Reading(self.project.url, job_id, self._http)

    async def _to_the_end(self) -> None:
        for reading in [*self.readings, *self.local_readings]:
            await reading.to_the_end(timeout=self.plan.words / self.plan.per_second + _STUCK_S)

        async def all_native_ended() -> bool:
            self.native = await readers(self._page)
            return all(reader.ended or reader.closed for reader in self.native)

        await wait_until(all_native_ended, timeout=_STUCK_S, message="every EventSource has its terminal event")

    # --- the strikes -------------------------------------------------------------------------------------------------

    async def _strike(self, name: str, strike: Callable[[], Awaitable[object]], *, with_calls: bool = False) -> None:
        if any(reading.ended for reading in self.readings):
            self.wrong.append(f"{name}: a job had ended before; give them more words")
        at, calls = time.monotonic(), None
        if with_calls:
            async with calling(self._http, self.project.url) as calls:
                await strike()
            self.wrong += [f"{name}: {calls}"] if calls.refused else []
        else:
            await strike()
        over = time.monotonic()
        tokens = [await reading.until_next("token", over, timeout=_STUCK_S) for reading in self.readings]
        waits = [self._longest_wait(reading, at, token.at) for reading, token in zip(self.readings, tokens, strict=True)]
        self.strikes.append(Strike(name, waits, calls))

    def _longest_wait(self, reading: Reading, since: float, until: float) -> float:
        """Seconds without a new token, at the longest, between two moments."""
        times = [since, *(seen.at for seen in reading.seen if seen.frame["type"] == "token" and since < seen.at <= until)]
        return max(after - before for before, after in pairwise(times))

    async def _kill_a_worker(self) -> None:
        """The one that runs most jobs."""
        running: Counter[str] = Counter(reading.reader.attempts[-1]["worker"] for reading in self.readings)
        (worker_id, _), *_ = running.most_common(1)
        live = (await self._http.get(f"{self.project.url}/v1/workers")).json()["data"]
        (host,) = [worker["host"] for worker in live if worker["id"] == worker_id]
        await self.project.docker("kill", host)  # a container's host name is the start of its id
        moved = [reading for reading in self.readings if reading.reader.attempts[-1]["worker"] == worker_id]
        for reading in moved:
            await reading.until_attempts(2, timeout=_STUCK_S)

    async def _restart_one_by_one(self) -> None:
        for container in await self.project.containers("web"):
            await self.project.docker("restart", "--time", "30", container["Id"])
            await self.project.until_healthy(container)

    # --- the truth ---------------------------------------------------------------------------------------------------

    async def judge(self) -> Differences:
        """What all readers lost, have doubled or out of order."""
        truth = counted_text(self.plan.words)
        texts = [reading.reader.text for reading in self.readings] + [reader.text for reader in self.native]
        found = [Differences.of(text, self.plan.words) for text in texts if text != truth]
        for reading in [*self.readings, *self.local_readings]:
            if reading.ended != "done" or reading.reader.lost or reading.reader.doubled:
                counts = f"{reading.reader.lost} lost, {reading.reader.doubled} doubled by their ids"
                self.wrong.append(f"a reader of {reading.reader.url}: {reading.ended}, {counts}")
        for reading in self.local_readings:
            job_id = reading.reader.url.split("/")[-2]
            job = (await self._http.get(f"{self.project.url}/v1/jobs/{job_id}")).json()
            if job["text"] != reading.reader.text:
                self.wrong.append(f"a local job's reader has another text than its job: {job_id}")
        self.wrong += [f"an EventSource gave up: {reader.opens} answers" for reader in self.native if reader.closed]
        self.wrong += [] if self.protocol == "h2" else [f"the page came by {self.protocol!r}, not HTTP/2"]
        return Differences(*map(sum, zip(*found, strict=True))) if found else Differences(0, 0, 0)
