"""worker/attempt.py: a provider's stream into the log, within its deadlines and its budget. The log is a list."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast
from unittest.mock import ANY

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import GenerationFailed, Superseded
from shared.events import AnyEvent, Content, Reasoning, Refusal, Started, Token, ToolCall, Usage
from shared.fold import Fold
from shared.ids import EventId
from tests.support.author import ownership, request
from tests.support.waiting import wait_until
from worker.attempt import Attempt
from worker.log_handle import LogHandle
from worker.providers.base import Call, Delta, Finish, Prefix, Provider, Upstream
from worker.recovery import Limits
from worker.tokens import Tokens, load_encoding

UNHURRIED = Limits(queue_s=60, first_token_s=60, idle_s=60, total_s=60)


class FakeHandle:
    """Takes everything; refuses from the entry on that `refuse_at` names."""

    def __init__(self, refuse_at: int = 1 << 30) -> None:
        self.owner = ownership("j")
        self.full = False
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
    provider: FakeProvider,
    handle: FakeHandle,
    limits: Limits = UNHURRIED,
    age_s: float = 0,
    kept: Fold | None = None,
    tokens: Tokens | None = None,
    upstream: Upstream | None = None,
    note: Callable[[Upstream], Awaitable[None]] | None = None,
    **fields: object,
) -> tuple[Attempt, Fold]:
    state = kept or Fold()
    state.add(EventId(1, 0), Started(1, "m", "w", "first", False, "0-1"))
    call = Call(job_id="j", model="m", request=request(**fields), upstream=upstream)
    out, created_at = cast(LogHandle, handle), time.time() - age_s
    attempt = Attempt(cast(Provider, provider), call, out, state, limits, created_at, tokens or Tokens(), note=note)
    return attempt, state


async def test_everything_goes_into_the_log_in_order() -> None:
    provider, handle = FakeProvider(Token("a"), Reasoning("b"), ToolCall(0, id="c"), Usage(3, 4), Finish("stop")), FakeHandle()
    attempt, state = attempt_of(provider, handle)
    outcome = await attempt.run()
    assert (outcome.finish, outcome.failure, await attempt.settle()) == ("stop", None, Usage(3, 4))
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


@pytest.mark.parametrize("kind", [Token, Reasoning, Refusal, lambda text: ToolCall(0, arguments=text)])
async def test_a_budget_cuts_what_would_go_over_it(kind: Callable[[str], Content]) -> None:
    """Protocol 2.1: also where a provider sends whole sentences. A tool call counts one for itself."""
    sentence = "It was the best of times, it was the worst of times."
    provider, handle = FakeProvider(kind("Well,"), kind(" " + sentence), None), FakeHandle()
    attempt, _ = attempt_of(provider, handle, token_budget=8)
    assert (await attempt.run()).finish == "budget"
    assert provider.closed
    cut = " It was the best of" if isinstance(handle.events[0], ToolCall) else " It was the best of times"
    assert handle.events == [kind("Well,"), kind(cut)]
    assert (await attempt.settle()).output_tokens == 8


async def test_a_budget_cuts_between_whole_characters() -> None:
    """The fox takes three tokens; with two left it stays away."""
    provider, handle = FakeProvider(Token("a 🦊🦊"), None), FakeHandle()
    attempt, _ = attempt_of(provider, handle, token_budget=6)
    assert (await attempt.run()).finish == "budget"
    assert handle.events == [Token("a 🦊")]


async def test_a_budget_counts_token_ids_as_they_are() -> None:
    provider, handle = FakeProvider(Token("a", (1, 2)), Token("b", (3,)), Token("c"), None), FakeHandle()
    tokens = Tokens()
    attempt, state = attempt_of(provider, handle, tokens=tokens, token_budget=3)
    assert (await attempt.run()).finish == "budget"
    assert len(handle.events) == 2
    assert (provider.closed, tokens.encoding()) == (True, None), "nothing had to be loaded for that"
    await attempt.settle()
    assert state.kept_tokens == 3


async def test_token_ids_that_would_go_over_the_budget_stay_away_together() -> None:
    handle = FakeHandle()
    attempt, _ = attempt_of(FakeProvider(Token("a", (1,)), Token("🦊", (2, 3, 4)), None), handle, token_budget=3)
    assert (await attempt.run()).finish == "budget"
    assert handle.events == [Token("a", (1,))]


async def test_a_budget_counts_what_earlier_attempts_left() -> None:
    kept = Fold()
    kept.add(EventId(0, 2), Token("one two"))
    handle = FakeHandle()
    attempt, state = attempt_of(FakeProvider(Token(" three four five six"), None), handle, kept=kept, token_budget=4)
    assert (await attempt.run()).finish == "budget"
    assert state.text == "one two three four"
    assert (await attempt.settle()).output_tokens == 2


async def test_what_it_goes_on_from_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, tokens = Fold(), Tokens()
    kept.add(EventId(0, 2), Token("one two" + " one two" * 1000))
    encoding, encoded = await tokens.ready(), []

    class Counting:
        def encode_ordinary(self, text: str) -> list[int]:
            encoded.append(len(text))
            return encoding.encode_ordinary(text)

    monkeypatch.setattr(tokens, "encoding", Counting)
    attempt, _ = attempt_of(FakeProvider(Token(" three four"), Finish("stop")), FakeHandle(), kept=kept, tokens=tokens)
    await attempt.run()
    assert (await attempt.settle()).output_tokens == 2
    assert len(kept.text) <= sum(encoded) < 1.1 * len(kept.text)


words = st.sampled_from(["one ", "two", "\n\n", "你好，", "don't ", "  x", "🦊", "=="])


@given(st.lists(words, min_size=1, max_size=12), st.integers(1, 12))
async def test_a_budget_is_kept_to_the_token_however_the_text_comes(pieces: list[str], budget: int) -> None:
    handle = FakeHandle()
    attempt, state = attempt_of(FakeProvider(*map(Token, pieces), Finish("stop")), handle, token_budget=budget)
    outcome = await attempt.run()
    await attempt.settle()
    whole = len(load_encoding().encode_ordinary("".join(pieces)))
    assert state.kept_tokens <= budget
    assert (outcome.finish == "stop" and state.kept_tokens == whole) or state.kept_tokens >= budget - 2, "2: half a fox"


# --- usage, counted ------------------------------------------------------------------------------------------------------


async def test_counting_costs_the_loop_nothing_while_the_encoding_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes meanwhile leaves at once, and is counted afterwards."""
    may_load = threading.Event()
    monkeypatch.setattr("worker.tokens.load_encoding", lambda: may_load.wait(10) and load_encoding())
    tokens, handle = Tokens(), FakeHandle()
    attempt, state = attempt_of(FakeProvider(*[Token(" word")] * 5000, Finish("stop")), handle, tokens=tokens)
    tokens.begin()
    since = time.thread_time()
    assert (await attempt.run()).finish == "stop"
    assert time.thread_time() - since < 1.0, "some 20 µs a piece"
    assert (len(handle.events), tokens.encoding()) == (5000, None)
    settling = asyncio.create_task(attempt.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    may_load.set()
    assert (await settling).output_tokens == state.kept_tokens == 5000


async def test_a_job_with_a_budget_waits_for_the_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    may_load = threading.Event()
    monkeypatch.setattr("worker.tokens.load_encoding", lambda: may_load.wait(10) and load_encoding())
    handle = FakeHandle()
    attempt, _ = attempt_of(FakeProvider(Token("one two three"), None), handle, token_budget=2)
    running = asyncio.create_task(attempt.run())
    await asyncio.sleep(0)
    may_load.set()
    assert (await running).finish == "budget"
    assert handle.events == [Token("one two")]


@pytest.mark.parametrize(("said", "usage"), [(Usage(7), Usage(7, 2, estimated=True)), (Usage(7, 5), Usage(7, 5))])
async def test_what_a_provider_told_before_it_failed_stands(said: Usage, usage: Usage) -> None:
    attempt, _ = attempt_of(FakeProvider(said, Token("one two"), GenerationFailed("connection", "gone")), FakeHandle())
    await attempt.run()
    assert await attempt.settle() == usage


async def test_what_is_gone_on_from_was_read_too() -> None:
    first, _ = attempt_of(FakeProvider(Finish("stop")), FakeHandle())
    await first.run()
    bare = (await first.settle()).input_tokens
    second, _ = attempt_of(FakeProvider(Finish("stop")), FakeHandle())
    second._call = msgspec.structs.replace(second._call, prefix=Prefix("one two three"))
    await second.run()
    assert (await second.settle()).input_tokens == bare + 3


# --- its end, and its pace -----------------------------------------------------------------------------------------------


async def test_its_pace_is_told() -> None:
    class Slow(FakeProvider):
        async def _deltas(self) -> AsyncIterator[Delta]:
            for n, item in enumerate(self._script):
                await asyncio.sleep(0.2 if n == 5 else 0.01)
                assert isinstance(item, (Token, Finish))
                yield item

    attempt, state = attempt_of(Slow(*[Token(" one two")] * 10, Finish("stop")), FakeHandle())
    await attempt.run()
    await attempt.settle()
    pace = state.pace
    assert pace is not None
    assert pace.gap_p50_s is not None
    assert pace.gap_p99_s is not None
    assert 0.009 < pace.gap_p50_s < 0.1 < 0.19 < pace.gap_p99_s
    assert pace.tokens == 18, "all but those of the first piece"
    assert state.first_kept_at is not None
    assert 0.2 < pace.last_at - state.first_kept_at < time.time() - state.first_kept_at


async def test_without_output_there_is_no_pace() -> None:
    attempt, state = attempt_of(FakeProvider(GenerationFailed("overloaded", "later")), FakeHandle())
    await attempt.run()
    await attempt.settle()
    assert state.pace is None


async def test_a_stream_without_finish_is_incomplete() -> None:
    outcome = await attempt_of(FakeProvider(Token("a")), FakeHandle())[0].run()
    assert outcome.failure is not None
    assert outcome.failure.code == "incomplete"


async def test_a_failure_is_an_outcome_and_what_was_used_is_known() -> None:
    failure = GenerationFailed("rate_limit", "slow down")
    attempt, _ = attempt_of(FakeProvider(Token("a"), failure), FakeHandle())
    assert (await attempt.run()).failure is failure
    assert await attempt.settle() == Usage(9, 1, estimated=True)


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
    assert (provider.closed, await attempt.settle()) == (True, Usage(9, 1, estimated=True))


# --- responses that go on upstream ---------------------------------------------------------------------------------------


async def test_a_response_upstream_is_noted_before_anything_of_it_is_in_the_log() -> None:
    handle, noted = FakeHandle(), []
    provider = FakeProvider(Upstream("r", 0), Upstream("r", 3), Token("a"), Upstream("r", 5), Token("b"), Finish("stop"))

    async def note(upstream: Upstream) -> None:
        noted.append((upstream.id, list(handle.events)))

    await attempt_of(provider, handle, note=note)[0].run()
    assert noted == [("r", [])]
    assert handle.private == [{"at": ANY, "u": 3}, {"u": 5}]


async def test_one_that_is_read_on_is_noted_already_and_costs_what_was_read_of_it_before_too() -> None:
    handle, noted, kept = FakeHandle(), [], Fold()
    kept.add(EventId(1, 0), Started(1, "m", "w", "first", False, "0-1"))
    kept.add(EventId(1, 1), Token("one two"))

    async def note(upstream: Upstream) -> None:
        noted.append(upstream)

    provider = FakeProvider(Upstream("r", 5), Token(" three"), GenerationFailed("connection", "It broke."))
    attempt, _ = attempt_of(provider, handle, kept=kept, upstream=Upstream("r", 3), note=note)
    await attempt.run()
    assert (noted, handle.private) == ([], [{"at": ANY, "u": 5}])
    assert await attempt.settle() == Usage(9, 3, estimated=True)


async def test_a_response_that_could_not_be_read_on_was_paid_for_all_the_same() -> None:
    kept = Fold()
    kept.add(EventId(1, 0), Started(1, "m", "w", "first", False, "0-1"))
    kept.add(EventId(1, 1), Token("one two"))

    class Refuses(FakeProvider):
        @asynccontextmanager
        async def stream(self, _call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
            raise GenerationFailed("incomplete", "Not handed out any more.")
            yield self._deltas()

    attempt, _ = attempt_of(Refuses(), FakeHandle(), kept=kept, upstream=Upstream("r", 3))
    await attempt.run()
    assert await attempt.settle() == Usage(9, 2, estimated=True)
