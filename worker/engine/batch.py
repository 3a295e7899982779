"""One batch of engine 1, from its start to its end: transformers' manager, its thread, and the jobs that share its passes.

    Request.join ──add_request──▶ manager's thread: schedule → forward → next_id for each row ──▶ Request.take ──▶ TokenFeed

- The manager's own thread is not a daemon, and would keep a process alive that wants to end. Threads inherit that from who
  starts them, so a daemon thread starts it here, waits for its end, and tells the event loop.
- When the loop dies, transformers reports its error for every request. Here that ends none of them: they are left in `requests`
  for whoever brings them back (`revival.py`). An error while the loop lives is that one request's own.
- Sampling is our own processor, with each request's own parameters and seed; the manager only takes the argmax.
"""

import asyncio
import atexit
import itertools
import threading
import time
from collections.abc import Callable
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
from worker.engine.tenant_cache import TenantCache, request_name

STOP_S: Final = 5.0
"""How long an ending waits for the forward pass under way."""

log = structlog.get_logger(__name__)

_numbers: Final = itertools.count()


class Request:
    """One job: in a batch, or on its way from a dead one to the next."""

    def __init__(self, generation: Generation, eos_ids: frozenset[int]) -> None:
        self.feed = TokenFeed()
        self.news = asyncio.Event()
        """Set by each id, by its end, by its leaving and by its batch's end."""
        self._generation = generation
        self._eos_ids = eos_ids
        self._made: list[int] = []
        self._before = 0  # of `_made`, by the batches before this one
        self._batch: Batch | None = None
        self._left = False

    @property
    def over(self) -> bool:
        """Nothing more is to be generated: it has ended, or its reader has gone."""
        return self._left or self.feed.ended

    def join(self, batch: "Batch") -> None:
        """Goes on in this batch exactly where the one before it stopped: the noise of a draw depends on its position alone."""
        self.news.clear()
        self._before = len(self._made)
        left = self._generation.max_new_tokens - self._before
        self._batch = batch
        batch.add(self, (*self._generation.ids, *self._made), left)

    def leave(self) -> None:
        """The reader has gone, or has all that it wanted; frees the slot by the next forward pass."""
        self._left = True
        if self._batch is not None:
            self._batch.remove(self)
        self.news.set()

    def fail(self, failure: GenerationFailed) -> None:
        self.feed.fail(failure)
        self.news.set()

    @property
    def job_id(self) -> str:
        return self._generation.job_id

    @property
    def tenant(self) -> str:
        return self._generation.tenant

    @property
    def sampling(self) -> Sampling:
        return self._generation.sampling

    def take(self, output: Any) -> None:
        """On the event loop, for each token: the manager hands over all ids of this batch so far, and a status."""
        new = output.generated_tokens[len(self._made) - self._before :]
        if new:
            self._made += new
            self.feed.push(new)
        if output.is_finished():
            self.feed.end("stop" if self._made and self._made[-1] in self._eos_ids else "length")
        self.news.set()


class Batch:
    """All methods belong to the event loop. `on_over` is told once the thread has ended, however that came."""

    def __init__(self, loaded: LoadedModel, config: ContinuousBatchingConfig, on_over: "Callable[[Batch], None]") -> None:
        self.requests: dict[str, Request] = {}
        self.over = asyncio.Event()
        """Its thread has ended; what is in `requests` now was lost with it."""
        self.error: BaseException | None = None
        """What it died of."""
        self.began = False
        """Whether it came as far as a cache, once it is over: what dies before that dies of no prompt."""
        self._eos_ids = loaded.eos_ids
        self._on_over = on_over
        self._manager = _make_manager(loaded, config)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, name="batching", daemon=True)
        atexit.register(self._halt, join=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return not self.over.is_set() and self._manager.background_thread_status.can_accept_new_requests() is None

    def add(self, request: Request, ids: tuple[int, ...], max_new_tokens: int) -> None:
        """A request that comes while the loop is dying is lost with the others."""
        name = request_name(request.job_id, next(_numbers), request.tenant)
        self.requests[name] = request
        self._manager.register_result_handler(name, lambda output: self._take(request, output))
        self._manager.add_request(
            list(ids),
            request_id=name,
            max_new_tokens=max_new_tokens,
            streaming=True,
            eos_token_id=sorted(self._eos_ids) or -1,
            sampling=request.sampling,
        )

    def remove(self, request: Request) -> None:
        """Cancelling gives no last output, so nobody else would take the handler out."""
        for name in [name for name, one in self.requests.items() if one is request]:
            if not request.feed.ended:
                self._manager.cancel_request(name)
            self._manager.output_router.result_handlers.pop(name, None)
            del self.requests[name]

    async def close(self) -> None:
        self._halt()
        try:
            async with asyncio.timeout(STOP_S):
                await self.over.wait()
        except TimeoutError:
            log.warning("the batch has not ended; leaving it behind", after_s=STOP_S)

    def _take(self, request: Request, output: Any) -> None:
        if output.error is None:
            request.take(output)
        elif self.alive:
            request.fail(GenerationFailed("internal", f"The local model failed: {output.error}"))

    def _watch(self) -> None:
        """The thread: starts the manager's own, and outlives it by one call."""
        self._manager.start()
        self._manager.join(time.perf_counter())
        self.began = self._manager.batch_processor is not None
        self.error = self._manager.background_thread_status.fatal_error
        # The cache goes with the processor; the manager itself may live on in a traceback.
        self._manager.batch_processor = None
        atexit.unregister(self._halt)
        try:
            self._loop.call_soon_threadsafe(self._ended)
        except RuntimeError:  # the event loop was closed without close(): nobody is left to be told
            return

    def _ended(self) -> None:
        self.over.set()
        for request in self.requests.values():
            request.news.set()
        self._on_over(self)

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
    create = manager._create_batch_processor

    def create_apart() -> Any:
        processor = create()
        TenantCache.keep_apart(processor.cache)
        return processor

    manager._create_batch_processor = create_apart
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
