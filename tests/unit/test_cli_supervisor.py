"""The supervisor: restarts what dies, knows what no restart can mend, stops everything in order.

The children here are one-line Python programs; that they are processes at all is what is tested.
"""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from cli import supervisor as supervisor_module
from cli.child import ChildProcess, ChildSpec, Report, describe_exit
from cli.supervisor import Backoff, Supervisor
from shared.errors import ConfigurationError
from tests.support.waiting import wait_until

SLEEP = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
POLITE = (
    # os.write, not print: the signal may come while it prints.
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'bye\\n'), sys.exit(0)));"
    "print('up', flush=True); time.sleep(600)"
)


def spec(name: str, code: str, stage: int = 0, must_start: bool = False) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-I", "-S", "-c", code), {}, stage, must_start)


class Lines(list[tuple[str, str]]):
    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))

    def of(self, name: str) -> list[str]:
        return [line for who, line in self if who == name]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def supervisor(lines: Lines) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(lines)
    yield supervisor
    supervisor.kill()
    await supervisor.stop()


async def pid_of(supervisor: Supervisor, name: str, other_than: int = 0) -> int:
    await wait_until(lambda: supervisor.pids().get(name, other_than) != other_than, message=f"{name} runs")
    return supervisor.pids()[name]


# --- restarting ------------------------------------------------------------------------------------------------------


def test_the_first_restart_comes_at_once_and_later_ones_double_up_to_ten_seconds() -> None:
    backoff = Backoff()
    assert [backoff.after(lived_s=1) for _ in range(7)] == [0, 0.5, 1, 2, 4, 8, 10]


def test_a_child_that_was_healthy_for_thirty_seconds_starts_over() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.after(lived_s=1)
    assert backoff.after(lived_s=30) == 0
    assert backoff.after(lived_s=29.9) == 0.5


async def test_a_child_that_dies_is_started_again_and_one_line_says_so(supervisor: Supervisor, lines: Lines) -> None:
    supervisor.start(spec("web", SLEEP))
    first = await pid_of(supervisor, "web")
    os.kill(first, signal.SIGKILL)
    second = await pid_of(supervisor, "web", other_than=first)
    assert psutil.pid_exists(second)
    assert lines == [("web", "was ended by SIGKILL; restarted at once")]


async def test_a_child_that_keeps_dying_is_given_time(supervisor: Supervisor, lines: Lines) -> None:
    supervisor.start(spec("web", "raise SystemExit(7)"))
    await wait_until(lambda: len(lines) >= 3)
    assert lines.of("web")[:3] == [
        "ended with code 7; restarted at once",
        "ended with code 7; restarted in 0.5 s",
        "ended with code 7; restarted in 1 s",
    ]


async def test_what_a_child_prints_is_reported_line_by_line_behind_its_name(supervisor: Supervisor, lines: Lines) -> None:
    long = 300_000  # beyond the limit at which asyncio's readline() raises
    code = f"import sys; print('one'); print('x' * {long}); print(); sys.stderr.write('half a line'); sys.exit(9)"
    supervisor.start(spec("web", code))
    await wait_until(lambda: any("ended" in line for line in lines.of("web")))
    assert lines.of("web")[:3] == ["one", "x" * long, "half a line"]


# --- what no restart can mend ----------------------------------------------------------------------------------------


async def test_a_configuration_error_before_ready_is_fatal_and_told_once(supervisor: Supervisor, lines: Lines) -> None:
    supervisor.start(spec("web", "import sys; sys.exit(print('lastevent: no such key', file=sys.stderr) or 2)"))
    with pytest.raises(ConfigurationError, match=r"^no such key$"):
        await asyncio.wait_for(supervisor.fatal(), 10)
    assert lines == []
    assert supervisor.pids() == {}


async def test_once_ready_even_a_configuration_error_is_met_with_a_restart(supervisor: Supervisor, lines: Lines) -> None:
    supervisor.mark_ready()
    supervisor.start(spec("web", "import sys; sys.exit(print('lastevent: no such key', file=sys.stderr) or 2)"))
    await wait_until(lambda: len(lines) >= 1)
    assert lines[0] == ("web", "ended with code 2 (no such key); restarted at once")


async def test_a_child_that_must_start_is_fatal_whatever_its_exit(supervisor: Supervisor) -> None:
    supervisor.start(spec("redis", "print('Bad file format'); raise SystemExit(1)", must_start=True))
    with pytest.raises(ConfigurationError, match=r"^redis ended with code 1 at its start: Bad file format$"):
        await asyncio.wait_for(supervisor.fatal(), 10)


async def test_a_bug_in_keeping_a_child_does_not_go_unnoticed(supervisor: Supervisor) -> None:
    supervisor.start(ChildSpec("web", ("bad\0path",), {}, 0))
    with pytest.raises(ValueError, match="null byte"):
        await asyncio.wait_for(supervisor.fatal(), 10)
    supervisor._keepers.clear()  # its error has been seen; the fixture's stop must not raise it again


async def test_a_child_that_the_system_cannot_start_is_tried_again(
    supervisor: Supervisor, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_start = ChildProcess.start

    async def start(spec: ChildSpec, report: Report) -> ChildProcess:
        if not lines:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return await real_start(spec, report)

    monkeypatch.setattr(ChildProcess, "start", start)
    supervisor.start(spec("web", SLEEP))
    await pid_of(supervisor, "web")
    assert lines == [("web", "cannot be started: Resource temporarily unavailable; restarted in 0.5 s")]


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "ended with code 0"), (-9, "was ended by SIGKILL"), (-15, "was ended by SIGTERM"), (-70, "was ended by signal 70")],
)
def test_an_exit_code_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


# --- stopping --------------------------------------------------------------------------------------------------------


async def test_children_are_stopped_stage_by_stage(supervisor: Supervisor, lines: Lines) -> None:
    for name, stage in (("redis", 2), ("web", 0), ("local-1", 1)):
        supervisor.start(spec(name, POLITE, stage))
    await wait_until(lambda: len(lines) == 3, message="all are up")
    pids = supervisor.pids().values()
    await supervisor.stop()
    assert [name for name, line in lines if line == "bye"] == ["web", "local-1", "redis"]
    assert not any(map(psutil.pid_exists, pids))


async def test_a_child_that_does_not_stop_is_killed(
    supervisor: Supervisor, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "KILL_AFTER_S", 0.4)
    monkeypatch.setattr(supervisor_module, "STAGE_ENDS_S", (0.1, 0.2))
    supervisor.start(spec("web", DEAF))
    supervisor.start(spec("redis", POLITE, stage=1))
    await wait_until(lambda: len(lines) == 2)
    pid = supervisor.pids()["web"]
    started = time.monotonic()
    await supervisor.stop()
    assert time.monotonic() - started < 5
    assert not psutil.pid_exists(pid)
    assert lines[-2:] == [("redis", "bye"), ("web", "does not stop: killed")]


async def test_time_that_a_quick_stage_leaves_goes_to_the_next_one(
    supervisor: Supervisor, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STAGE_ENDS_S", (0.1, 5.0))
    slow = POLITE.replace("print('bye'", "time.sleep(0.5), print('bye'")
    for name, code, stage in (("web", POLITE, 0), ("local-1", slow, 1), ("redis", POLITE, 2)):
        supervisor.start(spec(name, code, stage))
    await wait_until(lambda: len(lines) == 3, message="all are up")
    await supervisor.stop()
    assert [name for name, line in lines if line == "bye"] == ["web", "local-1", "redis"], "Redis outlives the hand-over"


async def test_a_stop_does_not_wait_for_a_child_that_waits_for_its_restart(supervisor: Supervisor, lines: Lines) -> None:
    supervisor.start(spec("web", "raise SystemExit(7)"))
    await wait_until(lambda: len(lines) >= 4, message="waits for 2 s")
    started = time.monotonic()
    await supervisor.stop()
    assert time.monotonic() - started < 1
    assert supervisor.pids() == {}


async def test_nothing_is_started_once_the_stop_has_begun(supervisor: Supervisor) -> None:
    stopping = asyncio.create_task(supervisor.stop())
    supervisor.start(spec("web", SLEEP))
    await stopping
    await asyncio.gather(*supervisor._keepers.values())
    assert supervisor.pids() == {}


# --- process groups --------------------------------------------------------------------------------------------------


async def test_a_child_leads_a_session_of_its_own_so_that_ctrl_c_reaches_the_supervisor_alone(supervisor: Supervisor) -> None:
    supervisor.start(spec("web", SLEEP))
    pid = await pid_of(supervisor, "web")
    assert os.getsid(pid) == pid != os.getsid(0)


async def test_what_a_child_started_itself_ends_with_it(supervisor: Supervisor, lines: Lines) -> None:
    supervisor.start(spec("web", "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"))
    await wait_until(lambda: any("ended" in line for line in lines.of("web")), message="it ended, its pipe held open")
    grandchild = int(lines.of("web")[0])
    await wait_until(lambda: not _runs(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "supervise.py"
    program.write_text(
        "import asyncio\n"
        "from cli.supervisor import Supervisor\n"
        "from tests.unit.test_cli_supervisor import DEAF, spec\n"
        "async def main():\n"
        "    supervisor = Supervisor(lambda name, line: print(supervisor.pids()[name], flush=True))\n"
        "    supervisor.start(spec('web', DEAF))\n"
        "    await supervisor.fatal()\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    )
    assert process.stdout is not None
    child = int(await process.stdout.readline())
    assert _runs(child)
    process.kill()
    await process.wait()
    await wait_until(lambda: not _runs(child), message="the kernel ended the child")


def _runs(pid: int) -> bool:
    """A zombie, whom its adopter has not buried yet, does not run."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
