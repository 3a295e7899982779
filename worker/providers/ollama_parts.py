"""The lines of an Ollama stream as typed deltas. No I/O.

Each line is an object with a piece of the `message`; the last one has `done: true`, why it stopped, and the token counts.
Tool calls come whole, not in pieces. Nothing is validated on the way here, so nothing is taken for granted.
"""

import json
from collections.abc import Iterator, Mapping
from secrets import token_hex
from typing import Any, Final

import structlog

from shared.errors import GenerationFailed
from shared.events import FinishReason, Reasoning, Token, ToolCall, Usage
from worker.providers.base import Delta
from worker.providers.whole_text import WholeText

_FINISH: Final[dict[str, FinishReason]] = {"stop": "stop", "length": "length"}
_NOTHING_SAID: Final = ("load", "unload")
"""The model was loaded or unloaded, and not asked."""

log = structlog.get_logger(__name__)
_unknown_reasons: set[str] = set()
"""Reported once a process."""


class PartReader:
    """One stream's lines, in order. `finish` is None until the last one; `usage` stays None where the counts are missing."""

    def __init__(self, model: str) -> None:
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self._model = model
        self._text = WholeText(model)
        self._calls = 0

    def read(self, part: Mapping[str, Any]) -> Iterator[Delta]:
        """The line's content; what is empty is left out.

        Raises:
            GenerationFailed: nothing was generated, or content has a form that is no text.
        """
        message = part.get("message")
        if isinstance(message, Mapping):
            if (thought := message.get("thinking")) and (text := self._text.take("thinking", thought)):
                yield Reasoning(text)
            if (content := message.get("content")) and (text := self._text.take("content", content)):
                yield Token(text)
            yield from self._tool_calls(message.get("tool_calls"))
        if part.get("done") is True:
            self._end(part)

    def _tool_calls(self, calls: object) -> Iterator[ToolCall]:
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, Mapping) else None
            if isinstance(function, Mapping):
                arguments = function.get("arguments") or {}
                text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
                yield ToolCall(self._calls, _id_of(call), str(function.get("name") or ""), self._text.take("arguments", text))
                self._calls += 1

    def _end(self, part: Mapping[str, Any]) -> None:
        spent, put_out = part.get("prompt_eval_count"), part.get("eval_count")
        if isinstance(spent, int) and isinstance(put_out, int):
            self.usage = Usage(spent, put_out)
        self.finish = self._mapped(part.get("done_reason") or "stop")  # older servers give none

    def _mapped(self, reason: str) -> FinishReason:
        if reason in _NOTHING_SAID:
            raise GenerationFailed("incomplete", f"{self._model} was not asked (done_reason {reason}).")
        if reason not in _FINISH and reason not in _unknown_reasons:
            _unknown_reasons.add(reason)
            log.warning("unknown done_reason taken for stop", model=self._model, done_reason=reason)
        # A tool call ends the answer as any other: with `stop`.
        return "tool_calls" if self._calls and reason != "length" else _FINISH.get(reason, "stop")


def _id_of(call: Mapping[str, Any]) -> str:
    """The call's id; one of our own where the server gives none, because a tool's result has to name it."""
    return str(call.get("id") or f"call_{token_hex(6)}")
