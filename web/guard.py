"""Loopback means loopback: a page of another site must not reach this server through the user's own browser."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from web.problems import problem

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class LoopbackGuard:
    """Refuses requests that name another host: a name that somebody pointed at 127.0.0.1 (DNS rebinding) is not ours.

    Pure ASGI, and out of the way of what follows: the response's `send` is not wrapped.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = _LOOPBACK_NAMES | {host.lower(), f"[{host.lower()}]"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_ours(Headers(scope=scope).get("host", "")):
            detail = (
                "Without keys this server answers to its loopback names only. Make a key with `lastevent keys new NAME`; or, "
                "behind a proxy of yours, set LASTEVENT_ALLOW_REMOTE=1."
            )
            await problem(421, "misdirected_request", detail)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        name = host.lower()
        if not name.endswith("]"):
            head, colon, port = name.rpartition(":")
            name = head if colon and port.isdigit() else name
        return name in self._names or not name
