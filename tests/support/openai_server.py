"""A server on loopback that speaks OpenAI's Chat Completions stream, as its public documentation shows it.

async with OpenAIServer() as server:
    server.on("cut", text("Hel"), text("lo"), Cut())        # scripts and steps: see upstream.py
    … LASTEVENT_OPENAI_BASE_URL=server.url …
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.upstream import DEFAULT_TEXT, Cut, Pause, Received, ScriptedUpstream, Stall, Status, Step, words

__all__ = ["DEFAULT_TEXT", "DONE", "Cut", "OpenAIServer", "Pause", "Received", "Stall", "Status", "Step"]

DONE = b"data: [DONE]\n\n"


def event(data: object) -> bytes:
    """One SSE event of compact JSON, as OpenAI writes it."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _chunk([choice], **more)


def _chunk(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None, **more: Any) -> bytes:
    head = {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1741570283,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_fc9f1d7035",
    }
    return event({**head, "choices": choices, "usage": usage, **more})


def role() -> bytes:
    """The first chunk of every answer: a role and an empty text."""
    return chunk({"role": "assistant", "content": "", "refusal": None})


def text(piece: str) -> bytes:
    return chunk({"content": piece})


def refusal(piece: str) -> bytes:
    return chunk({"refusal": piece})


def reasoning(piece: str, name: str = "reasoning_content") -> bytes:
    """As compatible servers send it: `reasoning_content` (DeepSeek, vLLM) or `reasoning` (OpenRouter, Ollama)."""
    return chunk({"content": None, name: piece})


def tool_call(index: int, arguments: str = "", id: str | None = None, name: str | None = None) -> bytes:
    """A piece of a call: the first carries `id` and `name`, the rest only arguments."""
    function = {"arguments": arguments} | ({"name": name} if name else {})
    opening = {"id": id, "type": "function"} if id else {}
    return chunk({"tool_calls": [{"index": index, **opening, "function": function}]})


def finish(reason: str = "stop") -> bytes:
    return chunk({}, reason)


def usage(input_tokens: int, output_tokens: int) -> bytes:
    """The usage chunk, which has no choices."""
    counts = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": input_tokens + output_tokens}
    details = {
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    return _chunk([], counts | details)


def error_event(message: str, type: str = "server_error", code: str | int | None = None) -> bytes:
    """An error in mid-stream."""
    return event({"error": {"message": message, "type": type, "param": None, "code": code}})


def error_body(message: str, type: str = "invalid_request_error", code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": type, "param": None, "code": code}}).encode()


def answer(whole: str = DEFAULT_TEXT, reason: str = "stop") -> list[Step]:
    """A whole, undisturbed answer, word by word."""
    pieces = words(whole)
    return [role(), *map(text, pieces), finish(reason), usage(9, len(pieces)), DONE]


def counted(n: int, per_second: float) -> Iterator[Step]:
    """`n` words, `w0 w1 w2 …`, each its own chunk."""
    yield role()
    for i in range(n):
        if per_second:
            yield Pause(1 / per_second)
        yield text(f"w{i} ")
    yield from (finish(), usage(9, n), DONE)


class OpenAIServer(ScriptedUpstream):
    path = "/v1/chat/completions"
    content_type = "text/event-stream; charset=utf-8"

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL is to be."""
        return f"{self.origin}/v1"

    def answer(self) -> list[Step]:
        return answer()

    def counted(self, n: int, per_second: float) -> Iterator[Step]:
        return counted(n, per_second)

    def not_found(self, path: str) -> Status:
        return Status(404, error_body(f"Invalid URL (POST {path})"))
