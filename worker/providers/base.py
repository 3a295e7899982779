"""What every provider looks like to the worker. No I/O, no SDK.

A provider turns one `Call` into a stream of deltas. The content deltas are the log's own events, so that nothing is
translated twice on a token's way from the provider to the reader:

    Token, Reasoning, Refusal, ToolCall     content, in order
    Usage                                   before Finish: the provider's own count; of several the last stands
    Finish                                  exactly once, last: why it stopped
    Upstream                                only of responses that go on without us: once their id is known, then before
                                            each piece of content, how far the stream was read with it

A stream that ends without `Finish` was cut short: the provider raises `GenerationFailed("incomplete", …)`; every other
failure is a `GenerationFailed` too, with the code of protocol 4.1. Closing the stream's context (also by cancelling the task
in it) stops the provider at once: the socket is closed, the local slot is free.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from shared.events import Content, FinishReason, Usage
from shared.job import JobRequest


class Finish(msgspec.Struct, frozen=True):
    """The provider's own end marker, in protocol 4.1's words."""

    reason: FinishReason


class Upstream(msgspec.Struct, frozen=True):
    """A response that goes on at the provider's whether we read it or not.

    `position` is the provider's sequence number of the last event read. Nothing but content moves it for good: whoever reads
    on from there gets exactly what was not yet content here.
    """

    id: str
    position: int = 0


Delta = Content | Usage | Finish | Upstream


class Prefix(msgspec.Struct, frozen=True):
    """The kept output of earlier attempts, to go on from. `ids` are empty where the model's token ids are not known."""

    text: str
    ids: tuple[int, ...] = ()


class Call(msgspec.Struct, frozen=True):
    """One attempt's call of one model.

    `max_tokens` is what is left for this attempt, None for no limit of the caller's; it counts from after the prefix.
    """

    job_id: str
    model: str
    """The model's name without the provider's prefix: `gpt-4o-mini`, `smollm2-135m-instruct`."""
    request: JobRequest
    max_tokens: int | None = None
    prefix: Prefix | None = None
    upstream: Upstream | None = None
    """Read this response on, after its position, instead of asking anew; `prefix` and `max_tokens` say nothing then."""
    request_id: str = ""
    """What the job's submit is known by; sent along, so that the provider's logs name it too."""
    tenant: str = ""
    """Whose job it is; sent to nobody."""

    def headers(self) -> dict[str, str]:
        """What every HTTP call for it says."""
        return {"X-Request-ID": self.request_id} if self.request_id else {}


class Provider(Protocol):
    """One per worker process; serves any number of calls at once."""

    name: str
    """The part before the slash in a model's id."""

    def can_continue(self, call: Call) -> bool:
        """Whether a call with a `prefix` would go on from it exactly; else the attempt opens with `reset: true`."""

    def stream(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Opens the stream. Raises GenerationFailed here or while iterating."""

    async def start(self) -> None:
        """Loads what must be loaded before the first call. Raises ConfigurationError with what to do."""

    async def close(self) -> None:
        """Frees it; open streams end."""


@runtime_checkable
class ResumableProvider(Provider, Protocol):
    """A provider whose responses go on upstream when their stream is closed, and are read on with `Call.upstream`.

    `can_continue` is true for a call with an `upstream`. `stream` raises UpstreamOver where nothing is left to read on.
    """

    async def abandon(self, upstream_id: str) -> None:
        """Has the response cancelled upstream, so that it costs no more; one that is over there is left alone.

        Takes bounded time and raises nothing: what it could not do is in the worker's log.
        """
