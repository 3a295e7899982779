"""worker/attempt.py: a provider's stream into the log, within its deadlines and its budget. The log is a list."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from shared.errors import GenerationFailed, Superseded
from shared.event_log import Lease, Ownership
from shared.events import AnyEvent, Reasoning, Started, Token, ToolCall, Usage
from shared.fold import Fold
from shared.ids import EventId
from tests.support.author import request
from tests.support.waiting import wait_until
from worker.attempt import Attempt
from worker.providers.base import Call, Delta, Finish, Provider
from worker.recovery import Limits
from worker.writer import LogHandle

UNHURRIED = Limits(queue_s=60, first_token_s=60, idle_s=60, total_s=60)


class FakeHandle:
    """Takes everything; refuses from the entry on that `refuse_at` names."""

    def __init__(self, refuse_at: int = 1 << 30) -> None:
        self.owner = Ownership(Lease("j", "t"), 1, "first")
        self.events: list[AnyEvent] = []
        self.private: list[object] = []
        self._refuse_at = refuse_at

    @property
    def next_seq(self) -> int:
        return len(self.events) + 1

    async def append(self, event: AnyEvent, private: object = None) -> None:
        if self.next_seq >= self._refuse_at:
            raise Superseded("j")
        self.events.append(event)
        self.private.append(private)


class FakeProvider:
    """Yields what it is given; an exception is raised, None is silence for ever."""

    name = "fake"

    def __init__(self, *deltas: Delta | Exception | None) -> None:
        self._script = deltas
        self.closed = False

    @asynccontextmanager
    async def stream(self, _call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        try:
            yield self._deltas()
        finally:
            self.closed = True

    async def _deltas(self) -> AsyncIterator[Delta]:
        for item in self._script:
            if item is None:
                await asyncio.Event().wait()
            elif isinstance(item, Exception):
                raise item
            else:
                yield item


def attempt_of(
    provider: FakeProvider, handle: FakeHandle, limits: Limits = UNHURRIED, age_s: float = 0, **fields: object
) -> tuple[Attempt, Fold]:
    state = Fold()
    state.add(EventId(1, 0), Started(1, "m", "w", "first", False, "0-1"))
    call = Call(job_id="j", model="m", request=request(**fields))
    out, created_at = cast(LogHandle, handle), time.time() - age_s
    return Attempt(cast(Provider, provider), call, out, state, limits, created_at), state


async def test_everything_goes_into_the_log_in_order() -> None:
    provider, handle = FakeProvider(Token("a"), Reasoning("b"), ToolCall(0, id="c"), Usage(3, 4), Finish("stop")), FakeHandle()
    attempt, state = attempt_of(provider, handle)
    outcome = await attempt.run()
    assert (outcome.finish, outcome.failure, attempt.usage) == ("stop", None, Usage(3, 4))
    assert handle.events == [Token("a"), Reasoning("b"), ToolCall(0, id="c")]
    assert (state.text, state.last_id, provider.closed) == ("a", EventId(1, 3), True)


async def test_the_first_piece_of_output_is_stamped() -> None:
    """So that the time to the first token survives a takeover."""
    handle = FakeHandle()
    attempt, state = attempt_of(FakeProvider(Token("a"), Token("b"), Finish("stop")), handle)
    await attempt.run()
    stamp, none = handle.private
    assert none is None
    assert stamp == {"at": state.first_output_at}


async def test_a_budget_ends_it_and_closes_the_provider() -> None:
    provider, handle = FakeProvider(Token("a", (1, 2)), Token("b", (3,)), Token("c"), None), FakeHandle()
    attempt, _ = attempt_of(provider, handle, token_budget=3)
    assert (await attempt.run()).finish == "budget"
    assert len(handle.events) == 2
    assert (provider.closed, attempt.usage) == (True, Usage(0, 3, estimated=True))


async def test_a_stream_without_finish_is_incomplete() -> None:
    outcome = await attempt_of(FakeProvider(Token("a")), FakeHandle())[0].run()
    assert outcome.failure is not None
    assert outcome.failure.code == "incomplete"


async def test_a_failure_is_an_outcome_and_what_was_used_is_known() -> None:
    failure = GenerationFailed("rate_limit", "slow down")
    attempt, _ = attempt_of(FakeProvider(Token("a"), failure), FakeHandle())
    assert (await attempt.run()).failure is failure
    assert attempt.usage == Usage(0, 1, estimated=True)


@pytest.mark.parametrize(
    ("limits", "deltas", "said"),
    [
        (Limits(60, 0.02, 60, 60), [None], "sent nothing for 0.02 s"),
        (Limits(60, 60, 0.02, 60), [Token("a"), None], "fell silent for 0.02 s"),
        (Limits(60, 60, 60, 0.05), [Token("a"), None], "longer than its 0.05 s"),
    ],
)
async def test_each_deadline_says_which_it_was(limits: Limits, deltas: list[Delta | None], said: str) -> None:
    provider = FakeProvider(*deltas)
    outcome = await attempt_of(provider, FakeHandle(), limits)[0].run()
    assert outcome.failure is not None
    assert outcome.failure.code == "timeout"
    assert said in str(outcome.failure)
    assert provider.closed


async def test_total_time_counts_from_the_submit_and_not_from_the_attempt() -> None:
    outcome = await attempt_of(FakeProvider(None), FakeHandle(), age_s=100)[0].run()
    assert outcome.failure is not None
    assert "longer than its 60 s in all" in str(outcome.failure)


async def test_idle_time_begins_anew_with_each_piece() -> None:
    class Slow(FakeProvider):
        async def _deltas(self) -> AsyncIterator[Delta]:
            for item in self._script:
                await asyncio.sleep(0.03)
                assert isinstance(item, (Token, Finish))
                yield item

    limits = Limits(60, 0.5, 0.5, 60)
    outcome = await attempt_of(Slow(*[Token("x")] * 20, Finish("stop")), FakeHandle(), limits)[0].run()
    assert outcome.finish == "stop"


async def test_a_log_that_refuses_stops_the_provider() -> None:
    provider = FakeProvider(Token("a"), Token("b"), None)
    attempt, _ = attempt_of(provider, FakeHandle(refuse_at=2))
    with pytest.raises(Superseded):
        await attempt.run()
    assert provider.closed


async def test_a_cancel_closes_the_provider_at_once() -> None:
    provider, handle = FakeProvider(Token("a"), None), FakeHandle()
    attempt, _ = attempt_of(provider, handle)
    running = asyncio.create_task(attempt.run())
    await wait_until(lambda: bool(handle.events))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (provider.closed, attempt.usage) == (True, Usage(0, 1, estimated=True))
