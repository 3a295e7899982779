"""Stream tokens: what a browser's `EventSource`, which can send no header, shows in the URL instead of a key.

    lt_job_abcd….1764115200.web.8cQ…     which job, until when (Unix seconds), whose; signed over all of it

A token opens one job's event stream and its snapshot, and nothing else: until its time is over, and while its tenant has a key.
"""

import hashlib
import secrets
import time
from typing import Final, NamedTuple

from itsdangerous import BadSignature, Signer
from redis.asyncio import Redis

from shared import keys
from shared.errors import RedisUnavailable
from shared.redis_client import NOT_NOW
from shared.settings import Settings

PREFIX: Final = "lt_"
"""What every token begins with, so that one in the place of a key is told from a wrong key."""

_LOOK_EVERY_S: Final = 5.0
"""How often the secret in Redis is compared with ours: a Redis that forgot it must not leave two web processes with two."""

_NEVER: Final = float("-inf")


class Token(NamedTuple):
    text: str
    expires_at: int
    """Unix seconds."""


class Grant(NamedTuple):
    """What a token says, once its signature is found to be ours."""

    job_id: str
    tenant: str
    expires_at: int

    @property
    def expired(self) -> bool:
        return time.time() >= self.expires_at


class StreamTokens:
    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._ttl_s = settings.token_ttl_s
        self._of_settings = settings.token_secret is not None
        told = settings.token_secret.get_secret_value().split(",") if settings.token_secret else [secrets.token_hex(32)]
        self._secret = told[-1]
        self._signer = _signer(told)
        self._looked_at = _NEVER

    async def make(self, job_id: str, tenant: str, life_s: int | None = None) -> Token:
        """A token for a job; `life_s` is at most what the settings say. Raises RedisUnavailable."""
        await self._share_secret()
        expires_at = int(time.time()) + (life_s or self._ttl_s)
        return Token(self._signer.sign(f"{PREFIX}{job_id}.{expires_at}.{tenant}").decode(), expires_at)

    async def read(self, token: str) -> Grant | None:
        """What a token grants, or did until its time was over; None where it is none of ours. Raises RedisUnavailable."""
        await self._share_secret()
        try:
            said = self._signer.unsign(token.encode()).decode()
        except BadSignature:
            return None
        job_id, expires_at, tenant = said.removeprefix(PREFIX).split(".", 2)
        return Grant(job_id, tenant, int(expires_at))

    async def _share_secret(self) -> None:
        """Without one of the settings all web processes sign with the one in Redis; whoever comes first makes it."""
        now = time.monotonic()
        if self._of_settings or now - self._looked_at < _LOOK_EVERY_S:
            return
        try:
            kept = await self._redis.get(keys.TOKEN_SECRET) or await self._redis.set(
                keys.TOKEN_SECRET, self._secret, nx=True, get=True
            )
        except NOT_NOW:
            if self._looked_at != _NEVER:
                return  # the one that was shared stands
            raise RedisUnavailable("Redis is away, and with it what signs stream tokens.") from None
        self._looked_at = now
        if kept is not None and kept.decode() != self._secret:
            self._secret = kept.decode()
            self._signer = _signer([self._secret])


def _signer(told: list[str]) -> Signer:
    """Signs with the last secret, and takes what any of them signed."""
    return Signer(list(told), salt="lastevent.stream", key_derivation="hmac", digest_method=hashlib.sha256)
