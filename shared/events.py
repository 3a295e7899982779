"""The typed events of protocol 4.1, and their two encodings. No I/O.

An event is stored as a Redis Stream entry, a few short fields, and travels to readers as the JSON of one SSE `data:` line.
The two differ on purpose: what is frequent (`token`) is stored as one bare field, 17 to 40 bytes instead of twice that, and
private fields (token ids, the format version) are stored and never sent.

    stored                           sent
    t "Hel"                          {"type":"token","text":"Hel"}
    t "Hel"  i "28,91"               {"type":"token","text":"Hel"}
    r "…"  /  f "…"                  {"type":"reasoning",…}  /  {"type":"refusal",…}
    e {"type":"done",…}              the same JSON
    e {"type":"started",…}  p {"v":1}  the same JSON as e
    t "Hel"  p {"u":17}         {"type":"token","text":"Hel"}

Decoding is strict about fields it knows and keeps quiet about those it does not: web and worker may be one release apart.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from shared.errors import ErrorCode

FORMAT_VERSION: Final = 1
"""Goes into each `started` entry and each job record as private field `v`."""

FinishReason = Literal["stop", "length", "content_filter", "tool_calls", "budget"]
StartReason = Literal["first", "retry", "fallback", "handover", "takeover"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens paid for, summed over all attempts (protocol 2.2)."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.estimated or other.estimated,
        )


class Timing(msgspec.Struct, frozen=True):
    """How long things took; null what is not known, or not yet."""

    queue_s: Annotated[float | None, Meta(description="Seconds from the accepted submit to the first claim.")] = None
    ttft_s: Annotated[float | None, Meta(description="Seconds from the accepted submit to the first piece of output.")] = None
    total_s: Annotated[float | None, Meta(description="Seconds from the accepted submit to the end.")] = None
    tokens_per_s: Annotated[float | None, Meta(description="Of the kept output, from its first piece to its last.")] = None
    inter_token_p50_s: Annotated[
        float | None, Meta(description="Median of the seconds between one piece and the next, in the last attempt.")
    ] = None
    inter_token_p99_s: Annotated[float | None, Meta(description="Their 99th percentile.")] = None


class Event(msgspec.Struct, frozen=True, tag_field="type"):
    """The base of all events. `terminal` events end their log."""

    terminal: ClassVar[bool] = False


class Queued(Event, frozen=True, tag="queued"):
    job_id: str
    model: str
    created_at: float


class Started(Event, frozen=True, tag="started"):
    attempt: int
    model: str
    worker: str
    reason: StartReason
    reset: bool
    after: str


class Token(Event, frozen=True, tag="token"):
    """Text, never empty, whole characters. `ids` are the local engine's token ids behind it: private, for exact takeovers."""

    text: str
    ids: tuple[int, ...] = ()


class Reasoning(Event, frozen=True, tag="reasoning"):
    text: str


class Refusal(Event, frozen=True, tag="refusal"):
    text: str


class ToolCall(Event, frozen=True, tag="tool_call", omit_defaults=True):
    """A piece of the call at `index`; `id` and `name` come once, `arguments` in pieces."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Done(Event, frozen=True, tag="done"):
    terminal: ClassVar[bool] = True
    finish_reason: FinishReason
    usage: Usage
    timing: Timing


class Error(Event, frozen=True, tag="error"):
    terminal: ClassVar[bool] = True
    code: ErrorCode
    message: str
    retryable: bool
    partial: bool
    usage: Usage
    timing: Timing


class Cancelled(Event, frozen=True, tag="cancelled"):
    terminal: ClassVar[bool] = True
    reason: Literal["user"]
    partial: bool
    usage: Usage
    timing: Timing


Content = Token | Reasoning | Refusal | ToolCall
"""What a provider produces and what a reader joins."""

Terminal = Done | Error | Cancelled
AnyEvent = Queued | Started | Token | Reasoning | Refusal | ToolCall | Done | Error | Cancelled

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_text_encode = _encoder.encode

_TEXT_FIELD: Final[dict[type[Event], bytes]] = {Token: b"t", Reasoning: b"r", Refusal: b"f"}
_TEXT_TYPE: Final[dict[bytes, type[Token] | type[Reasoning] | type[Refusal]]] = {
    b"t": Token, b"r": Reasoning, b"f": Refusal,
}  # fmt: skip
_TEXT_HEAD: Final[dict[type[Event], bytes]] = {
    Token: b'{"type":"token","text":',
    Reasoning: b'{"type":"reasoning","text":',
    Refusal: b'{"type":"refusal","text":',
}


def to_data(event: AnyEvent, n: int = 1) -> bytes:
    """The JSON of an event's `data:` line; `n` > 1 says that it stands for n merged entries (protocol 3)."""
    head = _TEXT_HEAD.get(type(event))
    if head is not None:
        tail = b"}" if n == 1 else b',"n":%d}' % n
        return head + _text_encode(event.text) + tail  # type: ignore[union-attr]
    data = _encoder.encode(event)
    return data if n == 1 else data[:-1] + b',"n":%d}' % n


def to_fields(event: AnyEvent, private: Mapping[str, Any] | None = None) -> list[bytes]:
    """The stream entry's fields, flat: name, value, name, value …"""
    name = _TEXT_FIELD.get(type(event))
    fields = [b"e", _encoder.encode(event)] if name is None else [name, event.text.encode()]  # type: ignore[union-attr]
    if isinstance(event, Token) and event.ids:
        fields += [b"i", b",".join(b"%d" % i for i in event.ids)]
    if private:
        fields += [b"p", _encoder.encode(private)]
    return fields


def from_fields(fields: Mapping[bytes, bytes]) -> AnyEvent:
    """The event of a stream entry.

    Raises:
        ValueError: the entry holds no event that this release can read.
    """
    for name, value in fields.items():
        text_type = _TEXT_TYPE.get(name)
        if text_type is Token:
            raw_ids = fields.get(b"i")
            return Token(value.decode(), tuple(map(int, raw_ids.split(b","))) if raw_ids else ())
        if text_type is not None:
            return text_type(value.decode())
        if name == b"e":
            return decode(value)
    raise ValueError(f"a log entry without an event: fields {sorted(fields)}")


def decode(data: bytes | str) -> AnyEvent:
    """The event of a `data:` line or an `e` field. Unknown fields are ignored (protocol 4.1).

    Raises:
        ValueError: not JSON, an unknown type, or a field of the wrong type.
    """
    return _decoder.decode(data)  # msgspec.DecodeError and ValidationError are ValueErrors


def private_of(fields: Mapping[bytes, bytes]) -> dict[str, Any]:
    """An entry's private fields; empty when it has none."""
    raw = fields.get(b"p")
    return msgspec.json.decode(raw) if raw else {}
