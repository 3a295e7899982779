"""web/sse.py: frames and merging by example; tests/properties/test_merging.py has the rest (protocol 3 and 4)."""

import json

import pytest

from shared.events import AnyEvent, Reasoning, Token, ToolCall, to_data
from shared.ids import EventId
from web.sse import HEARTBEAT, HEARTBEAT_EVENT, REWIND, Frame, merged, reconnect, retry_line, split_frames


def frames(*events: AnyEvent, attempt: int = 1) -> list[Frame]:
    return [Frame(EventId(attempt, n), to_data(event)) for n, event in enumerate(events, 1)]


def joined(events: list[Frame], limit: int = 1 << 16) -> list[tuple[str, dict[str, object]]]:
    return [(str(frame.id), json.loads(frame.data)) for frame in merged(events, limit)]


def test_a_frame_is_an_id_line_and_a_data_line() -> None:
    assert Frame(EventId(2, 7), b"{}").encode() == b"id: 2-7\ndata: {}\n\n"


def test_what_is_not_of_the_log_has_no_id() -> None:
    assert REWIND == b'data: {"type":"rewind"}\n\n'
    assert reconnect("draining") == b'data: {"type":"reconnect","reason":"draining"}\n\n'
    assert (HEARTBEAT, HEARTBEAT_EVENT) == (b": hb\n\n", b'data: {"type":"heartbeat"}\n\n')


def test_the_retry_line_is_within_its_bounds() -> None:
    seen = {retry_line(1, 4) for _ in range(200)}
    assert seen == {b"retry: %d\n\n" % ms for ms in (1, 2, 3, 4)}


def test_neighbours_become_one_frame_with_the_last_ones_id() -> None:
    assert joined(frames(Token("a"), Token("b"), Token("c"))) == [("1-3", {"type": "token", "text": "abc", "n": 3})]


def test_one_that_stays_alone_says_no_n() -> None:
    assert joined(frames(Token("a"), Reasoning("b"))) == [
        ("1-1", {"type": "token", "text": "a"}),
        ("1-2", {"type": "reasoning", "text": "b"}),
    ]


def test_attempts_are_never_joined() -> None:
    assert [i for i, _ in joined(frames(Token("a")) + frames(Token("b"), attempt=2))] == ["1-1", "2-1"]


def test_only_tool_calls_of_one_index_are_joined() -> None:
    calls = [
        ToolCall(0, arguments='{"a'),
        ToolCall(0, arguments='":1}'),
        ToolCall(1, arguments="x"),
        ToolCall(0, arguments="y"),
    ]
    assert joined(frames(*calls)) == [
        ("1-2", {"type": "tool_call", "index": 0, "arguments": '{"a":1}', "n": 2}),
        ("1-3", {"type": "tool_call", "index": 1, "arguments": "x"}),
        ("1-4", {"type": "tool_call", "index": 0, "arguments": "y"}),
    ]


def test_a_name_that_comes_after_its_id_is_not_swallowed() -> None:
    """Some servers send them in two deltas."""
    calls = [ToolCall(0, id="c"), ToolCall(0, name="f"), ToolCall(0, arguments="{"), ToolCall(0, arguments="}")]
    assert joined(frames(*calls)) == [
        ("1-1", {"type": "tool_call", "index": 0, "id": "c"}),
        ("1-2", {"type": "tool_call", "index": 0, "name": "f"}),
        ("1-4", {"type": "tool_call", "index": 0, "arguments": "{}", "n": 2}),
    ]


@pytest.mark.parametrize("text", ['"}', '","n":7}', "\\", '\\"', "\n\n", "data: x", "é😀\u2028", '{"type":"token"}'])
def test_no_text_confuses_the_joining(text: str) -> None:
    [(_, data)] = joined(frames(Token(text), Token(text)))
    assert data == {"type": "token", "text": text * 2, "n": 2}
    assert list(split_frames(b"".join(frame.encode() for frame in frames(Token(text))))) == frames(Token(text))


def test_the_limit_is_of_the_whole_frame() -> None:
    out = list(merged(frames(*[Token("x" * 100)] * 10), 500))
    assert max(len(frame.encode()) for frame in out) <= 500
    assert [json.loads(frame.data)["n"] for frame in out] == [4, 4, 2]


def test_one_larger_entry_goes_alone() -> None:
    out = joined(frames(Token("a"), Token("b" * 1000), Token("c"), Token("d")), 300)
    assert [i for i, _ in out] == ["1-1", "1-2", "1-4"]
