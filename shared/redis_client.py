"""The only place that makes Redis clients, and the runner of the scripts in `lua/`.

redis-py retries nothing and waits for ever unless told otherwise; both are told here, once. Blocking readers get a client of
their own, because a socket timeout also cuts blocking reads.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import ConfigurationError
from shared.settings import Settings

OLDEST_REDIS: Final = (7, 0)

ScriptName = Literal[
    "submit", "take", "claim", "solitude", "append", "again", "move", "end", "close_job", "renew", "release", "cancel",
    "erase",
]  # fmt: skip
Arg = str | bytes | int

UNREACHABLE: Final = (RedisConnectionError, RedisTimeoutError, OSError, ReadOnlyError)
"""What redis-py raises when Redis is not there: refused, reset, timed out, still loading, or just not the primary any more."""


def _read_scripts() -> dict[ScriptName, str]:
    folder = files("shared") / "lua"
    common = (folder / "_common.lua").read_text()
    return {name: common + (folder / f"{name}.lua").read_text() for name in get_args(ScriptName)}


class Scripts:
    """The Lua scripts, loaded into Redis on every new connection, so that a restart or failover finds them there."""

    def __init__(self) -> None:
        self._source = _read_scripts()
        # Redis names a script by its SHA-1.
        self._sha = {n: hashlib.sha1(s.encode(), usedforsecurity=False).hexdigest() for n, s in self._source.items()}

    async def load(self, connection: Connection) -> None:
        """redis-py's hook for a fresh connection: greet as usual, then load, in one round trip."""
        await connection.on_connect()
        commands = [("SCRIPT", "LOAD", source) for source in self._source.values()]
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        for _ in commands:
            await connection.read_response()

    async def load_again(self, redis: Redis) -> None:
        """After a NOSCRIPT: somebody flushed the scripts under a living connection."""
        for source in self._source.values():
            await redis.script_load(source)

    def command(self, name: ScriptName, keys: Sequence[str], args: Iterable[Arg]) -> tuple[Arg, ...]:
        return ("EVALSHA", self._sha[name], len(keys), *keys, *args)

    async def run(self, redis: Redis, name: ScriptName, keys: Sequence[str], args: Iterable[Arg]) -> Any:
        """One script, one round trip. Raises what redis-py raises."""
        command = self.command(name, keys, args)
        try:
            return await redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except NoScriptError:
            await self.load_again(redis)
            return await redis.execute_command(*command)  # type: ignore[no-untyped-call]

    def queue(self, pipe: Pipeline, name: ScriptName, keys: Sequence[str], args: Iterable[Arg]) -> None:
        """Adds a script to a pipeline."""
        pipe.execute_command(*self.command(name, keys, args))


scripts: Final = Scripts()


class _Written(AbstractConnection):
    """What a connection writes, done anew.

    Commands are packed by hiredis: redis-py's asyncio connections do it in Python, 20 µs a command instead of 3. And they are
    sent under `asyncio.timeout`: redis-py's `asyncio.wait_for` makes a task of each write, and on Python 3.11 swallows a cancel
    that comes as the write is done, so that a worker told to stop went on for ever.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        # A command's name may be of several words, as `SCRIPT LOAD`.
        return [hiredis.pack_command((*args[0].split(), *args[1:]))]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [b"".join([hiredis.pack_command((*(words := tuple(command))[0].split(), *words[1:])) for command in commands])]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]
        elif check_health:
            await self.check_health()  # type: ignore[no-untyped-call]
        whole = command.encode() if isinstance(command, str) else command
        try:
            assert self._writer is not None, "connected above"
            async with asyncio.timeout(self.socket_timeout):
                self._writer.writelines([whole] if isinstance(whole, bytes) else whole)
                await self._writer.drain()
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise RedisTimeoutError("Timeout writing to socket") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"Error while writing to socket: {error}.") from error
        except BaseException:  # half a command may be on the wire
            await self.disconnect(nowait=True)
            raise


class _TcpConnection(_Written, Connection):
    pass


class _TlsConnection(_Written, SSLConnection):
    pass


class _UnixConnection(_Written, UnixDomainSocketConnection):
    pass


_OURS: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _UnixConnection,
}


def make_pool(settings: Settings, *, timeout_s: float | None = None, connections: int | None = None) -> ConnectionPool:
    """A pool whose connections time out, retry, keep alive and have the scripts loaded.

    Raises:
        ConfigurationError: LASTEVENT_REDIS_URL is no Redis URL.
    """
    url = settings.redis_url.get_secret_value()
    check_redis_url(url)
    timeout = settings.redis_timeout_s if timeout_s is None else timeout_s
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": min(timeout, settings.redis_timeout_s),
        "retry": Retry(ExponentialBackoff(cap=0.4, base=0.05), 3),
        # Both are needed: without the list redis-py retries nothing, without OSError not even a refused connect.
        "retry_on_error": [RedisConnectionError, RedisTimeoutError, OSError],
        "redis_connect_func": scripts.load,
        "max_connections": connections or settings.redis_connections,
        "timeout": timeout,  # how long a caller waits for a free connection of the pool
    }
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    pool: ConnectionPool = BlockingConnectionPool.from_url(url, **options)
    pool.connection_class = _OURS[pool.connection_class]
    return pool


def make_client(settings: Settings) -> Redis:
    """A client for commands that answer at once."""
    return Redis.from_pool(make_pool(settings))


def make_blocking_client(settings: Settings, longest_wait_s: float) -> Redis:
    """A client for commands that block up to `longest_wait_s`; a server that is silent beyond it counts as gone."""
    return Redis.from_pool(make_pool(settings, timeout_s=longest_wait_s + settings.redis_timeout_s, connections=4))


def make_push_connection(redis: Redis) -> AbstractConnection:
    """A bare connection beside the pool, for a reader of pushes. It has no read timeout, which would cost a timer a message:
    its reader watches for a silent server by itself."""
    pool = redis.connection_pool
    return pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None})


def check_redis_url(url: str) -> None:
    """Raises ConfigurationError, without repeating the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or 0 < parts.port < 65_536
    except ValueError:
        port_fits, parts = False, urlsplit("")
    right = "redis://host:6379/0, rediss://… or unix:///path/to/redis.sock"
    if parts.scheme not in ("redis", "rediss", "unix") or not port_fits:
        raise ConfigurationError(f"LASTEVENT_REDIS_URL is not a Redis URL: it must be like {right}.")
    if parts.scheme == "unix" and not parts.path:
        raise ConfigurationError(f"LASTEVENT_REDIS_URL names no socket: it must be like {right}.")


def describe(url: str) -> str:
    """A Redis URL without its credentials, for logs and errors."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"


async def check_redis(redis: Redis, settings: Settings) -> None:
    """Raises ConfigurationError when Redis does not answer, refuses us, or is too old: one line that says what to do."""
    where = describe(settings.redis_url.get_secret_value())
    try:
        version = str((await redis.info("server"))["redis_version"])
    except UNREACHABLE:
        raise ConfigurationError(f"Redis does not answer at {where}: start it, or set LASTEVENT_REDIS_URL.") from None
    except RedisError as error:
        raise ConfigurationError(f"Redis at {where} refuses us: {error}.") from None
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        raise ConfigurationError(f"Redis at {where} is version {version}; Lastevent needs {oldest} or newer.")
