"""`lastevent demo` keeps what it promises, and leaves nothing behind however it ends."""

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.waiting import wait_until

pytestmark = pytest.mark.model

ROOT = str(Path(__file__).parents[2])
Start = Callable[..., Coroutine[Any, Any, asyncio.subprocess.Process]]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the demo puts its data; short, because a socket's path is."""
    with tempfile.TemporaryDirectory(prefix="le-") as folder:
        yield Path(folder)


@pytest.fixture
def start_demo(temporary: Path) -> Start:
    async def start(*options: str) -> asyncio.subprocess.Process:
        # The user's own Redis and port must not matter.
        env = {**os.environ, "PYTHONPATH": ROOT, "TMPDIR": str(temporary), "LASTEVENT_PORT": "1"}
        env["LASTEVENT_REDIS_URL"] = "redis://127.0.0.1:1/0"
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cli.main", "demo", *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
        )

    return start


@pytest.mark.timeout(330)  # about 40 s on two idle cores; the demo ends itself after 300
async def test_a_cut_connection_and_a_killed_worker_cost_the_reader_nothing(start_demo: Start, temporary: Path) -> None:
    demo = await start_demo("--json")
    proof, told = await demo.communicate()
    said = told.decode()
    assert demo.returncode == 0, said
    proved = json.loads(proof)
    assert (proved["holds"], proved["lost"], proved["doubled"], proved["takeovers"]) == (True, 0, 0, 1)
    for row in (
        "lost +│ 0 ",
        "doubled +│ 0 ",
        "reconnects +│ 1 ",
        "takeovers +│ 1 ",
        r"text equals GET .*│ yes",
        "every entry │ yes",
    ):
        assert re.search(row, said), said
    assert "\x1b" not in said, "plain lines in a pipe"
    assert not any(name.startswith("lastevent") for name in os.listdir(temporary))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_demo_that_is_interrupted_leaves_nothing_behind(
    start_demo: Start, temporary: Path, number: signal.Signals
) -> None:
    demo = await start_demo()
    children: list[psutil.Process] = []

    def all_started() -> bool:
        children[:] = psutil.Process(demo.pid).children(recursive=True)
        return len(children) == 4  # Redis, web, two workers

    await wait_until(all_started)
    demo.send_signal(number)
    said = b"".join(await asyncio.wait_for(demo.communicate(), 15)).decode()
    assert demo.returncode == 130, said
    assert "Traceback" not in said
    assert not any(child.is_running() for child in children)
    assert not any(name.startswith("lastevent") for name in os.listdir(temporary))
