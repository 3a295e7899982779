"""docker-compose.yml and .env.example name settings that exist, and all that containers use."""

import re
from pathlib import Path

from shared.settings import Settings

ROOT = Path(__file__).parents[2]

SETTINGS = {f"LASTEVENT_{name.upper()}" for name in Settings.model_fields}
OF_COMPOSE = {"LASTEVENT_PUBLISH", "LASTEVENT_STOP_GRACE"}
"""Variables of the compose file's own."""
FIXED = {"LASTEVENT_CACHE_DIR", "LASTEVENT_DATA_DIR", "LASTEVENT_PORT"}
"""What the image decides, or containers do not use."""
PROVIDERS_OWN = re.compile(r"LASTEVENT_(OPENAI|ANTHROPIC|OLLAMA)_(API_KEY|BASE_URL|HOST)")
"""Settings that go by the provider's own name."""


def test_compose_passes_every_setting_on_and_no_other() -> None:
    named = set(re.findall(r"LASTEVENT_[A-Z_]+", (ROOT / "docker-compose.yml").read_text())) - OF_COMPOSE
    wanted = {name for name in SETTINGS - FIXED if not PROVIDERS_OWN.fullmatch(name)}

    assert named - FIXED == wanted


def test_the_example_names_nothing_that_compose_does_not_read() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    named = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))

    assert named
    assert {name for name in named if name not in compose} == set()
