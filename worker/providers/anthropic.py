"""`anthropic/<model>`: Anthropic's Messages API, and every server that speaks it.

This half knows keys, addresses and what can be continued; `anthropic_stream.py` makes the calls. It is imported by the first
of them, or from the start on where there is a key: a worker that never calls Anthropic does not pay for its SDK.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from shared.errors import ConfigurationError, GenerationFailed
from shared.settings import Settings
from worker.providers.base import Call, Delta
from worker.providers.on_demand import OnDemand
from worker.providers.upstream import address

if TYPE_CHECKING:
    from worker.providers.anthropic_stream import Messages

ANTHROPIC_URL: Final = "https://api.anthropic.com"

_NO_KEY: Final = "ANTHROPIC_API_KEY is not set where the workers run: set it and start them again."
_BAD_KEY: Final = "ANTHROPIC_API_KEY holds characters that no key has: set it again and start the workers again."
_PLACEHOLDER: Final = "none"
"""What servers without keys are sent: without one the SDK would look for credentials in the environment and on the disk."""


class AnthropicProvider:
    """One client, one connection pool, any number of calls at once. See `base.Provider`."""

    name = "anthropic"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._base_url = settings.anthropic_base_url or ANTHROPIC_URL
        self._messages = OnDemand(self._load)

    async def start(self) -> None:
        """Begins to load the SDK, if there is a key for it, and does not wait.

        Raises:
            ConfigurationError: ANTHROPIC_BASE_URL is no address.
        """
        if address(self._base_url) is None:
            raise ConfigurationError("ANTHROPIC_BASE_URL must be an address as http://host:port.")
        if self._key():
            self._messages.begin()

    async def close(self) -> None:
        """Closes the connections; open streams fail with `connection`."""
        if (messages := await self._messages.if_begun()) is not None:
            await messages.close()

    def can_continue(self, call: Call) -> bool:
        """With text to go on from, only the models that are set to take the start of an answer: newer ones refuse it."""
        if call.prefix is None or not call.prefix.text:
            return True
        return any(fnmatchcase(call.model, pattern) for pattern in self._settings.anthropic_prefill_models)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        """Opens the stream; see `base.Provider.stream`. Where the model takes no prefix, the answer starts anew."""
        self._check_key()
        messages = await self._messages.get()
        async with messages.stream(call if self.can_continue(call) else _without_prefix(call)) as deltas:
            yield deltas

    def _check_key(self) -> None:
        key = self._key()
        if not key and self._is_anthropic():
            raise GenerationFailed("auth", _NO_KEY)
        if not (key.isascii() and key.isprintable()):
            raise GenerationFailed("auth", _BAD_KEY)  # the header's own error would show the key

    def _load(self) -> "Messages":
        from worker.providers.anthropic_stream import Messages

        return Messages(self._settings, self._base_url, self._key() or _PLACEHOLDER, own=self._is_anthropic())

    def _key(self) -> str:
        key = self._settings.anthropic_api_key
        return key.get_secret_value().strip() if key is not None else ""

    def _is_anthropic(self) -> bool:
        """Whether the server is Anthropic's own, which wants a key."""
        url = address(self._base_url)
        return url is not None and f".{url.host}".endswith(".anthropic.com")


def _without_prefix(call: Call) -> Call:
    return Call(call.job_id, call.model, call.request, call.max_tokens)
