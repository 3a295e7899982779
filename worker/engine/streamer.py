"""Engine 2: `generate()` in a thread a job, for models that batching cannot run.

    generate() ──▶ thread: model.generate(streamer=…) ──ids──▶ TokenFeed

Unlike transformers' `TextIteratorStreamer`, what reaches the event loop is ids, text is made there; an exception in
`generate()` reaches the reader; and a reader that leaves stops the thread within a forward pass.
"""

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from shared.errors import GenerationFailed
from worker.engine.feed import Generation, TokenFeed
from worker.engine.loading import LoadedModel
from worker.engine.sampler import next_id
from worker.engine.sampling import Sampling

THREADS: Final = 2
"""Jobs at once. Each moves all weights through memory for one token, so more of them only share the same speed."""
STOP_S: Final = 5.0
"""How long an ending waits for the forward passes under way."""

log = structlog.get_logger(__name__)


class StreamerEngine:
    """Runs `THREADS` jobs at once; others wait for their turn. All methods belong to the event loop."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._turns = asyncio.Semaphore(THREADS)
        self._runs: set[_Run] = set()
        atexit.register(self._halt)

    @property
    def context(self) -> int:
        """Ids that prompt and answer of one job may have together."""
        return self._loaded.context

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[TokenFeed]:
        """Ids as they are made, the end token included. The next job's turn comes once this one's thread has ended."""
        await self._turns.acquire()
        run = _Run(self._loaded, generation, self._over)
        self._runs.add(run)
        run.thread.start()
        try:
            yield run.feed
        finally:
            run.stop.set()

    async def close(self) -> None:
        """Ends the threads, within a forward pass; their jobs fail."""
        atexit.unregister(self._halt)
        for run in self._runs:
            run.stop.set()
            run.feed.fail(GenerationFailed("incomplete", "The worker stopped before the answer was complete."))
        try:
            async with asyncio.timeout(STOP_S):
                for run in list(self._runs):
                    await run.over.wait()
        except TimeoutError:
            log.warning("threads have not ended; leaving them behind", threads=len(self._runs), after_s=STOP_S)

    def _over(self, run: "_Run") -> None:
        self._runs.discard(run)
        self._turns.release()

    def _halt(self) -> None:
        """At the interpreter's exit, where nobody closed: a daemon thread inside torch must not outlive it."""
        for run in self._runs:
            run.stop.set()
        for run in self._runs:
            run.thread.join(STOP_S)


class _Run:
    """One job's thread. `stop` and `thread` are for any thread, `feed` and `over` for the event loop."""

    def __init__(self, loaded: LoadedModel, generation: Generation, on_over: "Callable[[_Run], None]") -> None:
        self.feed = TokenFeed()
        self.stop = threading.Event()
        self.over = asyncio.Event()
        self.thread = threading.Thread(target=self._work, name=f"generate-{generation.job_id}", daemon=True)
        self._loaded = loaded
        self._generation = generation
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()

    def _work(self) -> None:
        try:
            outcome = self._generate()
        except Exception as error:  # noqa: BLE001  # whatever generate() raises is this job's failure, and only its
            outcome = GenerationFailed("internal", f"The local model failed: {error}")
        self._call(self._finish, outcome)

    def _generate(self) -> "str | Exception":
        ids = torch.tensor([self._generation.ids], device=self._loaded.model.device)
        with torch.inference_mode():
            output = self._loaded.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=_config(self._loaded, self._generation.max_new_tokens),
                logits_processor=LogitsProcessorList([_Sampler(self._generation.sampling)]),
                stopping_criteria=StoppingCriteriaList([_Stop(self.stop)]),
                streamer=_Streamer(lambda token: self._call(self.feed.push, [token])),
            )
        return "stop" if int(output[0, -1]) in self._loaded.eos_ids else "length"

    def _finish(self, outcome: "str | Exception") -> None:
        if isinstance(outcome, Exception):
            self.feed.fail(outcome)
        else:
            self.feed.end("stop" if outcome == "stop" else "length")
        self.over.set()
        self._on_over(self)

    def _call(self, method: Callable[..., None], argument: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(method, argument)
        except RuntimeError:  # the event loop is closed: nobody reads any more
            self.stop.set()


def _config(loaded: LoadedModel, max_new_tokens: int) -> GenerationConfig:
    eos = sorted(loaded.eos_ids)
    pad = loaded.tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False,  # the argmax of what our sampler leaves
        max_new_tokens=max_new_tokens,
        eos_token_id=eos or None,
        pad_token_id=pad if pad is not None else (eos[0] if eos else None),
    )


class _Sampler(LogitsProcessor):  # type: ignore[misc]  # transformers is Any to mypy
    """Leaves of the one row only the id that is drawn; greedy jobs leave it to `generate()`."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self._sampling.greedy:
            return scores
        chosen = next_id(scores[0], self._sampling, int(input_ids.shape[1]))
        only = torch.full_like(scores, -torch.inf)
        only[0, chosen] = 0.0
        return only


class _Stop(StoppingCriteria):  # type: ignore[misc]  # transformers is Any to mypy
    """Ends `generate()` after the token under way once the event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._event.is_set(), dtype=torch.bool, device=input_ids.device)


class _Streamer(BaseStreamer):  # type: ignore[misc]  # transformers is Any to mypy
    """Hands each new id on. The first value that `generate()` puts is the prompt."""

    def __init__(self, emit: Callable[[int], None]) -> None:
        self._emit = emit
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        if self._prompt_seen:
            self._emit(int(value[0]))
        self._prompt_seen = True

    def end(self) -> None:
        """`generate()` returns right after; what it returns is the end."""
