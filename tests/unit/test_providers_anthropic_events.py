"""worker/providers/anthropic_events.py: events as the SDK builds them from JSON, valid or not."""

from typing import Any

import pytest
from anthropic._models import construct_type
from anthropic.types import RawMessageStreamEvent
from structlog.testing import capture_logs

from shared.errors import GenerationFailed
from shared.events import Reasoning, Token, ToolCall, Usage
from worker.providers import anthropic_events
from worker.providers.anthropic_events import EventReader
from worker.providers.base import Delta
from worker.providers.prefill import Prefill


def read(reader: EventReader, type: str | None, **fields: Any) -> list[Delta]:
    return list(reader.read(construct_type(type_=RawMessageStreamEvent, value={"type": type, **fields})))


def said(reader: EventReader, piece: object, index: int = 0) -> list[Delta]:
    return read(reader, "content_block_delta", index=index, delta={"type": "text_delta", "text": piece})


def call(reader: EventReader, index: int, **block: Any) -> list[Delta]:
    return read(reader, "content_block_start", index=index, content_block={"type": "tool_use", **block})


def piece(reader: EventReader, index: int, partial_json: object) -> list[Delta]:
    delta = {"type": "input_json_delta", "partial_json": partial_json}
    return read(reader, "content_block_delta", index=index, delta=delta)


@pytest.fixture
def reader() -> EventReader:
    return EventReader("anthropic/m")


@pytest.mark.parametrize(
    ("type", "fields"),
    [
        (None, {}),
        ("ping", {}),
        ("from_the_future", {"delta": {"type": "text_delta", "text": "x"}}),
        ("message_start", {}),
        ("message_start", {"message": None}),
        ("message_start", {"message": {"usage": None}}),
        ("content_block_start", {}),
        ("content_block_start", {"index": 0, "content_block": None}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        ("content_block_start", {"index": 0, "content_block": {"type": "redacted_thinking", "data": "x"}}),
        ("content_block_start", {"index": 0, "content_block": {"type": "server_tool_use", "id": "x", "name": "web_search"}}),
        ("content_block_delta", {}),
        ("content_block_delta", {"index": 0, "delta": None}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": ""}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta"}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "signature_delta", "signature": "x"}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "citations_delta", "citation": {}}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {}),
        ("message_delta", {"delta": {"stop_reason": None}, "usage": {}}),
    ],
)
def test_events_without_content_give_nothing(reader: EventReader, type: str | None, fields: dict[str, Any]) -> None:
    assert read(reader, type, **fields) == []
    assert (reader.finish, reader.usage, reader.ended) == (None, None, False)


@pytest.mark.parametrize("data", [None, [], "text"])
def test_what_is_no_event_gives_nothing(reader: EventReader, data: object) -> None:
    assert list(reader.read(data)) == []


def test_a_block_may_open_with_content(reader: EventReader) -> None:
    for kind, delta in (("text", Token("x")), ("thinking", Reasoning("x"))):
        assert read(reader, "content_block_start", index=0, content_block={"type": kind, kind: "x"}) == [delta]


def test_a_call_whose_arguments_came_whole(reader: EventReader) -> None:
    """As some servers send them; they are told once, at the block's end."""
    assert call(reader, 0, id="a", name="f", input={"city": "Köln"}) == [ToolCall(0, "a", "f")]
    assert piece(reader, 0, "") == []
    assert read(reader, "content_block_stop", index=0) == [ToolCall(0, arguments='{"city": "Köln"}')]


def test_arguments_in_pieces_stand_for_themselves(reader: EventReader) -> None:
    call(reader, 0, id="a", name="f", input={})
    assert piece(reader, 0, '{"a":') + piece(reader, 0, "1}") == [ToolCall(0, arguments='{"a":'), ToolCall(0, arguments="1}")]
    assert read(reader, "content_block_stop", index=0) == []


def test_calls_at_once_are_kept_apart(reader: EventReader) -> None:
    call(reader, 1, id="a", name="f", input={})
    call(reader, 4, id="b", name="g", input={})
    assert piece(reader, 4, "{}") + piece(reader, 1, "{}") == [ToolCall(1, arguments="{}"), ToolCall(0, arguments="{}")]


def test_usage_is_the_last_of_each_count(reader: EventReader) -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 20, "cache_creation_input_tokens": None, "output_tokens": 1}
    read(reader, "message_start", message={"usage": usage})
    assert reader.usage == Usage(25, 1)
    read(reader, "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9})
    assert reader.usage == Usage(25, 9)
    read(reader, "message_delta", delta={}, usage={"input_tokens": 6, "output_tokens": 10})
    assert reader.usage == Usage(26, 10)


def test_half_a_character_waits_for_its_other_half(reader: EventReader) -> None:
    """Text and each call keep their own half."""
    call(reader, 1, id="a", name="f", input={})
    assert said(reader, "a\ud83d") == [Token("a")]
    assert piece(reader, 1, '"\ud83c') == [ToolCall(0, arguments='"')]
    assert said(reader, "\ude42b") == [Token("🙂b")]
    assert piece(reader, 1, "\udf31") == [ToolCall(0, arguments="🌱")]


@pytest.mark.parametrize("form", [["a part"], {"type": "text"}, 7])
def test_content_that_is_no_text_is_refused(reader: EventReader, form: object) -> None:
    with pytest.raises(GenerationFailed, match="anthropic/m sent content") as caught:
        said(reader, form)
    assert caught.value.code == "unsupported"


def test_a_pause_is_no_end(reader: EventReader) -> None:
    with capture_logs() as logs, pytest.raises(GenerationFailed, match="pause_turn") as caught:
        read(reader, "message_delta", delta={"stop_reason": "pause_turn"}, usage={"output_tokens": 1})
    assert (caught.value.code, caught.value.retryable) == ("incomplete", False)
    assert [line["event"] for line in logs] == ["upstream paused its turn"]
    assert reader.usage == Usage(0, 1)


def test_an_unknown_stop_reason_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_events, "_unknown_reasons", set())
    with capture_logs() as logs:
        for _ in range(3):
            reader = EventReader("anthropic/m")
            read(reader, "message_delta", delta={"stop_reason": "bored"}, usage={"output_tokens": 1})
            assert reader.finish == "stop"
    assert [(line["log_level"], line["stop_reason"]) for line in logs] == [("warning", "bored")]


@pytest.mark.parametrize(
    ("kept", "comes", "goes_on"),
    [
        ("Once", [" upon"], [" upon"]),
        ("Once ", [" upon", " a"], ["upon", " a"]),
        ("Once ", ["upon"], ["upon"]),
        ("Once\n\n", ["\n", "\n", "\n", "upon"], ["\n", "upon"]),
        ("Once  ", [" ", "upon"], ["upon"]),
        (" \n", ["\n\n x"], [" x"]),
        ("", [" x"], [" x"]),
    ],
)
def test_white_space_that_was_not_sent_is_not_doubled(kept: str, comes: list[str], goes_on: list[str]) -> None:
    prefill = Prefill(kept)
    reader = EventReader("anthropic/m", prefill)
    assert kept == prefill.sent + kept[len(prefill.sent) :]
    assert [delta for text in comes for delta in said(reader, text)] == [Token(text) for text in goes_on]
