"""What `web/server.py` lends a request beyond ASGI, each under a name of its own among the scope's extensions."""

from collections.abc import Callable
from typing import Any, Final

from starlette.types import Scope

TRANSPORT: Final = "lastevent.transport"
"""The connection's transport."""

SEND: Final = "lastevent.send"
"""The server's own `send`, past the layers that lie around a response: an event goes to thousands of readers, and each layer is
a coroutine more for each of them."""

PUT: Final = "lastevent.put"
"""Writes a piece of the body of a response that has begun, at once and without a coroutine. False, with nothing written, where
`send` would have to wait."""

DEPARTURES: Final = "lastevent.departures"
"""A list. Whoever puts a call into it may return and stay connected: the server waits, and calls when the reader has left. A
dozen coroutines lie around a response: 8 KB for every reader that waits inside them."""


def lent(scope: Scope, name: str) -> Any:
    """None where the server lends nothing of that name."""
    return scope.get("extensions", {}).get(name)


def at_departure(scope: Scope, call: Callable[[], None]) -> bool:
    """Whether the request stays connected, and `call` is made once it is over."""
    departures: list[Callable[[], None]] | None = lent(scope, DEPARTURES)
    if not departures:
        return False
    departures.append(call)
    return True
