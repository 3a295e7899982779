"""`python -m worker.alive`, the health check of a worker's container."""

from tests.support.redis_server import free_port
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, running_worker
from worker.alive import missing


async def test_a_worker_of_this_host_is_alive_while_it_renews_its_entry(
    make_settings: Making, provider: ScriptedProvider
) -> None:
    settings = make_settings()
    assert await missing(settings) == f"no worker of {settings.hostname} is live"
    async with running_worker(settings, provider):
        assert await missing(settings) is None
    assert await missing(settings) is not None


async def test_without_redis_nobody_knows(make_settings: Making) -> None:
    why = await missing(make_settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    assert why is not None
    assert why.startswith("Redis is away")
