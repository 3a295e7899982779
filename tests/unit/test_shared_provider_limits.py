"""shared/provider_limits.py: what a provider cannot do is refused by the field's name."""

from typing import Any

import pytest

from shared.job import JobRequest
from shared.provider_limits import OPENAI_BACKGROUND, arguments_object, data_url, problems_of

PNG = "data:image/png;base64,iVBORw0KGgo="
HTTP = "https://x/y.png"


def fields(provider: str, **request: Any) -> list[str]:
    prompt = {} if "messages" in request else {"prompt": "Hi"}
    asked = JobRequest.model_validate({"model": f"{provider}/m", **prompt, **request})
    return [problem.field for problem in problems_of(provider, asked)]


def image(url: str, role: str = "user", **image_url: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url, **image_url}}]
    return {"role": role, "content": parts} | ({"tool_call_id": "c"} if role == "tool" else {})


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **function}}


def calling(arguments: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}


def test_openai_is_asked_anything() -> None:
    """It refuses what it cannot do itself, in words that name the field."""
    assert fields("openai", seed=1, temperature=2, tools=[{"type": "custom"}], messages=[image(HTTP, detail="low")]) == []


@pytest.mark.parametrize(
    ("provider", "request_fields"),
    [
        ("anthropic", {"temperature": 1, "top_p": 0.5, "stop": ["END"], "max_tokens": 5, "system": "Be brief."}),
        ("anthropic", {"messages": [image(PNG), image(HTTP, detail="auto"), image(HTTP, role="tool")]}),
        ("anthropic", {"messages": [calling("{}"), calling("")], "tools": [tool(strict=True)], "tool_choice": "required"}),
        ("anthropic", {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ("anthropic", {"messages": [{"role": "tool", "content": "42", "tool_call_id": "c", "name": "f"}]}),
        ("ollama", {"temperature": 2, "top_p": 0.5, "stop": "\n", "max_tokens": 5, "seed": 1, "system": "Be brief."}),
        ("ollama", {"messages": [image(PNG), calling("{}")], "tools": [tool(strict=None)], "tool_choice": "none"}),
        ("ollama", {"tool_choice": "required"}),
        ("local", {"temperature": 2, "seed": 1}),
        (OPENAI_BACKGROUND, {"temperature": 2, "top_p": 0.5, "stop": [], "max_tokens": 16, "system": "Be brief."}),
        (OPENAI_BACKGROUND, {"messages": [image(HTTP, detail="low"), image(PNG, role="tool"), calling("{broken")]}),
        (OPENAI_BACKGROUND, {"messages": [{"role": "tool", "content": "42", "tool_call_id": "c", "name": "f"}]}),
        (OPENAI_BACKGROUND, {"tools": [tool(strict=True)], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ],
)
def test_what_they_can_do(provider: str, request_fields: dict[str, Any]) -> None:
    assert fields(provider, **request_fields) == []


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"temperature": 1.1}, "temperature"),
        ({"seed": 0}, "seed"),
        ({"stop": ["END", "\n"]}, "stop"),
        ({"messages": [image("data:image/bmp;base64,AA==")]}, "messages[0].content[1].image_url.url"),
    ],
)
def test_what_anthropic_cannot_do(request_fields: dict[str, Any], field: str) -> None:
    assert fields("anthropic", **request_fields) == [field]


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"max_tokens": 15}, "max_tokens"),
        ({"stop": "END"}, "stop"),
        ({"seed": 0}, "seed"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [image(PNG, role="assistant")]}, "messages[0].content[1].image_url"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [tool(examples=[1])]}, "tools[0].function.examples"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
    ],
)
def test_what_openai_cannot_do_in_background_mode(request_fields: dict[str, Any], field: str) -> None:
    assert fields(OPENAI_BACKGROUND, **request_fields) == [field]


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"messages": [image(HTTP)]}, "messages[0].content[1].image_url.url"),
        ({"tools": [tool()], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [tool(strict=True)]}, "tools[0].function.strict"),
    ],
)
def test_what_ollama_cannot_do(request_fields: dict[str, Any], field: str) -> None:
    assert fields("ollama", **request_fields) == [field]


@pytest.mark.parametrize("provider", ["anthropic", "ollama"])
@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [calling("{}"), calling("{broken")]}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": [calling("[1]")]}, "messages[0].tool_calls[0].function.arguments"),
        ({"messages": [image(PNG, role="system")]}, "messages[0].content[1].image_url"),
        ({"messages": [image(PNG, role="assistant")]}, "messages[0].content[1].image_url"),
        ({"messages": [image(PNG, detail="high")]}, "messages[0].content[1].image_url.detail"),
        ({"messages": [image("file:///etc/passwd")]}, "messages[0].content[1].image_url.url"),
        ({"messages": [image("data:image/png;base64,not base64")]}, "messages[0].content[1].image_url.url"),
        ({"messages": [image("data:image/png,raw")]}, "messages[0].content[1].image_url.url"),
        ({"tools": [tool(), {"type": "custom"}]}, "tools[1].type"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters="none")]}, "tools[0].function.parameters"),
        ({"tools": [tool(examples=[1])]}, "tools[0].function.examples"),
        ({"tools": [tool() | {"cache": True}]}, "tools[0].cache"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": 7}}}, "tool_choice"),
    ],
)
def test_what_neither_can_do(provider: str, request_fields: dict[str, Any], field: str) -> None:
    assert fields(provider, **request_fields) == [field]


@pytest.mark.parametrize(
    ("url", "image"),
    [
        (PNG, ("image/png", "iVBORw0KGgo=")),
        ("DATA:Image/PNG;charset=x;BASE64,AA==", ("image/png", "AA==")),
        ("data:;base64,AA==", ("", "AA==")),
        ("data:image/png;base64,", ("image/png", "")),
        ("data:image/png;base64,AA", None),
        ("data:image/png;base64,ÄÄ==", None),
        ("data:image/png;base64,A A=", None),
        ("data:image/png,AA==", None),
        ("xdata:image/png;base64,AA==", None),
        ("data:image/png;base64", None),
        ("", None),
    ],
)
def test_data_urls(url: str, image: tuple[str, str] | None) -> None:
    assert data_url(url) == image


@pytest.mark.parametrize(("text", "value"), [('{"a":1}', {"a": 1}), ("", {}), ("{}", {}), ("[]", None), ("x", None)])
def test_arguments_are_an_object(text: str, value: object) -> None:
    assert arguments_object(text) == value
