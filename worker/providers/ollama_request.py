"""A call, written as Ollama's own API wants it: `POST /api/chat`. No I/O, no SDK.

    OpenAI's chat                       Ollama's messages
    parts                               one `content`, and `images` as base64 beside it
    tool_calls                          the arguments as JSON instead of text
    tool, with `tool_call_id`           also the tool's name, which is what a model's template shows
    max_tokens, stop, seed …            `options`, and only what was set: the model's own defaults stand for the rest
    tool_choice: none                   no tools

What this API cannot take was refused at the submit (`shared/provider_limits.py`).
"""

from typing import Any

from shared.errors import GenerationFailed
from shared.job import ImagePart, Message, TextPart
from shared.provider_limits import arguments_object, data_url
from worker.providers.base import Call


def body_of(call: Call) -> dict[str, Any]:
    """What is sent: only what the caller set, and never `metadata`.

    Raises:
        GenerationFailed: a message that cannot be written so.
    """
    request = call.request
    chat = request.chat()
    options = {
        "num_predict": call.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": request.stop_list() or None,
    }
    set_options = {name: value for name, value in options.items() if value is not None}
    tools = request.tools if request.tool_choice != "none" else None
    return (
        {"model": call.model, "stream": True, "messages": [_message(message, chat) for message in chat]}
        | ({"options": set_options} if set_options else {})
        | ({"tools": tools} if tools else {})
    )


def _message(message: Message, chat: list[Message]) -> dict[str, Any]:
    parts = message.content if isinstance(message.content, list) else []
    text = message.content if isinstance(message.content, str) else "".join(p.text for p in parts if isinstance(p, TextPart))
    images = [_image(part) for part in parts if isinstance(part, ImagePart)]
    written: dict[str, Any] = {"role": message.role, "content": text}
    if images:
        written["images"] = images
    if message.tool_calls:
        written["tool_calls"] = [
            {"id": call.id, "function": {"name": call.function.name, "arguments": _arguments(call.id, call.function.arguments)}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        written["tool_call_id"] = message.tool_call_id
        written["tool_name"] = message.name or _tool_of(message, chat)
    return written


def _tool_of(result: Message, chat: list[Message]) -> str:
    """The name of the tool whose result this is; of calls with the same id, the last one's."""
    calls = [call for message in chat for call in message.tool_calls or () if call.id == result.tool_call_id]
    return calls[-1].function.name if calls else ""


def _image(part: ImagePart) -> str:
    image = data_url(part.image_url.url)
    if image is None:
        raise GenerationFailed("bad_request", "Ollama fetches no images: they must come as data:image/…;base64.")
    return image[1]


def _arguments(call_id: str, text: str) -> dict[str, Any]:
    arguments = arguments_object(text)
    if arguments is None:
        raise GenerationFailed("bad_request", f"The arguments of the tool call {call_id!r} are no JSON object.")
    return arguments
