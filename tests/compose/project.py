"""The compose file as a project of its own beside whatever else runs here: its containers, and what can be done to them."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from typing import Any, Final, Self

from tests.support.redis_server import free_port
from tests.support.waiting import wait_until

ROOT: Final = Path(__file__).parents[2]
NAME: Final = "lastevent-check"
_KEPT: Final = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONTEXT", "PYTHON_IMAGE", "REDIS_IMAGE", "PIP_EXTRA_ARGS")
"""Of the environment; what else a user has set, keys above all, does not reach the containers."""


class CommandFailed(Exception):
    """A command ended with another code than 0; the message is what it said last."""


def compose_command() -> list[str]:
    """Compose of whichever age is here. Raises CommandFailed."""
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise CommandFailed("there is neither `docker compose` nor docker-compose")


class Project:
    """`async with` it: at its end nothing of it is left but images."""

    def __init__(self, settings: dict[str, str], *, keep: bool = False) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self.url, self.tls_url = f"http://127.0.0.1:{self.port}", f"https://127.0.0.1:{self.tls_port}"
        self._settings = settings | {
            "LASTEVENT_PUBLISH": f"127.0.0.1:{self.port}",
            "LASTEVENT_PUBLISH_TLS": f"127.0.0.1:{self.tls_port}",
        }
        self._keep = keep
        self._compose = compose_command()
        self._folder = Path(tempfile.mkdtemp(prefix="lastevent-compose-"))

    async def __aenter__(self) -> Self:
        env_file = self._folder / "env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
        self._compose += ["--env-file", str(env_file), "--project-name", NAME, "--file", str(ROOT / "docker-compose.yml")]
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._keep:
            await self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        shutil.rmtree(self._folder, ignore_errors=True)

    async def compose(self, *words: str) -> str:
        """Raises CommandFailed."""
        return await _run(*self._compose, *words, folder=ROOT)

    async def docker(self, *words: str) -> str:
        """Raises CommandFailed."""
        return await _run("docker", *words, folder=ROOT)

    async def containers(self, service: str) -> list[dict[str, Any]]:
        """The running ones of a service, as `docker inspect` shows them."""
        ids = (await self.compose("ps", "--quiet", service)).split()
        found: list[dict[str, Any]] = json.loads(await self.docker("inspect", *ids)) if ids else []
        return sorted((one for one in found if one["State"]["Running"]), key=lambda one: str(one["Name"]))

    async def until_healthy(self, container: dict[str, Any], timeout: float = 90) -> None:
        async def healthy() -> bool:
            await asyncio.sleep(0.25)  # each look is a process
            return (await self.docker("inspect", "--format", "{{.State.Health.Status}}", container["Id"])).strip() == "healthy"

        await wait_until(healthy, timeout=timeout, message=f"{container['Name']} is healthy")


async def _run(*words: str, folder: Path) -> str:
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    process = await asyncio.create_subprocess_exec(*words, cwd=folder, env=env, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:  # cancelled
            process.terminate()
            await process.wait()
    if process.returncode:
        last = "\n".join(said.decode(errors="replace").splitlines()[-12:])
        raise CommandFailed(f"{' '.join(words)}: exit code {process.returncode}\n{last}")
    return said.decode(errors="replace")
