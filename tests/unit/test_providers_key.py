"""worker/providers/key.py: a key that can be sent, or what to do about it."""

import pytest

from shared.errors import GenerationFailed
from shared.providers import ProviderConfig
from tests.support.provider_calls import config_of
from worker.providers.key import bare_key, usable_key

KEY = "8f14e45fceea167a5a36dedd4bea2543"


def named(monkeypatch: pytest.MonkeyPatch, key: str | None, **table: object) -> ProviderConfig:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("VLLM_API_KEY", key)
    return config_of("vllm", providers={"vllm": {"kind": "openai", **table}})


def failure(config: ProviderConfig, *, wanted: bool = False) -> str:
    with pytest.raises(GenerationFailed) as caught:
        usable_key(config, wanted=wanted)
    assert (caught.value.code, caught.value.retryable) == ("auth", False)
    return str(caught.value)


@pytest.mark.parametrize("key", [KEY, f" {KEY}\n"])
def test_a_key_is_taken_without_the_white_space_around_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    config = named(monkeypatch, key, api_key_env="VLLM_API_KEY")
    assert (usable_key(config), bare_key(config)) == (KEY, KEY)


def test_where_none_is_named_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_key(named(monkeypatch, KEY)) == ""


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_named_one_must_be_set(monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    said = failure(named(monkeypatch, key, api_key_env="VLLM_API_KEY"))
    assert said == "VLLM_API_KEY is not set where the workers run: set it and start them again."


def test_where_the_server_is_known_to_want_one_it_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = failure(named(monkeypatch, KEY), wanted=True)
    assert said == (
        "vllm has no key: name the key's variable in api_key_env of [providers.vllm], then start the workers again."
    )


@pytest.mark.parametrize("key", [f"{KEY}\nb", f"{KEY}ü"])
def test_one_that_no_header_can_hold_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    said = failure(named(monkeypatch, key, api_key_env="VLLM_API_KEY"))
    assert said == "VLLM_API_KEY holds characters that no key has: set it again and start the workers again."
