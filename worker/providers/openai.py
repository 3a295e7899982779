"""Providers of the kind openai: OpenAI's Chat Completions, and every server that speaks them. Through the openai SDK.

    Call ──arguments_of──▶ POST /chat/completions ──SDK──▶ bytes ──chunks_of──▶ chunks ──ChunkReader──▶ Token … Usage Finish

- The SDK makes the call; its chunk objects would cost more than everything else that a token needs (docs/decisions/0023).
- The SDK's own retries are off: retrying is the job's business, where readers see it as an attempt.
- The read timeout is only a net under the attempt's deadlines, which are shorter and close the stream themselves.
- A stream that is closed cleanly ends normally, cut short or not: without `finish_reason` it is `incomplete`.
- Once a `finish_reason` is here the answer is whole. What may still come is the usage; a connection that breaks, or is
  silent, before that costs the usage and nothing else.
- The client is made at `start()` or by the first call, so that a worker starts without a key.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import httpx2
import openai
import structlog
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from shared.errors import ConfigurationError, GenerationFailed
from shared.job import Message
from shared.providers import ProviderConfig
from worker.providers.base import Call, Delta, Finish
from worker.providers.failure_text import scrub
from worker.providers.http_transport import transport
from worker.providers.key import bare_key, usable_key
from worker.providers.openai_body import chunks_of
from worker.providers.openai_chunks import ChunkReader
from worker.providers.openai_errors import UPSTREAM_ERRORS, failure_of
from worker.providers.openai_prefill import continued
from worker.providers.prefill import Prefill
from worker.providers.upstream import CONNECT_S, LIMITS, WRITE_S, address, drain, read_timeout_s

OPENAI_URL: Final = "https://api.openai.com/v1"
_OPENAI_HOSTS: Final = (".openai.com", ".openai.azure.com")

USAGE_WAIT_S: Final = 3.0
"""How long a finished answer waits for its usage. OpenAI sends it with the next packet; some servers never do."""

_PLACEHOLDER: Final = "none"
"""What servers without keys are sent: the SDK insists on a key, and leaving it out would make it read the environment."""

log = structlog.get_logger(__name__)


class OpenAIProvider:
    """One client, one connection pool, any number of calls at once. See `base.Provider`."""

    def __init__(self, config: ProviderConfig) -> None:
        self.name = config.name
        self._config = config
        self._base_url = config.base_url or OPENAI_URL
        self._client: AsyncOpenAI | None = None

    async def start(self) -> None:
        """Makes the client, if there is a key for it: about 200 ms that the first call need not pay.

        Raises:
            ConfigurationError: the base URL is no address, or OpenAI itself is to go on from a text.
        """
        if address(self._base_url) is None:
            raise ConfigurationError(f"{self._config.address_setting} must be an address as http://host:port/v1.")
        if self._config.prefill and self._is_openai():
            raise ConfigurationError(
                f"prefill of [providers.{self.name}] is for other servers: OpenAI answers a trailing assistant message, "
                "it does not continue it."
            )
        if bare_key(self._config) or not (self._is_openai() or self._config.key_wanted):
            _ = self._ready_client().chat.completions  # imports what the first call would import

    async def close(self) -> None:
        """Closes the connections; open streams fail with `connection`."""
        if self._client is not None:
            await self._client.close()

    def can_continue(self, call: Call) -> bool:
        """With text to go on from, only the models that are set to continue a trailing assistant message (`prefill`)."""
        return call.prefix is None or not call.prefix.text or self._config.prefills(call.model)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        """Opens the stream; see `base.Provider.stream`. Read past `Finish` to its end, so that the connection can be reused.

        Where the model takes no prefix, the answer starts anew.
        """
        prefill = Prefill(call.prefix.text if call.prefix and self.can_continue(call) else "")
        upstream = await self._open(call, prefill)
        # Left from right to left: the socket is closed first, by one call that does not depend on where the reading stands.
        async with aclosing(self._deltas(call, upstream, prefill)) as deltas, upstream:
            yield deltas

    async def _open(self, call: Call, prefill: Prefill) -> AsyncStream[ChatCompletionChunk]:
        arguments = continued(arguments_of(call, own=self._is_openai()), prefill.sent, self._config.prefill_style)
        client = self._ready_client()
        try:
            # Not `chat.completions.create`, which walks through all that it is given, type by type, to send the same.
            return await client.post(
                "/chat/completions",
                body=arguments | {"stream": True},
                options={"headers": call.headers()},
                cast_to=ChatCompletion,
                stream=True,
                stream_cls=AsyncStream[ChatCompletionChunk],
            )
        except UPSTREAM_ERRORS as error:
            failure = self._failure(call, error)
        # Raised out here, so that it has no __context__: the SDK's error repeats what the server said, and that may be the key.
        raise failure

    async def _deltas(
        self, call: Call, upstream: AsyncStream[ChatCompletionChunk], prefill: Prefill
    ) -> AsyncGenerator[Delta, None]:
        reader, failure = ChunkReader(self._id(call), prefill), None
        body = upstream.response.aiter_bytes()
        chunks = chunks_of(body, upstream.response.request)
        while not reader.complete:
            try:
                async with asyncio.timeout(USAGE_WAIT_S if reader.finish else None):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            except UPSTREAM_ERRORS as error:
                failure = self._failure(call, error)
                break
            for delta in reader.read(chunk):
                yield delta
        if reader.finish is None:
            raise failure or self._incomplete(call)
        if reader.usage is not None:
            yield reader.usage
        yield Finish(reader.finish)
        await drain(body, UPSTREAM_ERRORS)

    def _ready_client(self) -> AsyncOpenAI:
        if self._client is None:
            key = usable_key(self._config, wanted=self._is_openai())
            read_s = read_timeout_s(self._config.silence_s)
            timeout = httpx2.Timeout(connect=CONNECT_S, read=read_s, write=WRITE_S, pool=CONNECT_S)
            self._client = AsyncOpenAI(
                api_key=key or _PLACEHOLDER,
                base_url=self._base_url,
                max_retries=0,
                timeout=timeout,
                http_client=openai.DefaultAsyncHttpx2Client(timeout=timeout, limits=LIMITS, transport=transport()),
            )
        return self._client

    def _is_openai(self) -> bool:
        """Whether the server is OpenAI's own (or Azure's of it), which wants a key and takes its newest parameters."""
        return f".{self._host()}".endswith(_OPENAI_HOSTS)

    def _host(self) -> str:
        url = address(self._base_url)
        return url.host if url is not None else ""

    def _failure(self, call: Call, error: Exception) -> GenerationFailed:
        failure = failure_of(error, self._id(call), self._config, self._host())
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        request_id = error.request_id if isinstance(error, openai.APIStatusError) else None
        request_id = scrub(request_id, bare_key(self._config)) if request_id else None  # a header, and the server's own words
        log.warning(
            "upstream failed", job=call.job_id, model=self._id(call), code=failure.code, status=status, request_id=request_id
        )
        return failure

    def _incomplete(self, call: Call) -> GenerationFailed:
        log.warning("upstream ended without finish_reason", job=call.job_id, model=self._id(call))
        return GenerationFailed("incomplete", f"{self._id(call)} ended its stream without a finish reason.")

    def _id(self, call: Call) -> str:
        return f"{self.name}/{call.model}"


def arguments_of(call: Call, *, own: bool) -> dict[str, Any]:
    """What is sent, beside `stream`: only what the caller set, and never `metadata`.

    `own`: the server is OpenAI's. Its reasoning models refuse `max_tokens`; most other servers know nothing else.
    """
    request = call.request
    limit = "max_completion_tokens" if own else "max_tokens"
    arguments: dict[str, Any] = {
        limit: call.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": request.stop or None,
        "seed": request.seed,
        "tools": request.tools or None,  # an empty list is refused
        "tool_choice": request.tool_choice if request.tools else None,  # so is a choice among none
    }
    return {
        "model": call.model,
        "messages": [_message(message) for message in request.chat()],
        "stream_options": {"include_usage": True},
    } | {name: value for name, value in arguments.items() if value is not None}


def _message(message: Message) -> dict[str, Any]:
    # `content` stays when null: some servers want the field beside `tool_calls`.
    return {"role": message.role, "content": None} | message.model_dump(exclude_none=True)
