"""worker/metrics_server.py: a port of its own, or one clear line."""

import httpx2
import pytest
from prometheus_client import CollectorRegistry, Gauge

from shared.errors import ConfigurationError
from shared.settings import Settings
from worker.metrics_server import served


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("answer", "The answer", registry=registry).set(42)
    return registry


async def test_without_a_port_nothing_is_served(registry: CollectorRegistry) -> None:
    async with served(Settings(), registry) as url:
        assert url is None


async def test_a_free_port_is_told_and_taken_by_nobody_else(registry: CollectorRegistry) -> None:
    async with served(Settings(worker_metrics_port=0), registry) as url:
        assert url is not None
        async with httpx2.AsyncClient() as client:
            assert "answer 42.0" in (await client.get(url)).text
        port = httpx2.URL(url).port
        with pytest.raises(ConfigurationError, match="LASTEVENT_WORKER_METRICS_PORT"):
            async with served(Settings(worker_metrics_port=port), registry):
                pass
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient() as client:
            await client.get(url)
