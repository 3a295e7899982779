"""The chunks of a Chat Completions stream as typed deltas. No I/O.

A chunk is whatever JSON the server sent, and nothing is taken for granted: it may have no `choices` (usage; Azure's filter
results; errors of some servers), a choice may have no `delta`, and compatible servers add fields of their own.
"""

from collections.abc import Iterator
from typing import Any, Final

import structlog

from shared.errors import ErrorCode, GenerationFailed
from shared.events import FinishReason, Reasoning, Refusal, Token, ToolCall, Usage
from worker.providers.base import Delta
from worker.providers.prefill import Prefill
from worker.providers.whole_text import WholeText

_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",  # before tools had their name
    "model_length": "length",  # Mistral: the context is full
}
_CUT_SHORT: Final[dict[str, ErrorCode]] = {
    "error": "incomplete",  # OpenRouter
    "abort": "incomplete",  # vLLM: somebody cancelled it over there
    "insufficient_system_resource": "overloaded",  # DeepSeek
}
"""Finish reasons that say the answer is not whole."""

Json = dict[str, Any]

log = structlog.get_logger(__name__)
_unknown_reasons: set[str] = set()
"""Reported once a process: a server that invents a reason sends it with every answer."""


class ChunkReader:
    """One stream's chunks, in order. `finish` and `usage` are None until they came; `complete` once nothing else is awaited."""

    def __init__(self, model: str, prefill: Prefill | None = None) -> None:
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self.complete = False
        self._model = model
        self._prefill = prefill or Prefill("")
        self._named: dict[int, ToolCall] = {}
        self._text = WholeText(model)

    def read(self, chunk: Any) -> Iterator[Delta]:
        """The content of a chunk, any JSON; what is empty is left out.

        Raises:
            GenerationFailed: the server says that it failed, or content has a form that is no text.
        """
        if not isinstance(chunk, dict):
            return
        choice = _first(chunk.get("choices"))
        if choice is not None:
            yield from self._choice(choice)
        else:
            self._refuse_error(chunk)
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._take_usage(usage)

    def _choice(self, choice: Json) -> Iterator[Delta]:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            yield from self._content(delta)
        reason = _word(choice.get("finish_reason"))
        if reason:
            self.finish = self._mapped(reason)

    def _content(self, delta: Json) -> Iterator[Delta]:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and (text := self._text.take("reasoning", thought)):
            yield Reasoning(text)
        content = delta.get("content")
        if content and (text := self._prefill.rest(self._text.take("content", content))):
            yield Token(text)
        refusal = delta.get("refusal")
        if refusal and (text := self._text.take("refusal", refusal)):
            yield Refusal(text)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                yield from self._tool_call(call)

    def _tool_call(self, call: Json) -> Iterator[ToolCall]:
        index, sent_id = call.get("index"), _word(call.get("id"))
        if not isinstance(index, int):  # some servers leave it out: a new id opens the next call
            index = len(self._named) if sent_id else max(len(self._named) - 1, 0)
        seen = self._named.get(index)
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        # `id` and `name` go on once (protocol 4.1); there are servers that repeat them in each piece.
        call_id = sent_id if seen is None or seen.id is None else None
        name = _word(function.get("name")) if seen is None or seen.name is None else None
        piece = function.get("arguments")
        arguments = self._text.take(index, piece) if piece else ""
        if call_id or name or arguments:
            known_id, known_name = (seen.id, seen.name) if seen else (None, None)
            self._named[index] = ToolCall(index, call_id or known_id, name or known_name)
            yield ToolCall(index, call_id, name, arguments)

    def _take_usage(self, usage: Json) -> None:
        """Kept, not handed on: some servers send a running count with every chunk. The last one stands after the finish."""
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(counts[0], int) and isinstance(counts[1], int):
            self.usage = Usage(counts[0], counts[1])
            self.complete = self.finish is not None

    def _refuse_error(self, chunk: Json) -> None:
        """Older vLLM and its kin: an error as a bare object."""
        if chunk.get("object") == "error":
            raise GenerationFailed("overloaded", f"{self._model} failed in mid-stream.")

    def _mapped(self, reason: str) -> FinishReason:
        if reason in _CUT_SHORT:
            raise GenerationFailed(_CUT_SHORT[reason], f"{self._model} stopped before the end ({reason}).")
        if reason not in _FINISH and reason not in _unknown_reasons:
            _unknown_reasons.add(reason)
            log.warning("unknown finish_reason taken for stop", model=self._model, finish_reason=reason)
        return _FINISH.get(reason, "stop")


def _first(choices: Any) -> Json | None:
    """The one choice that is ever asked for."""
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _word(value: Any) -> str | None:
    """A name or an id; None where it is empty or something else."""
    return value if isinstance(value, str) and value else None
