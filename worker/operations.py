"""A worker's part of the operations view: what its attempts produced, added to Redis every few seconds, never by the token."""

import asyncio
import time
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.operations import add
from worker.tally import Tally

log = structlog.get_logger()

_PERIOD_S: Final = 3.0
"""A step has 15 s: what was produced falls into the next one for a fifth of it at most. An idle worker writes nothing."""


class OperationsWriter:
    def __init__(self, redis: Redis, tally: Tally) -> None:
        self._redis = redis
        self._tally = tally
        self._tokens = 0
        self._ttft = [0] * len(tally.ttft.counts)

    async def run_forever(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            await self.flush()

    async def flush(self) -> None:
        """What came since the last time; what cannot be written now is written with the next."""
        tokens, ttft = sum(self._tally.tokens.values()), list(self._tally.ttft.counts)
        fresh = {i: now - before for i, (now, before) in enumerate(zip(ttft, self._ttft, strict=True)) if now != before}
        if tokens == self._tokens and not fresh:
            return
        try:
            await add(self._redis, tokens - self._tokens, fresh, time.time())
        except (RedisError, OSError) as error:
            log.debug("the operations view waits for Redis", error=str(error))
            return
        self._tokens, self._ttft = tokens, ttft
