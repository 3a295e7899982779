"""A server on loopback that speaks Ollama's chat stream, as its public documentation shows it: an object a line.

async with OllamaServer() as server:
    server.on("cut", text("Hel"), text("lo"), Cut())        # scripts and steps: see upstream.py
    … OLLAMA_HOST=server.url …
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.upstream import DEFAULT_TEXT, Pause, ScriptedUpstream, Status, Step, words


def line(**fields: Any) -> bytes:
    head = {"model": "llama3.2", "created_at": "2026-10-26T17:15:24.097767Z"}
    return json.dumps(head | fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def text(piece: str) -> bytes:
    return line(message={"role": "assistant", "content": piece}, done=False)


def thinking(piece: str) -> bytes:
    return line(message={"role": "assistant", "content": "", "thinking": piece}, done=False)


def tool_call(name: str, arguments: dict[str, Any], id: str | None = None, index: int = 0) -> bytes:
    """A whole call; servers before 0.12 give no id."""
    call = ({"id": id} if id else {}) | {"function": {"index": index, "name": name, "arguments": arguments}}
    return line(message={"role": "assistant", "content": "", "tool_calls": [call]}, done=False)


def done(reason: str | None = "stop", input_tokens: int | None = 9, output_tokens: int | None = 1) -> bytes:
    """The last line. Durations are nanoseconds."""
    counts = {"prompt_eval_count": input_tokens, "eval_count": output_tokens, "done_reason": reason}
    durations = {"total_duration": 174560334, "load_duration": 101397084, "eval_duration": 52479709}
    told = {name: value for name, value in counts.items() if value is not None}
    return line(message={"role": "assistant", "content": ""}, done=True, **told, **durations)


def error_line(message: str) -> bytes:
    """An error in mid-stream."""
    return json.dumps({"error": message}).encode() + b"\n"


def error_body(message: str) -> bytes:
    return json.dumps({"error": message}).encode()


def answer(whole: str = DEFAULT_TEXT, reason: str = "stop") -> list[Step]:
    """A whole, undisturbed answer, word by word."""
    pieces = words(whole)
    return [*map(text, pieces), done(reason, 9, len(pieces))]


def counted(n: int, per_second: float) -> Iterator[Step]:
    """`n` words, `w0 w1 w2 …`, each its own line."""
    for i in range(n):
        if per_second:
            yield Pause(1 / per_second)
        yield text(f"w{i} ")
    yield done(output_tokens=n)


class OllamaServer(ScriptedUpstream):
    path = "/api/chat"
    content_type = "application/x-ndjson"

    @property
    def url(self) -> str:
        """What OLLAMA_HOST is to be."""
        return self.origin

    def answer(self) -> list[Step]:
        return answer()

    def counted(self, n: int, per_second: float) -> Iterator[Step]:
        return counted(n, per_second)

    def not_found(self, path: str) -> Status:
        return Status(404, b"404 page not found", {"content-type": "text/plain"})
