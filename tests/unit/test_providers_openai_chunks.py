"""worker/providers/openai_chunks.py: chunks as servers send them, valid or not."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.errors import GenerationFailed
from shared.events import Reasoning, Token, ToolCall, Usage
from worker.providers import openai_chunks
from worker.providers.base import Delta
from worker.providers.openai_chunks import ChunkReader


def read(reader: ChunkReader, data: object) -> list[Delta]:
    return list(reader.read(data))


def content(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}


@pytest.fixture
def reader() -> ChunkReader:
    return ChunkReader("openai/m")


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": None}], "usage": None},
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "refusal": ""}}]},
        {"choices": [{"index": 0, "delta": {"content": None, "reasoning": "", "reasoning_content": None}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": []}}]},
        {"choices": ["text"], "usage": 7},
        {"choices": {"0": {}}},
        {"choices": [{"index": 0, "delta": "text", "finish_reason": {"type": "stop"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": {"index": 0}}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": ["text", {"id": 7, "function": "f"}, {"function": {"name": {}}}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "", "function": {"arguments": ""}}]}}]},
    ],
)
def test_chunks_without_content_give_nothing(reader: ChunkReader, data: object) -> None:
    assert read(reader, data) == []
    assert (reader.finish, reader.usage, reader.complete) == (None, None, False)


def test_reasoning_comes_before_the_content_of_its_chunk(reader: ChunkReader) -> None:
    assert read(reader, content(reasoning="so", content="Yes")) == [Reasoning("so"), Token("Yes")]


def test_a_chunk_may_hold_content_and_the_end(reader: ChunkReader) -> None:
    chunk = {
        "choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    assert read(reader, chunk) == [Token("!")]
    assert (reader.finish, reader.usage, reader.complete) == ("length", Usage(3, 4), True)


def test_a_running_count_is_not_the_last_word(reader: ChunkReader) -> None:
    for n in (1, 2):
        read(reader, content(content="x") | {"usage": {"prompt_tokens": 3, "completion_tokens": n}})
    read(reader, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    assert not reader.complete
    read(reader, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert (reader.usage, reader.complete) == (Usage(3, 2), True)


def test_id_and_name_of_a_tool_call_go_on_once(reader: ChunkReader) -> None:
    def piece(arguments: str) -> dict[str, Any]:
        function = {"name": "weather", "arguments": arguments}
        return content(tool_calls=[{"index": 0, "id": "call_1", "function": function}])

    assert read(reader, piece('{"a')) == [ToolCall(0, "call_1", "weather", '{"a')]
    assert read(reader, piece('":1}')) == [ToolCall(0, arguments='":1}')]


def test_tool_calls_without_an_index_are_counted(reader: ChunkReader) -> None:
    opening = [{"id": "a", "function": {"name": "f", "arguments": ""}}, {"id": "b", "function": {"name": "g"}}]
    assert read(reader, content(tool_calls=opening)) == [ToolCall(0, "a", "f"), ToolCall(1, "b", "g")]
    assert read(reader, content(tool_calls=[{"function": {"arguments": "{}"}}])) == [ToolCall(1, arguments="{}")]


def test_half_a_character_waits_for_its_other_half(reader: ChunkReader) -> None:
    """Content, reasoning and arguments each keep their own half."""
    assert read(reader, content(content="a\ud83d")) == [Token("a")]
    assert read(reader, content(reasoning="\ud83c")) == []
    assert read(reader, content(content="\ude42b")) == [Token("🙂b")]
    assert read(reader, content(reasoning="\udf31")) == [Reasoning("🌱")]


@pytest.mark.parametrize(("text", "whole"), [("\ude42", "\ufffd"), ("a\ud83db", "a\ufffdb")])
def test_half_a_character_that_has_no_other_half_is_replaced(reader: ChunkReader, text: str, whole: str) -> None:
    assert read(reader, content(content=text)) == [Token(whole)]


@pytest.mark.parametrize("form", [["a part"], {"type": "text"}, 7])
def test_content_that_is_no_text_is_refused(reader: ChunkReader, form: object) -> None:
    with pytest.raises(GenerationFailed, match="openai/m sent content") as caught:
        read(reader, content(content=form))
    assert caught.value.code == "unsupported"


def test_an_unknown_finish_reason_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_chunks, "_unknown_reasons", set())
    with capture_logs() as logs:
        for _ in range(3):
            reader = ChunkReader("openai/m")
            read(reader, {"choices": [{"index": 0, "delta": {}, "finish_reason": "bored"}]})
            assert reader.finish == "stop"
    assert [(line["log_level"], line["finish_reason"]) for line in logs] == [("warning", "bored")]
