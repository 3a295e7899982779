"""shared/redis_client.py without Redis: URLs, and how clients are made."""

import pytest

from shared.errors import ConfigurationError
from shared.redis_client import check_redis, check_redis_url, describe, make_blocking_client, make_client, make_pool, scripts
from shared.settings import Settings
from tests.support.redis_server import free_port


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:pass@host:6379/1",
        "rediss://host:6380",
        "unix:///run/redis.sock",
        "unix:///a?db=2",
        "sentinel://a:26379,b/main/0",
        "sentinel://:pass@a/main?sentinel_password=x",
    ],
)
def test_what_is_a_redis_url(url: str) -> None:
    check_redis_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:secret@host",
        "redis://:secret@host:99999",
        "redis://host:port",
        "unix://",
        "redis://[::1",
        "sentinel://:secret@a",
        "sentinel://a:port/main",
        "sentinel:///main",
        "sentinel://a/main/x",
        "sentinel://a/main?secret=1",
    ],
)
def test_what_is_none_and_says_no_secret(url: str) -> None:
    with pytest.raises(ConfigurationError, match="LASTEVENT_REDIS_URL") as raised:
        check_redis_url(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6380/1", "redis://host:6380/1"),
        ("redis://host", "redis://host:6379"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
        ("sentinel://user:secret@a:1,b/main/0?sentinel_password=secret", "sentinel://a:1,b/main/0"),
    ],
)
def test_a_url_is_shown_without_its_credentials(url: str, shown: str) -> None:
    assert describe(url) == shown


def test_every_connection_times_out_retries_and_knows_the_scripts() -> None:
    """pitfalls 12 and 13."""
    kwargs = make_pool(Settings(redis_timeout_s=3)).connection_kwargs
    assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"], kwargs["socket_keepalive"]) == (3, 3, True)
    assert kwargs["retry"] is not None
    assert OSError in kwargs["retry_on_error"]
    assert kwargs["redis_connect_func"] == scripts.load


def test_a_blocking_reader_waits_longer_than_its_command() -> None:
    settings = Settings(redis_timeout_s=3)
    client = make_blocking_client(settings, longest_wait_s=10)
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 13


async def test_an_absent_redis_is_one_clear_line() -> None:
    settings = Settings(redis_url=f"redis://:secret@127.0.0.1:{free_port()}/0")
    client = make_client(settings)
    with pytest.raises(ConfigurationError, match="does not answer at redis://127") as raised:
        await check_redis(client, settings)
    await client.aclose()
    assert "secret" not in str(raised.value)
