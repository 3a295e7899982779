"""One attempt: a provider's stream into the log, within its deadlines and its budget."""

import asyncio
import time
from typing import Literal

import msgspec

from shared.errors import DeadlinePassed, GenerationFailed
from shared.events import FinishReason, Reasoning, Refusal, Token, ToolCall, Usage
from shared.fold import Fold
from shared.ids import EventId
from worker.providers.base import Call, Finish, Provider
from worker.recovery import Limits
from worker.writer import LogHandle


class Outcome(msgspec.Struct, frozen=True):
    """How the provider's stream ended: it finished, or it failed."""

    finish: FinishReason | None = None
    failure: GenerationFailed | None = None


class Attempt:
    """Keeps `state` in step with what it offered to the log, so that the end can be written without reading it again."""

    def __init__(self, provider: Provider, call: Call, out: LogHandle, state: Fold, limits: Limits, created_at: float) -> None:
        self.usage = Usage(estimated=True)
        self._provider = provider
        self._call = call
        self._out = out
        self._state = state
        self._limits = limits
        self._ends_at = asyncio.get_running_loop().time() + max(0.0, created_at + limits.total_s - time.time())
        self._budget = call.request.token_budget
        self._own_tokens = 0
        self._told: Usage | None = None

    async def run(self) -> Outcome:
        """Streams to the end. Cancelling it closes the provider at once.

        Raises:
            LogRefused: the job is another's, or over.
        """
        try:
            return Outcome(finish=await self._stream())
        except GenerationFailed as failure:
            return Outcome(failure=failure)
        finally:
            self.usage = self._told or Usage(output_tokens=self._own_tokens, estimated=True)

    async def _stream(self) -> FinishReason:
        loop = asyncio.get_running_loop()
        waiting: Literal["first", "next"] = "first"
        finish: FinishReason | None = None
        try:
            async with (
                asyncio.timeout_at(min(self._ends_at, loop.time() + self._limits.first_token_s)) as deadline,
                self._provider.stream(self._call) as deltas,
            ):
                async for delta in deltas:
                    if isinstance(delta, Finish):
                        finish = delta.reason  # the provider ends by itself now, and may keep its connection for the next call
                        continue
                    if isinstance(delta, Usage):
                        self._told = delta
                        continue
                    await self._put(delta)
                    if self._budget is not None and self._state.kept_tokens >= self._budget:
                        return "budget"
                    waiting = "next"
                    deadline.reschedule(min(self._ends_at, loop.time() + self._limits.idle_s))
        except TimeoutError:
            if finish is not None:
                return finish
            raise DeadlinePassed(self._what_was_late(waiting, loop.time())) from None
        if finish is not None:
            return finish
        raise GenerationFailed("incomplete", f"{self._call.model} stopped without saying that it was done.")

    async def _put(self, delta: Token | Reasoning | Refusal | ToolCall) -> None:
        private = {"at": round(time.time(), 6)} if self._own_tokens == 0 else None
        await self._out.append(delta, private)
        before = self._state.kept_tokens
        self._state.add(EventId(self._out.owner.attempt, self._out.next_seq - 1), delta, private)
        self._own_tokens += self._state.kept_tokens - before

    def _what_was_late(self, waiting: Literal["first", "next"], now: float) -> str:
        limits = self._limits
        if now >= self._ends_at:
            return f"The job took longer than its {limits.total_s:g} s in all."
        if waiting == "first":
            return f"{self._call.model} sent nothing for {limits.first_token_s:g} s."
        return f"{self._call.model} fell silent for {limits.idle_s:g} s in mid-answer."
