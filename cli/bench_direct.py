"""A model called straight through its provider's own SDK, with the keys and addresses of this environment: what a program
without Lastevent would do, and what `lastevent bench --direct` holds it against.

Each SDK is imported for the first model that needs it.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import perf_counter
from typing import Any, Final, Protocol

from cli.bench_runs import Clock, Run
from shared.errors import ConfigurationError
from shared.providers import ProviderConfig, provider_configs
from shared.settings import Settings
from worker.providers.key import bare_key

NO_KEY: Final = "none"
"""What servers without keys are sent: the SDKs insist on one."""

Pieces = AsyncGenerator[int | None, None]
"""None for each piece of output; a number where the provider told how many tokens it was, the last one being right."""


class DirectFailed(Exception):
    """The call failed. `code`: the status as `http_429`, or the name of the SDK's own error. Never its words: they may hold
    the key."""

    def __init__(self, error: Exception) -> None:
        status = getattr(error, "status_code", None)
        self.code = f"http_{status}" if isinstance(status, int) and status >= 400 else type(error).__name__
        super().__init__(self.code)


class DirectCalls(Protocol):
    """One SDK's client."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """All that a call raises because of the other side."""

    def pieces(self, model: str, prompt: str, max_tokens: int) -> Pieces:
        """One answer; closing it closes the connection."""

    async def close(self) -> None: ...


async def direct_run(calls: DirectCalls, model: str, prompt: str, max_tokens: int) -> Run | None:
    """One call, read to its end; None where the answer is empty. Raises DirectFailed."""
    clock, pieces_seen, told = Clock(perf_counter()), 0, None
    try:
        async with aclosing(calls.pieces(model, prompt, max_tokens)) as pieces:
            async for tokens in pieces:
                if tokens is None:
                    pieces_seen += 1
                    clock.piece(perf_counter())
                else:
                    told = tokens
    except calls.errors as error:
        failure = DirectFailed(error)
    else:
        return clock.end(perf_counter(), pieces_seen if told is None else told)
    raise failure  # out here, without a __context__ that repeats the key


class OpenAICalls:
    """Through the openai SDK: OpenAI, or the server that OPENAI_BASE_URL names."""

    def __init__(self, config: ProviderConfig) -> None:
        import httpx2
        import openai

        self.errors = (openai.OpenAIError, httpx2.HTTPError, OSError, ValueError)
        url = config.base_url
        self._limit = "max_completion_tokens" if url is None else "max_tokens"  # other servers know only the older name
        self._client = openai.AsyncOpenAI(api_key=_key(config), base_url=url, max_retries=0)

    async def pieces(self, model: str, prompt: str, max_tokens: int) -> Pieces:
        arguments: dict[str, Any] = {self._limit: max_tokens, "stream_options": {"include_usage": True}}
        messages: Any = [{"role": "user", "content": prompt}]
        create = self._client.chat.completions.create
        async with await create(model=model, messages=messages, stream=True, **arguments) as chunks:
            async for chunk in chunks:
                delta = chunk.choices[0].delta if chunk.choices else None
                if delta is not None and (delta.content or delta.refusal or _thought(delta.model_extra)):
                    yield None
                if chunk.usage is not None:
                    yield chunk.usage.completion_tokens

    async def close(self) -> None:
        await self._client.close()


class AnthropicCalls:
    """Through the anthropic SDK."""

    def __init__(self, config: ProviderConfig) -> None:
        import anthropic
        import httpx2

        self.errors = (anthropic.AnthropicError, httpx2.HTTPError, OSError, ValueError)
        self._client = anthropic.AsyncAnthropic(api_key=_key(config), base_url=config.base_url, max_retries=0)

    async def pieces(self, model: str, prompt: str, max_tokens: int) -> Pieces:
        messages: Any = [{"role": "user", "content": prompt}]
        create = self._client.messages.create
        async with await create(model=model, messages=messages, max_tokens=max_tokens, stream=True) as events:
            async for event in events:
                if event.type == "content_block_delta" and event.delta.type in ("text_delta", "thinking_delta"):
                    yield None
                elif event.type == "message_delta":
                    yield event.usage.output_tokens

    async def close(self) -> None:
        await self._client.close()


class OllamaCalls:
    """Through Ollama's own client."""

    def __init__(self, config: ProviderConfig) -> None:
        import httpx
        import ollama

        self.errors = (ollama.ResponseError, ollama.RequestError, httpx.HTTPError, OSError, ValueError)
        key = bare_key(config)
        headers = {"authorization": f"Bearer {key}"} if key else None
        self._client = ollama.AsyncClient(config.base_url, headers=headers)

    async def pieces(self, model: str, prompt: str, max_tokens: int) -> Pieces:
        messages, options = [{"role": "user", "content": prompt}], {"num_predict": max_tokens}
        async for part in await self._client.chat(model, messages, stream=True, options=options):
            if part.message.content or part.message.thinking:
                yield None
            if part.done and part.eval_count is not None:
                yield part.eval_count

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]  # as the client has it


_BY_KIND: Final[dict[str, Callable[[ProviderConfig], DirectCalls]]] = {
    "openai": OpenAICalls,
    "anthropic": AnthropicCalls,
    "ollama": OllamaCalls,
}


class Direct:
    """The clients of a bench, each made when its first model is asked for. Use as `async with`."""

    def __init__(self, settings: Settings) -> None:
        self._configs = provider_configs(settings)
        self._calls: dict[str, DirectCalls] = {}

    def can_call(self, model_id: str) -> bool:
        """Whether there is an SDK for this model; makes its client. Raises ConfigurationError without key and address."""
        name = model_id.partition("/")[0]
        config = self._configs.get(name)
        if config is not None and name not in self._calls:
            _check_key(config)
            self._calls[name] = _BY_KIND[config.kind](config)
        return config is not None

    async def run(self, model_id: str, prompt: str, max_tokens: int) -> Run | None:
        """Raises DirectFailed."""
        provider, _, name = model_id.partition("/")
        return await direct_run(self._calls[provider], name, prompt, max_tokens)

    async def __aenter__(self) -> "Direct":
        return self

    async def __aexit__(self, *_: object) -> None:
        for calls in self._calls.values():
            await calls.close()


def _key(config: ProviderConfig) -> str:
    return bare_key(config) or NO_KEY


def _check_key(config: ProviderConfig) -> None:
    """Only a server of one's own, and Ollama, may do without."""
    wanted = config.key_wanted or (config.base_url is None and config.kind != "ollama")
    if wanted and not bare_key(config):
        raise ConfigurationError(f"--direct calls {config.name}/… itself and needs {config.key_env or config.address_setting}")


def _thought(extra: dict[str, Any] | None) -> bool:
    return bool(extra and (extra.get("reasoning_content") or extra.get("reasoning")))
