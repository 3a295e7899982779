"""worker/providers/ollama_parts.py and ollama_request.py: objects as the client hands them over, valid or not."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.errors import GenerationFailed
from shared.events import Reasoning, Token, ToolCall
from shared.job import JobRequest
from worker.providers import ollama_parts
from worker.providers.base import Call, Delta
from worker.providers.ollama_parts import PartReader
from worker.providers.ollama_request import body_of


def read(reader: PartReader, message: object = None, **part: Any) -> list[Delta]:
    return list(reader.read({"message": message, **part}))


@pytest.fixture
def reader() -> PartReader:
    return PartReader("ollama/m")


def body(**request: Any) -> dict[str, Any]:
    prompt = {} if "messages" in request else {"prompt": "Hi"}
    return body_of(Call("job_x", "m", JobRequest.model_validate({"model": "ollama/m", **prompt, **request})))


@pytest.mark.parametrize(
    "message",
    [
        None,
        "text",
        [],
        {},
        {"content": "", "thinking": "", "tool_calls": []},
        {"content": None, "thinking": None, "tool_calls": None},
        {"tool_calls": "x"},
        {"tool_calls": [None, {}, {"function": None}]},
    ],
)
def test_parts_without_content_give_nothing(reader: PartReader, message: object) -> None:
    assert read(reader, message) == []
    assert (reader.finish, reader.usage) == (None, None)


def test_a_thought_comes_before_the_content_of_its_line(reader: PartReader) -> None:
    assert read(reader, {"thinking": "so", "content": "Yes"}) == [Reasoning("so"), Token("Yes")]


def test_a_call_without_an_id_gets_one_of_its_own(reader: PartReader) -> None:
    """A result has to name the call that it answers."""
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    first, second = read(reader, {"tool_calls": [call, call]})
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert (first.index, first.name, first.arguments, second.index) == (0, "f", '{"a": 1}', 1)
    assert first.id
    assert second.id
    assert first.id != second.id


def test_arguments_may_be_text_or_missing(reader: PartReader) -> None:
    calls = [{"id": "a", "function": {"name": "f", "arguments": '{"a":1}'}}, {"id": "b", "function": {"name": "g"}}]
    assert read(reader, {"tool_calls": calls}) == [ToolCall(0, "a", "f", '{"a":1}'), ToolCall(1, "b", "g", "{}")]


def test_an_answer_cut_short_in_its_calls_is_no_tool_call(reader: PartReader) -> None:
    read(reader, {"tool_calls": [{"id": "a", "function": {"name": "f"}}]})
    read(reader, done=True, done_reason="length")
    assert reader.finish == "length"


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_a_model_that_was_not_asked_gave_no_answer(reader: PartReader, reason: str) -> None:
    with pytest.raises(GenerationFailed, match=f"was not asked \\(done_reason {reason}\\)") as caught:
        read(reader, done=True, done_reason=reason)
    assert caught.value.code == "incomplete"


def test_half_a_character_waits_for_its_other_half(reader: PartReader) -> None:
    assert read(reader, {"content": "a\ud83d"}) == [Token("a")]
    assert read(reader, {"content": "\ude42b"}) == [Token("🙂b")]


def test_an_unknown_done_reason_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_parts, "_unknown_reasons", set())
    with capture_logs() as logs:
        for _ in range(3):
            reader = PartReader("ollama/m")
            read(reader, done=True, done_reason="bored")
            assert reader.finish == "stop"
    assert [(line["log_level"], line["done_reason"]) for line in logs] == [("warning", "bored")]


# --- what is sent --------------------------------------------------------------------------------------------------------


def test_a_bare_request_is_sent_bare() -> None:
    """The model's own defaults stand for what was not set."""
    assert body(stop=[], tools=[], tool_choice="auto", system="Be brief.") == {
        "model": "m",
        "stream": True,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    }


def test_images_stand_beside_the_text() -> None:
    parts = [
        {"type": "text", "text": "What "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "text", "text": "is it?"},
    ]
    assert body(messages=[{"role": "user", "content": parts}])["messages"] == [
        {"role": "user", "content": "What is it?", "images": ["AA=="]}
    ]


def test_no_choice_is_no_tools() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert body(tools=tools, tool_choice="auto")["tools"] == tools
    assert "tools" not in body(tools=tools, tool_choice="none")


@pytest.mark.parametrize(("name", "calls", "told"), [("mine", ["f"], "mine"), (None, ["f", "g"], "g"), (None, [], "")])
def test_a_result_names_its_tool(name: str | None, calls: list[str], told: str) -> None:
    """By its own `name`, else that of the last call with its id."""
    written = [{"id": "c", "type": "function", "function": {"name": call, "arguments": "{}"}} for call in calls]
    chat: list[dict[str, Any]] = [{"role": "assistant", "content": "", "tool_calls": [call]} for call in written]
    chat.append({"role": "tool", "content": "42", "tool_call_id": "c", "name": name})
    assert body(messages=chat)["messages"][-1]["tool_name"] == told


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{broken"}}]},
    ],
)
def test_what_cannot_be_written_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(GenerationFailed) as caught:
        body(messages=[message])
    assert caught.value.code == "bad_request"
