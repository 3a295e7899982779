"""cli/kill_switch.py: what comes through the pipe kills workers of this stack, and nothing else."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest

from cli.kill_switch import KillSwitch
from cli.supervisor import Supervisor
from tests.support.waiting import wait_until
from tests.unit.test_cli_supervisor import SLEEP, Lines, pid_of, spec


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def supervisor(lines: Lines) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(lines)
    yield supervisor
    supervisor.kill()
    await supervisor.stop()


@pytest.fixture
async def switch(supervisor: Supervisor, lines: Lines) -> AsyncIterator[KillSwitch]:
    switch = KillSwitch(supervisor, ["api-1"], lines)
    obeying = asyncio.create_task(switch.run_forever())
    yield switch
    obeying.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await obeying
    switch.close()


async def test_a_worker_is_killed_and_started_again(supervisor: Supervisor, switch: KillSwitch, lines: Lines) -> None:
    supervisor.start(spec("api-1", SLEEP))
    victim = await pid_of(supervisor, "api-1")
    os.write(switch.fd, b"%d\n" % victim)
    await pid_of(supervisor, "api-1", other_than=victim)
    assert lines.of("api-1") == [
        f"gets SIGKILL (pid {victim}): the page asked for it",
        "was ended by SIGKILL; restarted at once",
    ]


async def test_whoever_is_no_worker_of_this_stack_is_left_alone(
    supervisor: Supervisor, switch: KillSwitch, lines: Lines
) -> None:
    supervisor.start(spec("redis", SLEEP))
    redis = await pid_of(supervisor, "redis")
    os.write(switch.fd, b"%d\n%d\n" % (redis, os.getpid()))
    await wait_until(lambda: len(lines) == 2)
    assert supervisor.pids() == {"redis": redis}
    assert all(line.endswith("no worker of this stack: left alone") for line in lines.of("up"))
