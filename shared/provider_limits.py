"""What a provider cannot do of what a request may ask: told at the submit, by the field's name, and never ignored. No I/O.

Each check knows the API of one kind of provider. What an API takes but one of its models does not (tools, images, a
temperature) only the provider itself can say; that ends the job as `bad_request`, in the provider's words.
"""

import binascii
import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any, Final

from shared.errors import FieldProblem
from shared.job import ImagePart, JobRequest, Message

ANTHROPIC_IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")


def problems_of(kind: str, request: JobRequest) -> Iterator[FieldProblem]:
    """What this kind cannot serve, in the order of the request's fields. Nothing for a kind that has no limits here."""
    if kind in _CHECKS:
        yield from _CHECKS[kind](request)


def data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of `data:image/png;base64,…`; None where it is no such thing, or its data is not base64."""
    head, comma, data = url.partition(",")
    if not comma or head[:5].lower() != "data:" or not head.lower().endswith(";base64"):
        return None
    try:
        b64decode(data, validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        return None
    return head[5:-7].partition(";")[0].lower(), data


def arguments_object(arguments: str) -> dict[str, Any] | None:
    """A tool call's arguments as the JSON object that they must be, empty text as an empty one; None where they are none."""
    try:
        value = json.loads(arguments or "{}")
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


# --- local ---------------------------------------------------------------------------------------------------------------


def _local(request: JobRequest) -> Iterator[FieldProblem]:
    if request.tools:
        yield FieldProblem("tools", "local models take no tools")
    if request.tool_choice is not None:
        yield FieldProblem("tool_choice", "local models take no tools")
    for i, message in enumerate(request.messages or ()):
        if any(_images(message)):
            yield FieldProblem(f"messages[{i}].content", "local models take text, no images")


# --- openai in background mode -------------------------------------------------------------------------------------------

OPENAI_BACKGROUND: Final = "openai_background"
"""The kind `openai` in background mode, as `problems_of` knows it. Without background mode such a server is asked anything: it
refuses what it cannot do itself, in words that name the field."""
FEWEST_OUTPUT_TOKENS: Final = 16
"""The least that the Responses API takes for max_output_tokens."""


def _openai_background(request: JobRequest) -> Iterator[FieldProblem]:
    if request.max_tokens is not None and request.max_tokens < FEWEST_OUTPUT_TOKENS:
        yield FieldProblem("max_tokens", f"must be at least {FEWEST_OUTPUT_TOKENS} for openai models in background mode")
    if request.stop_list():
        yield FieldProblem("stop", "openai models take no stop in background mode")
    if request.seed is not None:
        yield FieldProblem("seed", "openai models take no seed in background mode")
    for i, message in enumerate(request.messages or ()):
        if message.name is not None and message.role != "tool":  # there it repeats what the call says
            yield FieldProblem(f"messages[{i}].name", "openai models know no names of speakers in background mode")
        if message.role == "assistant":
            for j, _ in _images(message):
                yield FieldProblem(f"messages[{i}].content[{j}].image_url", "openai takes images from users and tools alone")
    yield from _tools(request, ("name", "description", "parameters", "strict"))
    yield from _tool_choice(request)


# --- anthropic -----------------------------------------------------------------------------------------------------------


def _anthropic(request: JobRequest) -> Iterator[FieldProblem]:
    if request.temperature is not None and request.temperature > 1:
        yield FieldProblem("temperature", "must be at most 1 for anthropic models")
    if any(not stop.strip() for stop in request.stop_list()):
        yield FieldProblem("stop", "must hold more than white space for anthropic models")
    if request.seed is not None:
        yield FieldProblem("seed", "anthropic models take no seed")
    yield from _messages(request, "anthropic", _anthropic_image)
    yield from _tools(request, ("name", "description", "parameters", "strict"))
    yield from _tool_choice(request)


def _anthropic_image(part: ImagePart) -> str | None:
    url = part.image_url.url
    if url.lower().startswith(("https://", "http://")):
        return None
    image = data_url(url)
    if image is None:
        return "must be an https: address, or data:…;base64, with what follows in base64"
    return None if image[0] in ANTHROPIC_IMAGES else f"must be one of {', '.join(ANTHROPIC_IMAGES)}"


# --- ollama --------------------------------------------------------------------------------------------------------------


def _ollama(request: JobRequest) -> Iterator[FieldProblem]:
    yield from _messages(request, "ollama", _ollama_image)
    yield from _tools(request, ("name", "description", "parameters"))
    yield from _tool_choice(request)
    if request.tools and request.tool_choice not in (None, "auto", "none"):
        yield FieldProblem("tool_choice", "ollama models choose themselves: auto or none")


def _ollama_image(part: ImagePart) -> str | None:
    image = data_url(part.image_url.url)
    return None if image else "ollama fetches no images: must be data:image/…;base64, with what follows in base64"


# --- what they share -----------------------------------------------------------------------------------------------------


def _messages(request: JobRequest, provider: str, image_problem: Callable[[ImagePart], str | None]) -> Iterator[FieldProblem]:
    for i, message in enumerate(request.messages or ()):
        path = f"messages[{i}]"
        if message.name is not None and message.role != "tool":  # there it repeats what the call says
            yield FieldProblem(f"{path}.name", f"{provider} knows no names of speakers")
        for j, call in enumerate(message.tool_calls or ()):
            if arguments_object(call.function.arguments) is None:
                yield FieldProblem(f"{path}.tool_calls[{j}].function.arguments", "must be a JSON object, as text")
        for j, part in _images(message):
            field = f"{path}.content[{j}].image_url"
            if message.role in ("system", "assistant"):
                yield FieldProblem(field, f"{provider} takes images from users and tools alone")
            elif part.image_url.detail not in (None, "auto"):
                yield FieldProblem(f"{field}.detail", f"{provider} knows no detail")
            elif problem := image_problem(part):
                yield FieldProblem(f"{field}.url", problem)


def _images(message: Message) -> Iterator[tuple[int, ImagePart]]:
    parts = message.content if isinstance(message.content, list) else []
    return ((i, part) for i, part in enumerate(parts) if isinstance(part, ImagePart))


def _tools(request: JobRequest, known: tuple[str, ...]) -> Iterator[FieldProblem]:
    for i, tool in enumerate(request.tools or ()):
        path, function = f"tools[{i}]", tool.get("function")
        if tool.get("type") != "function":
            yield FieldProblem(f"{path}.type", "must be function")
        elif not isinstance(function, dict):
            yield FieldProblem(f"{path}.function", "must be an object")
        elif not isinstance(function.get("name"), str) or not function["name"]:
            yield FieldProblem(f"{path}.function.name", "must be a string")
        elif not isinstance(function.get("parameters"), dict | None):
            yield FieldProblem(f"{path}.function.parameters", "must be an object")
        else:
            yield from (FieldProblem(f"{path}.{name}", "is not known") for name in tool if name not in ("type", "function"))
            unknown = [name for name, value in function.items() if name not in known and value is not None]
            yield from (FieldProblem(f"{path}.function.{name}", "is not known") for name in unknown)


def _tool_choice(request: JobRequest) -> Iterator[FieldProblem]:
    choice = request.tool_choice
    if choice in (None, "auto", "none", "required") or (isinstance(choice, dict) and chosen_tool(choice)):
        return
    yield FieldProblem("tool_choice", "must be auto, none, required, or a function by its name")


def chosen_tool(choice: dict[str, Any]) -> str | None:
    """The name in `{"type": "function", "function": {"name": …}}`; None where it is no such thing."""
    function = choice.get("function") if choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


_CHECKS: Final[dict[str, Callable[[JobRequest], Iterator[FieldProblem]]]] = {
    "local": _local,
    OPENAI_BACKGROUND: _openai_background,
    "anthropic": _anthropic,
    "ollama": _ollama,
}
