"""The few programs of the bench that are written in C, compiled when they are needed by the system's own compiler."""

import asyncio
import shutil
from pathlib import Path

from bench.stage import BenchFailed, Stage


async def compiled(stage: Stage, source: Path) -> str | None:
    """The program, in the stage's folder; None where there is no compiler.

    Raises:
        BenchFailed: there is one, and it could not.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = stage.dir / source.stem
    process = await asyncio.create_subprocess_exec(compiler, "-O2", "-o", str(program), str(source))
    if await process.wait() != 0:
        raise BenchFailed(f"{compiler} could not compile {source.name}")
    return str(program)
