"""`local/<model>` as the worker sees it: deltas, continuation, usage, refusals."""

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.errors import ConfigurationError, GenerationFailed
from shared.events import Usage
from shared.settings import Settings
from tests.support import local_model
from tests.support.local_model import NAME, call, streamed
from worker.engine.feed import Generation
from worker.providers import local as module
from worker.providers.base import Finish, Prefix
from worker.providers.local import LocalProvider

STORY = "Write a short story about a lighthouse keeper. Use an emoji or two."


@pytest.fixture(params=["batching", "streamer"])
async def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalProvider]:
    """A started provider on the shared model, once on each engine."""
    from worker.engine import batching

    loaded = local_model.loaded_model()
    monkeypatch.setattr(batching, "CPU_CACHE_BYTES", 1024 * batching.token_bytes(loaded.model))
    monkeypatch.setattr(module, "_load", lambda name, of: (loaded, module._make_engine(loaded, of.local_engine, of)))
    provider = LocalProvider(Settings(local_engine=request.param))
    await provider.start()
    yield provider
    await provider.close()


@pytest.mark.model
async def test_tokens_then_usage_then_the_end(provider: LocalProvider) -> None:
    out = await streamed(provider, call("Say hi", None))
    loaded = local_model.loaded_model()
    assert out.text == loaded.decode(out.ids)
    assert all(token.text for token in out.tokens)
    assert not loaded.eos_ids.intersection(out.ids)
    assert out.usage == Usage(input_tokens=len(local_model.prompt_of("Say hi")), output_tokens=len(out.ids) + 1)
    assert out.finish == Finish("stop")


@pytest.mark.model
async def test_max_tokens_is_kept_exactly(provider: LocalProvider) -> None:
    out = await streamed(provider, call(STORY, 9))
    assert out.usage is not None
    assert (out.usage.output_tokens, out.finish) == (9, Finish("length"))


@pytest.mark.model
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.1, "top_p": 0.95, "seed": 11}])
async def test_any_cut_and_its_continuation_are_the_undisturbed_answer(
    provider: LocalProvider, sampling: dict[str, Any]
) -> None:
    whole = await streamed(provider, call(STORY, 28, **sampling))
    for cut in random.Random(1).sample(range(1, len(whole.tokens)), 3):
        prefix = whole.until(cut)
        wanted = call(STORY, 28 - len(prefix.ids), prefix, **sampling)
        assert provider.can_continue(wanted)
        rest = await streamed(provider, wanted)
        assert (prefix.text + rest.text, prefix.ids + rest.ids) == (whole.text, whole.ids)
        assert rest.finish == whole.finish


@pytest.mark.model
async def test_a_stop_string_across_tokens_ends_it_and_does_not_leave(provider: LocalProvider) -> None:
    whole = await streamed(provider, call(STORY, 40))
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 9]
    cut = await streamed(provider, call(STORY, 40, stop=["never said", stop]))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish == Finish("stop")
    assert cut.usage is not None
    assert cut.usage.output_tokens < 40


@pytest.mark.model
async def test_a_stop_string_ends_a_continued_answer_at_the_same_place(provider: LocalProvider) -> None:
    whole = await streamed(provider, call(STORY, 40))
    stop = whole.text[len(whole.text) // 2 :][:9]
    cut = await streamed(provider, call(STORY, 40, stop=stop))
    for kept in (1, len(cut.tokens) // 2, len(cut.tokens)):
        prefix = cut.until(kept)
        rest = await streamed(provider, call(STORY, 40 - len(prefix.ids), prefix, stop=stop))
        assert (prefix.text + rest.text, rest.finish) == (cut.text, Finish("stop"))


@pytest.mark.model
async def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers_and_hurts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.engine import batching

    loaded = local_model.loaded_model()
    monkeypatch.setattr(batching, "CPU_CACHE_BYTES", 256 * batching.token_bytes(loaded.model))
    monkeypatch.setattr(module, "_load", lambda name, settings: (loaded, module._make_engine(loaded, "batching", settings)))
    provider = LocalProvider(Settings())
    await provider.start()
    running = asyncio.create_task(streamed(provider, call(STORY, 20)))
    with pytest.raises(GenerationFailed, match=r"The prompt has [\d,]+ tokens; local/\S+ takes 256 with room") as caught:
        await streamed(provider, call("word " * 30_000))
    assert caught.value.code == "bad_request"
    assert (await running).finish == Finish("length")
    most = await streamed(provider, call("word " * 200, None))
    assert most.usage is not None
    assert most.usage.input_tokens + most.usage.output_tokens <= 256
    await provider.close()


@pytest.mark.model
async def test_an_answer_as_long_as_the_context_is_over(provider: LocalProvider) -> None:
    ids = (local_model.loaded_model().tokenizer(" a")["input_ids"][0],) * 9_000
    prefix = Prefix(local_model.loaded_model().decode(ids), ids)
    out = await streamed(provider, call("Hi", None, prefix))
    assert (out.tokens, out.finish) == ([], Finish("length"))


@pytest.mark.model
async def test_the_engine_is_told_whose_prompt_it_is(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, told = provider._models[NAME].result()._engine, list[Generation]()
    generate = engine.generate

    def noted(wanted: Generation) -> Any:
        told.append(wanted)
        return generate(wanted)

    monkeypatch.setattr(engine, "generate", noted)
    await streamed(provider, msgspec.structs.replace(call("Hi", 1), tenant="web"))
    assert told[-1].tenant == "web"


@pytest.mark.model
async def test_leaving_the_stream_ends_the_generation(provider: LocalProvider) -> None:
    async with provider.stream(call(STORY, 500)) as deltas:
        await anext(deltas)
    out = await streamed(provider, call(STORY, 3))
    assert out.finish == Finish("length")


@pytest.mark.model
async def test_cancelling_who_reads_ends_the_generation(provider: LocalProvider) -> None:
    reading = asyncio.create_task(streamed(provider, call(STORY, 500)))
    done, _ = await asyncio.wait([reading], timeout=0.3)
    assert not done
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.model
async def test_what_it_can_go_on_from(provider: LocalProvider) -> None:
    ids = tuple(local_model.loaded_model().tokenizer("Once upon a time")["input_ids"])
    assert provider.can_continue(call("Hi"))
    assert provider.can_continue(call("Hi", prefix=Prefix("")))
    assert provider.can_continue(call("Hi", prefix=Prefix("Once upon a time", ids)))
    assert not provider.can_continue(call("Hi", prefix=Prefix("Once upon a time")))
    assert not provider.can_continue(call("Hi", prefix=Prefix("Another model's text", ids)))
    with pytest.raises(GenerationFailed, match="another model's tokens"):
        await streamed(provider, call("Hi", prefix=Prefix("Another model's text", ids)))


async def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(GenerationFailed, match="no local model 'nobody'") as caught:
        await streamed(LocalProvider(Settings()), call("Hi", model="nobody"))
    assert caught.value.code == "bad_request"


async def test_a_model_that_cannot_be_loaded_fails_the_call_and_the_next_call_tries_again(tmp_path: Path) -> None:
    provider = LocalProvider(Settings(local_models={"mine": str(tmp_path)}, default_model="local/mine"))
    with pytest.raises(ConfigurationError, match="no model folder"):
        await provider.start()
    for _ in range(2):
        with pytest.raises(GenerationFailed, match="no model folder") as caught:
            await streamed(provider, call("Hi", model="mine"))
        assert caught.value.code == "internal"
    await provider.close()


async def test_callers_at_once_load_a_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    release = threading.Event()

    def load(name: str, settings: Settings) -> Any:
        loads.append(name)
        release.wait(10)
        raise ConfigurationError("enough")

    monkeypatch.setattr(module, "_load", load)
    provider = LocalProvider(Settings())
    calls = [asyncio.create_task(streamed(provider, call("Hi", model=NAME))) for _ in range(3)]
    await asyncio.sleep(0)
    release.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["enough"] * 3
    assert loads == [NAME]
    await provider.close()


async def test_closing_does_not_wait_for_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(module, "_load", lambda name, settings: release.wait(10))
    provider = LocalProvider(Settings())
    starting = asyncio.create_task(provider.start())
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await provider.close()
    with pytest.raises(asyncio.CancelledError):
        await starting
    release.set()


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, worker.providers.local; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
