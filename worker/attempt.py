"""One attempt: a provider's stream into the log, within its deadlines and its budget."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from shared.errors import DeadlinePassed, GenerationFailed
from shared.events import Content, FinishReason, Token, Usage
from shared.fold import Fold, Pace
from shared.ids import EventId
from worker.gaps import Gaps
from worker.log_handle import LogHandle
from worker.output_count import OutputCount
from worker.providers.base import Call, Finish, Provider, Upstream
from worker.recovery import Limits
from worker.tally import Tally
from worker.tokens import Tokens


class Outcome(msgspec.Struct, frozen=True):
    """How the provider's stream ended: it finished, or it failed."""

    finish: FinishReason | None = None
    failure: GenerationFailed | None = None


class Attempt:
    """Keeps `state` in step with what it offered to the log, so that the end can be written without reading it again."""

    def __init__(
        self,
        provider: Provider,
        call: Call,
        out: LogHandle,
        state: Fold,
        limits: Limits,
        created_at: float,
        tokens: Tokens,
        on_kept: Callable[[int], None] | None = None,
        note: Callable[[Upstream], Awaitable[None]] | None = None,
        tally: Tally | None = None,
    ) -> None:
        """`on_kept` is told the number of kept tokens after each piece; `note` of a response that goes on upstream by itself,
        before anything of it is read. Each entry then says how far it was read. `tally` counts what came."""
        self._provider = provider
        self._call = call
        self._out = out
        self._state = state
        self._limits = limits
        self._created_at = created_at
        self._tally = tally or Tally()
        self._tokens_made = self._tally.tokens
        self._clock = asyncio.get_running_loop().time
        self.first_after_s: float | None = None
        """How long the provider took to its first piece of output; None while there is none."""
        self._began_at = self._clock()
        self._ends_at = self._clock() + max(0.0, created_at + limits.total_s - time.time())
        self._budget = call.request.token_budget
        self._tokens = tokens
        self._kept = OutputCount(tokens.encoding)
        self._kept_before = OutputCount(tokens.encoding)
        self._gaps = Gaps()
        self._opened = False
        """The provider took the call: whatever follows, it reads the prompt."""
        self._told: Usage | None = None
        self._finish: FinishReason | None = None
        self._on_kept = on_kept
        self._note = note
        self._upstream = call.upstream

    async def run(self) -> Outcome:
        """Streams to the end. Cancelling it closes the provider at once.

        Raises:
            LogRefused: the job is another's, or over.
        """
        try:
            self._kept = await self._tokens.count_of(self._state)
            self._kept_before = self._kept.fork()
            return Outcome(finish=await self._stream())
        except GenerationFailed as failure:
            return Outcome(failure=failure)

    async def settle(self) -> Usage:
        """Once it has run: what it cost, as the provider told, else about. Count and pace of the output go into the state."""
        kept = self._state.kept_tokens = await self._tokens.total(self._kept)
        if self._gaps.last is not None:
            self._state.pace = await self._pace(kept, self._gaps.last)
        if self._told is not None and (self._finish is not None or self._told.output_tokens):
            return self._told
        # One response is paid for as a whole, by whoever reads it last.
        own = kept if self._call.upstream is not None else kept - await self._tokens.total(self._kept_before)
        return Usage(await self._read(), own, estimated=True)

    async def _stream(self) -> FinishReason:
        loop = asyncio.get_running_loop()
        try:
            async with (
                asyncio.timeout_at(min(self._ends_at, loop.time() + self._limits.first_token_s)) as deadline,
                self._provider.stream(self._call) as deltas,
            ):
                self._opened = True
                async for delta in deltas:
                    if isinstance(delta, Finish):
                        self._finish = delta.reason  # it ends by itself now, and may keep its connection for the next call
                        continue
                    if isinstance(delta, Usage):
                        self._told = delta
                        continue
                    if isinstance(delta, Upstream):
                        await self._reached(delta)
                        continue
                    if self._out.full:
                        deadline.reschedule(self._ends_at)  # the silence is Redis', and has a limit of its own
                    if not await self._take(delta):
                        return "budget"
                    deadline.reschedule(min(self._ends_at, loop.time() + self._limits.idle_s))
        except TimeoutError:
            if self._finish is not None:
                return self._finish
            raise DeadlinePassed(self._what_was_late(loop.time())) from None
        if self._finish is not None:
            return self._finish
        raise GenerationFailed("incomplete", f"{self._call.model} stopped without saying that it was done.")

    async def _take(self, delta: Content) -> bool:
        """Puts a delta into the log, as far as the budget goes; False once that is reached."""
        if self._budget is None or self._kept.most(delta) < self._budget:
            await self._put(delta)
            return True
        if self._kept.needs_encoding or not (isinstance(delta, Token) and delta.ids):
            await self._tokens.ready()
        piece = self._kept.fitting(delta, self._budget - self._kept.total())
        if piece is not None:
            await self._put(piece)
        return piece == delta and self._kept.total() < self._budget

    async def _reached(self, upstream: Upstream) -> None:
        is_new = self._upstream is None or self._upstream.id != upstream.id
        self._upstream = upstream
        if is_new and self._note is not None:
            await self._note(upstream)

    async def _put(self, piece: Content) -> None:
        first = self._gaps.last is None
        private: dict[str, Any] = {"at": self._first(time.time())} if first else {}
        if self._upstream is not None:
            private["u"] = self._upstream.position
        self._gaps.piece(self._clock())
        self._tokens_made[type(piece)] += (len(piece.ids) or 1) if type(piece) is Token else 1
        await self._out.append(piece, private or None)
        self._state.add(EventId(self._out.owner.attempt, self._out.next_seq - 1), piece, private)
        self._kept.add(piece)
        if self._on_kept is not None:
            self._on_kept(self._state.kept_tokens)
        if first and self._kept.needs_encoding:
            self._tokens.begin()

    def _first(self, now: float) -> float:
        """The attempt's first piece is here; when that was, for the log."""
        self.first_after_s = self._clock() - self._began_at
        if self._state.first_output_at is None:
            self._tally.ttft.add(max(0.0, now - self._created_at))
        return round(now, 6)

    async def _pace(self, kept: int, last: float) -> Pace:
        first = OutputCount(self._tokens.encoding)
        if self._state.first_kept is not None:
            first.add(self._state.first_kept)
        return Pace(
            last_at=time.time() - (self._clock() - last),
            tokens=kept - await self._tokens.total(first),
            gap_p50_s=self._gaps.quantile(0.5),
            gap_p99_s=self._gaps.quantile(0.99),
        )

    async def _read(self) -> int:
        """Tokens that the provider read, as it told or about; one that refused the call has read nothing."""
        if self._told is not None:
            return self._told.input_tokens
        if not self._opened and self._upstream is None:
            return 0
        prefix = self._call.prefix
        return await self._tokens.prompt(self._call.request, prefix.text if prefix else "")

    def _what_was_late(self, now: float) -> str:
        limits = self._limits
        if now >= self._ends_at:
            return f"The job took longer than its {limits.total_s:g} s in all."
        if self._gaps.last is None:
            return f"{self._call.model} sent nothing for {limits.first_token_s:g} s."
        return f"{self._call.model} fell silent for {limits.idle_s:g} s in mid-answer."
