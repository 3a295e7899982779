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


Json = dict[str, Any]


class ResponseReader:
    """One stream's events, in order. An event is whatever JSON the server sent, and nothing is taken for granted.

    `finish`, `usage` and `error` (its `code` and `message`) are None until they came; `ended` once nothing more is awaited.
    """

    def __init__(self, model: str, upstream: Upstream | None = None) -> None:
        """`upstream`: the response that is read on; None where its first event is still to say which it is."""
        self.upstream = upstream
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self.error: Json | None = None
        self.ended = False
        self._model = model
        self._text = WholeText(model)
        self._waiting: dict[object, str] = {}

    def read(self, event: Any) -> list[Delta]:
        """What the event adds, behind the position that it is read up to.

        Raises:
            GenerationFailed: it is not numbered, holds no text where text belongs, or says that the response is over.
        """
        if not isinstance(event, dict):
            return []
        kind, response = event.get("type"), _object(event.get("response"))
        deltas: list[Delta] = []
        if self.upstream is None:
            self.upstream = self._first(event, response)
            deltas.append(self.upstream)
        if kind in ("response.completed", "response.incomplete", "response.failed", "response.cancelled"):
            self._end(kind, response)
        elif kind == "error":
            self.error, self.ended = _words(event), True
        elif (content := self._content(kind, event)) is not None:
            self.upstream = Upstream(self.upstream.id, self._number(event, "sequence_number"))
            deltas += (self.upstream, content)
        return deltas

    def _first(self, event: Json, response: Json) -> Upstream:
        upstream_id = response.get("id")
        if not isinstance(upstream_id, str) or not upstream_id:
            raise GenerationFailed("unsupported", f"{self._model} does not say which response it writes.")
        return Upstream(upstream_id, self._number(event, "sequence_number"))

    def _number(self, event: Json, name: str) -> int:
        number = event.get(name)
        if not isinstance(number, int):
            raise GenerationFailed("unsupported", f"{self._model} sent an event without its {name}.")
        return number

    def _content(self, kind: Any, event: Json) -> Content | None:
        if kind in _TEXT_OF:
            text = self._whole((kind, self._number(event, "output_index")), event.get("delta"))
            return _TEXT_OF[kind](text) if text else None
        if kind == "response.function_call_arguments.delta":
            index = self._number(event, "output_index")
            arguments = self._whole((kind, index), event.get("delta"))
            return ToolCall(index, arguments=arguments) if arguments else None
        if kind == "response.output_item.added" and _is_call(item := _object(event.get("item"))):
            return ToolCall(self._number(event, "output_index"), _text_or_none(item, "call_id"), _text_or_none(item, "name"))
        if kind == "response.reasoning_summary_part.added" and self._number(event, "summary_index") > 0:
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

    def _end(self, kind: str, response: Json) -> None:
        self.ended = True
        usage = _object(response.get("usage"))
        counts = usage.get("input_tokens"), usage.get("output_tokens")
        if isinstance(counts[0], int) and isinstance(counts[1], int):
            self.usage = Usage(counts[0], counts[1])
        if kind == "response.completed":
            self.finish = "tool_calls" if any(map(_is_call, response.get("output") or ())) else "stop"
        elif kind == "response.incomplete":
            reason = str(_object(response.get("incomplete_details")).get("reason"))
            if reason not in _CUT_SHORT:
                raise UpstreamOver("incomplete", f"{self._model} stopped before the end ({reason}).")
            self.finish = _CUT_SHORT[reason]
        elif kind == "response.failed":
            self.error = _words(_object(response.get("error")))
        else:
            raise UpstreamOver("incomplete", f"{self._model} was cancelled at the provider's.")


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _is_call(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "function_call"


def _text_or_none(item: Json, name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) else None


def _words(error: Json) -> Json:
    return {"code": error.get("code"), "message": error.get("message")}
