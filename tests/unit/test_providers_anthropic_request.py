"""worker/providers/anthropic_request.py: OpenAI's chat, as Anthropic's Messages API wants it."""

from typing import Any

import pytest

from shared.errors import GenerationFailed
from shared.job import JobRequest
from worker.providers.anthropic_request import arguments_of
from worker.providers.base import Call

DATA_URL = "data:image/png;base64,iVBORw0KGgo="


def arguments(prefill: str = "", max_tokens: int | None = None, **request: Any) -> dict[str, Any]:
    prompt = {} if "messages" in request else {"prompt": "Hi"}
    call = Call("job_x", "m", JobRequest.model_validate({"model": "anthropic/m", **prompt, **request}), max_tokens)
    return arguments_of(call, 32_000, prefill)


def messages(*chat: dict[str, Any], prefill: str = "") -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = arguments(messages=list(chat), prefill=prefill)["messages"]
    return written


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*content: dict[str, Any] | str) -> dict[str, Any]:
    return {"role": "user", "content": [text(part) if isinstance(part, str) else part for part in content]}


def assistant(*content: dict[str, Any] | str) -> dict[str, Any]:
    return {"role": "assistant", "content": [text(part) if isinstance(part, str) else part for part in content]}


def calling(*calls: tuple[str, str, str], content: str | None = None) -> dict[str, Any]:
    written = [{"id": id, "type": "function", "function": {"name": name, "arguments": said}} for id, name, said in calls]
    return {"role": "assistant", "content": content, "tool_calls": written}


def test_a_bare_request_is_sent_bare() -> None:
    assert arguments(stop=[], tools=[], tool_choice="none") == {"model": "m", "max_tokens": 32_000, "messages": [user("Hi")]}


def test_max_tokens_is_what_is_left() -> None:
    assert arguments(max_tokens=7)["max_tokens"] == 7


def test_system_texts_are_collected_from_wherever_they_stand() -> None:
    chat = [
        {"role": "system", "content": "One."},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": [text("Tw"), text("o.")]},
    ]
    written = arguments(system="First.", messages=chat)
    assert written["system"] == "First.\n\nOne.\n\nTwo."
    assert written["messages"] == [user("Hi")]


def test_two_of_one_role_become_one_message() -> None:
    chat = [{"role": role, "content": said} for role, said in (("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d"))]
    assert messages(*chat) == [user("a", "b"), assistant("c"), user("d")]


def test_empty_text_is_left_out() -> None:
    """The API refuses it."""
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": [text(""), text("a")]},
        {"role": "assistant", "content": ""},
        user("b"),
    ]
    assert messages(*chat) == [user("a", "b")]


def test_images_by_address_and_by_value() -> None:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in ("https://x/y.png", DATA_URL)]
    assert messages({"role": "user", "content": [text("What?"), *parts]}) == [
        user(
            "What?",
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        )
    ]


def test_tool_calls_and_their_results() -> None:
    """All results of a turn stand in one message, before what the user says to them."""
    chat = [
        {"role": "user", "content": "Weather?"},
        calling(("c1", "weather", '{"city":"Rome"}'), ("c2", "time", ""), content="Let me see."),
        {"role": "tool", "content": "Sunny", "tool_call_id": "c1"},
        {"role": "tool", "content": [text("Noon")], "tool_call_id": "c2"},
        {"role": "tool", "content": "", "tool_call_id": "c3"},
        {"role": "user", "content": "And?"},
    ]
    assert messages(*chat)[1:] == [
        assistant(
            "Let me see.",
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "c2", "name": "time", "input": {}},
        ),
        user(
            {"type": "tool_result", "tool_use_id": "c1", "content": [text("Sunny")]},
            {"type": "tool_result", "tool_use_id": "c2", "content": [text("Noon")]},
            {"type": "tool_result", "tool_use_id": "c3"},
            "And?",
        ),
    ]


@pytest.mark.parametrize("said", ["{broken", "[1]", "7"])
def test_arguments_that_are_no_object_are_refused(said: str) -> None:
    with pytest.raises(GenerationFailed, match="'c1' are no JSON object") as caught:
        messages(calling(("c1", "f", said)))
    assert caught.value.code == "bad_request"


def test_tools() -> None:
    schema = {"type": "object", "properties": {"where": {"type": "object", "properties": {"city": {"type": "string"}}}}}
    full = {"name": "weather", "description": "Now.", "parameters": schema, "strict": True}
    tools = [{"type": "function", "function": full}, {"type": "function", "function": {"name": "time"}}]
    assert arguments(tools=tools)["tools"] == [
        {"name": "weather", "description": "Now.", "strict": True, "input_schema": schema},
        {"name": "time", "input_schema": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_tool_choice(choice: object, written: dict[str, str]) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert arguments(tools=tools, tool_choice=choice)["tool_choice"] == written
    assert "tool_choice" not in arguments(tool_choice=choice), "refused without tools"


@pytest.mark.parametrize(
    ("chat", "last"),
    [
        ([user("Hi")], assistant("Once")),
        ([user("Hi"), assistant("Well: ")], assistant("Well: ", "Once")),
    ],
)
def test_a_prefill_is_what_the_assistant_said_last(chat: list[dict[str, Any]], last: dict[str, Any]) -> None:
    assert messages(*chat, prefill="Once")[-1] == last
