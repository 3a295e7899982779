"""The events of a Responses stream as typed deltas. No I/O, no SDK.

Each event says by itself what it adds, and where: so a stream can be read from any position on, by a reader that has not seen
what came before. A tool call's `index` is therefore the place of its item in the output, reasoning and text counted too.
"""

from collections.abc import Mapping
from typing import Any, Final

from shared.errors import GenerationFailed, UpstreamOver
from shared.events import Content, FinishReason, Reasoning, Refusal, Token, ToolCall, Usage
from worker.providers.base import Delta, Upstream
from worker.providers.whole_text import WholeText

_TEXT_OF: Final[Mapping[str, type[Token] | type[Reasoning] | type[Refusal]]] = {
    "response.output_text.delta": Token,
    "response.refusal.delta": Refusal,
    "response.reasoning_summary_text.delta": Reasoning,
    "response.reasoning_text.delta": Reasoning,  # open models, which show what they think
}
_CUT_SHORT: Final[Mapping[str, FinishReason]] = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""Why a response is `incomplete`, where that is an end of ours. Any other reason is none."""
_BETWEEN_PARTS: Final = "\n\n"
"""Parts of a reasoning summary are paragraphs; the API leaves what is between them to whoever shows them."""


class ResponseReader:
    """One stream's events, in order. The SDK does not validate them: what it builds from whatever came may lack any field.

    `finish`, `usage` and `error` (its `code` and `message`) are None until they came; `ended` once nothing more is awaited.
    """

    def __init__(self, model: str, upstream: Upstream | None = None) -> None:
        """`upstream`: the response that is read on; None where its first event is still to say which it is."""
        self.upstream = upstream
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self.error: Mapping[str, Any] | None = None
        self.ended = False
        self._model = model
        self._text = WholeText(model)
        self._waiting: dict[object, str] = {}

    def read(self, event: Any) -> list[Delta]:
        """What the event adds, behind the position that it is read up to.

        Raises:
            GenerationFailed: it is not numbered, holds no text where text belongs, or says that the response is over.
        """
        kind, response = getattr(event, "type", ""), getattr(event, "response", None)
        deltas: list[Delta] = []
        if self.upstream is None:
            self.upstream = self._first(event, response)
            deltas.append(self.upstream)
        if kind in ("response.completed", "response.incomplete", "response.failed", "response.cancelled"):
            self._end(kind, response)
        elif kind == "error":
            self.error, self.ended = {"code": event.code, "message": event.message}, True
        elif (content := self._content(kind, event)) is not None:
            self.upstream = Upstream(self.upstream.id, self._number(event, "sequence_number"))
            deltas += (self.upstream, content)
        return deltas

    def _first(self, event: Any, response: Any) -> Upstream:
        upstream_id = getattr(response, "id", None)
        if not isinstance(upstream_id, str) or not upstream_id:
            raise GenerationFailed("unsupported", f"{self._model} does not say which response it writes.")
        return Upstream(upstream_id, self._number(event, "sequence_number"))

    def _number(self, event: Any, name: str) -> int:
        number = getattr(event, name, None)
        if not isinstance(number, int):
            raise GenerationFailed("unsupported", f"{self._model} sent an event without its {name}.")
        return number

    def _content(self, kind: str, event: Any) -> Content | None:
        if kind in _TEXT_OF:
            text = self._whole((kind, self._number(event, "output_index")), event.delta)
            return _TEXT_OF[kind](text) if text else None
        if kind == "response.function_call_arguments.delta":
            index = self._number(event, "output_index")
            arguments = self._whole((kind, index), event.delta)
            return ToolCall(index, arguments=arguments) if arguments else None
        if kind == "response.output_item.added" and getattr(event.item, "type", None) == "function_call":
            return ToolCall(self._number(event, "output_index"), event.item.call_id, event.item.name)
        if kind == "response.reasoning_summary_part.added" and (event.summary_index or 0) > 0:
            return Reasoning(_BETWEEN_PARTS)
        return None

    def _whole(self, place: object, piece: object) -> str:
        """The piece as whole characters. One that ends in half a character waits as a whole: handed on without the half, it
        would say that the half was read too, and whoever reads on from there would miss it."""
        if isinstance(piece, str):
            piece = self._waiting.pop(place, "") + piece
            if "\ud800" <= piece[-1:] <= "\udbff":
                self._waiting[place] = piece
                return ""
        return self._text.take(place, piece)

    def _end(self, kind: str, response: Any) -> None:
        self.ended = True
        usage = getattr(response, "usage", None)
        if usage is not None:
            self.usage = Usage(usage.input_tokens or 0, usage.output_tokens or 0)
        if kind == "response.completed":
            called = any(item.type == "function_call" for item in response.output or ())
            self.finish = "tool_calls" if called else "stop"
        elif kind == "response.incomplete":
            reason = str(getattr(response.incomplete_details, "reason", None))
            if reason not in _CUT_SHORT:
                raise UpstreamOver("incomplete", f"{self._model} stopped before the end ({reason}).")
            self.finish = _CUT_SHORT[reason]
        elif kind == "response.failed":
            self.error = {"code": getattr(response.error, "code", None), "message": getattr(response.error, "message", None)}
        else:
            raise UpstreamOver("incomplete", f"{self._model} was cancelled at the provider's.")
