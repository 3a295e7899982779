"""What stands before the web servers is understood by the program that reads it, where that is here."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
OPERATIONS: Final = (ROOT / "docs" / "OPERATIONS.md").read_text()


def example(language: str) -> str:
    """The block of this language in docs/OPERATIONS.md."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", OPERATIONS, re.DOTALL | re.MULTILINE)
    return str(found)


def haproxy(folder: Path) -> list[str]:
    certificate = folder / "server.pem"
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout -"
    certificate.write_bytes(subprocess.run(["openssl", "req", "-x509", *key.split()], capture_output=True, check=True).stdout)
    environment = ["env", f"CERTIFICATE={certificate}", "SILENCE_S=60"]
    return [*environment, "haproxy", "-c", "-f", str(ROOT / "proxy" / "haproxy.cfg")]


def nginx(folder: Path) -> list[str]:
    config = folder / "nginx.conf"
    paths = "".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config.write_text(f"pid {folder}/pid; events {{}} http {{ access_log off; {paths}\n{example('nginx')}}}")
    return ["nginx", "-t", "-e", str(folder / "errors"), "-c", str(config)]


def caddy(folder: Path) -> list[str]:
    config = folder / "Caddyfile"
    config.write_text(example("caddyfile"))
    return ["env", f"HOME={folder}", "caddy", "validate", "--adapter", "caddyfile", "--config", str(config)]


@pytest.mark.parametrize("command_of", [haproxy, nginx, caddy], ids=lambda made: made.__name__)
def test_it_is_read_without_a_complaint(command_of: Callable[[Path], list[str]], tmp_path: Path) -> None:
    if shutil.which(command_of.__name__, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin") is None:
        pytest.skip(f"no {command_of.__name__} here")
    done = subprocess.run(command_of(tmp_path), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
