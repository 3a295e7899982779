"""A server on loopback that speaks OpenAI's Responses API in background mode, as its public documentation shows it.

    async with ResponsesServer() as server:
        server.on("m", text("Hel"), Cut(), text("lo"), *ending())
        … LASTEVENT_OPENAI_BASE_URL=server.url …
        assert server.resumes == [("resp_0", 4)]

A script is the life of one response, which goes on whether anybody reads it or not: `Pause`, `Until` and `Stall` hold it up,
and `Cut` breaks the connection of whoever reads it as far as that. It begins with `opening()`, also where the script leaves
that out. A `Status` as its first step refuses the create, and no response comes about. Every event is numbered and kept; a
resume gets those after a position, again and again.

Models without a script: `count:<n>:<per second>` writes n numbered words at that rate; any other name is answered with
`DEFAULT_TEXT`.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

from tests.support.upstream import DEFAULT_TEXT, Asgi, Cut, Pause, Received, ScriptedUpstream, Stall, Status, Step, Until, words

__all__ = ["DEFAULT_TEXT", "Cut", "Pause", "ResponsesServer", "Stall", "Status", "Until"]

Event = dict[str, Any]
LifeStep = Event | Step
"""An event without its number, or bytes that go out as they stand; they take a number too."""


# --- events --------------------------------------------------------------------------------------------------------------


def opening() -> list[Event]:
    """The first events of every response; the very first says its id."""
    return [
        {"type": "response.created", "response": {}},
        {"type": "response.queued", "response": {}},
        {"type": "response.in_progress", "response": {"status": "in_progress"}},
    ]


def text(piece: str, item: int = 0) -> Event:
    return {
        "type": "response.output_text.delta", "item_id": f"msg_{item}", "output_index": item, "content_index": 0,
        "delta": piece, "logprobs": [], "obfuscation": "xVq2kQ",
    }  # fmt: skip


def refusal(piece: str, item: int = 0) -> Event:
    return {
        "type": "response.refusal.delta", "item_id": f"msg_{item}", "output_index": item, "content_index": 0, "delta": piece
    }  # fmt: skip


def thought(piece: str, part: int = 0, item: int = 0) -> Event:
    """A piece of a reasoning summary."""
    return {
        "type": "response.reasoning_summary_text.delta", "item_id": f"rs_{item}", "output_index": item, "summary_index": part,
        "delta": piece,
    }  # fmt: skip


def thought_part(part: int, item: int = 0) -> Event:
    return {
        "type": "response.reasoning_summary_part.added", "item_id": f"rs_{item}", "output_index": item, "summary_index": part,
        "part": {"type": "summary_text", "text": ""},
    }  # fmt: skip


def tool_call(item: int, call_id: str, name: str) -> Event:
    call = {
        "id": f"fc_{item}", "type": "function_call", "status": "in_progress", "arguments": "", "call_id": call_id, "name": name
    }  # fmt: skip
    return {"type": "response.output_item.added", "output_index": item, "item": call}


def arguments(piece: str, item: int) -> Event:
    return {
        "type": "response.function_call_arguments.delta", "item_id": f"fc_{item}", "output_index": item, "delta": piece
    }  # fmt: skip


def called(item: int, call_id: str, name: str, whole: str) -> Event:
    """The end of a call's item, which repeats what its pieces said."""
    call = {
        "id": f"fc_{item}", "type": "function_call", "status": "completed", "arguments": whole, "call_id": call_id, "name": name
    }  # fmt: skip
    return {"type": "response.output_item.done", "output_index": item, "item": call}


def said(whole: str, item: int = 0) -> list[Event]:
    """The end of a message, which repeats what its pieces said."""
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": whole}
    message = {"id": f"msg_{item}", "type": "message", "status": "completed", "content": [part], "role": "assistant"}
    place = {"item_id": f"msg_{item}", "output_index": item, "content_index": 0}
    return [
        {"type": "response.output_text.done", **place, "text": whole, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": item, "item": message},
    ]


def completed(*output: Event, counts: tuple[int, int] | None = (9, 3)) -> Event:
    return {"type": "response.completed", "response": {"status": "completed", "output": list(output), "usage": _usage(counts)}}


def incomplete(reason: str, counts: tuple[int, int] | None = (9, 3)) -> Event:
    response = {"status": "incomplete", "incomplete_details": {"reason": reason}, "usage": _usage(counts)}
    return {"type": "response.incomplete", "response": response}


def failed(code: str, message: str = "It went wrong.") -> Event:
    return {"type": "response.failed", "response": {"status": "failed", "error": {"code": code, "message": message}}}


def error(code: str | None, message: str = "It went wrong.") -> Event:
    """As the documentation shows it; on the wire it may also be nested, as `nested_error`."""
    return {"type": "error", "code": code, "message": message, "param": None}


def nested_error(code: str | None, message: str = "It went wrong.") -> Event:
    return {"type": "error", "error": {"type": "server_error", "code": code, "message": message, "param": None}}


def error_body(message: str, type: str = "invalid_request_error", code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": type, "param": None, "code": code}}).encode()


def answer(whole: str = DEFAULT_TEXT) -> list[LifeStep]:
    """A whole, undisturbed answer, word by word."""
    pieces = words(whole)
    return [*map(text, pieces), *said(whole), completed(said(whole)[-1]["item"], counts=(9, len(pieces)))]


def counted(n: int, per_second: float) -> Iterator[LifeStep]:
    """`n` words, `w0 w1 w2 …`, each its own event."""
    for i in range(n):
        if per_second:
            yield Pause(1 / per_second)
        yield text(f"w{i} ")
    yield completed(counts=(9, n))


def _usage(counts: tuple[int, int] | None) -> dict[str, Any] | None:
    if counts is None:
        return None
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {"input_tokens": counts[0], "output_tokens": counts[1], "total_tokens": sum(counts), **details}


# --- the server ----------------------------------------------------------------------------------------------------------


class Response:
    """One background response: what it has said so far, whether it goes on, and whether it is still kept."""

    def __init__(self, response_id: str, model: str) -> None:
        self.id = response_id
        self.model = model
        self.status = "queued"
        self.kept = True
        self.events: list[bytes] = []
        self.cuts: set[int] = set()
        """Lengths of `events` at which a reader's connection breaks; each breaks one."""
        self.grown = asyncio.Event()
        self.life: asyncio.Task[None] | None = None

    def say(self, event: Event | bytes) -> None:
        if isinstance(event, dict):
            if "response" in event:
                event = event | {"response": self.as_json() | event["response"]}
                self.status = event["response"]["status"]
            numbered = {"type": event["type"], "sequence_number": len(self.events), **event}
            event = f"event: {event['type']}\ndata: {json.dumps(numbered, separators=(',', ':'))}\n\n".encode()
        self.events.append(event)
        self.grew()

    def grew(self) -> None:
        self.grown.set()
        self.grown = asyncio.Event()

    @property
    def over(self) -> bool:
        return self.life is None or self.life.done()

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "object": "response", "created_at": 1741570283, "status": self.status, "background": True,
            "error": None, "incomplete_details": None, "instructions": None, "max_output_tokens": None, "model": self.model,
            "output": [], "parallel_tool_calls": True, "previous_response_id": None, "store": True, "temperature": 1.0,
            "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled", "usage": None, "metadata": {},
        }  # fmt: skip


class ResponsesServer(ScriptedUpstream):
    """`responses` by id, `creates` (requests), `resumes` (id, starting_after) and `cancels` (id, `time.monotonic()`)."""

    path = "/v1/responses"
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self) -> None:
        super().__init__()
        self.responses: dict[str, Response] = {}
        self.creates: list[Received] = []
        self.resumes: list[tuple[str, int | None]] = []
        self.cancels: list[tuple[str, float]] = []
        self.refused_resumes: deque[Status] = deque()
        """Answers of the next resumes, one each, instead of a stream."""
        self.refused_cancels: deque[Status] = deque()
        self._lives: dict[str, deque[list[LifeStep]]] = {}

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL is to be."""
        return f"{self.origin}/v1"

    def on(self, model: str, *steps: LifeStep) -> None:
        """The life of the next response of `model`; the last one given stays."""
        self._lives.setdefault(model, deque()).append(list(steps))

    def expire(self, response_id: str) -> None:
        """It is not kept any more: 404 from here on."""
        self.responses[response_id].kept = False

    def answer(self) -> list[Step]:
        raise NotImplementedError("answers have a life of their own here")

    def counted(self, n: int, per_second: float) -> Iterator[Step]:
        raise NotImplementedError("answers have a life of their own here")

    def not_found(self, path: str) -> Status:
        return Status(404, error_body(f"Response with id '{path.split('/')[3]}' not found."))

    async def __aexit__(self, *_: object) -> None:
        lives = [response.life for response in self.responses.values() if response.life is not None]
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        await super().__aexit__()

    def _steps(self, scope: Asgi, model: str) -> Iterable[Step]:
        _, _, _, response_id, call, *_ = (scope["path"] + "//").split("/")
        if scope["method"] == "POST" and not response_id:
            self.creates.append(self.requests[-1])
            return self._create(model)
        response = self.responses.get(response_id)
        if scope["method"] == "POST" and call == "cancel":
            self.cancels.append((response_id, time.monotonic()))
            return [self._cancel(response, scope["path"])]
        after = parse_qs(scope["query_string"].decode()).get("starting_after")
        self.resumes.append((response_id, int(after[0]) if after else None))
        if self.refused_resumes:
            return [self.refused_resumes.popleft()]
        if response is None or not response.kept:
            return [self.not_found(scope["path"])]
        return self._follow(response, int(after[0]) + 1 if after else 0)

    def _create(self, model: str) -> Iterable[Step]:
        script = self._life_of(model)
        if script and isinstance(script[0], Status):
            return [script[0]]
        response = Response(f"resp_{len(self.responses)}", model)
        self.responses[response.id] = response
        response.life = asyncio.create_task(_live(response, script))
        return self._follow(response, 0)

    def _life_of(self, model: str) -> list[LifeStep]:
        scripts = self._lives.get(model)
        if scripts:
            return scripts.popleft() if len(scripts) > 1 else scripts[0]
        if model.startswith("count:"):
            _, n, per_second = model.split(":")
            return list(counted(int(n), float(per_second)))
        return answer()

    def _cancel(self, response: Response | None, path: str) -> Status:
        if self.refused_cancels:
            return self.refused_cancels.popleft()
        if response is None or not response.kept:
            return self.not_found(path)
        if response.over and response.status != "cancelled":
            return Status(400, error_body("Cannot cancel a completed response."))
        if response.life is not None:
            response.life.cancel()
        response.status = "cancelled"
        return Status(200, json.dumps(response.as_json()).encode())

    def _follow(self, response: Response, position: int) -> Iterator[Step]:
        """Its events from a position on, live once they are all out; ends with the response."""
        while True:
            if position in response.cuts:
                response.cuts.discard(position)
                yield Cut()
                return
            if position < len(response.events):
                yield response.events[position]
                position += 1
            elif response.over:
                return
            else:
                yield Until(response.grown)


async def _live(response: Response, script: list[LifeStep]) -> None:
    """A response from its creation to its end, or to its cancel."""
    opened = any(isinstance(step, dict) and step["type"] == "response.created" for step in script)
    try:
        for step in [*([] if opened else opening()), *script]:
            await _step(response, step)
    finally:
        asyncio.get_running_loop().call_soon(response.grew)  # once the task is done, which readers look at


async def _step(response: Response, step: LifeStep) -> None:
    if isinstance(step, dict | bytes):
        response.say(step)
    elif isinstance(step, Pause):
        await asyncio.sleep(step.seconds)
    elif isinstance(step, Until):
        await step.event.wait()
    elif isinstance(step, Stall):
        await asyncio.Event().wait()
    elif isinstance(step, Cut):
        response.cuts.add(len(response.events))
        response.grew()
