"""Both load clients see every stamp of every reader, however the bytes are cut, and say how late each was."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench import fan_out
from bench.stage import ROOT

READERS, EVENTS, LATE_MS = 3, 5, 40


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    """Sends each reader an answer, then EVENTS stamps of LATE_MS ago, cut in their middle."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n~0000000000000000 warm-up")
        for _ in range(EVENTS):
            stamp = b"id: 1-1\ndata: @%016d word\n\n" % (time.monotonic_ns() // 1000 - LATE_MS * 1000)
            for piece in (stamp[:20], stamp[20:]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005)  # its own packet, so its own read
        await reader.read()
        writer.close()
        await writer.wait_closed()
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


async def client_in_c(folder: Path) -> tuple[str, ...]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = folder / "load_client"
    source = Path(fan_out.__file__).parent / "load_client.c"
    flags = ("-O2", "-Wall", "-Wextra", "-Werror")
    process = await asyncio.create_subprocess_exec(compiler, *flags, "-o", str(program), str(source))
    assert await process.wait() == 0
    return (str(program),)


@pytest.mark.parametrize("language", ["c", "python"])
async def test_every_stamp_is_counted_and_timed(language: str, tmp_path: Path) -> None:
    command = await client_in_c(tmp_path) if language == "c" else (sys.executable, "-m", "bench.load_client")
    async with server() as port:
        arguments = [str(value) for value in (port, "/any/events", READERS, EVENTS, 20)]
        process = await asyncio.create_subprocess_exec(*command, *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        out, _ = await process.communicate()
    connected, told = out.decode().splitlines()
    seen = json.loads(told)
    assert connected == "connected"
    assert (seen["events"], seen["wanted"]) == (READERS * EVENTS, READERS * EVENTS)
    assert LATE_MS <= seen["p50_ms"] <= seen["p99_ms"] <= seen["max_ms"]
