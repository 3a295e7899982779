"""`ollama/<model>`: an Ollama server, on this machine or another, or ollama.com.

This half knows keys and addresses; `ollama_stream.py` makes the calls. It is imported by the first of them, or from the start
on where OLLAMA_HOST is set: a worker that never calls Ollama does not pay for its client.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from shared.errors import ConfigurationError, GenerationFailed
from shared.settings import Settings
from worker.providers.base import Call, Delta
from worker.providers.on_demand import OnDemand
from worker.providers.upstream import address

if TYPE_CHECKING:
    from worker.providers.ollama_stream import Chat

OLLAMA_PORT: Final = 11434

_BAD_KEY: Final = "OLLAMA_API_KEY holds characters that no key has: set it again and start the workers again."


class OllamaProvider:
    """One client, one connection pool, any number of calls at once. See `base.Provider`."""

    name = "ollama"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = server_url(settings.ollama_host or "")
        self._chat = OnDemand(self._load)

    async def start(self) -> None:
        """Begins to load the client, if a server is named, and does not wait.

        Raises:
            ConfigurationError: OLLAMA_HOST is no address.
        """
        if address(self._url) is None:
            raise ConfigurationError("OLLAMA_HOST must be host, host:port or an address as http://host:port.")
        if self._settings.ollama_host:
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
        key = self._key()
        if not (key.isascii() and key.isprintable()):
            raise GenerationFailed("auth", _BAD_KEY)  # the header's own error would show the key
        chat = await self._chat.get()
        async with chat.stream(call) as deltas:
            yield deltas

    def _load(self) -> "Chat":
        from worker.providers.ollama_stream import Chat

        return Chat(self._settings, self._url, self._key())

    def _key(self) -> str:
        key = self._settings.ollama_api_key
        return key.get_secret_value().strip() if key is not None else ""


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
