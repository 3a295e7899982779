"""shared/fold.py: a log as one state (protocol 2.2); tests/properties/test_resume.py compares it with a reader's."""

import pytest

from shared.events import (
    AnyEvent,
    Cancelled,
    Done,
    Error,
    Queued,
    Reasoning,
    Refusal,
    Started,
    StartReason,
    Timing,
    Token,
    ToolCall,
    Usage,
)
from shared.fold import Fold, Pace
from shared.ids import START, EventId

DONE = Done("stop", Usage(7, 9), Timing(total_s=1.0))


def started(attempt: int = 1, *, reset: bool = False, reason: StartReason = "first") -> Started:
    return Started(attempt, "openai/any", f"w{attempt}", reason, reset, "0-1")


def folded(*events: AnyEvent) -> Fold:
    state, at = Fold(), EventId(0, 0)
    for event in events:
        at = EventId(event.attempt, 0) if isinstance(event, Started) else at.next()
        state.add(at, event)
    return state


def test_nothing_read_is_nothing_held() -> None:
    state = Fold()
    assert (state.last_id, state.text, state.tool_calls, state.terminal, state.usage()) == (START, "", [], None, Usage())


def test_a_queued_job_has_paid_nothing_and_knows_it() -> None:
    assert folded(Queued("j", "m", 1.0)).usage() == Usage(0, 0, estimated=False)


def test_each_kind_of_content_is_joined_by_itself() -> None:
    state = folded(started(), Token("a"), Reasoning("x"), Token("b"), Refusal("no"), Reasoning("y"))
    assert (state.text, state.reasoning, state.refusal, state.kept_tokens) == ("ab", "xy", "no", 5)
    assert state.last_id == EventId(1, 5)


def test_tool_calls_are_joined_by_index_and_listed_in_its_order() -> None:
    state = folded(
        started(),
        ToolCall(1, id="b", name="g"),
        ToolCall(0, id="a"),
        ToolCall(0, name="f"),
        ToolCall(0, arguments="{"),
        ToolCall(0, arguments="}"),
    )
    assert state.tool_calls == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]


def test_a_reset_discards_what_a_reader_discards() -> None:
    """Protocol 4.1 `started`: all text, reasoning and tool calls; the attempts and what they cost stay."""
    state = folded(started(), Token("a", (1,)), Reasoning("b"), ToolCall(0, id="c"), started(2, reset=True), Token("d", (2, 3)))
    assert (state.text, state.reasoning, state.tool_calls, state.kept_tokens) == ("d", "", [], 2)
    assert state.token_ids == [2, 3]
    assert [attempt.output_tokens for attempt in state.attempts] == [3, 2]
    assert state.usage() == Usage(0, 5, estimated=True)


def test_without_a_reset_the_text_goes_on() -> None:
    state = folded(started(), Token("a"), started(2, reason="takeover"), Token("b"))
    assert state.text == "ab"
    assert [(attempt.number, attempt.reason, attempt.worker) for attempt in state.attempts] == [
        (1, "first", "w1"),
        (2, "takeover", "w2"),
    ]


def test_a_token_counts_as_many_as_it_has_ids() -> None:
    state = folded(started(), Token("ab", (1, 2)), Token("c", (3,)))
    assert (state.kept_tokens, state.token_ids, state.every_token_has_ids) == (3, [1, 2, 3], True)
    state.add(EventId(1, 3), Token("d"))
    assert (state.kept_tokens, state.every_token_has_ids) == (4, False)


def test_what_has_no_ids_is_a_guess_until_somebody_counts() -> None:
    """One a piece, and one a tool call; the text is there to be counted, also once a reset has discarded it."""
    call = [ToolCall(0, id="c"), ToolCall(0, name="f"), ToolCall(0, arguments="{"), ToolCall(0, arguments="}")]
    state = folded(started(), Token("a", (1, 2)), Token("bcd"), Reasoning("e"), *call, started(2, reset=True))
    dead = state.attempts[0]
    assert (dead.output_tokens, dead.uncounted) == (7, ["bcd", "e", "{", "}"])
    assert (state.kept_tokens, list(state.arguments())) == (0, [])


def test_each_calls_arguments_are_told_by_index() -> None:
    state = folded(started(), ToolCall(1, arguments="{"), ToolCall(0, id="a"), ToolCall(1, arguments="}"))
    assert dict(state.arguments()) == {0: "", 1: "{}"}


@pytest.mark.parametrize("open_output", [Reasoning("x"), Refusal("x"), ToolCall(0, id="c")])
def test_only_text_can_be_gone_on_from(open_output: AnyEvent) -> None:
    assert folded(started(), Token("a")).only_text
    assert not folded(started(), Token("a"), open_output).only_text


def test_the_end_tells_usage_and_finish_reason() -> None:
    state = folded(started(), Token("a"), DONE)
    assert (state.terminal, state.usage(), state.finish_reason(), state.error()) == (DONE, Usage(7, 9), "stop", None)


def test_an_error_is_the_last_attempts() -> None:
    state = folded(started(), started(2), Error("timeout", "late", True, False, Usage(), Timing()))
    first, second = state.listed_attempts()
    assert first.error is None
    assert second.error is not None
    assert (second.error.code, second.error.message, second.error.retryable) == ("timeout", "late", True)
    assert state.finish_reason() is None


def test_a_cancelled_job_has_no_error() -> None:
    state = folded(started(), Cancelled("user", False, Usage(), Timing()))
    assert (state.error(), state.finish_reason()) == (None, None)


def test_private_fields_tell_what_events_do_not() -> None:
    """When output began, whichever attempt wrote it; and what the last attempt cost by itself."""
    state = Fold()
    state.add(EventId(1, 0), started())
    state.add(EventId(1, 1), Token("a"), {"at": 12.5})
    state.add(EventId(2, 0), started(2))
    state.add(EventId(2, 1), Token("b"), {"at": 99.0})
    state.add(EventId(2, 2), DONE, {"usage": {"input_tokens": 3, "output_tokens": 1}})
    assert state.first_output_at == 12.5
    assert (state.first_kept_at, state.first_kept) == (12.5, Token("a"))
    assert [attempt.usage for attempt in state.listed_attempts()] == [Usage(0, 1, estimated=True), Usage(3, 1)]


def test_after_a_reset_what_is_kept_begins_anew() -> None:
    """The time to the job's first piece stays what it was."""
    state = Fold()
    state.add(EventId(1, 0), started())
    state.add(EventId(1, 1), Token("a"), {"at": 12.5})
    state.pace = Pace(last_at=13.0, tokens=0, gap_p50_s=None, gap_p99_s=None)
    state.add(EventId(2, 0), started(2, reset=True))
    discarded: tuple[object, ...] = (state.first_kept_at, state.first_kept, state.pace)
    assert (state.first_output_at, discarded) == (12.5, (None, None, None))
    state.add(EventId(2, 1), Token("b"), {"at": 99.0})
    assert (state.first_output_at, state.first_kept_at, state.first_kept) == (12.5, 99.0, Token("b"))


def test_how_far_a_response_upstream_was_read_goes_with_its_output() -> None:
    state = folded(started())
    assert state.upstream_position is None
    state.add(EventId(1, 1), Token("a"), {"u": 3})
    state.add(EventId(1, 2), Token("b"), {"at": 1.0, "u": 7})
    assert state.upstream_position == 7
    state.add(EventId(2, 0), started(2), {"v": 1, "u": 7})
    assert state.upstream_position == 7
    state.add(EventId(3, 0), started(3, reset=True), {"v": 1})
    assert state.upstream_position is None


def test_a_response_that_is_read_on_is_paid_for_once_by_who_reads_it_last() -> None:
    state = folded(started(), Token("a"), Token("b"))
    state.add(EventId(2, 0), started(2), {"v": 1, "u": 4})
    state.add(EventId(2, 1), Token("c"), {"u": 5})
    assert state.usage() == Usage(0, 3, estimated=True)
    assert [attempt.usage for attempt in state.listed_attempts()] == [Usage(), Usage(0, 3, estimated=True)]
    assert state.attempts[-1].uncounted == ["a", "b", "c"]
    state.add(EventId(2, 2), DONE, {"usage": {"input_tokens": 9, "output_tokens": 3}})
    assert [attempt.usage for attempt in state.listed_attempts()] == [Usage(), Usage(9, 3)]
