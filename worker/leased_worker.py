"""arq's worker, made prompt and owned. Everything that knows arq on this side of the queue is in this file.

arq polls every half second, spends four calls on each job that runs elsewhere, claims without an owner and for ten minutes,
and ends jobs without asking (docs/decisions/0002-arq-behind-two-files.md). Here:

    main             one loop: take what is due, then sleep until woken, signalled, or the poll's turn
    _poll_iteration  takes leases in one round trip, with all that a job's start needs
    _run             calls arq's function at once, where arq's `run_job` reads the payload and counts a try first
    _finish          gives the lease back as the job function said
    _end_unrunnable  what arq would end in silence gets its terminal event
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import structlog
from arq.connections import ArqRedis
from arq.jobs import DeserializationError, deserialize_job_raw
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.errors import JobNotFound
from shared.event_log import EventLog
from shared.job_queue import FUNCTION
from shared.job_store import JobStore
from shared.ownership import Lease
from shared.redis_client import NOT_NOW
from shared.settings import Settings
from worker.company import Company
from worker.control import Control, Leave, Running
from worker.leases import Identity, Leases, Taken
from worker.recovery import failed

log = structlog.get_logger()

JobFunction = Callable[[Taken, Control], Awaitable[Leave]]

TAKE_AT_ONCE = 4
"""Jobs leased in one call. Starting one takes milliseconds of CPU: hundreds at once would hold up every running job's tokens,
and renewals (docs/decisions/0023). It also leaves some for the other workers of a lane."""

_BREATH_S = 0.02
"""Between two such calls while more may be due: running jobs get on, and signals are obeyed."""

_TAKE_MOST_S = 2.0
"""How long a stopping worker waits for a take that is under way."""

_SIGNALS_AT_ONCE = 1_000


class LeasedWorker(Worker):  # type: ignore[misc]  # arq is half typed
    """Serves one lane with up to `identity.slots` jobs at once."""

    def __init__(
        self,
        pool: ArqRedis,
        signals: Redis,
        settings: Settings,
        identity: Identity,
        leases: Leases,
        running: Running,
        company: Company,
        event_log: EventLog,
        store: JobStore,
        job_function: JobFunction,
    ) -> None:
        super().__init__(
            functions=[func(self._run_leased, name=FUNCTION)],
            queue_name=keys.queue(identity.lane),
            redis_pool=pool,
            handle_signals=False,
            max_jobs=identity.slots,
            job_deserializer=msgspec.json.decode,
        )
        self._signals = signals
        self._settings = settings
        self._identity = identity
        self._leases = leases
        self._running = running
        self._company = company
        self._event_log = event_log
        self._store = store
        self._job_function = job_function
        self._calls: set[asyncio.Task[None]] = set()
        self._taking = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        company.call_when_free(self._look_again)

    async def main(self) -> None:
        """Takes and starts jobs until cancelled; lives through outages of Redis, and through its being full."""
        away = False
        while True:
            try:
                if await self._poll_iteration():
                    await self._sleep_until_called(_BREATH_S, wakes=False)
                else:
                    await self._sleep_until_called(self._settings.poll_s, wakes=self._free_slots() > 0)
            except NOT_NOW as error:
                if not away:
                    log.warning("no jobs are taken: Redis is away or full", error=str(error))
                away = True
                await asyncio.sleep(0.2)
            else:
                if away:
                    log.info("jobs are taken again")
                away = False

    async def stop_taking(self) -> None:
        """No new jobs from here on; what runs goes on. A take that is under way is waited for: what it brings runs too, and
        is handed over like the rest instead of waiting out its lease."""
        self.allow_pick_jobs = False
        with suppress(TimeoutError):  # Redis is away: what it may have leased to us lapses
            async with asyncio.timeout(_TAKE_MOST_S), self._taking:
                pass

    async def wait_until_idle(self) -> None:
        """Returns once no job runs here."""
        await self._idle.wait()

    async def _poll_iteration(self) -> bool:
        """Takes and starts a few of the jobs that are due; whether more of them may be, for which there are slots."""
        async with self._taking:
            free = self._free_slots()
            if free == 0:
                return False
            taken = await self._leases.take(min(free, TAKE_AT_ONCE))
            for each in taken:
                self._start(each)
            if taken:
                await asyncio.sleep(0)  # they begin now, and not once the next call to Redis is packed and sent
            return len(taken) == TAKE_AT_ONCE < free

    def _free_slots(self) -> int:
        """Jobs that may be taken now."""
        if not self.allow_pick_jobs or self._company.wanted:
            return 0
        return int(self.max_jobs - self.job_counter)

    def _start(self, taken: Taken) -> None:
        lease = taken.lease
        self.job_counter += 1
        self._idle.clear()
        task = self.loop.create_task(self._run(taken), name=f"job {lease.job_id}")
        self.tasks[lease.job_id] = task
        task.add_done_callback(lambda done: self._ended(lease, done))

    def _ended(self, lease: Lease, task: "asyncio.Task[None]") -> None:
        was_full = self.job_counter >= self.max_jobs
        self.job_counter -= 1
        self.tasks.pop(lease.job_id, None)
        if not self.tasks:
            self._idle.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Giving the lease back failed: renewed no more it lapses, and whoever takes the job finds it as the log has it.
            self._leases.forget(lease)
            log.error("job left without a word", job=lease.job_id, error=repr(error))
        if was_full:
            self._look_again()

    def _look_again(self) -> None:
        if self._free_slots() > 0:
            call = self.loop.create_task(self._call_myself())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call_myself(self) -> None:
        """A slot is free again: the loop, which was not listening for wake-ups, looks at once."""
        try:
            await self.pool.rpush(keys.signal(self._identity.id), "look")
            await self.pool.pexpire(keys.signal(self._identity.id), keys.LIST_TTL_MS)
        except (RedisError, OSError) as error:
            log.debug("the poll will look instead", error=str(error))

    async def _sleep_until_called(self, longest_s: float, *, wakes: bool) -> None:
        """Blocks until a signal or, with `wakes`, a wake-up, and no longer than `longest_s`, seconds. A worker without a free
        slot leaves wake-ups to others."""
        names = [keys.signal(self._identity.id)]
        if wakes:
            names.append(keys.wake(self._identity.lane))
        popped = await self._signals.blpop(names, timeout=longest_s)  # type: ignore[misc,arg-type]
        if popped is None:
            return
        name, message = popped
        if name.decode() == keys.wake(self._identity.lane):
            await self._pass_on()
            return
        self._obey(message)
        # Cancels come in crowds (a page that closes, a client that gives up): the last of them must not wait for a round each.
        for message in await self._signals.lpop(name.decode(), _SIGNALS_AT_ONCE) or []:  # type: ignore[misc]
            self._obey(message)

    def _obey(self, message: bytes) -> None:
        word, _, job_id = message.decode().partition(" ")
        if word == "cancel":
            self._running.stop(job_id, "cancel")

    async def _pass_on(self) -> None:
        """A wake-up popped while this worker was told to stop, or while a job began to be alone here, belongs to another."""
        if self._free_slots() == 0:
            await self.pool.rpush(keys.wake(self._identity.lane), "1")
            await self.pool.pexpire(keys.wake(self._identity.lane), keys.LIST_TTL_MS)  # it may be the only one there

    async def _run(self, taken: Taken) -> None:
        lease = taken.lease
        try:
            name, args, kwargs, *_ = deserialize_job_raw(taken.payload, deserializer=self.job_deserializer)
            call = self.functions[name].coroutine({"taken": taken}, *args, **kwargs)
        except (DeserializationError, KeyError, TypeError) as error:  # unreadable, another function, other arguments
            await asyncio.shield(self._end_unrunnable(lease, error))
            return
        leave = Leave("handover")  # where it is cancelled from outside before it can say
        try:
            leave = await call
        finally:
            await asyncio.shield(self._finish(lease, leave))

    async def _run_leased(self, ctx: dict[str, Taken], _job_id: str) -> Leave:
        """The one arq function."""
        taken = ctx["taken"]
        job_id = taken.lease.job_id
        control = self._running.add(job_id)
        try:
            return await self._job_function(taken, control)
        finally:
            self._running.remove(job_id)

    async def _finish(self, lease: Lease, leave: Leave) -> None:
        if leave.how in ("over", "lost"):
            await self._leases.done_with(lease)
        else:
            await self._leases.give_back(lease, after_ms=leave.after_ms, handover=leave.how == "handover")

    async def _end_unrunnable(self, lease: Lease, why: Exception) -> None:
        """The payload is gone or unreadable: there is nothing to call."""
        with suppress(JobNotFound):
            await self._close_unrunnable(lease, why)
        await self._leases.done_with(lease)

    async def _close_unrunnable(self, lease: Lease, why: Exception) -> None:
        record = await self._store.record(lease.job_id)
        if not record.is_open:
            return
        state = await self._event_log.fold(lease.job_id)
        log.error("job cannot be run from the queue", job=lease.job_id, why=repr(why))
        event = failed(record, state, "internal", "The job's queue entry was lost or damaged.")
        await self._event_log.close(lease.job_id, event, record.model, self._identity.id, lease=lease)
