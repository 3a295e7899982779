"""The page and its files, read once at the start: `/`, `/lastevent.js`, `/parts/…`, `/vendor/…`; see `web/page/`."""

from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served; the vendored licences are kept, not served."""

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
)
"""What a model says is shown on this page, so nothing but its own files runs or is loaded, and text becomes markup through
DOMPurify alone."""

_HEADERS: Final = {
    "Cache-Control": "no-cache",  # kept, and asked after by its ETag: a new release shows at once
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_NO_CHAOS, _CHAOS = b'data-chaos="no"', b'data-chaos="yes"'


def asset_routes(*, chaos: bool = False) -> list[Route]:
    """A route a file of `web/page/`, at its path there; index.html is `/`.

    Args:
        chaos: whether the page offers to kill workers (`web/chaos.py`).
    """
    routes = []
    for path, file in _walk(files("web").joinpath("page"), ""):
        suffix = path[path.rfind(".") :]
        if suffix not in _TYPES:
            continue
        content = file.read_bytes()
        if path == "/index.html":
            path, content = "/", content.replace(_NO_CHAOS, _CHAOS) if chaos else content
        routes.append(_route(path, content, _TYPES[suffix]))
    return routes


def _walk(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        below = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, below)
        else:
            yield below, entry


def _route(path: str, content: bytes, media_type: str) -> Route:
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": etag}

    async def asset(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return Route(path, asset)
