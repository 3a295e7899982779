"""`local/<model>`: models that run in this process. Nothing here imports torch; `start()` does, off the event loop.

    Call ──prompt_ids──▶ Generation ──engine──▶ TokenFeed ──Answer──▶ Token … Usage Finish

- The default model is loaded at `start()`, so that a worker which is up can answer; each other one by its first call, so that
  a configured model that nobody uses takes no memory. A model that was loaded stays.
- Batching runs all that it can; a model that it cannot run goes to the second engine (`_Model.make`).
- A takeover goes on from token ids: what left as `Token.ids` is fed as already answered.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from shared.errors import ConfigurationError, GenerationFailed
from shared.events import Usage
from shared.models import BUNDLED_MODEL, local_model_sources
from shared.settings import Settings
from worker.engine import runtime
from worker.engine.answer import Answer
from worker.engine.feed import Generation, TokenFeed
from worker.engine.model_files import find_model, may_download
from worker.engine.prompt import prompt_ids, room_for_answer
from worker.engine.sampling import Sampling, sampling_for
from worker.providers.base import Call, Delta, Finish, Prefix

if TYPE_CHECKING:
    from worker.engine.loading import LoadedModel

LONG_TEXT: Final = 20_000
"""Characters past which a prompt is tokenised in a thread: about 20 ms of the event loop."""

log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What runs a model: `batching.py` or `streamer.py`."""

    @property
    def context(self) -> int: ...

    def generate(self, generation: Generation) -> AbstractAsyncContextManager[TokenFeed]: ...

    async def close(self) -> None: ...


class LocalProvider:
    """The models of this process. See `base.Provider`."""

    name = "local"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: dict[str, asyncio.Task[_Model]] = {}

    async def start(self) -> None:
        """Loads the default model, or the bundled one where the default is no local model.

        Raises:
            ConfigurationError: a package, the model's files, the device or the cache folder is not as it must be.
        """
        sources = local_model_sources(self._settings)
        runtime.prepare(offline=not may_download(iter(sources.values())))
        provider, _, name = self._settings.default_model.partition("/")
        first = name if provider == self.name and name in sources else BUNDLED_MODEL
        later = [other for other in sources if other != first]
        if later:
            log.info("other local models load with their first call", models=later)
        await self._model(first)

    async def close(self) -> None:
        """Stops the engines' threads; open streams fail with `incomplete`."""
        for loading in self._models.values():
            loading.cancel()
        for outcome in await asyncio.gather(*self._models.values(), return_exceptions=True):
            if isinstance(outcome, _Model):
                await outcome.close()
        self._models.clear()

    def can_continue(self, call: Call) -> bool:
        """With nothing to go on from, always; else when the ids are known and this model's own."""
        if call.prefix is None or not call.prefix.text:
            return True
        if not call.prefix.ids:
            return False
        loading = self._models.get(call.model)
        if loading is None or not loading.done() or loading.cancelled() or loading.exception() is not None:
            return True  # the stream will look again
        return loading.result().knows(call.prefix)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        """Opens the stream; see `base.Provider.stream`."""
        model = await self._model_for(call)
        async with aclosing(model.deltas(call)) as deltas:
            yield deltas

    async def _model_for(self, call: Call) -> "_Model":
        if call.model not in local_model_sources(self._settings):
            raise GenerationFailed("bad_request", f"There is no local model {call.model!r} in this worker.")
        try:
            return await self._model(call.model)
        except ConfigurationError as error:
            raise GenerationFailed("internal", str(error)) from error

    async def _model(self, name: str) -> "_Model":
        """The model, loading it once however many ask. A failed load is tried again by the next call."""
        loading = self._models.get(name)
        if loading is None or (loading.done() and (loading.cancelled() or loading.exception() is not None)):
            loading = self._models[name] = asyncio.create_task(_Model.make(name, self._settings), name=f"load-{name}")
        return await asyncio.shield(loading)


class _Model:
    """One loaded model with the engine that runs it."""

    def __init__(self, loaded: "LoadedModel", engine: Engine) -> None:
        self._loaded = loaded
        self._engine = engine
        self._packed = asyncio.Event()
        """Set once the weights are as they stay: no job runs while they are replaced."""
        self._warm_up = asyncio.create_task(self._warm(), name=f"warm-up-{loaded.id}")

    async def close(self) -> None:
        self._warm_up.cancel()
        await asyncio.gather(self._warm_up, return_exceptions=True)
        await self._engine.close()

    async def _warm(self) -> str:
        """What makes a loaded model fast: its weights packed, and one token generated, so that no job pays for what torch sets
        up at its first. Returns what that token failed with; empty when it did not.
        """
        try:
            await runtime.in_daemon_thread(_pack, self._loaded)
        finally:
            self._packed.set()
        generation = Generation(job_id="warm-up", ids=(0,), max_new_tokens=1, sampling=Sampling())
        try:
            async with self._engine.generate(generation) as feed:
                async for _ in feed:
                    pass
        except GenerationFailed as error:
            return str(error)
        return ""

    @classmethod
    async def make(cls, name: str, settings: Settings) -> "_Model":
        """Loads it and picks its engine. A batch that cannot run one token of it gives way to the second engine."""
        loaded, engine = await runtime.in_daemon_thread(_load, name, settings)
        model = cls(loaded, engine)
        if name == BUNDLED_MODEL or settings.local_engine != "auto":
            return model
        if failure := await model._warm_up:
            log.warning("batching cannot run this model; each job gets a thread", model=loaded.id, error=failure)
            await engine.close()
            model._engine = await asyncio.to_thread(_make_engine, loaded, "streamer", settings)
        return model

    def knows(self, prefix: Prefix) -> bool:
        """Whether the prefix' ids are this model's: another one's decode to other text."""
        return self._loaded.decode(prefix.ids).startswith(prefix.text)

    async def deltas(self, call: Call) -> AsyncGenerator[Delta, None]:
        prefix = call.prefix if call.prefix is not None and call.prefix.ids else Prefix("")
        if not self.knows(prefix):
            raise GenerationFailed("internal", f"{self._loaded.id} cannot go on from another model's tokens.")
        prompt = await self._prompt(call)
        room = room_for_answer(self._loaded.id, len(prompt), len(prefix.ids), self._engine.context, call.max_tokens)
        answer = Answer(self._loaded.decode, call.request.stop_list(), prefix.text, prefix.ids)
        for delta in answer.opening():
            yield delta
        if answer.stopped or room == 0:
            yield Usage(input_tokens=len(prompt), output_tokens=0)
            yield Finish("stop" if answer.stopped else "length")
            return
        await self._packed.wait()
        generation = Generation(
            job_id=call.job_id,
            ids=(*prompt, *prefix.ids),
            max_new_tokens=room,
            sampling=sampling_for(call.request, self._loaded.defaults),
            tenant=call.tenant,
        )
        yield Usage(input_tokens=len(prompt))  # known already, should the answer be cut short
        async with self._engine.generate(generation) as feed:
            generated = 0
            async for ids in feed:
                generated += len(ids)
                for delta in answer.push([token for token in ids if token not in self._loaded.eos_ids]):
                    yield delta
                if answer.stopped:
                    break
        for delta in answer.flush():
            yield delta
        yield Usage(input_tokens=len(prompt), output_tokens=generated)
        yield Finish("stop" if answer.stopped or feed.reason is None else feed.reason)

    async def _prompt(self, call: Call) -> list[int]:
        request = call.request
        size = sum(len(str(message.content)) for message in request.chat())
        if size <= LONG_TEXT:
            return prompt_ids(self._loaded.tokenizer, request, self._loaded.id)
        return await asyncio.to_thread(prompt_ids, self._loaded.tokenizer, request, self._loaded.id)


def _load(name: str, settings: Settings) -> "tuple[LoadedModel, Engine]":
    """In a thread, seconds. Raises ConfigurationError."""
    try:
        with runtime.no_collections():
            runtime.import_transformers()
            from worker.engine.loading import load_model

            runtime.set_threads()
            files = find_model(local_model_sources(settings)[name], settings.cache_dir)
            loaded = load_model(f"local/{name}", files, settings.local_device)
            kind = settings.local_engine
            if kind == "auto" and loaded.needs_streamer:
                log.info("batching lacks what this model's configuration sets", model=loaded.id, setting=loaded.needs_streamer)
                kind = "streamer"
            return loaded, _make_engine(loaded, kind, settings)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"Local models need the package {error.name}, which is not installed: pip install 'lastevent[engine]'."
        ) from None


def _make_engine(loaded: "LoadedModel", kind: str, settings: Settings) -> Engine:
    if kind == "streamer":
        from worker.engine.streamer import StreamerEngine

        return StreamerEngine(loaded)
    from worker.engine.batching import BatchingEngine

    return BatchingEngine(loaded, settings.local_slots, share_prompts=settings.local_share_prompts)


def _pack(loaded: "LoadedModel") -> None:
    from worker.engine.packed_linear import pack_linears

    if pack_linears(loaded.model):
        log.info("weights packed for this processor", model=loaded.id)
