"""Providers of the kind anthropic: Anthropic's Messages API, and every server that speaks it.

This half knows keys, addresses and what can be continued; `anthropic_stream.py` makes the calls. It is imported by the first
of them, or from the start on where there is a key: a worker that never calls Anthropic does not pay for its SDK.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from shared.errors import ConfigurationError
from shared.providers import ProviderConfig
from worker.providers.base import Call, Delta
from worker.providers.key import bare_key, usable_key
from worker.providers.on_demand import OnDemand
from worker.providers.upstream import address

if TYPE_CHECKING:
    from worker.providers.anthropic_stream import Messages

ANTHROPIC_URL: Final = "https://api.anthropic.com"

_PLACEHOLDER: Final = "none"
"""What servers without keys are sent: without one the SDK would look for credentials in the environment and on the disk."""


class AnthropicProvider:
    """One client, one connection pool, any number of calls at once. See `base.Provider`."""

    def __init__(self, config: ProviderConfig) -> None:
        self.name = config.name
        self._config = config
        self._base_url = config.base_url or ANTHROPIC_URL
        self._messages = OnDemand(self._load)

    async def start(self) -> None:
        """Begins to load the SDK, if there is a key for it, and does not wait.

        Raises:
            ConfigurationError: the base URL is no address.
        """
        if address(self._base_url) is None:
            raise ConfigurationError(f"{self._config.address_setting} must be an address as http://host:port.")
        if bare_key(self._config):
            self._messages.begin()

    async def close(self) -> None:
        """Closes the connections; open streams fail with `connection`."""
        if (messages := await self._messages.if_begun()) is not None:
            await messages.close()

    def can_continue(self, call: Call) -> bool:
        """With text to go on from, only the models that are set to take the start of an answer: newer ones refuse it."""
        return call.prefix is None or not call.prefix.text or self._config.prefills(call.model)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        """Opens the stream; see `base.Provider.stream`. Where the model takes no prefix, the answer starts anew."""
        usable_key(self._config, wanted=self._is_anthropic())
        messages = await self._messages.get()
        async with messages.stream(call if self.can_continue(call) else _without_prefix(call)) as deltas:
            yield deltas

    def _load(self) -> "Messages":
        from worker.providers.anthropic_stream import Messages

        return Messages(self._config, self._base_url, bare_key(self._config) or _PLACEHOLDER, own=self._is_anthropic())

    def _is_anthropic(self) -> bool:
        """Whether the server is Anthropic's own, which wants a key."""
        url = address(self._base_url)
        return url is not None and f".{url.host}".endswith(".anthropic.com")


def _without_prefix(call: Call) -> Call:
    return msgspec.structs.replace(call, prefix=None)
