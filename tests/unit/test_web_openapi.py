"""web/openapi.py: the description matches what is served, and every reference in it resolves."""

from typing import Any

import msgspec
import pytest
from starlette.routing import Route

from shared.settings import Settings
from web.main import build_app
from web.openapi import _document


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(_document())
    return found


async def test_every_call_of_the_api_is_described_and_no_other(document: dict[str, Any]) -> None:
    app = build_app(Settings())
    served = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith(("/v1/", "/healthz", "/readyz"))
        for method in (route.methods or ())
        if method != "HEAD"
    }
    described = {(path, method) for path, calls in document["paths"].items() for method in calls if method != "parameters"}

    assert described == served
    await app.state.context.redis.aclose()


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    names = set(document["components"]["schemas"])
    references = set(_references(document))

    assert references, "there are references"
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= names


def test_it_says_which_calls_a_key_or_a_token_opens(document: dict[str, Any]) -> None:
    """As web/auth.py has it; tests/integration/test_web_auth.py tries each."""
    own = {
        (path, method): [name for choice in call["security"] for name in choice]
        for path, calls in document["paths"].items()
        for method, call in calls.items()
        if method != "parameters" and "security" in call
    }
    everything = ["bearer", "header", "token"]

    assert own == {
        ("/v1/jobs/{job_id}", "get"): everything,
        ("/v1/jobs/{job_id}/events", "get"): everything,
        ("/healthz", "get"): [],
        ("/readyz", "get"): [],
    }
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert set(document["components"]["securitySchemes"]) == set(everything)


def test_a_jobs_timing_is_described_with_its_units(document: dict[str, Any]) -> None:
    timing = document["components"]["schemas"]["Timing"]
    assert set(timing["properties"]) == {
        "queue_s", "ttft_s", "total_s", "tokens_per_s", "inter_token_p50_s", "inter_token_p99_s",
    }  # fmt: skip
    assert all("description" in field for field in timing["properties"].values())


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [r for child in value.values() for r in _references(child)]
    return [r for child in value for r in _references(child)] if isinstance(value, list) else []
