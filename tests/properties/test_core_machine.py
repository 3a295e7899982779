"""The core, step by step, on a real Redis: leases, claims, appends, renewals, hand-overs, cancels and endings in any order.

Two workers take turns at single script calls, so each of them is paused before each of its steps, for as long as the example
likes: a lease or an attempt that lies in its bundle is a worker that may wake at any time and go on where it stood. Time passes
where a rule says so: `lapse` is what the lease's expiry leaves behind.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from shared import keys
from shared.errors import AlreadyEnded, JobNotFound, LogErased, LogRefused, Superseded
from shared.event_log import ClaimRefused, EventLog
from shared.events import Done, Error, Terminal, Timing, Token, Usage
from shared.fold import AttemptEnd
from shared.ids import QUEUED, START, EventId
from shared.job import TERMINAL, JobFailure
from shared.job_queue import JobQueue
from shared.ownership import Ownership
from shared.push import parse_push
from shared.redis_client import make_client, make_push_connection
from shared.settings import Settings
from tests.properties.core import Run, Seen, Truth, said
from tests.support.author import DONE, MODEL, append, end, request
from tests.support.redis_server import RedisServer
from tests.support.truth import Stored, assert_contiguous
from worker.control import Running
from worker.leases import Identity, Leases

FAILED = Error("internal", "The worker failed.", True, True, Usage(), Timing())
FAILURE = AttemptEnd(Usage(), JobFailure("connection", "The provider hung up.", True))
LEASE_S = 60
"""Never lapses by itself within an example."""
STEPS = (
    *("submit", "cancel", "erase", "close", "lapse", "fail over", "restart", "stay up", "renew", "end", "try again"),
    *("hand over", "give back", "let go", "submit", "take", "take", "take", *["go on"] * 8),
)
OPEN_JOBS, JOBS = 2, 6
"""Few, so that the two workers meet at them; a new one when another has ended."""

Answer = TypeVar("Answer")


class CoreMachine(RuleBasedStateMachine):
    def __init__(self, url: str) -> None:
        super().__init__()
        options = Settings(redis_url=url, lanes=("api",), lease_s=LEASE_S, _env_file=None)
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.redis = make_client(options)
        self.log = EventLog(self.redis, options)
        self.queue = JobQueue(self.redis, options)
        self.workers = [self.worker(options, name) for name in ("first", "second", "last")]
        self.truth: dict[str, Truth] = {}
        self.runs: list[Run] = []
        self.ear = make_push_connection(self.redis)
        self.do(self.redis.flushdb())
        self.do(self.ear.connect())  # type: ignore[no-untyped-call]
        self.do(self.listen())
        self.look_at_the_primary(restarted=False)

    def worker(self, options: Settings, name: str) -> Leases:
        identity = Identity(id=name, lane="api", host="here", pid=1, slots=10, started_at=0.0)
        return Leases(self.redis, options, identity, Running())

    def do(self, call: Awaitable[Answer]) -> Answer:
        async def answer() -> Answer:
            return await call

        return self.runner.run(answer())

    # Every step is one rule: hypothesis leaves rules out by chance, and two workers that meet at a job need all of them.

    @rule(step=st.sampled_from(STEPS), which=st.integers(0, 3), flag=st.booleans(), other=st.booleans())
    def any_step(self, step: str, which: int, flag: bool, other: bool) -> None:
        """`which` job or run, counted from the newest; half of the time one that matters: of an open job."""
        job_id = list(self.truth)[-1 - which % len(self.truth)]
        runs = [run for run in self.runs if other or self.truth[run.job_id].is_open]
        run = runs[-1 - which % len(runs)] if runs else None
        if step == "take":
            self.take(which % 2, lapsed=flag, claims=other, wakes=which > 1)
        elif step == "renew":
            self.renew(which % 2)
        elif step in ("cancel", "erase", "close"):
            self.end_from_outside(job_id, f"{step} as seen" if flag and step == "close" else step)
        elif step in ("lapse", "fail over", "restart", "stay up"):
            self.pass_time(job_id, step)
        elif step == "submit":
            self.submit_another()
        elif run is not None:
            self.work(run, step, which, flag)

    def work(self, run: Run, step: str, again: int, flag: bool) -> None:
        if step == "go on":
            self.go_on(run, looks_again=flag, again=again)
        elif step == "try again":
            self.try_again(run, lost_reply=flag)
        elif step == "end":
            self.end(run, DONE if flag else FAILED)
        else:
            self.leave(run, step)

    # --- callers -----------------------------------------------------------------------------------------------------

    def submit_another(self) -> None:
        if sum(truth.is_open for truth in self.truth.values()) < OPEN_JOBS and len(self.truth) < JOBS:
            self.submit()

    @initialize()
    def submit(self) -> None:
        self.truth[self.do(self.queue.submit(request(), MODEL)).job_id] = Truth()

    def end_from_outside(self, job_id: str, how: str) -> None:
        if how.startswith("close"):
            self.close(job_id, seen=how.endswith("seen"))
        elif self.truth[job_id].status is None:
            with pytest.raises(JobNotFound):
                self.do(self.queue.cancel(job_id) if how == "cancel" else self.queue.erase(job_id))
        elif how == "cancel":
            self.cancel(job_id)
        else:
            self.erase(job_id)

    def cancel(self, job_id: str) -> None:
        truth = self.truth[job_id]
        answer = self.do(self.queue.cancel(job_id))
        assert answer == {"queued": "ended", "running": "asked"}.get(truth.status or "", "over")
        if answer == "ended":
            truth.end("cancelled")
        truth.cancelled = True

    def erase(self, job_id: str) -> None:
        truth = self.truth[job_id]
        self.do(self.queue.erase(job_id))
        if truth.is_open:
            truth.end_from_outside(self.last_pushed(job_id).attempt, "cancelled")
        truth.status = None

    def close(self, job_id: str, *, seen: bool) -> None:
        """The reaper's ending, or arq's own: from what the log held when it looked, or whatever it holds."""
        truth = self.truth[job_id]
        answer = self.do(self.log.close(job_id, FAILED, MODEL.id, "reaper", seen=truth.last if seen else None))
        if not truth.is_open:
            assert answer == ("ended" if truth.status else "gone")
            return
        assert answer == "ok"
        truth.end_from_outside(self.last_pushed(job_id).attempt, "failed")

    # --- time, and Redis ---------------------------------------------------------------------------------------------

    def pass_time(self, job_id: str, how: str) -> None:
        if how == "lapse":
            self.lapse(job_id)
        elif how == "fail over":
            self.fail_over(job_id)
        else:
            self.look_at_the_primary(restarted=how == "restart")

    def lapse(self, job_id: str) -> None:
        """Whoever leases the job has not renewed for a lease: the key has expired, the queue entry is due."""
        self.do(self.redis.delete(keys.arq_in_progress(job_id)))
        self.do(self.redis.zadd(keys.queue("api"), {job_id: 1}, xx=True))

    def look_at_the_primary(self, restarted: bool) -> None:
        """Another replication id, under which owners get one lease to say that they live; or one that was up for longer."""
        self.do(self.workers[0]._renew())
        field, value = ("replid", "another") if restarted else ("since", "0")
        self.do(self.redis.hset(keys.PRIMARY, field, value))  # type: ignore[arg-type]  # redis-py types both

    def fail_over(self, job_id: str) -> None:
        """The last claim was made on another primary: the next attempt's number jumps."""
        if self.do(self.record(job_id)):
            self.do(self.redis.hset(keys.job(job_id), "replid", "another"))  # type: ignore[arg-type]

    # --- workers -----------------------------------------------------------------------------------------------------

    def take(self, i: int, *, lapsed: bool, claims: bool, wakes: bool) -> None:
        """`lapsed`: the other worker has not renewed for a lease. `wakes`: it writes on before this one has claimed."""
        for job_id in self.truth if lapsed else ():
            self.lapse(job_id)
        runs = self.taken_by(self.workers[i])
        taken = [run.job_id for run in runs]
        for owner in [run for run in self.runs if run.job_id in taken and run.token == self.truth[run.job_id].owner]:
            if wakes:
                self.go_on(owner, looks_again=False, again=0)
        for run in runs if claims else ():
            self.claim(run)
        self.runs += runs

    def taken_by(self, worker: Leases) -> list[Run]:
        before = {job_id: self.do(self.lease_of(job_id)) for job_id in self.truth}
        runs = [Run(worker, lease) for lease, *_ in self.do(worker.take(10))]
        runs.sort(key=lambda run: list(self.truth).index(run.job_id))  # ids are random, and examples must be repeatable
        for run in runs:
            assert before[run.job_id] is None, "leased to one at a time"
            assert self.truth[run.job_id].is_open
            run.seen = self.truth[run.job_id].last
        return runs

    def go_on(self, run: Run, *, looks_again: bool, again: int) -> None:
        """The next step of its work, however long after the one before."""
        if run.owner is None:
            if looks_again:
                run.seen = self.do(self.log.last_ids([run.job_id]))[0] or START
            self.claim(run)
        else:
            self.append(run, run.owner, again, 1 + looks_again)

    def claim(self, run: Run) -> None:
        truth, expected = self.truth[run.job_id], self.do(self.claim_of(run))
        answer = self.do(self.log.claim(run.lease, "worker", MODEL.id, run.seen, reset=False))
        if isinstance(answer, ClaimRefused):
            assert answer.why == expected
            return
        assert expected == "granted"
        assert answer.attempt > truth.last.attempt
        truth.log.append((EventId(answer.attempt, 0), "started"))
        truth.status, truth.owner = "running", run.token
        run.own(answer)
        repeated = self.do(self.log.claim(run.lease, "worker", MODEL.id, run.seen, reset=False))
        assert repeated == answer, "the same call again, after a lost reply"

    async def claim_of(self, run: Run) -> str:
        """What a claim must be answered, by the truth and by what Redis holds of leases."""
        truth, record = self.truth[run.job_id], await self.record(run.job_id)
        if not truth.is_open:
            return "ended" if truth.status else "gone"
        if await self.lease_of(run.job_id) != run.token:
            return "lost"
        if truth.cancelled:
            return "cancelled"
        if truth.last != run.seen:
            return "moved"
        may_live = truth.owner is not None and b"handover" not in record
        may_be_forgotten = record[b"replid"] == b"another"
        return "wait" if (may_live or may_be_forgotten) and not await self.primary_is_old() else "granted"

    def append(self, run: Run, owner: Ownership, again: int, more: int) -> None:
        """Offers the newest of what it wrote again, as after a lost reply, and some more; then all of it once again."""
        truth, written = self.truth[run.job_id], len(run.words)
        first = max(0, written - again)
        new = [f"{run.token} {i}" for i in range(written, written + more)]
        words = run.words[first:] + new
        if self.writes(run, append(self.redis, owner, first + 1, *map(Token, words))):
            self.do(append(self.redis, owner, first + 1, *map(Token, words)))
            run.words += new
            for word in new:
                truth.log.append((truth.last.next(), word))

    def try_again(self, run: Run, *, lost_reply: bool) -> None:
        """The owner's own next attempt, after a failure of its provider; asked for twice, it is granted once."""
        owner, truth = run.owner, self.truth[run.job_id]
        if owner is None:
            return
        seen = EventId(owner.attempt, len(run.words))
        granted: list[Ownership | None] = []

        async def ask() -> None:
            for _ in range(1 + lost_reply):
                call = self.log.again(owner, seen, "worker", MODEL.id, "retry", reset=False, before=FAILURE)
                granted.append(await call)

        if not self.writes(run, ask()):
            return
        assert [owner is None for owner in granted] == [truth.cancelled] * len(granted)
        if (next_one := granted[0]) is not None:
            assert granted == [next_one] * len(granted)
            assert next_one.attempt > truth.last.attempt
            truth.log.append((EventId(next_one.attempt, 0), "started"))
            run.own(next_one)

    def end(self, run: Run, event: Terminal) -> None:
        """An end that is repeated after a lost reply is answered as the first one was."""
        if run.owner is None:
            return
        truth, record = self.truth[run.job_id], self.do(self.record(run.job_id))
        ended = record.get(b"ended_by") == run.token.encode()
        if not ended and self.writes(run, end(self.redis, run.owner, len(run.words) + 1, event)):
            truth.end("done" if isinstance(event, Done) else "failed")
            ended = True
        if ended:
            self.do(end(self.redis, run.owner, len(run.words) + 1, event))

    def writes(self, run: Run, call: Awaitable[None]) -> bool:
        """Runs a write: taken from the newest owner of an open job, and from no other (protocol P5)."""
        truth = self.truth[run.job_id]
        refusal: type[LogRefused] | None = None
        if truth.owner != run.token:
            refusal = LogErased if truth.status is None else AlreadyEnded if truth.status in TERMINAL else Superseded
        if refusal is None:
            self.do(call)
            return True
        with pytest.raises(refusal):
            self.do(call)
        return False

    def renew(self, i: int) -> None:
        """Whom the record or the lease names keeps its jobs; nobody else gets one back."""
        held = list(self.workers[i]._held.values())
        before = {lease.job_id: self.do(self.lease_of(lease.job_id)) for lease in held}
        self.do(self.workers[i]._renew())
        for lease in held:
            truth, was = self.truth[lease.job_id], before[lease.job_id]
            keeps = truth.is_open and lease.token in (truth.owner, was)
            assert self.do(self.lease_of(lease.job_id)) == (lease.token if keeps else was)

    def leave(self, run: Run, how: str) -> None:
        """To the next worker at once; to whoever looks; as after an end, its own or another's."""
        if how == "let go":
            self.do(run.worker.done_with(run.lease))
        else:
            self.do(run.worker.give_back(run.lease, handover=how == "hand over"))
        truth = self.truth[run.job_id]
        if how == "hand over" and truth.owner == run.token:
            truth.owner = None

    # --- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def all_is_as_promised(self) -> None:
        self.do(self.hear())
        seen = self.do(Seen.of(self.redis, list(self.truth)))
        for job_id, truth in self.truth.items():
            self.log_and_record_hold_the_truth_and_no_more(truth, seen.logs[job_id], seen.records[job_id])
            self.readers_are_pushed_what_the_log_took_and_no_more(truth)
        # Protocol P2: whatever happens to its workers, another one finds an open job.
        open_ones = {job_id for job_id, truth in self.truth.items() if truth.is_open}
        assert seen.queued == seen.listed_as_open == seen.with_payload == open_ones
        assert [name for name in seen.eternal_keys if not keys.is_permanent(name)] == []

    def log_and_record_hold_the_truth_and_no_more(self, truth: Truth, log: list[Stored], record: dict[bytes, bytes]) -> None:
        """Ids without a hole, attempts that rise, the words of whoever owned the attempt, one terminal event, the last."""
        assert (record.get(b"status") or b"").decode() == (truth.status or "")
        assert (record.get(b"owner") or b"").decode() == (truth.owner or "")
        if truth.status is None:
            assert log == []
            return
        assert_contiguous(log)
        assert [(entry.id, said(entry.event)) for entry in log] == truth.log
        assert [entry.event.terminal for entry in log[:-1]] == [False] * (len(log) - 1)
        assert log[-1].event.terminal == (truth.status in TERMINAL)

    def readers_are_pushed_what_the_log_took_and_no_more(self, truth: Truth) -> None:
        cursor = QUEUED
        for push in truth.pushes:
            assert push.before == cursor, "a push that begins elsewhere"
            assert push.n > 0
            cursor = push.after
        assert cursor == truth.last
        assert sum(push.n for push in truth.pushes) == len(truth.log) - 1
        assert [push.terminal for push in truth.pushes].count(True) == (not truth.is_open)

    def teardown(self) -> None:
        try:
            self.a_third_worker_ends_what_is_open()
        finally:
            self.do(self.ear.disconnect())
            self.do(self.redis.aclose())
            self.runner.close()

    def a_third_worker_ends_what_is_open(self) -> None:
        """Whatever state the two have left things in."""
        self.look_at_the_primary(restarted=False)
        for job_id in self.truth:
            self.lapse(job_id)
        for run in self.taken_by(self.workers[2]):
            self.claim(run)
            self.end(run, DONE)
            if self.truth[run.job_id].is_open:
                assert self.truth[run.job_id].cancelled
                self.close(run.job_id, seen=True)
        assert not any(truth.is_open for truth in self.truth.values())
        self.all_is_as_promised()

    # --- what Redis holds --------------------------------------------------------------------------------------------

    async def record(self, job_id: str) -> dict[bytes, bytes]:
        record: dict[bytes, bytes] = await self.redis.hgetall(keys.job(job_id))  # type: ignore[misc]
        return record

    async def lease_of(self, job_id: str) -> str | None:
        token = await self.redis.get(keys.arq_in_progress(job_id))
        return token.decode() if token else None

    async def primary_is_old(self) -> bool:
        replid, since = await self.redis.hmget(keys.PRIMARY, ["replid", "since"])  # type: ignore[misc]
        return replid != b"another" and int(since) + LEASE_S * 1000 < time.time() * 1000

    async def listen(self) -> None:
        await self.ear.send_command("PSUBSCRIBE", keys.log("*"))
        await self.ear.read_response()

    async def hear(self) -> None:
        """Takes in all that was pushed so far: what Redis sends before it answers a ping."""
        await self.ear.send_command("PING")
        while (message := await self.ear.read_response())[0] == b"pmessage":
            self.truth[message[2][len(keys.LOG_PREFIX) :].decode()].pushes.append(parse_push(message[3]))

    def last_pushed(self, job_id: str) -> EventId:
        self.do(self.hear())
        return self.truth[job_id].pushes[-1].after


def test_the_core_keeps_its_promises_whatever_its_workers_do_in_whatever_order(redis_server: RedisServer) -> None:
    a_few_seconds = settings(max_examples=30, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
    run_machine(lambda: CoreMachine(redis_server.url), settings=a_few_seconds)  # type: ignore[arg-type]
