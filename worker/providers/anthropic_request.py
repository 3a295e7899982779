"""A call, written as Anthropic's Messages API wants it. No I/O, no SDK.

    OpenAI's chat                       Anthropic's messages
    system messages                     `system`, one text, wherever they stood
    user: text, image_url parts         user: text and image blocks
    assistant: text, tool_calls         assistant: text and tool_use blocks, the arguments as JSON instead of text
    tool                                a tool_result block in a user message
    two of one role in a row            one message with the blocks of both
    the text so far (a prefix)          the last assistant message, which the answer continues
    temperature, top_p                  the same, in the API's older version: since 2026-10-21 it refuses both

What this API cannot take was refused at the submit (`shared/provider_limits.py`).
"""

from collections.abc import Iterator
from typing import Any, Final

from shared.errors import GenerationFailed
from shared.job import ImagePart, JobRequest, Message, TextPart
from shared.provider_limits import arguments_object, chosen_tool, data_url
from worker.providers.base import Call

SAMPLING_VERSION: Final = "2023-06-01"
"""The newest `anthropic-version` that takes temperature and top_p, of the models that have them. Everything else that is
sent and comes is the same in both."""

Block = dict[str, Any]

_ROLES: Final = {"user": "user", "assistant": "assistant", "tool": "user"}


def arguments_of(call: Call, default_max_tokens: int, prefill: str = "") -> dict[str, Any]:
    """What `messages.create` gets, beside `stream`: only what the caller set, `max_tokens` apart, and never `metadata`.

    Args:
        default_max_tokens: where the caller set none; the API wants a number.
        prefill: the start of the answer, without white space at its end; empty for an answer from its start.

    Raises:
        GenerationFailed: a message that cannot be written so.
    """
    request = call.request
    chat = request.chat()
    arguments: dict[str, Any] = {
        "system": "\n\n".join(text for message in chat if message.role == "system" if (text := _text(message))) or None,
        "stop_sequences": request.stop_list() or None,
        "tools": [_tool(tool["function"]) for tool in request.tools or ()] or None,
        "tool_choice": _tool_choice(request) if request.tools else None,
    }
    return {
        "model": call.model,
        "max_tokens": call.max_tokens or default_max_tokens,
        "messages": _messages(chat, prefill),
    } | _set(**arguments, **_past_the_sdk(call))


def _past_the_sdk(call: Call) -> Block:
    """What it has no parameters for: sampling not any more, and for the id of a request never."""
    sampling = _set(temperature=call.request.temperature, top_p=call.request.top_p)
    version = {"anthropic-version": SAMPLING_VERSION} if sampling else {}
    return {"extra_body": sampling or None, "extra_headers": call.headers() | version or None}


def _set(**values: Any) -> Block:
    return {name: value for name, value in values.items() if value is not None}


def _messages(chat: list[Message], prefill: str) -> list[Block]:
    messages: list[Block] = []
    for message in chat:
        if message.role != "system" and (blocks := list(_blocks(message))):
            _add(messages, _ROLES[message.role], blocks)
    if prefill:
        _add(messages, "assistant", [{"type": "text", "text": prefill}])
    return messages


def _add(messages: list[Block], role: str, blocks: list[Block]) -> None:
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": role, "content": blocks})


def _blocks(message: Message) -> Iterator[Block]:
    if message.role == "tool":
        content = list(_content(message))
        yield {"type": "tool_result", "tool_use_id": message.tool_call_id} | ({"content": content} if content else {})
        return
    yield from _content(message)
    for call in message.tool_calls or ():
        arguments = arguments_object(call.function.arguments)
        if arguments is None:
            raise GenerationFailed("bad_request", f"The arguments of the tool call {call.id!r} are no JSON object.")
        yield {"type": "tool_use", "id": call.id, "name": call.function.name, "input": arguments}


def _content(message: Message) -> Iterator[Block]:
    """Text and images; the API refuses empty text."""
    parts = [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else message.content or []
    for part in parts:
        if isinstance(part, ImagePart):
            yield {"type": "image", "source": _source(part.image_url.url)}
        elif part.text:
            yield {"type": "text", "text": part.text}


def _source(url: str) -> Block:
    image = data_url(url)
    if image is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": image[0], "data": image[1]}


def _text(message: Message) -> str:
    return "".join(block["text"] for block in _content(message) if block["type"] == "text")


def _tool(function: dict[str, Any]) -> Block:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return _set(
        name=function["name"], description=function.get("description"), strict=function.get("strict"), input_schema=schema
    )


def _tool_choice(request: JobRequest) -> Block | None:
    choice = request.tool_choice
    if isinstance(choice, dict):
        return {"type": "tool", "name": chosen_tool(choice)}
    return {"type": "any" if choice == "required" else choice} if choice else None
