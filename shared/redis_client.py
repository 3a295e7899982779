"""The only place that makes Redis clients, and the runner of the scripts in `lua/`.

redis-py retries nothing and waits for ever unless told otherwise; both are told here, once. Blocking readers get a client of
their own, because a socket timeout also cuts blocking reads.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import ConfigurationError
from shared.redis_connections import OURS, Parser, SentinelConnection, Sentinels, SentinelUrl, WritesRefused, Written
from shared.settings import Settings

OLDEST_REDIS: Final = (7, 0)
OLDEST_DURABLE: Final = (7, 2)
"""The first that knows `WAITAOF`."""

ScriptName = Literal[
    "submit", "take", "claim", "reclaim", "solitude", "append", "note_upstream", "again", "move", "end", "close_job", "renew",
    "release", "cancel", "erase",
]  # fmt: skip
Arg = str | bytes | int

UNREACHABLE: Final = (RedisConnectionError, RedisTimeoutError, OSError, ReadOnlyError)
"""What redis-py raises when Redis is not there: refused, reset, timed out, still loading, or just not the primary any more."""

NOT_NOW: Final = (*UNREACHABLE, OutOfMemoryError, WritesRefused)
"""The same, or it is there and takes no writes: full, its disk full, too few replicas. Later is worth a try."""

_EVEN_WHEN_FULL: Final[frozenset[ScriptName]] = frozenset({"renew", "release", "cancel", "erase"})
"""These keep what lives alive, or make room: refused, a full Redis would stay full, and its jobs would change hands."""


def _read_scripts() -> dict[ScriptName, str]:
    folder = files("shared") / "lua"
    common = (folder / "_common.lua").read_text()
    heads = {name: "#!lua flags=allow-oom\n" if name in _EVEN_WHEN_FULL else "" for name in get_args(ScriptName)}
    return {name: heads[name] + common + (folder / f"{name}.lua").read_text() for name in get_args(ScriptName)}


class Primary:
    """Which history of Redis this process is connected to: another one after a restart or a failover, and then it may lack what
    was written last."""

    def __init__(self) -> None:
        self._replid: str | None = None
        self._on_change: list[Callable[[], None]] = []

    def on_change(self, call: Callable[[], None]) -> None:
        """`call` is called before anything else is said on the connection that showed it."""
        self._on_change.append(call)

    async def greet(self, connection: Connection) -> None:
        """redis-py's hook for a fresh connection: scripts, then a look at who answers."""
        await scripts.load(connection)
        await connection.send_command("INFO", "replication")
        info: bytes = await connection.read_response()
        told = re.search(rb"master_replid:(\w+)", info)  # what is no Redis may tell none; `check_redis` says what it is
        before, self._replid = self._replid, told[1].decode() if told else ""
        if before is not None and before != self._replid:
            for call in self._on_change:
                call()


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


def make_pool(
    settings: Settings, *, timeout_s: float | None = None, connections: int | None = None, primary: Primary | None = None
) -> ConnectionPool:
    """A pool whose connections time out, retry, keep alive and have the scripts loaded. `primary`, where given, is told which
    Redis each of them found.

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
        "redis_connect_func": scripts.load if primary is None else primary.greet,
        "parser_class": Parser,
        "max_connections": connections or settings.redis_connections,
        "timeout": timeout,  # how long a caller waits for a free connection of the pool
    }
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    if url.startswith("sentinel:"):
        return _sentinel_pool(SentinelUrl.parse(url), options)
    pool: ConnectionPool = BlockingConnectionPool.from_url(url, **options)
    pool.connection_class = OURS[pool.connection_class]
    return pool


def _sentinel_pool(url: SentinelUrl, options: dict[str, Any]) -> ConnectionPool:
    sentinels = Sentinels(url, options["socket_connect_timeout"])
    whose: dict[str, Any] = {"db": url.db, "username": url.username, "password": url.password, "sentinels": sentinels}
    return BlockingConnectionPool(connection_class=SentinelConnection, **options, **whose)


def make_client(settings: Settings) -> Redis:
    """A client for commands that answer at once."""
    return Redis.from_pool(make_pool(settings))


def make_blocking_client(settings: Settings, longest_wait_s: float, primary: Primary | None = None) -> Redis:
    """A client for commands that block up to `longest_wait_s`; a server that is silent beyond it counts as gone."""
    timeout_s = longest_wait_s + settings.redis_timeout_s
    return Redis.from_pool(make_pool(settings, timeout_s=timeout_s, connections=4, primary=primary))


def make_push_connection(redis: Redis) -> Written:
    """A bare connection beside the pool, for a reader of pushes. It has no read timeout, which would cost a timer a message:
    its reader watches for a silent server by itself."""
    pool = redis.connection_pool
    connection = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None})
    assert isinstance(connection, Written), "make_pool has it so"
    return connection


def check_redis_url(url: str) -> None:
    """Raises ConfigurationError, without repeating the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "sentinel":
            SentinelUrl.parse(url)
            port_fits = True
        else:
            port_fits = parts.port is None or 0 < parts.port < 65_536
    except ValueError:
        port_fits, parts = False, urlsplit("")
    right = "redis://host:6379/0, rediss://…, unix:///path/to/redis.sock or sentinel://host1:26379,host2:26379/name/0"
    if parts.scheme not in ("redis", "rediss", "unix", "sentinel") or not port_fits:
        raise ConfigurationError(f"LASTEVENT_REDIS_URL is not a Redis URL: it must be like {right}.")
    if parts.scheme == "unix" and not parts.path:
        raise ConfigurationError(f"LASTEVENT_REDIS_URL names no socket: it must be like {right}.")


def describe(url: str) -> str:
    """A Redis URL without its credentials, for logs and errors."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    if parts.scheme == "sentinel":
        return f"sentinel://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"


async def check_redis(redis: Redis, settings: Settings) -> None:
    """Raises ConfigurationError when Redis does not answer, refuses us, or cannot do what is asked of it: one line that says
    what to do."""
    where = describe(settings.redis_url.get_secret_value())
    try:
        version = str((await redis.info("server"))["redis_version"])
        keeps_a_file = bool((await redis.info("persistence")).get("aof_enabled"))
    except UNREACHABLE:
        raise ConfigurationError(f"Redis does not answer at {where}: start it, or set LASTEVENT_REDIS_URL.") from None
    except RedisError as error:
        raise ConfigurationError(f"Redis at {where} refuses us: {error}.") from None
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        raise ConfigurationError(f"Redis at {where} is version {version}; Lastevent needs {oldest} or newer.")
    if settings.durable_submit and numbers < OLDEST_DURABLE:
        oldest = ".".join(map(str, OLDEST_DURABLE))
        raise ConfigurationError(f"Redis at {where} is version {version}; LASTEVENT_DURABLE_SUBMIT needs {oldest} or newer.")
    if settings.durable_submit and not keeps_a_file:
        raise ConfigurationError(f"Redis at {where} keeps no append-only file, which LASTEVENT_DURABLE_SUBMIT needs.")
