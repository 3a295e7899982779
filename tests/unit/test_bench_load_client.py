"""Both load clients see every event of every reader, however its bytes are cut, framed and merged, and how late it came."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.stage import ROOT

READERS, EVENTS, LATE_MS = 3, 5, 40

Body = Callable[[], Iterator[bytes]]


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield b"%x\r\n%s\r\n" % (len(piece), piece)


def stamped() -> Iterator[bytes]:
    """Each stamp in two pieces, after a warm-up that does not count."""
    yield b'data: {"type":"token","text":"~0000000000000000 warm-up"}\n\n'
    for i in range(EVENTS):
        at = time.monotonic_ns() // 1000 - LATE_MS * 1000
        frame = b'id: 1-%d\ndata: {"type":"token","text":"@%016d word"}\n\n' % (i + 2, at)
        yield frame[:40]
        yield frame[40:]


def merged() -> Iterator[bytes]:
    """Five tokens in two frames, the second one after a hole of one, between events that are no tokens."""
    yield b'retry: 1000\n\nid: 0-1\ndata: {"type":"queued"}\n\n: hb\n\nid: 1-0\ndata: {"type":"started"}\n\n'
    yield b'id: 1-3\ndata: {"type":"token","text":"abc","n":3}\n\nid: 1-6\ndata: {"type":"token","text":"de","n":2}\n\n'


@asynccontextmanager
async def server(body: Body, *, in_chunks: bool) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if in_chunks else b"Connection: close\r\n\r\n")
        writer.write(head)
        for piece in chunked(body()) if in_chunks else body():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)  # its own packet, so its own read
        with contextlib.suppress(ConnectionResetError):  # how the clients leave
            await reader.read()
        writer.close()
        gone.release()

    gone = asyncio.Semaphore(0)
    serving = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield serving.sockets[0].getsockname()[1]
        for _ in range(READERS):
            await gone.acquire()
    finally:
        serving.close()
        await serving.wait_closed()


@pytest.fixture(scope="module")
def client_in_c(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("bench") / "load_client"
    source = Path(bench.__file__).parent / "load_client.c"
    subprocess.run([compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)], check=True)
    return (str(program),)


@pytest.fixture(params=["c", "python"])
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "c":
        return request.getfixturevalue("client_in_c")  # type: ignore[no-any-return]
    return (sys.executable, "-m", "bench.load_client")


async def seen_by(command: tuple[str, ...], port: int, count: str, folder: Path) -> dict[str, Any]:
    paths = folder / "paths"
    paths.write_text("/any/events\n/other/events\n")
    arguments = [str(value) for value in (port, count, READERS, EVENTS, 20, paths)]
    process = await asyncio.create_subprocess_exec(*command, *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"connected\n"
    seen: dict[str, Any] = json.loads(await process.stdout.readline())
    process.kill()
    await process.wait()
    return seen


@pytest.mark.parametrize("in_chunks", [True, False])
async def test_every_stamp_is_counted_and_timed(command: tuple[str, ...], in_chunks: bool, tmp_path: Path) -> None:
    async with server(stamped, in_chunks=in_chunks) as port:
        seen = await seen_by(command, port, "stamped", tmp_path)
    assert (seen["events"], seen["wanted"], seen["done"]) == (READERS * EVENTS, READERS * EVENTS, READERS)
    assert seen["gaps"] == 0
    assert LATE_MS <= seen["p50_ms"] <= seen["p99_ms"] <= seen["max_ms"]


async def test_a_merged_frame_counts_all_that_it_stands_for_and_a_hole_is_seen(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    async with server(merged, in_chunks=True) as port:
        seen = await seen_by(command, port, "tokens", tmp_path)
    assert (seen["events"], seen["frames"], seen["done"]) == (READERS * EVENTS, READERS * 4, READERS)
    assert seen["gaps"] == READERS
    assert 0 < seen["done_p50_ms"] <= seen["done_max_ms"]
