"""Engine 1: transformers' continuous batching. All jobs share each forward pass; a new one joins at the next.

    generate() ──add_request──▶ manager's thread: schedule → forward → next_id for each row ──▶ TokenFeed of each job

- The manager's own thread is not a daemon, and would keep a process alive that wants to end. Threads inherit that from who
  starts them, so a daemon thread starts it here, waits for its end, and tells the event loop.
- When the loop dies, every job in it fails; the next job gets a new manager. What is known to kill it, a prompt that does
  not fit, never gets there (`prompt.room_for_answer` with this engine's `context`).
- Sampling is our own processor, with each request's own parameters and seed; the manager only takes the argmax.
"""

import asyncio
import atexit
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)

from shared.errors import GenerationFailed
from worker.engine.feed import Generation, TokenFeed
from worker.engine.loading import LoadedModel
from worker.engine.sampler import next_id
from worker.engine.sampling import Sampling

PAGE_TOKENS: Final = 32
"""Cache is handed out in pages; a job wastes half of one."""
STEP_TOKENS: Final = 128
"""Tokens of one forward pass. A long prompt is read in pieces of this, and nobody else's next token waits for more."""
CPU_CACHE_BYTES: Final = 400 * 1024 * 1024
"""Keys and values of all running jobs. SmolLM2 takes 45 KiB a token: one job at its full 8,192, or eight at 1,100."""
CUDA_CACHE_SHARE: Final = 0.5
"""Of the device's free memory, at most; no more than the slots can use."""
STOP_S: Final = 5.0
"""How long an ending waits for the forward pass under way."""

log = structlog.get_logger(__name__)


class BatchingEngine:
    """Runs any number of jobs on one model, `slots` of them at once. All methods belong to the event loop."""

    def __init__(self, loaded: LoadedModel, slots: int) -> None:
        self._loaded = loaded
        self._slots = slots
        self._pages = _pages(loaded, slots)
        self._batch: _Batch | None = None
        self._starting = asyncio.Lock()

    @property
    def context(self) -> int:
        """Ids that prompt and answer of one job may have together."""
        return min(self._loaded.context, self._pages * PAGE_TOKENS)

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[TokenFeed]:
        """Ids as they are made, the end token included. Leaving the context frees the slot by the next forward pass."""
        batch = await self._running_batch()
        request = batch.add(generation)
        try:
            yield request.feed
        finally:
            batch.remove(request)

    async def close(self) -> None:
        """Ends the thread, within a forward pass; jobs still in it fail."""
        async with self._starting:
            batch, self._batch = self._batch, None
            if batch is not None:
                await batch.close()

    async def _running_batch(self) -> "_Batch":
        async with self._starting:
            if self._batch is None or not self._batch.alive:
                if self._batch is not None:
                    log.warning("the batch died; starting another", model=self._loaded.id)
                    await self._batch.close()
                self._batch = _Batch(self._loaded, self._config())
            return self._batch

    def _config(self) -> ContinuousBatchingConfig:
        return ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=self._pages,
            max_batch_tokens=max(STEP_TOKENS, self._slots),
            max_requests_per_batch=self._slots,
            allow_block_sharing=False,  # prompts have little in common, and hashing every block costs each step
            auto_switch_to_flash=False,  # it asks the hub for kernels
            use_cuda_graph=False,  # a captured graph would not call our sampler
            use_async_batching=False,
        )


class _Request:
    """One job in the batch."""

    def __init__(self, request_id: str, eos_ids: frozenset[int]) -> None:
        self.id = request_id
        self.feed = TokenFeed()
        self._eos_ids = eos_ids
        self._seen = 0

    def take(self, output: Any) -> None:
        """On the event loop, for each token: the manager hands over all ids so far, and a status."""
        new = output.generated_tokens[self._seen :]
        if new:
            self._seen += len(new)
            self.feed.push(new)
        if output.error is not None:
            self.feed.fail(GenerationFailed("internal", f"The local model failed: {output.error}"))
        elif output.is_finished():
            ids = output.generated_tokens
            self.feed.end("stop" if ids and ids[-1] in self._eos_ids else "length")


class _Batch:
    """One manager from its start to its end."""

    def __init__(self, loaded: LoadedModel, config: ContinuousBatchingConfig) -> None:
        self._eos_ids = loaded.eos_ids
        self._numbers = itertools.count()
        self._requests: dict[str, _Request] = {}
        self._manager = _make_manager(loaded, config)
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._watch, name="batching", daemon=True)
        atexit.register(self._halt, join=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return not self._over.is_set() and self._manager.background_thread_status.can_accept_new_requests() is None

    def add(self, generation: Generation) -> _Request:
        request = _Request(f"{generation.job_id}#{next(self._numbers)}", self._eos_ids)
        self._requests[request.id] = request
        self._manager.register_result_handler(request.id, request.take)
        accepted = self._manager.add_request(
            list(generation.ids),
            request_id=request.id,
            max_new_tokens=generation.max_new_tokens,
            streaming=True,
            eos_token_id=sorted(self._eos_ids) or -1,
            sampling=generation.sampling,
        )
        if accepted is None:
            request.feed.fail(GenerationFailed("internal", "The local model's batch has just died; try again.", retryable=True))
        return request

    def remove(self, request: _Request) -> None:
        """Cancelling gives no last output, so nobody else would take the handler out."""
        if not request.feed.ended:
            self._manager.cancel_request(request.id)
        self._manager.output_router.result_handlers.pop(request.id, None)
        self._requests.pop(request.id, None)

    async def close(self) -> None:
        self._fail_all(GenerationFailed("incomplete", "The worker stopped before the answer was complete."))
        self._halt()
        try:
            async with asyncio.timeout(STOP_S):
                await self._over.wait()
        except TimeoutError:
            log.warning("the batch has not ended; leaving it behind", after_s=STOP_S)

    def _watch(self) -> None:
        """The thread: starts the manager's own, and outlives it by one call."""
        self._manager.start()
        self._manager.join(time.perf_counter())
        # The cache goes with the processor; the manager itself may live on in a traceback.
        self._manager.batch_processor = None
        atexit.unregister(self._halt)
        try:
            self._loop.call_soon_threadsafe(self._ended)
        except RuntimeError:  # the event loop was closed without close(): nobody is left to be told
            return

    def _ended(self) -> None:
        """Fails what is left: a request that came while the loop was dying is in a queue that nobody reads any more."""
        self._over.set()
        self._fail_all(GenerationFailed("internal", "The local model's batch died.", retryable=True))

    def _fail_all(self, failure: GenerationFailed) -> None:
        for request in self._requests.values():
            request.feed.fail(failure)

    def _halt(self, join: bool = False) -> None:
        """Ends the loop after the forward pass under way. At the interpreter's exit, where nobody closed, waits for it."""
        status = self._manager.background_thread_status
        status.request_stop(status.HARD_STOP, self._manager.distributed_helper.global_rank)
        self._manager.cancel_request("")  # wakes a loop that waits for work
        if join:
            self._thread.join(STOP_S)


def _make_manager(loaded: LoadedModel, config: ContinuousBatchingConfig) -> Any:
    eos = sorted(loaded.eos_ids) or -1
    manager = loaded.model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=eos, max_new_tokens=1),
        continuous_batching_config=config,
    )
    processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([SamplingProcessor()]))
    processors.tensors_required = 1
    manager.logit_processor = processors
    manager.output_router.output_queue = _Nowhere()
    return manager


class _Nowhere:
    """In place of the queue for results without a handler: the last tokens of cancelled requests, which would pile up."""

    def put(self, output: Any) -> None:
        pass


class SamplingProcessor(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]  # transformers is Any to mypy
    """Makes each row's next id its only possible one. The greedy rows are left alone: the manager takes the argmax.

    The interface carries numbers of 4 bytes a row; a seed has 8, and the position is needed too. So the rows' requests are
    kept from the preparation of a step to its end, both in the manager's thread.
    """

    supported_kwargs: dict[str, type] = {"sampling": Sampling}  # noqa: RUF012  # as the base class has it
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._rows: list[tuple[Sampling, int]] = []

    def fill_defaults(self, int32_tensor: Any) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Any:
        states = [request.state for request in requests_with_new_token]
        self._rows = [
            (state.logit_processor_kwargs["sampling"], len(state.initial_tokens) + len(state.generated_tokens))
            for state in states
        ]
        return torch.zeros(len(states), dtype=torch.int32)

    def __call__(self, scores: Any, tensor_arg: Any) -> Any:
        for row, (sampling, position) in zip(scores, self._rows, strict=False):
            if not sampling.greedy:
                chosen = next_id(row, sampling, position)
                row.fill_(-torch.inf)
                row[chosen] = 0.0
        return scores


def token_bytes(model: Any) -> int:
    """What one token's keys and values take, over all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


def _pages(loaded: LoadedModel, slots: int) -> int:
    """Pages of the cache: what all slots could use, within the memory that it may take."""
    if loaded.model.device.type == "cuda":
        budget = int(torch.cuda.mem_get_info(loaded.model.device)[0] * CUDA_CACHE_SHARE)
    else:
        budget = CPU_CACHE_BYTES
    tokens = min(budget // token_bytes(loaded.model), slots * loaded.context)
    return max(1, int(tokens) // PAGE_TOKENS)
