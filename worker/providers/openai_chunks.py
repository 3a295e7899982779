"""The chunks of a Chat Completions stream as typed deltas. No I/O.

The SDK does not validate chunks, it only builds objects from whatever JSON came; so nothing is taken for granted here: a
chunk may have no `choices` (usage; Azure's filter results; errors of some servers), a choice no `delta`, and what
compatible servers add lies in `model_extra`.
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
        """The chunk's content; what is empty is left out.

        Raises:
            GenerationFailed: the server says that it failed, or content has a form that is no text.
        """
        choices = getattr(chunk, "choices", None)
        if choices:
            yield from self._choice(choices[0])
        else:
            self._refuse_error(chunk)
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self._take_usage(usage)

    def _choice(self, choice: Any) -> Iterator[Delta]:
        delta = getattr(choice, "delta", None)
        if delta is not None:
            yield from self._content(delta)
        reason = getattr(choice, "finish_reason", None)
        if reason:
            self.finish = self._mapped(reason)

    def _content(self, delta: Any) -> Iterator[Delta]:
        extra = delta.model_extra
        thought = (extra.get("reasoning_content") or extra.get("reasoning")) if extra else None
        if thought and (text := self._text.take("reasoning", thought)):
            yield Reasoning(text)
        if delta.content and (text := self._prefill.rest(self._text.take("content", delta.content))):
            yield Token(text)
        if delta.refusal and (text := self._text.take("refusal", delta.refusal)):
            yield Refusal(text)
        for call in delta.tool_calls or ():
            yield from self._tool_call(call)

    def _tool_call(self, call: Any) -> Iterator[ToolCall]:
        index = getattr(call, "index", None)
        if not isinstance(index, int):  # some servers leave it out: a new id opens the next call
            index = len(self._named) if call.id else max(len(self._named) - 1, 0)
        seen = self._named.get(index)
        function = call.function
        # `id` and `name` go on once (protocol 4.1); there are servers that repeat them in each piece.
        call_id = call.id or None if seen is None or seen.id is None else None
        name = (function.name or None if function else None) if seen is None or seen.name is None else None
        arguments = self._text.take(index, function.arguments) if function and function.arguments else ""
        if call_id or name or arguments:
            known_id, known_name = (seen.id, seen.name) if seen else (None, None)
            self._named[index] = ToolCall(index, call_id or known_id, name or known_name)
            yield ToolCall(index, call_id, name, arguments)

    def _take_usage(self, usage: Any) -> None:
        """Kept, not handed on: some servers send a running count with every chunk. The last one stands after the finish."""
        counts = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        if isinstance(counts[0], int) and isinstance(counts[1], int):
            self.usage = Usage(counts[0], counts[1])
            self.complete = self.finish is not None

    def _refuse_error(self, chunk: Any) -> None:
        """Older vLLM and its kin: an error as a bare object, which the SDK takes for a chunk."""
        if getattr(chunk, "object", None) == "error":
            raise GenerationFailed("overloaded", f"{self._model} failed in mid-stream.")

    def _mapped(self, reason: str) -> FinishReason:
        if reason in _CUT_SHORT:
            raise GenerationFailed(_CUT_SHORT[reason], f"{self._model} stopped before the end ({reason}).")
        if reason not in _FINISH and reason not in _unknown_reasons:
            _unknown_reasons.add(reason)
            log.warning("unknown finish_reason taken for stop", model=self._model, finish_reason=reason)
        return _FINISH.get(reason, "stop")
