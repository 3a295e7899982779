"""shared/redis_connections.py without Redis: Sentinel URLs, and Sentinels that do not answer."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.redis_client import make_pool
from shared.redis_connections import SentinelConnection, Sentinels, SentinelUrl
from shared.settings import Settings
from tests.support.redis_server import free_port


def test_a_sentinel_url() -> None:
    url = SentinelUrl.parse("sentinel://me:p%40ss@a:1,[::1]:2,c/main/3?sentinel_password=s")
    assert url.hosts == (("a", 1), ("::1", 2), ("c", 26379))
    assert (url.name, url.db, url.username, url.password) == ("main", 3, "me", "p@ss")
    assert (url.sentinel_username, url.sentinel_password) == (None, "s")


def test_its_pool_connects_by_name() -> None:
    pool = make_pool(Settings(redis_url="sentinel://:pass@a/main/2"))
    assert pool.connection_class is SentinelConnection
    assert (pool.connection_kwargs["db"], pool.connection_kwargs["password"]) == (2, "pass")
    assert pool.connection_kwargs["socket_keepalive"]


async def test_no_sentinel_answers() -> None:
    """As Redis away: it passes by itself."""
    sentinels = Sentinels(SentinelUrl.parse(f"sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/main"), 1.0)
    with pytest.raises(RedisConnectionError, match="no Sentinel knows the primary 'main'"):
        await sentinels.primary()
