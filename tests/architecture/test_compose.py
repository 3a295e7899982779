"""docker-compose.yml and .env.example name settings that exist, and all that containers use; and Compose reads them."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from shared.settings import Settings
from tests.architecture import settings_table

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final = (ROOT / "docker-compose.yml").read_text()
EXAMPLE: Final = dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
"""Each variable and what it is shown with."""

SETTINGS = {f"LASTEVENT_{name.upper()}" for name in Settings.model_fields}
OF_COMPOSE = {"LASTEVENT_PUBLISH", "LASTEVENT_PUBLISH_TLS", "LASTEVENT_STOP_GRACE", "LASTEVENT_TLS_DIR"}
"""Variables of the compose file's own."""
FIXED = {"LASTEVENT_CACHE_DIR", "LASTEVENT_DATA_DIR", "LASTEVENT_HOST", "LASTEVENT_ALLOW_REMOTE", "LASTEVENT_PORT"}
"""What the image or the file decides, or containers do not use."""
OTHERS_HERE = {"LASTEVENT_LAME_DUCK_S": "3", "LASTEVENT_REDIS_URL": "redis://redis:6379/0"}
"""Defaults that are others in containers."""
PROVIDERS_OWN = re.compile(r"LASTEVENT_(OPENAI|ANTHROPIC|OLLAMA)_(API_KEY|BASE_URL|HOST)")
"""Settings that go by the provider's own name."""


def read_by_compose() -> set[str]:
    """Variables whose values come from .env or the shell: `NAME:` without a value, and `${NAME…`."""
    return set(re.findall(r"^ +([A-Z][A-Z0-9_]+): *$", COMPOSE, re.MULTILINE)) | set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE))


def test_compose_passes_every_setting_on_and_no_other() -> None:
    named = set(re.findall(r"LASTEVENT_[A-Z_]+", COMPOSE)) - OF_COMPOSE
    wanted = {name for name in SETTINGS - FIXED if not PROVIDERS_OWN.fullmatch(name)}

    assert named - FIXED == wanted


def test_the_example_names_all_that_compose_reads_and_nothing_else() -> None:
    assert set(EXAMPLE) == read_by_compose()


@pytest.mark.parametrize("name", sorted(SETTINGS & set(EXAMPLE)))
def test_what_the_example_shows_is_the_default(name: str) -> None:
    field = Settings.model_fields[name.removeprefix("LASTEVENT_").lower()]
    default = OTHERS_HERE.get(name, settings_table.default_of(field))
    if name in OTHERS_HERE:
        assert f"{name}: ${{{name}:-{default}}}" in COMPOSE
    if default != "none" and name != "LASTEVENT_REDIS_URL":  # of which it shows another use
        assert EXAMPLE[name] == default


def test_containers_are_given_longer_to_stop_than_they_take() -> None:
    found = re.findall(r"stop_grace_period: \$\{LASTEVENT_STOP_GRACE:-(\d+)s\}", COMPOSE)
    defaults = {name: info.default for name, info in Settings.model_fields.items()}
    assert len(found) == 2, "web's and the workers'"
    web_s = float(EXAMPLE["LASTEVENT_LAME_DUCK_S"]) + defaults["web_drain_s"]
    assert min(map(int, found)) >= max(defaults["drain_s"], web_s) + 5


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose on PATH")
@pytest.mark.parametrize("profiles", [(), ("gpu",), ("sentinel",), ("gpu", "sentinel")], ids="+".join)
def test_compose_reads_it_with_any_profiles(profiles: tuple[str, ...]) -> None:
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    command = ["docker-compose", "--env-file", ".env.example", *chosen, "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert (done.returncode, done.stderr) == (0, "")
