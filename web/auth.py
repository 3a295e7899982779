"""Who calls: the holder of a key, or of a stream token for one job (docs/SECURITY.md). The name of the key is the tenant.

Everything is closed but what is listed as open, so that a new route needs a key until somebody decides otherwise.
"""

import re
from collections.abc import Set
from typing import Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from shared import api_keys
from shared.errors import LasteventError, RedisUnavailable
from shared.settings import Settings
from web.context import TENANT, TOKEN
from web.problems import Forbidden, Unauthorized, from_error
from web.stream import come_back
from web.stream_tokens import PREFIX, StreamTokens

_READABLE: Final = re.compile(r"/v1/jobs/([^/]+)(/events)?")
"""What a token opens, to GET: its job's event stream, and the snapshot that a page which was reloaded goes on from."""

_SEND_ONE: Final = "Send it as `Authorization: Bearer le_…`, or as `X-API-Key`."


class KeyGuard:
    """Lets in who shows a key of the settings, or a token for what it asks; answers 401 or 403 to all others.

    Pure ASGI, and out of the way of what follows: the response's `send` is not wrapped.
    """

    def __init__(self, app: ASGIApp, settings: Settings, tokens: StreamTokens, open_paths: Set[str]) -> None:
        self._app = app
        self._settings = settings
        self._tokens = tokens
        self._open = open_paths
        self._tenants = {key.name for key in settings.api_keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open:
            try:
                await self._admit(scope)
            except RedisUnavailable as error:
                away = come_back(self._settings, "redis is away") if _is_stream(scope) else from_error(error)
                await away(scope, receive, send)
                return
            except LasteventError as error:
                await from_error(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        """Notes in the scope who calls. Raises Unauthorized, Forbidden, RedisUnavailable."""
        in_url, key = _take_token(scope), _key_of(scope)
        if key is None and in_url is None:
            raise Unauthorized(f"This call needs a key. {_SEND_ONE}")
        if key is None or key.startswith(PREFIX.encode()):
            await self._admit_token(scope, in_url if key is None else key.decode("latin-1"))
            return
        tenant = api_keys.tenant_of(self._settings.api_keys, key)
        if tenant is None:
            raise Unauthorized(f"The key is none of this server's. {_SEND_ONE}")
        scope[TENANT] = tenant

    async def _admit_token(self, scope: Scope, token: str | None) -> None:
        grant = await self._tokens.read(token or "")
        if grant is None or grant.tenant not in self._tenants:
            raise Unauthorized("The stream token is none of this server's, or its tenant has no key any more.")
        if grant.expired:
            raise Forbidden("The stream token has expired. Whoever has a key gets a new one: POST /v1/jobs/{id}/token.")
        wanted = _READABLE.fullmatch(scope["path"])
        if wanted is None or scope["method"] not in ("GET", "HEAD"):
            raise Forbidden(f"A stream token is for reading one job; this call needs a key. {_SEND_ONE}")
        if wanted[1] != grant.job_id:
            raise Forbidden("The stream token is for another job.")
        scope[TENANT], scope[TOKEN] = grant.tenant, token


def _key_of(scope: Scope) -> bytes | None:
    """What the headers show; another scheme than Bearer is for whoever stands in front of this server."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value).strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return bytes(value[7:]).strip()
    return None


def _take_token(scope: Scope) -> str | None:
    """The `?token=` of the URL, taken out of it: no log line, error or handler behind this one gets to see it."""
    query: bytes = scope["query_string"]
    if b"token=" not in query:
        return None
    parts = query.split(b"&")
    scope["query_string"] = b"&".join(part for part in parts if not part.startswith(b"token="))  # also in the server's own log
    found = next((part for part in parts if part.startswith(b"token=")), None)
    return None if found is None else unquote(found[6:].decode("latin-1"))


def _is_stream(scope: Scope) -> bool:
    return str(scope["path"]).endswith("/events")
