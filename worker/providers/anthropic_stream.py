"""One call of Anthropic's Messages API, through the anthropic SDK: the half of the provider that needs the SDK.

    Call ──arguments_of──▶ POST /v1/messages ──SDK──▶ events ──EventReader──▶ Token … Usage Finish

- The SDK's own retries are off: retrying is the job's business, where readers see it as an attempt.
- A stream that is closed cleanly ends normally in the SDK, cut short or not: without `message_stop` it is `incomplete`.
- `create(stream=True)`, not `messages.stream()`: the latter also builds the whole message, which nothing here reads, and
  parses a tool call's arguments anew with every piece of them (docs/decisions/0021).
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anthropic
import httpx2
import structlog
from anthropic import AsyncAnthropic, AsyncStream
from anthropic.types import RawMessageStreamEvent

from shared.errors import GenerationFailed
from shared.providers import ProviderConfig
from worker.providers.anthropic_errors import UPSTREAM_ERRORS, failure_of
from worker.providers.anthropic_events import EventReader
from worker.providers.anthropic_request import arguments_of
from worker.providers.base import Call, Delta, Finish
from worker.providers.failure_text import scrub
from worker.providers.http_transport import transport
from worker.providers.key import bare_key
from worker.providers.prefill import Prefill
from worker.providers.upstream import CONNECT_S, LIMITS, WRITE_S, drain, read_timeout_s

log = structlog.get_logger(__name__)


class Messages:
    """One client, one connection pool, any number of calls at once."""

    def __init__(self, config: ProviderConfig, base_url: str, key: str, *, own: bool) -> None:
        """`own`: the server is Anthropic's. The SDK shows the key as it wants it now; other servers may know the older way."""
        self._config = config
        self._host = httpx2.URL(base_url).host
        read_s = read_timeout_s(config.silence_s)
        timeout = httpx2.Timeout(connect=CONNECT_S, read=read_s, write=WRITE_S, pool=CONNECT_S)
        self._client = AsyncAnthropic(
            api_key=key,
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            default_headers=None if own else {"x-api-key": key},
            http_client=anthropic.DefaultAsyncHttpxClient(timeout=timeout, limits=LIMITS, transport=transport()),
        )
        _ = self._client.messages  # imports what the first call would import

    async def close(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        """See `base.Provider.stream`. Read past `Finish` to its end, so that the connection can be reused."""
        prefill = Prefill(call.prefix.text if call.prefix else "")
        upstream = await self._open(call, prefill)
        # Left from right to left: the socket is closed first, by one call that does not depend on where the reading stands.
        async with aclosing(self._deltas(call, upstream, prefill)) as deltas, upstream:
            yield deltas

    async def _open(self, call: Call, prefill: Prefill) -> AsyncStream[RawMessageStreamEvent]:
        arguments = arguments_of(call, self._config.max_tokens, prefill.sent)
        try:
            upstream: AsyncStream[RawMessageStreamEvent] = await self._client.messages.create(stream=True, **arguments)
            return upstream
        except UPSTREAM_ERRORS as error:
            failure = self._failure(call, error)
        # Raised out here, so that it has no __context__: the SDK's error repeats what the server said, and that may be the key.
        raise failure

    async def _deltas(
        self, call: Call, upstream: AsyncStream[RawMessageStreamEvent], prefill: Prefill
    ) -> AsyncGenerator[Delta, None]:
        reader, failure = EventReader(self._id(call), prefill), None
        events = aiter(upstream)
        while not reader.ended:
            try:
                event = await anext(events)
            except StopAsyncIteration:
                break
            except UPSTREAM_ERRORS as error:
                failure = self._failure(call, error)
                break
            for delta in reader.read(event):
                yield delta
        if failure is not None or not reader.ended or reader.finish is None:
            raise failure or self._incomplete(call, reader.ended)
        if reader.usage is not None:
            yield reader.usage
        yield Finish(reader.finish)
        await drain(events, UPSTREAM_ERRORS)

    def _failure(self, call: Call, error: Exception) -> GenerationFailed:
        failure = failure_of(error, self._id(call), self._config, self._host)
        status = error.status_code if isinstance(error, anthropic.APIStatusError) else None
        request_id = error.request_id if isinstance(error, anthropic.APIStatusError) else None
        request_id = scrub(request_id, bare_key(self._config)) if request_id else None  # a header, and the server's own words
        log.warning(
            "upstream failed", job=call.job_id, model=self._id(call), code=failure.code, status=status, request_id=request_id
        )
        return failure

    def _incomplete(self, call: Call, ended: bool) -> GenerationFailed:
        missing = "a stop reason" if ended else "its end"
        log.warning("upstream ended without " + missing, job=call.job_id, model=self._id(call))
        return GenerationFailed("incomplete", f"{self._id(call)} closed its stream without {missing}.")

    def _id(self, call: Call) -> str:
        return f"{self._config.name}/{call.model}"
