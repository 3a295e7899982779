"""shared/field_problems.py, as a caller of parse_request sees it: one line a field, and what would be right there."""

import json
from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.field_problems import MOST_PROBLEMS
from shared.job import parse_request

BARE = {"model": "openai/m", "prompt": "Hi"}


def problems(body: object) -> list[tuple[str, str]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as caught:
        parse_request(raw)
    return [(problem.field, problem.message) for problem in caught.value.problems]


def of_fields(**fields: Any) -> list[tuple[str, str]]:
    return problems({**BARE, **fields})


def of_message(message: object) -> list[tuple[str, str]]:
    return problems({"model": "openai/m", "messages": [message]})


def of_part(part: object) -> list[tuple[str, str]]:
    return of_message({"role": "user", "content": [part]})


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"model": "gpt-4o"}, "model", "must be provider/model, as openai/gpt-4o-mini"),
        ({"model": ""}, "model", "must be provider/model, as openai/gpt-4o-mini"),
        ({"model": "openai/a b"}, "model", "must be provider/model, as openai/gpt-4o-mini"),
        ({"model": 5}, "model", "must be a string"),
        ({"model": "openai/" + "m" * 300}, "model", "must have at most 300 characters"),
        ({"prompt": ""}, "prompt", "must not be empty"),
        ({"messages": []}, "messages", "must not be empty"),
        ({"messages": "Hi"}, "messages", "must be a list"),
        ({"system": 3}, "system", "must be a string"),
        ({"max_tokens": 0}, "max_tokens", "must be at least 1"),
        ({"max_tokens": 10**9}, "max_tokens", "must be at most 1000000"),
        ({"max_tokens": 1.5}, "max_tokens", "must be a whole number"),
        ({"max_tokens": True}, "max_tokens", "must be a whole number"),
        ({"temperature": "1"}, "temperature", "must be a number"),
        ({"temperature": 2.5}, "temperature", "must be at most 2"),
        ({"temperature": float("nan")}, "temperature", "must be a finite number"),
        ({"top_p": 0}, "top_p", "must be more than 0"),
        ({"seed": 2**63}, "seed", "must be at most 9223372036854775807"),
        ({"stop": 5}, "stop", "must be a string or a list"),
        ({"stop": ["a", 5]}, "stop[1]", "must be a string"),
        ({"stop": ["a", ""]}, "stop", "must not hold an empty string"),
        ({"stop": ""}, "stop", "must not hold an empty string"),
        ({"stop": ["a"] * 5}, "stop", "must have at most 4 strings"),
        ({"tools": {}}, "tools", "must be a list"),
        ({"tools": ["f"]}, "tools[0]", "must be an object"),
        ({"tool_choice": 5}, "tool_choice", "must be a string or an object"),
        ({"fallbacks": ["a/b", "c"]}, "fallbacks[1]", "must be provider/model, as openai/gpt-4o-mini"),
        ({"fallbacks": ["a/b"] * 9}, "fallbacks", "must have at most 8 items"),
        ({"on_interrupt": "wait"}, "on_interrupt", "must be 'continue', 'restart' or 'fail'"),
        ({"timeouts": 5}, "timeouts", "must be an object"),
        ({"timeouts": {"idle_s": 0}}, "timeouts.idle_s", "must be more than 0"),
        ({"timeouts": {"idle_s": float("inf")}}, "timeouts.idle_s", "must be a finite number"),
        ({"timeouts": {"idle": 1}}, "timeouts.idle", "is not a field of this request"),
        ({"metadata": {"a": 1}}, "metadata.a", "must be a string"),
        ({"metadata": {"a": "v" * 513}}, "metadata.a", "must have at most 512 characters"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata", "must have at most 16 items"),
        ({"max_token": 5}, "max_token", "is not a field of this request"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "", "send exactly one of messages and prompt"),
    ],
)
def test_a_field_of_the_request(fields: dict[str, Any], field: str, message: str) -> None:
    assert of_fields(**fields) == [(field, message)]


@pytest.mark.parametrize(
    ("message", "field", "said"),
    [
        ("Hi", "messages[0]", "must be an object"),
        ({"content": "Hi"}, "messages[0].role", "is required"),
        ({"role": "bot", "content": "Hi"}, "messages[0].role", "must be 'system', 'user', 'assistant' or 'tool'"),
        ({"role": "user", "content": 5}, "messages[0].content", "must be a string or a list"),
        ({"role": "user", "content": "Hi", "str": 1}, "messages[0].str", "is not a field of this request"),
        ({"role": "tool", "content": "42"}, "messages[0]", "a tool message needs the tool_call_id that it answers"),
        (
            {"role": "user", "content": None},
            "messages[0]",
            "content may be null only for an assistant message with tool_calls",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
            "messages[0].tool_calls[0].function.arguments",
            "is required",
        ),
    ],
)
def test_a_field_of_a_message(message: object, field: str, said: str) -> None:
    assert of_message(message) == [(field, said)]


@pytest.mark.parametrize(
    ("part", "field", "said"),
    [
        ("Hi", "", "must be an object"),
        ({}, ".type", "is required"),
        ({"type": "audio"}, ".type", "must be one of 'text', 'image_url'"),
        ({"type": "text"}, ".text", "is required"),
        ({"type": "text", "text": 4}, ".text", "must be a string"),
        ({"type": "text", "text": "Hi", "text2": 1}, ".text2", "is not a field of this request"),
        ({"type": "text", "text": "Hi", "image_url": 1}, ".image_url", "is not a field of this request"),
        ({"type": "image_url", "image_url": "https://x"}, ".image_url", "must be an object"),
        ({"type": "image_url", "image_url": {}}, ".image_url.url", "is required"),
        (
            {"type": "image_url", "image_url": {"url": "x", "detail": "huge"}},
            ".image_url.detail",
            "must be 'auto', 'low' or 'high'",
        ),
    ],
)
def test_a_field_of_a_content_part(part: object, field: str, said: str) -> None:
    assert of_part(part) == [(f"messages[0].content[0]{field}", said)]


def test_names_in_metadata_are_the_callers_whatever_they_look_like() -> None:
    names = ["str", "text", "list[x]", "[key]"]
    assert [field for field, _ in of_fields(metadata=dict.fromkeys(names, 1))] == [f"metadata.{name}" for name in names]


def test_a_name_in_metadata_that_is_too_long_is_cut() -> None:
    [(field, message)] = of_fields(metadata={"k" * 5000: "v"})
    assert message == "its name must have at most 64 characters"
    assert len(field) < 100


@pytest.mark.parametrize("body", [[], 5, "Hi", None])
def test_a_body_that_is_no_object(body: object) -> None:
    assert problems(body) == [("", "the body must be an object")]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"model": "openai/m"', b'{"a":1}}', b'{"prompt":"\\ud800"}'])
def test_a_body_that_is_no_json(body: bytes) -> None:
    [(field, message)] = problems(body)
    assert field == ""
    assert message.startswith("the body is not JSON: ")


def test_neither_messages_nor_prompt() -> None:
    assert problems({"model": "openai/m"}) == [("", "send exactly one of messages and prompt")]


def test_every_field_has_its_line_and_the_summary_names_them_all() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(json.dumps({**BARE, "foo": 1, "stop": 5, "seed": -1}).encode())
    assert {problem.field for problem in caught.value.problems} == {"foo", "stop", "seed"}
    assert str(caught.value) == "The request is not valid: see stop, seed, foo."


def test_a_body_that_is_wrong_everywhere_gets_a_short_answer() -> None:
    assert len(problems({"model": "openai/m", "messages": ["Hi"] * 1000})) == MOST_PROBLEMS
