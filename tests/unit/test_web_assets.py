"""web/assets.py: the page and its files, and the headers that keep strangers' scripts out."""

from importlib.resources import files

import pytest
from starlette.requests import Request

from web.assets import asset_routes

ROUTES = {route.path: route for route in asset_routes()}


def test_every_file_of_the_page_has_a_route_and_index_is_the_root() -> None:
    names = {
        file.name for file in files("web").joinpath("page").iterdir() if file.name.endswith((".html", ".js", ".css", ".svg"))
    }
    assert set(ROUTES) == {"/" if name == "index.html" else f"/{name}" for name in names}
    assert "/lastevent.js" in ROUTES


@pytest.mark.parametrize("path", sorted(ROUTES))
async def test_each_goes_with_its_type_and_its_guards(path: str) -> None:
    answer = await ROUTES[path].endpoint(Request({"type": "http", "method": "GET", "path": path, "headers": []}))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.body
