"""shared/events.py: the events of protocol 4.1, as stored and as sent."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import events
from shared.events import (
    AnyEvent,
    Cancelled,
    Done,
    Error,
    Queued,
    Reasoning,
    Refusal,
    Started,
    Timing,
    Token,
    ToolCall,
    Usage,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
counts = st.integers(0, 2**53)
seconds = st.none() | st.floats(0, 1e9)
usages = st.builds(Usage, counts, counts, st.booleans())
timings = st.builds(Timing, seconds, seconds, seconds, seconds)
codes: Any = st.sampled_from(["timeout", "connection", "rate_limit", "auth", "incomplete", "internal"])
finish_reasons: Any = st.sampled_from(["stop", "length", "content_filter", "tool_calls", "budget"])
start_reasons: Any = st.sampled_from(["first", "retry", "fallback", "handover", "takeover"])
sent_events: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(Queued, texts, texts, st.floats(0, 1e10)),
    st.builds(Started, counts, texts, texts, start_reasons, st.booleans(), texts),
    st.builds(Token, texts),
    st.builds(Reasoning, texts),
    st.builds(Refusal, texts),
    st.builds(ToolCall, st.integers(0, 100), st.none() | texts, st.none() | texts, st.text(st.characters(codec="utf-8"))),
    st.builds(Done, finish_reasons, usages, timings),
    st.builds(Error, codes, texts, st.booleans(), st.booleans(), usages, timings),
    st.builds(Cancelled, st.just("user"), st.booleans(), usages, timings),
)
stored_events = sent_events | st.builds(Token, texts, st.lists(st.integers(0, 2**31), min_size=1).map(tuple))

DONE = Done("stop", Usage(3, 4), Timing(0.1, 0.2, 0.3, 13.0))


def as_redis_gives(fields: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


@given(stored_events, st.dictionaries(texts, counts, max_size=3))
def test_what_is_stored_reads_back(event: AnyEvent, private: dict[str, int]) -> None:
    fields = as_redis_gives(events.to_fields(event, private))
    assert events.from_fields(fields) == event
    assert events.private_of(fields) == private


@given(sent_events)
def test_what_is_sent_reads_back(event: AnyEvent) -> None:
    assert events.decode(events.to_data(event)) == event


@given(sent_events, st.integers(1, 10_000))
def test_data_is_one_line_of_json_with_a_type(event: AnyEvent, n: int) -> None:
    data = events.to_data(event, n)
    assert b"\n" not in data
    assert b"\r" not in data
    sent = json.loads(data)
    assert sent["type"]
    assert sent.get("n", 1) == n
    assert ("n" in sent) == (n > 1)
    assert events.decode(data) == event


def test_token_ids_are_stored_and_never_sent() -> None:
    token = Token("Hel", (28, 91))
    assert events.to_fields(token) == [b"t", b"Hel", b"i", b"28,91"]
    assert events.to_data(token) == b'{"type":"token","text":"Hel"}'


def test_private_fields_are_stored_and_never_decoded_into_the_event() -> None:
    started = Started(1, "local/m", "w1", "first", False, "0-1")
    fields = as_redis_gives(events.to_fields(started, {"v": events.FORMAT_VERSION}))
    assert json.loads(fields[b"e"]).keys() == {"type", "attempt", "model", "worker", "reason", "reset", "after"}
    assert events.private_of(fields) == {"v": events.FORMAT_VERSION}
    assert events.private_of({b"t": b"x"}) == {}


def test_a_token_costs_one_short_field() -> None:
    assert events.to_fields(Token("Hel")) == [b"t", b"Hel"]
    assert events.to_fields(Reasoning("hm")) == [b"r", b"hm"]
    assert events.to_fields(Refusal("no")) == [b"f", b"no"]


def test_a_tool_call_piece_leaves_out_what_came_before() -> None:
    assert json.loads(events.to_data(ToolCall(0, arguments="{"))) == {"type": "tool_call", "index": 0, "arguments": "{"}


def test_the_terminal_events_are_three() -> None:
    assert {event for event in AnyEvent.__args__ if event.terminal} == {Done, Error, Cancelled}


def test_fields_of_a_later_release_are_ignored() -> None:
    """Protocol 4.1; web and worker may be one release apart."""
    assert events.decode('{"type":"token","text":"x","mood":"good"}') == Token("x")
    assert events.from_fields({b"z": b"1", b"t": b"x", b"p": b'{"new":1}'}) == Token("x")


@pytest.mark.parametrize(
    "data",
    ["", "{", "[]", "null", "{}", '{"type":"surprise"}', '{"type":"token"}', '{"type":"token","text":1}',
     '{"type":"done","finish_reason":"bored","usage":{},"timing":{}}', '{"type":"error","code":"sadness"}'],
)  # fmt: skip
def test_what_is_no_event_raises_a_value_error(data: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # msgspec's words are its own
        events.decode(data)


@pytest.mark.parametrize("fields", [{}, {b"x": b"1"}, {b"p": b"{}"}, {b"t": b"\xff"}, {b"t": b"x", b"i": b"1,b"}, {b"e": b"{"}])
def test_an_entry_without_a_readable_event_raises_a_value_error(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the words differ by what is wrong
        events.from_fields(fields)


def test_usages_add_up() -> None:
    assert Usage(1, 2) + Usage(3, 4) == Usage(4, 6)
    assert (Usage(1, 2, estimated=True) + Usage(3, 4)).estimated
    assert (Usage(1, 2) + Usage(3, 4, estimated=True)).estimated
