"""`openai/<model>` in background mode: responses that OpenAI writes to their end, whoever reads. Through the openai SDK.

    Call ──arguments_of──▶ POST /responses, background ──▶ events ──ResponseReader──▶ Upstream Token … Usage Finish
    Call.upstream ───────▶ GET /responses/{id}, starting_after ──▶ the events after that position
    abandon ─────────────▶ POST /responses/{id}/cancel

The SDK makes the calls, and the bytes are read as in `openai.py`: its event objects cost fifteen times what reading does.

Closing the stream stops the reading alone. What a response costs ends with `abandon`, or with the response.

Whoever stops waiting before the response's id is known cannot abandon it. So the create is never cut off: what nobody waits
for any more is read until it says its id, and is abandoned then. Only the death of the process leaves such a response to run to
its end (docs/decisions/0022).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, NamedTuple

import openai
import structlog
from openai import AsyncStream
from openai.types.responses import ResponseStreamEvent

from shared.errors import ConfigurationError, GenerationFailed, UpstreamExpired, UpstreamOver
from shared.providers import ProviderConfig
from worker.providers.base import Call, Delta, Finish, Upstream
from worker.providers.openai import OpenAIProvider
from worker.providers.openai_body import chunks_of
from worker.providers.openai_errors import UPSTREAM_ERRORS
from worker.providers.openai_responses import ResponseReader
from worker.providers.openai_responses_request import arguments_of
from worker.providers.upstream import drain

ABANDON_S: Final = 5.0
"""How long a cancel is tried. Past it the response may run to its end, and be paid for."""
_FIRST_PAUSE_S: Final = 0.1
_NOT_HANDED_OUT: Final = frozenset({400, 404, 410})
"""Statuses of a resume. 404: deleted or expired; OpenAI keeps background responses for some ten minutes. 400: there is nothing
in that request but the id and a position, so it is what OpenAI says of a response "more than 5 minutes old": kept, and not
streamed any more."""
_NOTHING_TO_CANCEL: Final = frozenset({400, 404, 409, 410})
"""Statuses of a cancel: the response has ended, or is not kept."""

log = structlog.get_logger(__name__)


class _Events:
    """What one call is answered with, event by event, as plain JSON."""

    def __init__(self, answer: AsyncStream[ResponseStreamEvent]) -> None:
        self.request = answer.response.request
        self.body = answer.response.aiter_bytes()
        self._answer = answer
        self._events = chunks_of(self.body, self.request)

    async def next(self) -> Any:
        """Raises StopAsyncIteration at the end, and one of UPSTREAM_ERRORS."""
        return await anext(self._events)

    async def aclose(self) -> None:
        """Closes the socket."""
        await self._answer.close()


class _Opened(NamedTuple):
    events: _Events
    reader: ResponseReader
    created: Upstream | None
    """Of a response that is new."""


class OpenAIBackgroundProvider(OpenAIProvider):
    """See `base.ResumableProvider`."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self._unread: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """As without background mode.

        Raises:
            ConfigurationError: also where the provider is to go on from a text: there is no such thing in background mode.
        """
        if self._config.prefill:
            raise ConfigurationError(f"[providers.{self.name}] has prefill and background, and no server does both.")
        await super().start()
        if self._client is not None:
            _ = self._client.responses  # imports what the first call would import

    async def close(self) -> None:
        """Waits until what nobody reads is abandoned, then closes the connections; open streams fail with `connection`."""
        if self._unread:
            await asyncio.wait(self._unread)
        await super().close()

    def can_continue(self, call: Call) -> bool:
        """From any position of a response that goes on upstream; never from a text alone."""
        return call.upstream is not None or call.prefix is None or not call.prefix.text

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        """Opens the stream; see `base.ResumableProvider`. Read past `Finish` to its end, as without background mode."""
        opened = await (self._create(call) if call.upstream is None else self._resume(call, call.upstream))
        # Left from right to left: the socket is closed first, by one call that does not depend on where the reading stands.
        async with aclosing(self._read(call, opened)) as deltas, aclosing(opened.events):
            yield deltas

    async def abandon(self, upstream_id: str) -> None:
        """See `base.ResumableProvider`."""
        try:
            async with asyncio.timeout(ABANDON_S):
                await self._cancel(upstream_id)
        except (*UPSTREAM_ERRORS, GenerationFailed) as error:
            status = error.status_code if isinstance(error, openai.APIStatusError) else None
            log.warning("a response may go on upstream", response=upstream_id, error=type(error).__name__, status=status)

    async def _cancel(self, upstream_id: str) -> None:
        """Tries until it is answered, or refused for good."""
        client, pause_s = self._ready_client(), _FIRST_PAUSE_S
        while True:
            try:
                await client.responses.cancel(upstream_id)
                return
            except openai.APIStatusError as error:
                if error.status_code in _NOTHING_TO_CANCEL:
                    return
                if error.status_code < 500 and error.status_code not in (408, 429):
                    raise
            except openai.APIConnectionError as error:
                log.debug("cancel not answered", response=upstream_id, error=type(error).__name__)
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _create(self, call: Call) -> _Opened:
        """A new response, read until its id is known; cancelled before that, it is abandoned as soon as it is."""
        creating = asyncio.create_task(self._created(call))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            unread = asyncio.create_task(self._abandon_unread(call, creating))
            self._unread.add(unread)
            unread.add_done_callback(self._unread.discard)
            raise

    async def _created(self, call: Call) -> _Opened:
        create = self._ready_client().responses.create
        arguments = arguments_of(call)
        events = await self._answer(
            call, create(stream=True, background=True, store=True, extra_headers=call.headers(), **arguments)
        )
        reader = ResponseReader(self._id(call))
        try:
            async with aclosing(self._content(call, events, reader)) as deltas:
                async for delta in deltas:
                    assert isinstance(delta, Upstream), "the first delta says whose content follows"
                    return _Opened(events, reader, delta)
            raise self._incomplete(call)
        except BaseException:
            await events.aclose()
            raise

    async def _abandon_unread(self, call: Call, creating: "asyncio.Task[_Opened]") -> None:
        try:
            async with asyncio.timeout(ABANDON_S):
                opened = await creating
                await opened.events.aclose()
                assert opened.created is not None, "it was created"
                await self._cancel(opened.created.id)
        except GenerationFailed:
            return  # it never came about
        except UPSTREAM_ERRORS as error:
            log.warning("a response may go on upstream", job=call.job_id, model=self._id(call), error=type(error).__name__)

    async def _resume(self, call: Call, upstream: Upstream) -> _Opened:
        retrieve = self._ready_client().responses.retrieve
        events = await self._answer(
            call, retrieve(upstream.id, stream=True, starting_after=upstream.position, extra_headers=call.headers())
        )
        return _Opened(events, ResponseReader(self._id(call), upstream), None)

    async def _answer(self, call: Call, asked: Awaitable[AsyncStream[ResponseStreamEvent]]) -> _Events:
        try:
            return _Events(await asked)
        except UPSTREAM_ERRORS as error:
            status = error.status_code if isinstance(error, openai.APIStatusError) else None
            expired = call.upstream is not None and status in _NOT_HANDED_OUT
            failure = self._expired(call, status) if expired else self._failure(call, error)
        # Raised out here, so that it has no __context__: the SDK's error repeats what the server said, and that may be the key.
        raise failure

    async def _read(self, call: Call, opened: _Opened) -> AsyncGenerator[Delta, None]:
        if opened.created is not None:
            yield opened.created
        reader = opened.reader
        async with aclosing(self._content(call, opened.events, reader)) as deltas:
            async for delta in deltas:
                yield delta
        if reader.finish is None:
            raise self._incomplete(call)
        if reader.usage is not None:
            yield reader.usage
        yield Finish(reader.finish)
        await drain(opened.events.body, UPSTREAM_ERRORS)

    async def _content(self, call: Call, events: _Events, reader: ResponseReader) -> AsyncGenerator[Delta, None]:
        failure: GenerationFailed | None = None
        while not reader.ended:
            try:
                event = await events.next()
            except StopAsyncIteration:
                break
            except UPSTREAM_ERRORS as error:
                failure = self._broken_off(call, error)
                break
            for delta in reader.read(event):
                yield delta
        if reader.error is not None:
            failure = self._broken_off(call, openai.APIError("", events.request, body=reader.error))
        if failure is not None:
            raise failure

    def _broken_off(self, call: Call, error: Exception) -> GenerationFailed:
        """The stream's failure. What the server itself says in an event is the response's end; else it goes on upstream."""
        failure = self._failure(call, error)
        if isinstance(error, openai.APIError) and not isinstance(error, openai.APIConnectionError):
            return UpstreamOver(failure.code, str(failure), retryable=failure.retryable)
        return failure

    def _expired(self, call: Call, status: int | None) -> GenerationFailed:
        log.warning("upstream does not hand the response out any more", job=call.job_id, model=self._id(call), status=status)
        return UpstreamExpired("incomplete", f"{self._id(call)} does not hand its response out any more ({status}).")
