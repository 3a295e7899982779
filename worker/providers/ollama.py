"""Providers of the kind ollama: an Ollama server, on this machine or another, or ollama.com.

This half knows keys and addresses; `ollama_stream.py` makes the calls. It is imported by the first of them, or from the start
on where an address is set: a worker that never calls Ollama does not pay for its client.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from shared.errors import ConfigurationError
from shared.providers import ProviderConfig
from worker.providers.base import Call, Delta
from worker.providers.key import bare_key, usable_key
from worker.providers.on_demand import OnDemand
from worker.providers.upstream import address

if TYPE_CHECKING:
    from worker.providers.ollama_stream import Chat

OLLAMA_PORT: Final = 11434


class OllamaProvider:
    """One client, one connection pool, any number of calls at once. See `base.Provider`."""

    def __init__(self, config: ProviderConfig) -> None:
        self.name = config.name
        self._config = config
        self._url = server_url(config.base_url or "")
        self._chat = OnDemand(self._load)

    async def start(self) -> None:
        """Begins to load the client, if a server is named, and does not wait.

        Raises:
            ConfigurationError: the host is no address.
        """
        if address(self._url) is None:
            told = "must be host, host:port or an address as http://host:port"
            raise ConfigurationError(f"{self._config.address_setting} {told}.")
        if self._config.base_url:
            _import_transport()
            self._chat.begin()

    async def close(self) -> None:
        """Closes the connections; open streams fail with `connection`."""
        if (chat := await self._chat.if_begun()) is not None:
            await chat.close()

    def can_continue(self, call: Call) -> bool:
        """Never with text to go on from: whether a trailing assistant message is continued depends on the model's template."""
        return call.prefix is None or not call.prefix.text

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        """Opens the stream; see `base.Provider.stream`. A prefix is not sent: the answer starts anew."""
        usable_key(self._config)
        _import_transport()
        chat = await self._chat.get()
        async with chat.stream(call) as deltas:
            yield deltas

    def _load(self) -> "Chat":
        from worker.providers.ollama_stream import Chat

        return Chat(self._config, self._url, bare_key(self._config))


def _import_transport() -> None:
    """The one part of the client that is not left to a thread: 30 ms of the event loop, once.

    The openai SDK looks for httpx among the loaded modules with every call, and takes it for whole: a call that is made while
    a thread is at it fails.
    """
    import httpx  # noqa: F401 - for its being there


def server_url(host: str) -> str:
    """OLLAMA_HOST as Ollama reads it: scheme and port may be left out, and so may all of it. No address: as it is."""
    host = host.strip()
    scheme, named, rest = host.rpartition("://")
    try:
        split = urlsplit(f"{scheme or 'http'}://{rest}")
        port = split.port
    except ValueError:
        return host
    # A server that listens on all its addresses is told by 0.0.0.0; a client takes the nearest of them.
    name = "127.0.0.1" if split.hostname in (None, "0.0.0.0") else f"{split.hostname}"  # noqa: S104 - compared, not bound
    name = f"[{name}]" if ":" in name else name
    port = port or (None if named else OLLAMA_PORT)
    return f"{split.scheme}://{name}{f':{port}' if port else ''}{split.path.rstrip('/')}"
