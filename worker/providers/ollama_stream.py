"""One call of Ollama's own API, through the official client: the half of the provider that needs the client.

    Call ──body_of──▶ POST /api/chat ──client──▶ objects, one a line ──PartReader──▶ Token … Usage Finish

The client's transport is used, not its types: those drop the ids of tool calls and whatever of a tool's parameters is nested,
and open a file where an image's text happens to be a path (docs/decisions/0020).
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import httpx
import ollama
import structlog

from shared.errors import GenerationFailed
from shared.providers import ProviderConfig
from worker.providers.base import Call, Delta, Finish
from worker.providers.ollama_errors import UPSTREAM_ERRORS, Refused, failure_of
from worker.providers.ollama_parts import PartReader
from worker.providers.ollama_request import body_of
from worker.providers.upstream import CONNECT_S, IDLE_CONNECTIONS, WRITE_S, drain, read_timeout_s

Parts = AsyncGenerator[dict[str, Any], None]

log = structlog.get_logger(__name__)


class _Client(ollama.AsyncClient):
    async def chat_objects(self, body: dict[str, Any], headers: dict[str, str]) -> Parts:
        """`chat()` with a body as it is, giving objects as they are. Nothing is sent before the first is asked for."""
        return cast(Parts, await self._request(dict, "POST", "/api/chat", json=body, headers=headers, stream=True))


class Chat:
    """One client, one connection pool, any number of calls at once."""

    def __init__(self, config: ProviderConfig, url: str, key: str) -> None:
        self._config = config
        self._url = url
        self._client = _Client(
            url,
            timeout=httpx.Timeout(connect=CONNECT_S, read=read_timeout_s(config.silence_s), write=WRITE_S, pool=CONNECT_S),
            # As `upstream.LIMITS`, for the older httpx that this client is made of.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=IDLE_CONNECTIONS),
            headers={"authorization": f"Bearer {key}"} if key else None,
            event_hooks={"response": [_refuse]},
        )

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]  # as the client has it

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        """See `base.Provider.stream`. Read past `Finish` to its end, so that the connection can be reused."""
        parts = await self._client.chat_objects(body_of(call), call.headers())
        # Left from right to left: closing `parts` needs `deltas` to be done with it.
        async with aclosing(parts), aclosing(self._deltas(call, parts)) as deltas:
            yield deltas

    async def _deltas(self, call: Call, parts: Parts) -> AsyncGenerator[Delta, None]:
        reader, failure = PartReader(self._id(call)), None
        while reader.finish is None:
            try:
                part = await anext(parts)
            except StopAsyncIteration:
                break
            except UPSTREAM_ERRORS as error:
                failure = self._failure(call, error)
                break
            for delta in reader.read(part):
                yield delta
        # Raised out here, so that it has no __context__: the client's error repeats what the server said.
        if reader.finish is None:
            raise failure or self._incomplete(call)
        if reader.usage is not None:
            yield reader.usage
        yield Finish(reader.finish)
        await drain(parts, UPSTREAM_ERRORS)

    def _failure(self, call: Call, error: Exception) -> GenerationFailed:
        failure = failure_of(error, self._id(call), self._config, self._url)
        status = error.status if isinstance(error, Refused) else None
        log.warning("upstream failed", job=call.job_id, model=self._id(call), code=failure.code, status=status)
        return failure

    def _incomplete(self, call: Call) -> GenerationFailed:
        log.warning("upstream ended without done", job=call.job_id, model=self._id(call))
        return GenerationFailed("incomplete", f"{self._id(call)} closed its stream before it was done.")

    def _id(self, call: Call) -> str:
        return f"{self._config.name}/{call.model}"


async def _refuse(response: httpx.Response) -> None:
    """Before the client looks: its own error has no headers, and is not made at all from a body that is no object."""
    if response.is_error:
        await response.aread()
        raise Refused(response.status_code, response.text, response.headers)
