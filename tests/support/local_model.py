"""The bundled model for tests marked `model`: loaded once a test run, converted once a machine."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest

from shared.events import Token, Usage
from shared.job import JobRequest
from shared.settings import Settings
from worker.engine import runtime
from worker.engine.feed import Generation
from worker.engine.sampling import Sampling
from worker.providers.base import Call, Finish, Prefix, Provider

NAME = "smollm2-135m-instruct"
MODEL = f"local/{NAME}"


@cache
def loaded_model() -> Any:
    """The `LoadedModel` that all tests of a run share. 3 s; a minute where it was never converted."""
    runtime.prepare(offline=True)
    runtime.import_transformers()
    from worker.engine.loading import load_model
    from worker.engine.model_files import find_model
    from worker.engine.packed_linear import pack_linears

    runtime.set_threads()
    loaded = load_model(MODEL, find_model("", Settings().cache_dir), "cpu")
    assert pack_linears(loaded.model)
    return loaded


@asynccontextmanager
async def batching(
    monkeypatch: pytest.MonkeyPatch, slots: int = 8, context: int = 1024, *, share_prompts: bool = True
) -> AsyncIterator[Any]:
    """A batching engine on the shared model, with a cache small enough to be made in no time."""
    from worker.engine import batching as module

    loaded = loaded_model()
    monkeypatch.setattr(module, "CPU_CACHE_BYTES", context * module.token_bytes(loaded.model))
    engine = module.BatchingEngine(loaded, slots, share_prompts=share_prompts)
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def streamer() -> AsyncIterator[Any]:
    """The second engine on the shared model."""
    from worker.engine.streamer import StreamerEngine

    engine = StreamerEngine(loaded_model())
    try:
        yield engine
    finally:
        await engine.close()


def prompt_of(text: str) -> tuple[int, ...]:
    from worker.engine.prompt import prompt_ids

    return tuple(prompt_ids(loaded_model().tokenizer, JobRequest(model=MODEL, prompt=text), MODEL))


def generation(prompt: str | Sequence[int], max_new_tokens: int = 12, job_id: str = "job", **sampling: Any) -> Generation:
    ids = prompt_of(prompt) if isinstance(prompt, str) else tuple(prompt)
    return Generation(job_id=job_id, ids=ids, max_new_tokens=max_new_tokens, sampling=Sampling(**sampling))


async def ids_of(engine: Any, wanted: Generation) -> tuple[list[int], str | None]:
    """All ids of one generation, and why it ended."""
    ids: list[int] = []
    async with engine.generate(wanted) as feed:
        async for batch in feed:
            ids += batch
    return ids, feed.reason


class Streamed:
    """All deltas of one call, sorted."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.usage: Usage | None = None
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token for delta in self.tokens for token in delta.ids)

    def until(self, cut: int) -> Prefix:
        """What a reader had after `cut` tokens, as a takeover finds it."""
        kept = self.tokens[:cut]
        return Prefix("".join(t.text for t in kept), tuple(i for t in kept for i in t.ids))


def call(prompt: str, max_tokens: int | None = 12, prefix: Prefix | None = None, model: str = NAME, **request: Any) -> Call:
    asked = JobRequest(model=f"local/{model}", prompt=prompt, **request)
    return Call(job_id="job", model=model, request=asked, max_tokens=max_tokens, prefix=prefix)


async def streamed(provider: Provider, wanted: Call) -> Streamed:
    out = Streamed()
    async with provider.stream(wanted) as deltas:
        async for delta in deltas:
            match delta:
                case Token():
                    assert out.usage is None or not out.usage.output_tokens
                    out.tokens.append(delta)
                case Usage():
                    assert out.usage is None or not out.usage.output_tokens
                    out.usage = delta
                case Finish():
                    assert out.finish is None
                    out.finish = delta
                case _:
                    raise AssertionError(f"a local model has no {delta!r}")
    return out
