"""The chaos run in short, as `make chaos` runs it: every kind of fault, and no reader is told anything twice, or not at all."""

import asyncio
import sys

from tests.support.up_process import ROOT

SEED = 21


async def test_nothing_is_lost_doubled_disordered_or_stuck() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--seconds", "20", "--lease", "1.5", "--every", "1.2"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
    print(said.decode())
    assert process.returncode == 0
