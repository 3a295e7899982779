"""The one connection on which a web process hears what the logs of the jobs it follows took."""

import asyncio
from collections.abc import Callable, Iterable

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from shared.redis_client import UNREACHABLE, make_push_connection
from shared.settings import Settings

log = structlog.get_logger()


class PushConnection:
    """Connects again whenever it breaks, subscribed as before. What was pushed meanwhile is lost; the logs are not."""

    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        take: Callable[[list[bytes]], None],
        channels: Callable[[], Iterable[str]],
        on_return: Callable[[], object],
    ) -> None:
        """`take` gets each message, as Redis sends it; `channels` are those of the moment; `on_return` is called once they are
        subscribed to again."""
        self._redis = redis
        self._settings = settings
        self._take = take
        self._channels = channels
        self._on_return = on_return
        self._connection: AbstractConnection | None = None
        self._heard_at = 0.0

    async def listen_forever(self) -> None:
        away, loop = False, asyncio.get_running_loop()
        while True:
            connection = make_push_connection(self._redis)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                self._connection = connection
                self._heard_at = loop.time()
                await self._subscribe_again()
                if away:
                    log.info("pushes come again")
                away = False
                while True:
                    messages: list[list[bytes]] = await connection.read_all()
                    self._heard_at = loop.time()
                    for message in messages:
                        self._take(message)
            except (*UNREACHABLE, RedisError) as error:
                if not away:
                    log.warning("no pushes: Redis is away; readers wait", error=str(error))
                away = True
                await asyncio.sleep(0.2)
            finally:
                self._connection = None
                await connection.disconnect(nowait=True)

    async def command(self, *words: str) -> None:
        """Whatever is not sent now, because the connection is away, is made up for when it is back."""
        connection = self._connection
        if connection is not None and connection.is_connected:
            try:
                await connection.send_command(*words)
            except UNREACHABLE as error:
                log.debug("not sent to the push connection", command=words[0], error=str(error))

    async def watch(self, now: float) -> None:
        """A frozen server says nothing and breaks nothing: ask it, and drop a connection that does not answer."""
        silent_s = now - self._heard_at
        if self._connection is None or silent_s < self._settings.log_check_s:
            return
        if silent_s > self._settings.log_check_s + self._settings.redis_timeout_s:
            log.warning("the push connection is silent; connecting again", silent_s=round(silent_s, 1))
            self._heard_at = now
            await self._connection.disconnect(nowait=True)
        else:
            await self.command("PING")

    async def _subscribe_again(self) -> None:
        channels = tuple(self._channels())
        if channels:
            await self.command("SUBSCRIBE", *channels)
            self._on_return()
