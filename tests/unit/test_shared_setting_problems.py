"""shared/setting_problems.py: a line a problem, which names the variable, or the file with table and key, and never a value."""

import json
import os
from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from shared.settings import load_settings

SECRET = "8f14e45fceea167a5a36dedd4bea2543"


@pytest.fixture(autouse=True)
def _somewhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("LASTEVENT_", "OPENAI_", "ANTHROPIC_", "OLLAMA_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def problem(**overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lease_s = 0", "lease_s: Input should be greater than or equal to 0.5"),
        ('lanes = ["gpu"]', "lanes: lanes are api and local, comma-separated; got gpu"),
        ("openai_base_url = 7", "openai_base_url: Input should be a valid string"),
        ("[local_models]\na = 1", "local_models.a: Input should be a valid string"),
        ("local_models = 3", "local_models: must be a table"),
        ("providers = 3", "providers: must be a table"),
        ("[providers]\nv = 3", "[providers.v] must be a table"),
        ("[providers.v]", "[providers.v] kind: is required"),
        ('[providers.v]\nkind = "vllm"', "[providers.v] kind: must be 'openai', 'anthropic' or 'ollama'"),
        ('[providers.openai]\nkind = "ollama"', "[providers.openai] kind: is openai, as the name says; "),
        ('[providers."Bad name"]', "[providers.Bad name] a name has a-z, 0-9, _ and - only"),
        ('[providers.openai]\nbas_url = ""', "[providers.openai] bas_url: is no key of a provider; did you mean base_url?"),
        ('[providers.openai]\nbase_url = "x"', "[providers.openai] base_url: must be an address as http://host:port/v1"),
        ('[providers.openai]\nlane = "local"', "[providers.openai] lane: must be api: "),
        ('[providers.openai]\nmodels = "m"', "[providers.openai] models: must be a list"),
        ('[providers.openai]\nmodels = ["m", "a b"]', "[providers.openai] models[1]: must hold no white space"),
        ("[providers.ollama]\nbackground = true", "[providers.ollama] background: is for kind openai, and this is ollama"),
        ('[providers.openai]\nbackground = "maybe"', "[providers.openai] background: Input should be a valid boolean"),
        (
            f'[providers.openai]\napi_key = "{SECRET}"',
            "[providers.openai] api_key: put the key into an environment variable and name that in api_key_env",
        ),
        (
            f'[providers.openai]\napi_key_env = "{SECRET}"',
            "[providers.openai] api_key_env: must be the name of an environment variable, as VLLM_API_KEY, and never the key",
        ),
    ],
)
def test_of_the_file(text: str, line: str) -> None:
    Path("lastevent.toml").write_text(text)
    said = problem()
    assert said.startswith(f"lastevent.toml: {line}")
    assert SECRET not in said


def test_the_file_is_named_as_it_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text("lease_s = 0")
    monkeypatch.setenv("LASTEVENT_CONFIG", str(path))
    assert problem().startswith(f"{path}: lease_s: ")


def test_what_the_environment_sets_is_its_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file says it too: that was not read."""
    Path("lastevent.toml").write_text("lease_s = 1")
    monkeypatch.setenv("LASTEVENT_LEASE_S", "0")
    assert problem().startswith("LASTEVENT_LEASE_S: Input should be")


def test_so_is_what_the_command_line_sets() -> None:
    Path("lastevent.toml").write_text("port = 1")
    assert problem(port=70_000, redis_timeout_s=0).startswith("--redis-timeout-s: Input should be")


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"v": {"kind": "openai", "api_key": SECRET}}, "[providers.v] api_key: put the key into an environment variable"),
        ({"openai": {"models": "m"}}, "[providers.openai] models: must be a list"),
        ({"local": {}}, "[providers.local] local models have no server"),
    ],
)
def test_tables_can_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch, tables: object, line: str) -> None:
    monkeypatch.setenv("LASTEVENT_PROVIDERS", json.dumps(tables))
    said = problem()
    assert said.startswith(f"LASTEVENT_PROVIDERS: {line}")
    assert SECRET not in said


def test_relations_between_settings_name_both() -> None:
    Path("lastevent.toml").write_text("retry_max_ms = 1")
    assert problem() == "settings: retry_max_ms must not be below retry_min_ms"
    Path("lastevent.toml").write_text("durable_submit = true\nredis_timeout_s = 2")
    assert problem() == "settings: durable_timeout_s must be below redis_timeout_s"
