"""The events of a Messages stream as typed deltas. No I/O.

    message_start           what the input costs
    content_block_start     a text, a thought, a tool call begins
    content_block_delta     its pieces
    content_block_stop
    message_delta           why it stopped, and what the output cost: a running total, not an addition
    message_stop            the end; without it the stream was cut short

The SDK does not validate events, it only builds objects from whatever JSON came; so nothing is taken for granted here. What
belongs to tools that run over there, signatures and redacted thoughts is left out: no reader could use it.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog

from shared.errors import GenerationFailed
from shared.events import FinishReason, Reasoning, Refusal, Token, ToolCall, Usage
from worker.providers.base import Delta
from worker.providers.prefill import Prefill
from worker.providers.whole_text import WholeText

_FINISH: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_INPUT_COUNTS: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Their sum is what went in; the first alone leaves out what a cache held."""

log = structlog.get_logger(__name__)
_unknown_reasons: set[str] = set()
"""Reported once a process."""


class EventReader:
    """One stream's events, in order. `finish` and `usage` are None until they came; `ended` once `message_stop` did."""

    def __init__(self, model: str, prefill: Prefill | None = None) -> None:
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self.ended = False
        self._model = model
        self._prefill = prefill or Prefill("")
        self._text = WholeText(model)
        self._counts: dict[str, int] = {}
        self._calls: dict[int, int] = {}
        """Content block → tool call: blocks count texts and thoughts too, calls only calls."""
        self._inputs: dict[int, object] = {}
        """Content block → the arguments that came whole, of calls of which no piece has come."""
        self._readers: dict[str, Callable[[Any], Iterator[Delta]]] = {
            "message_start": self._message_start,
            "content_block_start": self._block_start,
            "content_block_delta": self._block_delta,
            "content_block_stop": self._block_stop,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
        }

    def read(self, event: Any) -> Iterator[Delta]:
        """The event's content; what is empty is left out.

        Raises:
            GenerationFailed: the answer stopped before its end, or content has a form that is no text.
        """
        reader = self._readers.get(getattr(event, "type", None) or "")
        return reader(event) if reader else iter(())

    def _message_start(self, event: Any) -> Iterator[Delta]:
        self._take_usage(getattr(getattr(event, "message", None), "usage", None))
        yield from ()

    def _block_start(self, event: Any) -> Iterator[Delta]:
        block, index = getattr(event, "content_block", None), getattr(event, "index", None)
        kind = getattr(block, "type", None)
        if kind == "tool_use" and isinstance(index, int):
            call = self._calls[index] = len(self._calls)
            self._inputs[index] = getattr(block, "input", None)
            yield ToolCall(call, getattr(block, "id", None) or None, getattr(block, "name", None) or None)
        elif kind in ("text", "thinking"):  # mostly empty here
            yield from self._said(kind, getattr(block, kind, None))

    def _block_delta(self, event: Any) -> Iterator[Delta]:
        delta, index = getattr(event, "delta", None), getattr(event, "index", None)
        match getattr(delta, "type", None):
            case "text_delta":
                yield from self._said("text", getattr(delta, "text", None))
            case "thinking_delta":
                yield from self._said("thinking", getattr(delta, "thinking", None))
            case "input_json_delta" if index in self._calls:
                piece = getattr(delta, "partial_json", None)
                if piece and (arguments := self._text.take(index, piece)):
                    self._inputs.pop(index, None)
                    yield ToolCall(self._calls[index], arguments=arguments)

    def _said(self, kind: str, piece: object) -> Iterator[Delta]:
        if not piece or not (text := self._text.take(kind, piece)):
            return
        if kind == "thinking":
            yield Reasoning(text)
        elif rest := self._prefill.rest(text):
            yield Token(rest)

    def _block_stop(self, event: Any) -> Iterator[Delta]:
        """A call without pieces: it has no arguments, or a server sent them whole. Either way they are JSON (protocol 4.1)."""
        index = getattr(event, "index", None)
        if index in self._inputs:
            whole = self._inputs.pop(index)
            yield ToolCall(self._calls[index], arguments=json.dumps(whole or {}, ensure_ascii=False))

    def _message_delta(self, event: Any) -> Iterator[Delta]:
        self._take_usage(getattr(event, "usage", None))
        delta = getattr(event, "delta", None)
        reason = getattr(delta, "stop_reason", None)
        if not reason:
            return
        self.finish = self._mapped(reason)
        why = getattr(getattr(delta, "stop_details", None), "explanation", None)
        if reason == "refusal" and why and (text := self._text.take("refusal", why)):
            yield Refusal(text)

    def _message_stop(self, _event: Any) -> Iterator[Delta]:
        self.ended = True
        yield from ()

    def _take_usage(self, usage: Any) -> None:
        """Totals so far, each event with those it knows: the last of each stands."""
        for name in (*_INPUT_COUNTS, "output_tokens"):
            count = getattr(usage, name, None)
            if isinstance(count, int):
                self._counts[name] = count
        if "output_tokens" in self._counts:
            spent = sum(self._counts.get(name, 0) for name in _INPUT_COUNTS)
            self.usage = Usage(spent, self._counts["output_tokens"])

    def _mapped(self, reason: str) -> FinishReason:
        if reason == "pause_turn":
            # A pause of the tools that run over there, to be resumed with what they said. This provider offers none of
            # them, so it can resume nothing, and the same call would pause again.
            log.warning("upstream paused its turn", model=self._model)
            raise GenerationFailed(
                "incomplete", f"{self._model} paused in mid-answer (pause_turn), which cannot be resumed here.", retryable=False
            )
        if reason not in _FINISH and reason not in _unknown_reasons:
            _unknown_reasons.add(reason)
            log.warning("unknown stop_reason taken for stop", model=self._model, stop_reason=reason)
        return _FINISH.get(reason, "stop")
