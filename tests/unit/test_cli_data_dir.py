"""The data folder: made, locked, and tried before anything is kept in it."""

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cli import data_dir as data_dir_module
from cli.data_dir import DataDir
from shared.errors import ConfigurationError

ROOT = str(Path(__file__).parents[2])
HOLD = "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX); print('held', flush=True)"


async def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    data_dir = await DataDir.open(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert os.listdir(data_dir.path) == ["lock"], "the probe is gone"
    data_dir.close()


async def test_a_second_user_is_refused_by_the_first_ones_pid(tmp_path: Path) -> None:
    data_dir = await DataDir.open(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"another `lastevent up` \(pid {os.getpid()}\) uses {tmp_path}; stop it"):
        await DataDir.open(tmp_path)
    data_dir.close()
    (await DataDir.open(tmp_path)).close()


async def test_a_lock_held_on_by_the_redis_of_a_killed_supervisor_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(f"{_dead_pid()}\n")
    orphan = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD + "; sys.stdin.read()", str(tmp_path / "lock")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert orphan.stdin is not None
    assert orphan.stdout is not None
    await orphan.stdout.readline()
    opening = asyncio.create_task(DataDir.open(tmp_path))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(opening), 0.2)
    orphan.stdin.close()  # it ends, and the lock with it
    (await asyncio.wait_for(opening, 5)).close()
    await orphan.wait()


async def test_an_orphan_that_stays_is_told_of_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_dir_module, "ORPHAN_S", 0.1)
    data_dir = await DataDir.open(tmp_path)
    os.pwrite(data_dir.lock_fd, b"%d\n" % _dead_pid(), 0)
    with pytest.raises(ConfigurationError, match="another `lastevent up`"):
        await DataDir.open(tmp_path)
    data_dir.close()


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot keep data in .*/file/data: not a directory; .*--data-dir"):
        await DataDir.open(tmp_path / "file" / "data")


async def test_no_room_is_one_line_and_leaves_neither_probe_nor_lock(tmp_path: Path) -> None:
    program = (
        "import asyncio, resource, sys; from pathlib import Path; from cli.data_dir import DataDir\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({64 * 1024}, {resource.RLIM_INFINITY}))\n"  # as near as one gets
        "try: asyncio.run(DataDir.open(Path(sys.argv[1])))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(tmp_path)), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT}
    )
    said, _ = await process.communicate()
    assert said.decode().startswith(f"ConfigurationError cannot keep data in {tmp_path}: file too large; mend that")
    assert os.listdir(tmp_path) == ["lock"]
    (await DataDir.open(tmp_path)).close()


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
