"""Group commit: all jobs of a worker share one writer, and what they produced during a round trip goes out in the next.

Under light load a token leaves at once; under heavy load round trips stay few. Appends carry explicit ids, so that offering
them again after a lost reply is harmless: while Redis is away the writer holds what it has and offers it again.

What Redis acknowledged may still be forgotten by a restart or a failover, so each log's newest entries are held a while longer
(`LogHandle`). Whenever there is reason to doubt a log, because another primary answers, or a script says that the log is behind
or another's, the writer asks where it stands before it writes on (docs/decisions/0028).
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from shared.errors import LogBehind, LogRefused, Superseded
from shared.log_commands import Append, Offer, append_command, check_answer, end_command, reclaim_command
from shared.ownership import Ownership
from shared.redis_client import NOT_NOW, UNREACHABLE, Arg, scripts
from shared.settings import Settings
from shared.spread import Spread
from worker.leases import Leases
from worker.log_handle import MOST_AT_ONCE, LogHandle

log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_TICK_S: Final = 0.5
"""How often the writer looks what need not be held any more."""

_CROWD: Final = 8
_GATHER_S: Final = 0.005
"""After a round trip for so many logs the next one waits so long: a round trip costs as much as many tokens do, and a worker
with hundreds of streams would make one for every four of them. A worker with few never waits."""

_APPEND_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Row = tuple[LogHandle, list[Offer]]
"""What one log gets in one round trip; its end, where there are no offers."""


class Writer:
    def __init__(self, redis: Redis, settings: Settings, leases: Leases) -> None:
        self._redis = redis
        self._settings = settings
        self._leases = leases
        self._logs: dict[LogHandle, None] = {}  # all of which something is held; sets that keep their order
        self._dirty: dict[LogHandle, None] = {}  # first offered, first written
        self._doubted: dict[LogHandle, None] = {}
        self._something = asyncio.Event()
        self._answered_at = 0.0
        self._pause = 0.0
        self.appends = Spread(_APPEND_S)
        """Seconds of each round trip that wrote to logs."""
        self.rewritten = 0
        """Events that Redis had forgotten."""

    @property
    def waiting(self) -> int:
        """Events that are in no log yet."""
        return sum(handle.counts[0] for handle in list(self._logs))

    @property
    def held(self) -> int:
        """Events that are held in case Redis forgets them."""
        return sum(handle.counts[1] for handle in list(self._logs))

    def open(self, owner: Ownership, *, after: LogHandle | None = None) -> LogHandle:
        """`after`: the same owner's attempt before this one."""
        handle = LogHandle(owner, self._settings, self.wake, self._doubt)
        self._logs[handle] = None
        if after is not None:
            after.followed = True
        return handle

    def close(self, handle: LogHandle) -> None:
        """Nothing more will be offered. An end is held until Redis has surely kept it; a job without one is another's now, and
        nothing of it is written again."""
        if not handle.ended:
            for each in [each for each in self._logs if each.owner.lease == handle.owner.lease]:
                self._forget(each)

    def wake(self, handle: LogHandle) -> None:
        self._dirty[handle] = None
        self._something.set()

    def doubt_all(self) -> None:
        """Another primary answers: every log may lack what it had."""
        for handle in self._logs:
            self._doubt(handle)

    def contest(self, job_id: str) -> bool:
        """Redis says that a lease is lost: whether that is doubted, because the claim behind it may be what was forgotten."""
        handles = [handle for handle in self._logs if handle.owner.job_id == job_id and not handle.ended]
        for handle in handles:
            self._doubt(handle)
        return bool(handles)

    async def run_forever(self) -> None:
        """The one task that writes. Cancelled by the worker once its jobs are done."""
        self._tick()
        try:
            while True:
                await self._something.wait()
                self._something.clear()
                if self._doubted:
                    await self._heal(self._comparable())
                await self._leases.wait_until_fresh()
                if self._doubted and self._comparable():
                    self._something.set()
                    continue
                batch, self._dirty = [handle for handle in self._dirty if handle not in self._doubted], {}
                await self._write(batch)
                if len(batch) >= _CROWD:
                    await asyncio.sleep(_GATHER_S)
        finally:
            self._ticker.cancel()

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, batch: list[LogHandle]) -> None:
        """One round trip for all."""
        rows = [(handle, handle.offered()) for handle in batch if handle.waiting]
        rows += [(handle, []) for handle in batch if handle.end_is_due]
        if not rows:
            return
        asked_at = time.monotonic()
        try:
            answers = await self._execute(rows)
        except UNREACHABLE as error:
            await self._hold(rows, "Redis is away", error)
            return
        refusing: Exception | None = None
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, NOT_NOW):
                refusing = answer
            else:
                self._settle(*row, answer)
        if refusing is not None:
            await self._hold(rows, "Redis takes no writes", refusing)
            return
        self._answered_at = asked_at
        self.appends.add(time.monotonic() - asked_at)
        if self._pause:
            log.info("the log takes events again")
            self._pause = 0.0

    async def _execute(self, rows: list[Row]) -> list[Any]:
        """One answer a row; an exception where its script failed. Rows without offers are ends, and come last."""
        groups = list(_groups([row for row in rows if row[1]]))
        ends = [handle for handle, offers in rows if not offers]
        commands = [append_command(Append(h.owner, h.first_seq, offers) for h, offers in group) for group in groups]
        answers = await self._run([*commands, *(self._end_command(handle) for handle in ends)])
        appended = [
            one
            for group, answer in zip(groups, answers[: len(groups)], strict=True)
            for one in (answer if isinstance(answer, list) else [answer] * len(group))
        ]
        return appended + answers[len(groups) :]

    async def _run(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        """The scripts' answers, in one round trip; exceptions among them where one failed."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            await scripts.load_again(self._redis)
            return await self._run(commands)
        return answers

    def _end_command(self, handle: LogHandle) -> tuple[Arg, ...]:
        assert handle.end_offered is not None, "an end is due"
        event, private = handle.end_offered
        return end_command(handle.owner, handle.next_seq, event, private, self._settings.retention_s)

    def _settle(self, handle: LogHandle, offers: list[Offer], answer: Any) -> None:
        if isinstance(answer, RedisError):
            raise answer  # a script that fails is a bug of ours: the worker dies of it, and another takes its jobs
        try:
            check_answer(answer, handle.owner.job_id)
        except (LogBehind, Superseded):
            self._doubt(handle)
        except LogRefused as refused:
            self._refuse(handle, refused)
        else:
            if offers:
                handle.took(len(offers))
            else:
                handle.took_end()
            self._go_on(handle)

    def _go_on(self, handle: LogHandle) -> None:
        if handle.waiting or handle.end_is_due:
            self.wake(handle)
        elif self._doubted:
            self._something.set()  # an attempt that waited for this one to be whole

    async def _hold(self, rows: list[Row], why: str, error: Exception) -> None:
        await self._rest(why, error)
        for handle, _ in rows:
            self._go_on(handle)

    async def _rest(self, why: str, error: Exception) -> None:
        if not self._pause:
            log.warning("the log takes nothing for now; what was generated is held", why=why, error=str(error))
        self._pause = min(self._pause * 2 or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        await asyncio.sleep(self._pause)

    # --- healing -----------------------------------------------------------------------------------------------------

    def _doubt(self, handle: LogHandle) -> None:
        self._doubted[handle] = None
        self._something.set()

    def _comparable(self) -> list[LogHandle]:
        """The doubted ones; of a job with several attempts here, the first that is not known to be whole."""
        self._doubted = {handle: None for handle in self._doubted if handle in self._logs}
        found: dict[str, LogHandle] = {}
        for handle in self._logs:
            if handle in self._doubted or handle.waiting:
                found.setdefault(handle.owner.job_id, handle)
        return [handle for handle in found.values() if handle in self._doubted]

    async def _heal(self, doubted: list[LogHandle]) -> None:
        """Asks where the doubted logs stand, puts lost claims back, and lets what else was lost wait again."""
        for handle in doubted:
            del self._doubted[handle]
        lease_s = self._settings.lease_s
        commands = [
            reclaim_command(
                handle.owner, handle.claimed_at, lease_s, held=handle.opening_held,
                upstream="=" if handle.followed else str(handle.upstream or ""),
            )
            for handle in doubted
        ]  # fmt: skip
        try:
            answers = await self._run(commands)
        except UNREACHABLE as error:
            answers = [error] * len(doubted)
        refusing: Exception | None = None
        for handle, answer in zip(doubted, answers, strict=True):
            if isinstance(answer, NOT_NOW):
                refusing = answer
                self._doubt(handle)
            elif isinstance(answer, RedisError):
                raise answer
            else:
                self._compare(handle, answer)
        if refusing is not None:
            await self._rest("logs cannot be compared", refusing)

    def _compare(self, handle: LogHandle, answer: list[bytes]) -> None:
        had, ended = handle.first_seq, handle.ended
        handle.compare(answer)
        if handle.refused is not None:
            self._forget(handle)
            return
        lost = had - handle.first_seq
        if lost or handle.ended != ended:
            self.rewritten += lost
            log.warning(
                "Redis forgot a tail of this log; it is written again",
                job=handle.owner.job_id, attempt=handle.owner.attempt, entries=lost,
            )  # fmt: skip
        self._go_on(handle)

    def _refuse(self, handle: LogHandle, reason: LogRefused) -> None:
        handle.refuse(reason)
        self._forget(handle)

    def _forget(self, handle: LogHandle) -> None:
        self._logs.pop(handle, None)

    def _tick(self) -> None:
        """Lets go of what Redis has surely kept, and once more after a while. A timer, not a task: it never waits."""
        self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        if not self._doubted:
            now, alive_at = time.monotonic(), max(self._answered_at, self._leases.renewed_at)
            for handle in [handle for handle in self._logs if handle.let_go(now, alive_at)]:
                self._forget(handle)


def _groups(rows: list[Row]) -> Iterator[list[Row]]:
    """What goes into one script each: whole rows, as many as fit."""
    group: list[Row] = []
    entries = 0
    for row in rows:
        if group and entries + len(row[1]) > MOST_AT_ONCE:
            yield group
            group, entries = [], 0
        group.append(row)
        entries += len(row[1])
    if group:
        yield group
