"""What every request goes through before its route, outermost first.

All of it is pure ASGI: a `BaseHTTPMiddleware` costs each event of a stream 20 µs. What a stream sends after its headers goes
past it altogether (`web/stream.py`).
"""

from collections.abc import Set
from typing import Any, Final

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from shared.settings import Settings
from web.auth import KeyGuard
from web.edge import Edge
from web.guard import LoopbackGuard
from web.stream_tokens import StreamTokens

OPEN_CALLS: Final = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""What needs no key, beside the page and its files: balancers have none, and a description tells nothing of anybody."""


def middleware(settings: Settings, tokens: StreamTokens, assets: Set[str]) -> list[Middleware]:
    """CORS comes before the keys: no preflight shows one, and a page from elsewhere must be able to read its 401. Where there
    are keys, the name that a request gives the server does not matter: a stranger's page has none to send along."""
    found = [Middleware(Edge)]
    if settings.cors_origins:
        found.append(Middleware(CORSMiddleware, **_cors(settings)))
    if settings.api_keys:
        found.append(Middleware(KeyGuard, settings=settings, tokens=tokens, open_paths=OPEN_CALLS | assets))
    elif not settings.allow_remote:
        found.append(Middleware(LoopbackGuard, host=settings.host))
    return found


def _cors(settings: Settings) -> dict[str, Any]:
    return {
        "allow_origins": settings.cors_origins,
        "allow_methods": ("GET", "POST", "DELETE"),
        "allow_headers": ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-API-Key", "X-Request-ID"),
        "expose_headers": ("Location", "Retry-After", "Idempotency-Replayed", "X-Request-ID"),
    }
