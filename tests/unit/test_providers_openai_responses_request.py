"""worker/providers/openai_responses_request.py: a job's request as the Responses API takes it."""

from typing import Any

import pytest

from shared.job import JobRequest
from worker.providers.base import Call
from worker.providers.openai_responses_request import arguments_of

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}


def arguments(max_tokens: int | None = None, **request: Any) -> dict[str, Any]:
    prompt = {} if "messages" in request else {"prompt": "Say hello."}
    return arguments_of(Call("job_x", "m", JobRequest.model_validate({"model": "openai/m", **prompt, **request}), max_tokens))


def items(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return arguments(messages=list(messages))["input"]  # type: ignore[no-any-return]


def tools(**function: Any) -> Any:
    return arguments(tools=[{"type": "function", "function": {"name": "f", **function}}])["tools"]


def test_a_bare_request_is_sent_bare() -> None:
    bare = {"model": "m", "input": [{"role": "user", "content": "Say hello."}]}
    assert arguments(metadata={"secret": "ours"}, token_budget=9, tools=[], tool_choice="none") == bare


def test_what_was_set_goes_by_the_names_of_this_api() -> None:
    sent = arguments(64, system="Be brief.", temperature=0.5, top_p=0.9)
    assert sent["input"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["max_output_tokens"], sent["temperature"], sent["top_p"]) == (64, 0.5, 0.9)


def test_turns_with_tool_calls_and_their_results_are_items_of_their_own() -> None:
    assert items(
        {"role": "user", "content": "And in Rome?"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
        {"role": "tool", "content": "Sunny", "tool_call_id": "c1", "name": "weather"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ) == [
        {"role": "user", "content": "And in Rome?"},
        {"role": "assistant", "content": "Let me look."},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Rome"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Sunny"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Rome"}'},
    ]


def test_empty_texts_are_sent_where_nothing_else_says_that_the_turn_was() -> None:
    assert items({"role": "user", "content": ""}, {"role": "assistant", "content": "", "tool_calls": [CALL]}) == [
        {"role": "user", "content": ""},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Rome"}'},
    ]


@pytest.mark.parametrize(("role", "kind"), [("system", "input_text"), ("user", "input_text"), ("assistant", "output_text")])
def test_parts_of_text_say_whose_they_are(role: str, kind: str) -> None:
    [item] = items({"role": role, "content": [{"type": "text", "text": "Hm"}]})
    assert item["content"] == [{"type": kind, "text": "Hm"}]


def test_images_from_users_and_tools() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
    ]
    sent = [
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
    ]
    user, tool = items({"role": "user", "content": parts}, {"role": "tool", "content": parts, "tool_call_id": "c1"})
    assert (user["content"], tool["output"]) == (sent, sent)


def test_tools_keep_the_meaning_that_they_have_in_chat_completions() -> None:
    """There a function is not strict unless it says so, and one without parameters has none."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert tools(description="d", parameters=schema, strict=True) == [
        {"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": True}
    ]
    assert tools(strict=None) == [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"}),
        (None, None),
    ],
)
def test_tool_choice_is_flat(choice: Any, sent: Any) -> None:
    asked = arguments(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice=choice)
    assert asked.get("tool_choice") == sent
