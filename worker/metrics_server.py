"""Where a worker's `/metrics` is served: prometheus-client's own HTTP server, in threads of its own. No scrape waits for the
event loop, and none holds it up for longer than Python's threads take turns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, start_http_server

from shared.errors import ConfigurationError
from shared.settings import Settings


@asynccontextmanager
async def served(settings: Settings, registry: CollectorRegistry) -> AsyncIterator[str | None]:
    """Yields the address, None where no port is set.

    Raises:
        ConfigurationError: the port is taken, forbidden, or no such address.
    """
    host, port = settings.worker_metrics_host, settings.worker_metrics_port
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot serve metrics on {host}:{port}: {error.strerror}. Set LASTEVENT_WORKER_METRICS_PORT to another port, "
            "or to 0 for a free one."
        ) from None
    try:
        named = f"[{host}]" if ":" in host else host
        yield f"http://{named}:{server.server_port}/metrics"
    finally:
        await asyncio.to_thread(server.shutdown)
        thread.join()
        server.server_close()
