"""Engine 1: transformers' continuous batching. All jobs share each forward pass; a new one joins at the next.

    generate() ──▶ the batch (batch.py) ──▶ TokenFeed of each job
                     └── died ──▶ revival.py ──▶ the next batch

What is known to kill a batch, a prompt that does not fit, never gets there (`prompt.room_for_answer` with this engine's
`context`). A batch that dies all the same takes nobody with it but the job that breaks it: the others are brought back, one
after the other, while new jobs wait.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
import torch
from transformers import ContinuousBatchingConfig

from shared.errors import GenerationFailed
from worker.engine.batch import Batch, Request
from worker.engine.feed import Generation, TokenFeed
from worker.engine.loading import LoadedModel
from worker.engine.revival import Revival

PAGE_TOKENS: Final = 8
"""Cache is handed out in pages. A job wastes half of one, and shares only whole ones with prompts that begin alike."""
STEP_TOKENS: Final = 128
"""Tokens of one forward pass. A long prompt is read in pieces of this, and nobody else's next token waits for more."""
CPU_CACHE_BYTES: Final = 400 * 1024 * 1024
"""Keys and values of all running jobs. SmolLM2 takes 45 KiB a token: one job at its full 8,192, or eight at 1,100."""
CUDA_CACHE_SHARE: Final = 0.5
"""Of the device's free memory, at most; no more than the slots can use."""

log = structlog.get_logger(__name__)


class BatchingEngine:
    """Runs any number of jobs on one model, `slots` of them at once. All methods belong to the event loop.

    `share_prompts`: what the cache holds of a beginning, of the same tenant's running job or an ended one, is not read again.
    """

    def __init__(self, loaded: LoadedModel, slots: int, *, share_prompts: bool) -> None:
        self._loaded = loaded
        self._slots = slots
        self._share_prompts = share_prompts
        self._pages = _pages(loaded, slots)
        self._batch: Batch | None = None
        self._revival: Revival | None = None
        self._reviving: asyncio.Task[None] | None = None

    @property
    def context(self) -> int:
        """Ids that prompt and answer of one job may have together."""
        return min(self._loaded.context, self._pages * PAGE_TOKENS)

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[TokenFeed]:
        """Ids as they are made, the end token included. Leaving the context frees the slot by the next forward pass."""
        batch = await self._living_batch()
        request = Request(generation, self._loaded.eos_ids)
        request.join(batch)
        try:
            yield request.feed
        finally:
            request.leave()

    async def close(self) -> None:
        """Ends the thread, within a forward pass; jobs still in it fail."""
        requests = list(self._batch.requests.values()) if self._batch else []
        if self._revival is not None and self._reviving is not None:
            requests, self._batch = self._revival.requests, self._revival.batch
            self._reviving.cancel()
            await asyncio.wait([self._reviving])
        batch, self._batch = self._batch, None
        for request in requests:
            request.fail(GenerationFailed("incomplete", "The worker stopped before the answer was complete."))
        if batch is not None:
            await batch.close()

    async def _living_batch(self) -> Batch:
        """The batch that a new job joins; waits while the jobs of a dead one are brought back."""
        while True:
            if self._reviving is not None:
                await asyncio.wait([self._reviving])
            elif self._batch is not None and not self._batch.alive:
                await self._batch.over.wait()
            else:
                break
        if self._batch is None:
            self._batch = self._new_batch()
        return self._batch

    def _new_batch(self) -> Batch:
        return Batch(self._loaded, self._config(), self._on_over)

    def _on_over(self, batch: Batch) -> None:
        """A batch has ended; one that a revival tries is the revival's."""
        if batch is not self._batch:
            return
        self._batch = None
        lost = [request for request in batch.requests.values() if not request.over]
        log.warning("the batch died", model=self._loaded.id, jobs=len(lost), error=repr(batch.error))
        if lost:
            self._revival = Revival(lost, self._new_batch)
            self._reviving = asyncio.create_task(self._revive(self._revival))

    async def _revive(self, revival: Revival) -> None:
        try:
            await revival.run()
        except Exception as error:
            log.exception("the jobs of a dead batch cannot be brought back", model=self._loaded.id)
            for request in revival.requests:
                request.fail(GenerationFailed("internal", f"The local model cannot run: {error}", retryable=True))
        finally:
            self._revival = self._reviving = None
        self._batch = revival.batch
        if self._batch is not None and self._batch.over.is_set():
            self._on_over(self._batch)

    def _config(self) -> ContinuousBatchingConfig:
        return ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=self._pages,
            max_batch_tokens=max(STEP_TOKENS, self._slots),
            max_requests_per_batch=self._slots,
            allow_block_sharing=self._share_prompts,
            auto_switch_to_flash=False,  # it asks the hub for kernels
            use_cuda_graph=False,  # a captured graph would not call our sampler
            use_async_batching=False,
        )


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
