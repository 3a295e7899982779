"""Responses upstream that nobody reads any more: cancelled there, so that they cost no more."""

import asyncio
from collections.abc import Mapping

import structlog
from redis.asyncio import Redis

from shared import keys
from shared.ownership import KeptUpstream
from worker.providers.base import Provider, ResumableProvider

log = structlog.get_logger()


class Upstreams:
    """Those of one lane, whose providers are this worker's.

    Who stops reading a response cancels it. Where that is nobody who could (a job was erased, or ended from outside, or taken
    over and started anew), the script that did it leaves the response in the lane's list, and the next worker that sweeps
    cancels it: the one that called the script, else the reaper.
    """

    def __init__(self, redis: Redis, providers: Mapping[str, Provider], lane: str) -> None:
        self._redis = redis
        self._providers = providers
        self._lane = lane

    async def abandon(self, kept: KeptUpstream) -> None:
        """Takes bounded time and raises nothing; see `ResumableProvider.abandon`."""
        provider = self._providers.get(kept.provider)
        if isinstance(provider, ResumableProvider):
            log.info("response abandoned upstream", response=kept.id, model=kept.model)
            await provider.abandon(kept.id)
        else:
            log.warning("a response may go on upstream: its provider has no background mode here", response=kept.id)

    async def sweep(self) -> None:
        """Cancels what the lane's list holds. Raises what redis-py raises."""
        left = await self._redis.lpop(keys.abandoned(self._lane), 1000)  # type: ignore[misc]  # redis-py types both
        await asyncio.gather(*(self.abandon(KeptUpstream.parse(raw)) for raw in left or ()))
