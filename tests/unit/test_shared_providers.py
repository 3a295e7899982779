"""shared/providers.py: settings and tables put together, one configuration a provider."""

from typing import Any

import pytest

from shared.providers import ProviderConfig, missing_keys, provider_configs
from shared.settings import Settings

SECRET = "8f14e45fceea167a5a36dedd4bea2543"
VLLM = {"kind": "openai", "base_url": "http://127.0.0.1:8001/v1", "api_key_env": "VLLM_API_KEY"}


@pytest.fixture(autouse=True)
def _known_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "OLLAMA_HOST",
        "OLLAMA_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_API_KEY", SECRET)


def configs(providers: dict[str, Any] | None = None, **settings: Any) -> dict[str, ProviderConfig]:
    return provider_configs(Settings(providers=providers or {}, **settings))


def test_there_is_one_for_each_kind_then_those_with_tables() -> None:
    assert list(configs()) == ["openai", "anthropic", "ollama"]
    assert list(configs({"z": VLLM, "ollama": {}, "a": {"kind": "ollama"}})) == ["openai", "anthropic", "ollama", "z", "a"]


def test_a_named_one_is_what_its_table_says() -> None:
    table = VLLM | {"models": ["m"], "prefill": ["qwen*"], "prefill_style": "vllm", "background": True}
    vllm = configs({"vllm": table})["vllm"]
    assert (vllm.kind, vllm.base_url, vllm.models) == ("openai", "http://127.0.0.1:8001/v1", ("m",))
    assert (vllm.prefill, vllm.prefill_style, vllm.background) == (("qwen*",), "vllm", True)
    assert (vllm.key.get_secret_value(), vllm.key_env, vllm.key_wanted) == (SECRET, "VLLM_API_KEY", True)
    assert vllm.address_setting == "base_url of [providers.vllm]"


def test_a_named_one_takes_nothing_from_its_kinds_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above all not the key: it would go to a stranger."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    other = configs({"other": {"kind": "openai"}}, openai_base_url="http://x/v1", openai_models=("a",))["other"]
    assert (other.key.get_secret_value(), other.key_env, other.key_wanted) == ("", None, False)
    assert (other.base_url, other.models, other.prefill, other.background) == (None, (), (), False)


def test_one_for_anthropics_models_knows_which_of_them_go_on() -> None:
    assert configs({"eu": {"kind": "anthropic"}})["eu"].prefills("claude-haiku-4-5")
    assert not configs({"eu": {"kind": "anthropic", "prefill": []}})["eu"].prefills("claude-haiku-4-5")


def test_without_a_table_the_settings_say_it_all() -> None:
    openai = configs(openai_base_url="http://x/v1", openai_models=("a",), openai_api_key=SECRET)["openai"]
    assert (openai.base_url, openai.models, openai.key_env) == ("http://x/v1", ("a",), "OPENAI_API_KEY")
    assert (openai.key.get_secret_value(), openai.key_wanted) == (SECRET, False)
    assert [config.address_setting for config in configs().values()] == ["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OLLAMA_HOST"]


def test_a_table_named_after_a_kind_configures_that_one() -> None:
    table = {"base_url": "http://t/v1", "models": ["t"], "prefill": ["*"], "background": True, "api_key_env": "VLLM_API_KEY"}
    openai = configs({"openai": table}, openai_api_key="sk-not-this")["openai"]
    assert (openai.base_url, openai.models, openai.prefill, openai.background) == ("http://t/v1", ("t",), ("*",), True)
    assert (openai.key.get_secret_value(), openai.key_env, openai.key_wanted) == (SECRET, "VLLM_API_KEY", True)
    assert openai.address_setting == "base_url of [providers.openai]"


def test_a_setting_of_its_own_wins_over_such_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the environment: a file that says both is refused."""
    monkeypatch.setenv("OLLAMA_HOST", "llm:1")
    monkeypatch.setenv("LASTEVENT_OLLAMA_MODELS", "a,b")
    ollama = configs({"ollama": {"base_url": "http://t:2", "models": ["t"]}})["ollama"]
    assert (ollama.base_url, ollama.models, ollama.address_setting) == ("llm:1", ("a", "b"), "OLLAMA_HOST")


def test_background_mode_is_a_setting_for_openai_and_a_key_of_any_table_of_its_kind() -> None:
    assert [config.background for config in configs(openai_background=True).values()] == [True, False, False]
    assert [config.background for config in configs({"z": VLLM | {"background": True}}).values()] == [False, False, False, True]
    assert configs({"openai": {"background": True}})["openai"].background


def test_anthropics_patterns_can_stand_in_the_table_too() -> None:
    assert configs({"anthropic": {"prefill": ["m"]}})["anthropic"].prefill == ("m",)
    assert "claude-haiku-4-5*" in configs({"anthropic": {}})["anthropic"].prefill


def test_silence_is_the_longer_of_an_attempts_limits() -> None:
    assert configs(first_token_timeout_s=7, idle_timeout_s=3)["openai"].silence_s == 7
    assert configs({"v": VLLM}, first_token_timeout_s=7, idle_timeout_s=30)["v"].silence_s == 30


def test_patterns_are_the_shells_and_mind_the_case() -> None:
    vllm = configs({"vllm": VLLM | {"prefill": ["qwen3-*", "exact"]}})["vllm"]
    assert [vllm.prefills(model) for model in ("qwen3-8b", "Qwen3-8b", "exact", "exactly")] == [True, False, True, False]


def test_the_advice_about_a_key_names_what_there_is_to_mend() -> None:
    assert configs({"v": VLLM})["v"].key_advice() == "check VLLM_API_KEY where the workers run, then start them again"
    assert "name the key's variable in api_key_env of [providers.v]" in configs({"v": {"kind": "openai"}})["v"].key_advice()


def test_a_key_is_not_shown() -> None:
    assert SECRET not in repr(configs({"v": VLLM}))


# --- keys that are missing -----------------------------------------------------------------------------------------------


def test_the_makers_own_servers_want_keys() -> None:
    assert missing_keys(Settings()) == {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
    assert missing_keys(Settings(openai_api_key="sk", anthropic_api_key="sk")) == {}


def test_a_server_of_ones_own_wants_one_only_where_a_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY")
    own = {"kind": "openai", "base_url": "http://127.0.0.1:8001/v1"}
    settings = Settings(openai_base_url="http://x/v1", anthropic_api_key="sk", providers={"own": own, "vllm": VLLM})
    assert missing_keys(settings) == {"vllm": "VLLM_API_KEY"}


def test_a_key_of_white_space_is_none() -> None:
    assert missing_keys(Settings(openai_api_key=" ", anthropic_api_key="sk")) == {"openai": "OPENAI_API_KEY"}
