"""Peers that pip installs when the bench first asks for them, each set into a folder of its own under `build/`, which git
ignores and `make clean` removes."""

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.peers.base import PeerMissing
from bench.stage import ROOT

BUILD: Final = ROOT / "build"
_LONGEST_S: Final = 120.0
_PIP: Final = ("-m", "pip", "install", "-qq", "--disable-pip-version-check")


async def environment(name: str, requirements: Path, say: Callable[[str], None]) -> Path:
    """The Python of an environment that has what a requirements file names, and nothing of ours. Raises PeerMissing."""
    folder, wanted = BUILD / name, await asyncio.to_thread(requirements.read_text)
    python = folder / "bin" / "python"
    if not _is_installed(folder, wanted):
        say(f"installing {name}, once")
        shutil.rmtree(folder, ignore_errors=True)
        await _run(sys.executable, "-m", "venv", str(folder))
        await _run(str(python), *_PIP, "-r", str(requirements))
        _stamp(folder).write_text(wanted)
    return python


async def packages(name: str, wanted: tuple[str, ...], say: Callable[[str], None]) -> Path:
    """A folder for PYTHONPATH with packages that need nothing beyond what is installed here. Raises PeerMissing."""
    folder = BUILD / name
    if not _is_installed(folder, "\n".join(wanted)):
        say(f"installing {name}, once")
        shutil.rmtree(folder, ignore_errors=True)
        await _run(sys.executable, *_PIP, "--no-deps", "--target", str(folder), *wanted)
        _stamp(folder).write_text("\n".join(wanted))
    return folder


def _stamp(folder: Path) -> Path:
    """What was installed there; written last."""
    return folder / "installed.txt"


def _is_installed(folder: Path, wanted: str) -> bool:
    return _stamp(folder).exists() and _stamp(folder).read_text() == wanted


async def _run(*command: str) -> None:
    """Raises PeerMissing with the end of what a failed command said."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(_LONGEST_S):
            _, said = await process.communicate()
    except TimeoutError:
        raise PeerMissing(f"could not be installed within {_LONGEST_S:g} s") from None
    finally:
        if process.returncode is None:  # too slow, or the bench was stopped
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise PeerMissing(f"could not be installed: {said.decode(errors='replace').strip()[-300:]}")
