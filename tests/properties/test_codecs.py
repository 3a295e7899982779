"""Events and ids, for every value: what is written reads back, and is ordered as Redis orders it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from shared.events import AnyEvent, Token, decode, from_fields, private_of, to_data, to_fields
from shared.ids import EventId
from shared.push import Push, parse_push
from tests.properties.strategies import entries_of, event_ids, events, frames_of, logs, tokens

privates = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**53), 2**53), max_size=3)


@given(events, privates)
def test_a_stored_event_reads_back_as_itself(event: AnyEvent, private: dict[str, int]) -> None:
    flat = to_fields(event, private)
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    assert from_fields(fields) == event
    assert private_of(fields) == private


@given(events)
def test_a_sent_event_reads_back_without_its_private_fields(event: AnyEvent) -> None:
    sent = decode(to_data(event))
    assert sent == (Token(event.text) if isinstance(event, Token) else event)


@given(events, st.integers(1, 2**53))
def test_what_is_sent_is_one_line_of_json(event: AnyEvent, n: int) -> None:
    """SSE ends a line at CR, LF and CR LF; a `data:` line must hold none of them."""
    data = to_data(event, n)
    assert b"\n" not in data
    assert b"\r" not in data
    assert json.loads(data).get("n", 1) == n


@given(tokens)
def test_token_ids_never_leave(token: Token) -> None:
    assert set(json.loads(to_data(token))) == {"type", "text"}


@given(event_ids, event_ids)
def test_event_ids_are_ordered_as_redis_orders_them(a: EventId, b: EventId) -> None:
    """Redis compares two unsigned 64-bit numbers, the first one first."""
    as_redis = [tuple(map(int, str(event_id).split("-"))) for event_id in (a, b)]
    assert (a < b) == (as_redis[0] < as_redis[1])
    assert EventId.from_redis(str(a).encode()) == EventId.parse(str(a)) == a


@given(logs())
def test_a_logs_ids_only_rise(log: list[tuple[EventId, AnyEvent]]) -> None:
    """What the properties are built on holds for the logs that they are built from."""
    ids = [event_id for event_id, _ in log]
    assert ids == sorted(set(ids))
    assert [entry.event for entry in entries_of(log)] == [event for _, event in log]


@given(event_ids, event_ids, st.integers(1, 500), st.booleans(), logs())
def test_a_push_reads_back_as_itself(
    before: EventId, after: EventId, n: int, terminal: bool, log: list[tuple[EventId, AnyEvent]]
) -> None:
    frames = b"".join(frame.encode() for frame in frames_of(log))
    message = f"{before} {after} {n} {'!' if terminal else '.'}\n".encode() + frames
    assert parse_push(message) == Push(before, after, n, terminal, frames)
