"""Connections to Redis: redis-py's own, with their writing done anew, and one that asks the Sentinels for its primary."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError


class WritesRefused(ResponseError):
    """Redis answers, and takes no writes for now: its disk is full (MISCONF), or too few replicas follow it (NOREPLICAS)."""


class Parser(DefaultParser):  # type: ignore[misc,valid-type]  # hiredis', which is always there
    EXCEPTION_CLASSES: Final = {**DefaultParser.EXCEPTION_CLASSES, "MISCONF": WritesRefused, "NOREPLICAS": WritesRefused}

    async def can_read_destructive(self) -> bool:
        """Whether a connection that nobody uses holds something, or is over: the pool asks before each command.

        What the loop has read by now tells. redis-py's own look sets a timer and waits a turn of the loop for each command, a
        third of what that costs; a server that went away in this very moment shows in the command itself, which is retried.
        """
        stream = self._stream
        if not self._connected or stream.at_eof() or stream.exception() is not None:
            raise RedisConnectionError("Connection closed by server.")
        return bool(stream._buffer) or self._reader.has_data()

    async def read_all(self) -> list[Any]:
        """The answers that have come, at least one. Raises ConnectionError at the connection's end."""
        answers: list[Any] = []
        while True:
            if not self._connected:
                raise RedisConnectionError("Connection closed.")
            while (answer := self._reader.gets()) is not NOT_ENOUGH_DATA:
                answers.append(answer)
            if answers:
                return answers
            await self.read_from_socket()


class Written(AbstractConnection):
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

    async def read_all(self) -> list[Any]:
        """All answers that have come, at least one: those that it was told unasked, once it subscribes to something. redis-py's
        own reading of one answer is three coroutines, for each of twenty thousand a second.

        Raises:
            ConnectionError, OSError: it is over.
            ResponseError: Redis refused what was asked last.
        """
        parser = self._parser
        assert isinstance(parser, Parser), "every connection of ours has it"
        answers = await parser.read_all()
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return answers


class TcpConnection(Written, Connection):
    pass


class TlsConnection(Written, SSLConnection):
    pass


class UnixConnection(Written, UnixDomainSocketConnection):
    pass


OURS: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    Connection: TcpConnection,
    SSLConnection: TlsConnection,
    UnixDomainSocketConnection: UnixConnection,
}


class SentinelUrl(NamedTuple):
    """`sentinel://user:password@host1:26379,host2:26379/name/0`: the credentials are those of Redis itself, the Sentinels' own
    stand in the query as `sentinel_username` and `sentinel_password`."""

    hosts: tuple[tuple[str, int], ...]
    name: str
    db: int
    username: str | None
    password: str | None
    sentinel_username: str | None
    sentinel_password: str | None

    @classmethod
    def parse(cls, url: str) -> "SentinelUrl":
        """Raises ValueError, without repeating the URL: it may hold a password."""
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        name, _, db = parts.path.strip("/").partition("/")
        if parts.scheme != "sentinel" or not hosts or not name or not (db or "0").isdigit():
            raise ValueError("not a Sentinel URL")
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        if not query.keys() <= {"sentinel_username", "sentinel_password"}:
            raise ValueError("an unknown parameter")
        return cls(
            hosts=tuple(_host_and_port(host) for host in hosts.split(",")),
            name=unquote(name),
            db=int(db or 0),
            username=unquote(user) or None,
            password=unquote(password) or None,
            sentinel_username=query.get("sentinel_username", [None])[0],
            sentinel_password=query.get("sentinel_password", [None])[0],
        )


class Sentinels:
    """Knows who knows the primary. Asked anew for every connection: what they said before a failover is of no use after it."""

    def __init__(self, url: SentinelUrl, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._hosts = deque(url.hosts)

    async def primary(self) -> tuple[str, int]:
        """Where the primary is, as the first Sentinel that answers has it. Raises ConnectionError when none does."""
        for _ in range(len(self._hosts)):
            try:
                answer = await self._ask(*self._hosts[0])
            except (RedisError, OSError):
                answer = None
            if answer:
                host, port = answer
                return host.decode(), int(port)
            self.ask_another()
        raise RedisConnectionError(f"no Sentinel knows the primary {self._url.name!r}")

    def ask_another(self) -> None:
        """The one asked first is silent, or behind the others: it comes last from now on."""
        self._hosts.rotate(-1)

    async def _ask(self, host: str, port: int) -> Sequence[bytes] | None:
        connection = TcpConnection(
            host=host,
            port=port,
            username=self._url.sentinel_username,
            password=self._url.sentinel_password,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
        )
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.name)
            answer: Sequence[bytes] | None = await connection.read_response()
            return answer
        finally:
            await connection.disconnect(nowait=True)


class SentinelConnection(TcpConnection):
    """A connection to whoever is the primary when it connects."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options)

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.primary()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def on_connect(self) -> None:
        """Greets, and turns away from one that is the primary no more, or not yet."""
        await super().on_connect()
        await self.send_command("ROLE")
        (role, *_) = await self.read_response()
        if role != b"master":
            self._sentinels.ask_another()
            raise RedisConnectionError(f"{self.host}:{self.port} is not the primary")

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ReadOnlyError:
            # It was demoted under this connection: the next one goes to its successor.
            await self.disconnect(nowait=True)
            raise


def _host_and_port(text: str) -> tuple[str, int]:
    """Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host without a name")
    return parts.hostname, parts.port or 26_379
