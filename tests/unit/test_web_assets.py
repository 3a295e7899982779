"""web/assets.py: the page and its files, and the headers that keep strangers' scripts out."""

import re
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from web.assets import asset_routes

PAGE = Path(__file__).parents[2] / "web" / "page"
ROUTES = {route.path: route for route in asset_routes()}


async def get(path: str, etag: str | None = None) -> Response:
    headers = [(b"if-none-match", etag.encode())] if etag else []
    answer: Response = await ROUTES[path].endpoint(Request({"type": "http", "method": "GET", "path": path, "headers": headers}))
    return answer


def test_every_file_of_the_page_has_a_route_at_its_path_and_index_is_the_root() -> None:
    suffixes = (".html", ".js", ".mjs", ".css", ".svg")
    paths = {f"/{file.relative_to(PAGE)}" for file in PAGE.rglob("*") if file.suffix in suffixes}
    assert set(ROUTES) == paths - {"/index.html"} | {"/"}
    assert {"/lastevent.js", "/parts/markdown.js", "/vendor/marked/marked.esm.js"} <= set(ROUTES)


@pytest.mark.parametrize("path", ["/", "/lastevent.js", "/vendor/dompurify/purify.es.mjs", "/page.css"])
async def test_each_goes_with_its_type_and_its_guards(path: str) -> None:
    answer = await get(path)
    policy = answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert answer.body
    media_type = {"/": "text/html", "/page.css": "text/css"}.get(path, "text/javascript")
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"


async def test_what_a_browser_has_already_is_not_sent_again() -> None:
    first = await get("/page.js")
    again = await get("/page.js", first.headers["etag"])
    other = await get("/page.js", (await get("/page.css")).headers["etag"])
    assert (again.status_code, again.body) == (304, b"")
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert (other.status_code, other.body) == (200, first.body)


async def test_the_page_knows_whether_it_may_kill_workers() -> None:
    chaotic = {route.path: route for route in asset_routes(chaos=True)}
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    assert b'data-chaos="no"' in (await get("/")).body
    assert b'data-chaos="yes"' in (await chaotic["/"].endpoint(request)).body


def test_what_is_vendored_is_what_its_package_carries_and_its_licence_lies_beside_it() -> None:
    rows = re.findall(r"`(\w+/[\w.]+)` \| `(\w{64})`", (PAGE / "vendor" / "README.md").read_text())
    assert {name for name, _ in rows} == {str(file.relative_to(PAGE / "vendor")) for file in (PAGE / "vendor").rglob("*.*js")}
    for name, digest in rows:
        file = PAGE / "vendor" / name
        assert sha256(file.read_bytes()).hexdigest() == digest, name
        assert (file.parent / "LICENSE").read_text()


def test_every_module_that_is_imported_is_served() -> None:
    for file in [PAGE / "page.js", *(PAGE / "parts").iterdir()]:
        for target in re.findall(r'from "(\.[^"]+)"', file.read_text()):
            assert f"/{(file.parent / target).resolve().relative_to(PAGE)}" in ROUTES, f"{file.name} imports {target}"
