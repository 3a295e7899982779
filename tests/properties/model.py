"""A reader and a server, each as small as protocol 3 and 4 allow: what the real ones are compared with."""

import json
from collections.abc import Iterable
from typing import Any

from shared.fold import Fold
from shared.ids import START, EventId
from tests.properties.strategies import Log
from web.sse import Frame

Held = dict[str, Any]


class Reader:
    """Takes frames in; proves for itself that nothing was lost or doubled (protocol 3: `seq == previous seq + n`)."""

    def __init__(self) -> None:
        self.cursor = START
        self.text = self.reasoning = self.refusal = ""
        self.calls: dict[int, Held] = {}
        self.terminal: str | None = None

    def take(self, frame: Frame) -> None:
        data = json.loads(frame.data)
        n = data.get("n", 1)
        if data["type"] == "started":
            assert data["after"] == str(self.cursor), "an attempt opens right after what was taken in"
            assert (frame.id.seq, n) == (0, 1)
        elif data["type"] == "queued":
            assert (self.cursor, n) == (START, 1)
        else:
            assert frame.id == self.cursor.plus(n), "a hole, or something twice"
        self.cursor = frame.id
        self._apply(data)

    def _apply(self, data: Held) -> None:
        kind = data["type"]
        if kind in ("token", "reasoning", "refusal"):
            name = "text" if kind == "token" else kind
            setattr(self, name, getattr(self, name) + data["text"])
        elif kind == "tool_call":
            call = self.calls.setdefault(data["index"], {"id": None, "name": None, "arguments": ""})
            call |= {name: data[name] for name in ("id", "name") if name in data}
            call["arguments"] += data.get("arguments", "")
        elif kind == "started" and data["reset"]:
            self.text = self.reasoning = self.refusal = ""
            self.calls = {}
        elif kind in ("done", "error", "cancelled"):
            self.terminal = kind

    @property
    def held(self) -> Held:
        return {
            "cursor": self.cursor,
            "text": self.text,
            "reasoning": self.reasoning,
            "refusal": self.refusal,
            "calls": self.calls,
            "terminal": self.terminal,
        }


def read(frames: Iterable[Frame]) -> Held:
    """What a reader holds that was never cut off."""
    reader = Reader()
    for frame in frames:
        reader.take(frame)
    return reader.held


def held_by_fold(log: Log) -> Held:
    """The same, as the snapshot of `GET /v1/jobs/{id}` is made."""
    state = Fold()
    for event_id, event in log:
        state.add(event_id, event)
    calls = {
        index: {"id": call["id"], "name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        for index, call in state._tool_calls.items()
    }
    return {
        "cursor": state.last_id,
        "text": state.text,
        "reasoning": state.reasoning,
        "refusal": state.refusal,
        "calls": calls,
        "terminal": type(state.terminal).__name__.lower() if state.terminal else None,
    }


def after(frames: Iterable[Frame], cursor: EventId) -> list[Frame]:
    """What a server replays to a reader at a cursor."""
    return [frame for frame in frames if frame.id > cursor]
