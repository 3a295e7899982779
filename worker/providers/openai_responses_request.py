"""A job's request as the Responses API takes it. No I/O, no SDK.

Its messages are a flat list of items, in which a tool call and its result each stand by themselves; its tools are flat too.
What the API has no field for (`stop`, `seed`, a speaker's name) is refused at the submit: shared/provider_limits.py.
"""

from collections.abc import Iterator
from typing import Any

from shared.job import ImagePart, Message, TextPart
from shared.provider_limits import chosen_tool
from worker.providers.base import Call


def arguments_of(call: Call) -> dict[str, Any]:
    """What is sent, beside how it is to be answered: only what the caller set, and never `metadata`."""
    request = call.request
    arguments: dict[str, Any] = {
        "max_output_tokens": call.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": [_tool(tool["function"]) for tool in request.tools or ()] or None,
        "tool_choice": _tool_choice(request.tool_choice) if request.tools else None,  # a choice among none is refused
    }
    items = [item for message in request.chat() for item in _items(message)]
    return {"model": call.model, "input": items} | {name: value for name, value in arguments.items() if value is not None}


def _items(message: Message) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": _content(message)}
        return
    if message.content or not message.tool_calls:
        yield {"role": message.role, "content": _content(message)}
    for call in message.tool_calls or ():
        function = call.function
        yield {"type": "function_call", "call_id": call.id, "name": function.name, "arguments": function.arguments}


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, list):
        # What the model itself said goes back as output: the API refuses it as input.
        text_type = "output_text" if message.role == "assistant" else "input_text"
        return [_part(part, text_type) for part in message.content]
    return message.content or ""


def _part(part: TextPart | ImagePart, text_type: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": text_type, "text": part.text}
    return {"type": "input_image", "image_url": part.image_url.url, "detail": part.image_url.detail or "auto"}


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    """`strict` and `parameters` have other defaults in Chat Completions, and those are what the caller meant."""
    flat = {"type": "function", "strict": False, "parameters": {"type": "object", "properties": {}}}
    return flat | {name: value for name, value in function.items() if value is not None}


def _tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    return {"type": "function", "name": chosen_tool(choice)} if isinstance(choice, dict) else choice
