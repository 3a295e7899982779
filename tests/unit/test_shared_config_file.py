"""shared/config_file.py: which file is read, what it may say, and that the environment says it louder."""

import os
from pathlib import Path

import pytest

from shared.config_file import config_path
from shared.errors import ConfigurationError
from shared.provider_table import KINDS
from shared.providers import provider_configs
from shared.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
SECRET = "8f14e45fceea167a5a36dedd4bea2543"


@pytest.fixture(autouse=True)
def _somewhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("LASTEVENT_", "OPENAI_", "ANTHROPIC_", "OLLAMA_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(text: str, name: str = "lastevent.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def refusal(text: str) -> str:
    written(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- which file ----------------------------------------------------------------------------------------------------------


def test_without_a_file_there_is_none() -> None:
    assert config_path() is None


def test_the_one_in_the_working_directory_is_read() -> None:
    written("lease_s = 3")
    assert load_settings().lease_s == 3


def test_another_one_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    written("lease_s = 3")
    monkeypatch.setenv("LASTEVENT_CONFIG", str(written("lease_s = 4", "other.toml")))
    assert load_settings().lease_s == 4


def test_named_by_nothing_none_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    written("lease_s = 3")
    monkeypatch.setenv("LASTEVENT_CONFIG", "")
    assert load_settings().lease_s == 5


def test_a_named_file_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTEVENT_CONFIG", "/nowhere/lastevent.toml")
    with pytest.raises(ConfigurationError, match=r"^LASTEVENT_CONFIG: there is no file /nowhere/lastevent\.toml$"):
        load_settings()


def test_a_folder_of_that_name_is_not_taken_for_no_file() -> None:
    """Docker makes one where a file that is to be mounted does not exist."""
    Path("lastevent.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"^lastevent\.toml: there is no file"):
        load_settings()


# --- what it may say -----------------------------------------------------------------------------------------------------


def test_every_kind_of_setting_can_stand_in_it() -> None:
    written(
        """
        lanes = ["api"]
        openai_models = "a,b"
        allow_remote = true
        retention_s = 60
        openai_base_url = "http://llm:8000/v1"
        redis_url = "redis://redis:6379/0"
        log_level = "debug"
        api_keys = ["web:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
        [local_models]
        mine = "/models/mine"
        [providers.vllm]
        kind = "openai"
        """
    )
    settings = load_settings()
    assert (settings.lanes, settings.openai_models, settings.allow_remote) == (("api",), ("a", "b"), True)
    assert (settings.openai_base_url, settings.local_models) == ("http://llm:8000/v1", {"mine": "/models/mine"})
    assert settings.redis_url.get_secret_value() == "redis://redis:6379/0"
    assert settings.providers["vllm"].kind == "openai"
    assert [key.name for key in settings.api_keys] == ["web"]


@pytest.mark.parametrize(
    ("key", "value", "variable"),
    [
        ("lease_s", "3", "LASTEVENT_LEASE_S"),
        ("openai_base_url", '"http://file/v1"', "OPENAI_BASE_URL"),
        ("openai_base_url", '"http://file/v1"', "LASTEVENT_OPENAI_BASE_URL"),
        ("ollama_host", '"file:1"', "OLLAMA_HOST"),
        ("local_models", '{a = "/a"}', "LASTEVENT_LOCAL_MODELS"),
        ("providers", '{a = {kind = "openai"}}', "LASTEVENT_PROVIDERS"),
    ],
)
def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, key: str, value: str, variable: str) -> None:
    from_environment = {
        "lease_s": "9",
        "openai_base_url": "http://env/v1",
        "ollama_host": "env:1",
        "local_models": '{"b": "/b"}',
        "providers": '{"openai": {"background": true}}',
    }[key]
    monkeypatch.setenv(variable, from_environment)
    alone = getattr(load_settings(), key)
    written(f"{key} = {value}")
    assert getattr(load_settings(), key) == alone


def test_the_command_line_wins_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    written("port = 1")
    monkeypatch.setenv("LASTEVENT_PORT", "2")
    assert load_settings(port=3).port == 3


def test_the_example_is_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTEVENT_CONFIG", str(ROOT / "lastevent.example.toml"))
    monkeypatch.setenv("VLLM_API_KEY", SECRET)
    settings = load_settings()
    configs = provider_configs(settings)
    assert list(configs) == [*KINDS, "vllm", "deepseek", "attic"]
    assert configs["vllm"].key.get_secret_value() == SECRET
    assert configs["anthropic"].models == ("claude-sonnet-5-5",)
    assert settings.default_model.partition("/")[0] in configs


# --- what is refused -----------------------------------------------------------------------------------------------------


def test_a_key_that_is_no_setting_is_refused_by_name() -> None:
    assert refusal("lease = 3") == "lastevent.toml: lease: is no setting; did you mean lease_s?"
    assert refusal("[providrs.vllm]") == "lastevent.toml: providrs: is no setting; did you mean providers?"
    assert refusal("quux = 3") == "lastevent.toml: quux: is no setting"


def test_a_setting_is_written_in_lower_case() -> None:
    assert refusal("LASTEVENT_LEASE_S = 3").startswith("lastevent.toml: LASTEVENT_LEASE_S: is no setting")
    assert refusal("OPENAI_BASE_URL = 'http://x/v1'").startswith("lastevent.toml: OPENAI_BASE_URL: is no setting")


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_has_no_place_in_it(kind: str) -> None:
    said = refusal(f'{kind}_api_key = "{SECRET}"')
    assert said == (
        f"lastevent.toml: {kind}_api_key: secrets have no place in a file: "
        f"set {kind.upper()}_API_KEY in the environment instead"
    )


@pytest.mark.parametrize("url", [f"redis://:{SECRET}@redis/0", f"redis://u:{SECRET}@redis/0", f"unix:///r?password={SECRET}"])
def test_nor_has_the_password_of_redis(url: str) -> None:
    said = refusal(f'redis_url = "{url}"')
    assert "redis_url: secrets have no place in a file: set LASTEVENT_REDIS_URL" in said
    assert SECRET not in said


def test_what_it_says_twice_is_refused_instead_of_ordered() -> None:
    said = refusal(
        'openai_models = ["a"]\nollama_host = "x:1"\n[providers.openai]\nmodels = ["b"]\n[providers.ollama]\nmodels = []'
    )
    assert said == "lastevent.toml: openai_models: [providers.openai] models says it too; keep one of them"


def test_all_that_is_wrong_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values, table by table, what the environment sets too, and what two settings say together."""
    monkeypatch.setenv("LASTEVENT_PORT", "http")
    said = refusal(
        f"""
        lease = 3
        openai_api_key = "{SECRET}"
        lease_s = 0
        retry_min_ms = 9000
        [providers."Bad name"]
        kind = "vllm"
        [providers.openai]
        kind = "ollama"
        api_key = "{SECRET}"
        base_url = "x"
        """
    )
    assert [line.removeprefix("lastevent.toml: ").partition(":")[0] for line in said.split("; ")] == [
        "lease",
        "did you mean lease_s?",
        "openai_api_key",
        "lease_s",
        "LASTEVENT_PORT",
        "settings",
        "[providers.Bad name] a name has a-z, 0-9, _ and - only",
        "[providers.Bad name] kind",
        "[providers.openai] kind",
        "give a server of another kind another name",
        "[providers.openai] base_url",
        "[providers.openai] api_key",
    ]
    assert SECRET not in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"lease_s = ", "lastevent.toml is not TOML: Invalid value (at"),
        (b"lease_s = 3\nlease_s = 4", "lastevent.toml is not TOML: Cannot overwrite a value"),
        (b"# \xff", "lastevent.toml is not TOML: it is not UTF-8"),
    ],
)
def test_a_file_that_is_no_toml(content: bytes, words: str) -> None:
    Path("lastevent.toml").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert str(caught.value).startswith(words)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read() -> None:
    written("").chmod(0)
    with pytest.raises(ConfigurationError, match=r"lastevent\.toml cannot be read: Permission denied"):
        Settings()
