"""shared/provider_table.py: a table says what it must, in keys that its kind has, and holds no secret."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from shared.provider_table import KINDS, SECRETS, SETTING_OF, ProviderName, ProviderTable, named_tables
from shared.settings import Settings

SECRET = "8f14e45fceea167a5a36dedd4bea2543"


def refused(**table: Any) -> tuple[list[str], str]:
    """The keys that are wrong, and what is said about them."""
    with pytest.raises(ValidationError) as caught:
        ProviderTable.model_validate({"kind": "openai", **table})
    errors = caught.value.errors(include_input=False)
    return [str(error["loc"][0]) for error in errors if error["loc"]], "; ".join(error["msg"] for error in errors)


def test_a_whole_table() -> None:
    table = ProviderTable.model_validate(
        {
            "kind": "openai",
            "base_url": "http://127.0.0.1:8001/v1",
            "api_key_env": "VLLM_API_KEY",
            "lane": "api",
            "models": ["qwen3-8b", "meta-llama/Llama-3"],
            "prefill": ["*"],
            "prefill_style": "vllm",
            "background": True,
        }
    )
    assert table.models == ("qwen3-8b", "meta-llama/Llama-3")


def test_what_it_leaves_out_is_none() -> None:
    """Whoever puts it together with the settings must know what was said."""
    table = ProviderTable(kind="ollama")
    assert set(table.model_dump(exclude={"kind"}).values()) == {None}


# --- the key -------------------------------------------------------------------------------------------------------------


def test_the_key_is_read_from_its_variable_once_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", SECRET)
    table = ProviderTable(kind="openai", api_key_env="VLLM_API_KEY")
    monkeypatch.delenv("VLLM_API_KEY")
    assert table.key.get_secret_value() == SECRET
    assert SECRET not in f"{table!r} {table} {table.model_dump()} {table.model_dump_json()} {vars(table)}"


@pytest.mark.parametrize("variable", [None, "LASTEVENT_TEST_THIS_IS_NOT_SET"])
def test_without_its_variable_there_is_no_key(variable: str | None) -> None:
    assert ProviderTable(kind="openai", api_key_env=variable).key.get_secret_value() == ""


@pytest.mark.parametrize("name", SECRETS)
def test_a_key_in_the_table_is_refused(name: str) -> None:
    keys, said = refused(**{name: SECRET})
    assert keys == [name]
    assert SECRET not in said


@pytest.mark.parametrize("pasted", [f"sk-{SECRET}", "gsk_aBcDeF123456", "hf_abcdef", f"{SECRET}", "", "TWO WORDS"])
def test_a_key_pasted_as_the_variables_name_is_refused(pasted: str) -> None:
    keys, said = refused(api_key_env=pasted)
    assert keys == ["api_key_env"]
    assert not pasted or pasted not in said


def test_a_password_in_the_address_is_refused() -> None:
    keys, said = refused(base_url=f"https://user:{SECRET}@llm.example/v1")
    assert keys == ["base_url"]
    assert SECRET not in said


# --- what cannot be ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ({"kind": "vllm"}, "kind", "'openai', 'anthropic' or 'ollama'"),
        ({"base_url": "localhost:8001"}, "base_url", "must be an address as http://host:port/v1"),
        ({"base_url": "http://"}, "base_url", "must be an address"),
        ({"base_url": "http://a b/v1"}, "base_url", "must be an address"),
        ({"base_url": "http://host:port/v1"}, "base_url", "must be an address"),
        ({"base_url": "ftp://host/v1"}, "base_url", "must be an address"),
        ({"lane": "local"}, "lane", "must be api: what waits for another server runs there"),
        ({"lane": "gpu"}, "lane", "must be api"),
        ({"models": "qwen3-8b"}, "models", "tuple"),
        ({"models": ["two words"]}, "models", "pattern"),
        ({"prefill_style": "sglang"}, "prefill_style", "'message', 'vllm' or 'prefix'"),
        ({"kind": "ollama", "prefill": ["*"]}, "prefill", "is for kind openai or anthropic, and this is ollama"),
        ({"kind": "anthropic", "prefill_style": "vllm"}, "prefill_style", "is for kind openai, and this is anthropic"),
        ({"kind": "anthropic", "background": True}, "background", "is for kind openai, and this is anthropic"),
        ({"kind": "ollama", "background": False}, "background", "is for kind openai, and this is ollama"),
        ({"headers": {}}, "headers", "not permitted"),
    ],
)
def test_what_a_table_cannot_say(table: dict[str, Any], key: str, words: str) -> None:
    keys, said = refused(**table)
    assert keys == [key]
    assert words in said


# --- names ---------------------------------------------------------------------------------------------------------------


def test_a_table_named_after_a_kind_needs_none() -> None:
    assert named_tables({"openai": {"background": True}}) == {"openai": {"kind": "openai", "background": True}}
    assert named_tables({"anthropic": {"kind": "anthropic"}}) == {"anthropic": {"kind": "anthropic"}}


@pytest.mark.parametrize("name", ["vllm", "my-own_2", "0"])
def test_other_names_imply_nothing(name: str) -> None:
    assert named_tables({name: {}}) == {name: {}}


@pytest.mark.parametrize(
    ("tables", "place", "words"),
    [
        ({"openai": {"kind": "ollama"}}, ("openai", "kind"), "is openai, as the name says"),
        ({"local": {"kind": "openai"}}, ("local", "[key]"), "local models have no server"),
        ({"Bad": {"kind": "openai"}}, ("Bad", "[key]"), "a name has a-z"),
        ({"a/b": {"kind": "openai"}}, ("a/b", "[key]"), "a name has a-z"),
        ({"": {"kind": "openai"}}, ("", "[key]"), "a name has a-z"),
    ],
)
def test_names_that_cannot_be(tables: dict[str, Any], place: tuple[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        TypeAdapter(dict[ProviderName, ProviderTable]).validate_python(named_tables(tables))
    assert [error["loc"] for error in caught.value.errors()] == [place]


@pytest.mark.parametrize("value", [3, "x", {"vllm": 3}])
def test_what_is_no_table_is_left_to_the_validation(value: object) -> None:
    assert named_tables(value) == value


def test_what_a_setting_says_too_exists_on_both_sides() -> None:
    assert set(SETTING_OF) == set(KINDS)
    for settings in SETTING_OF.values():
        assert settings.keys() <= ProviderTable.model_fields.keys()
        assert set(settings.values()) <= Settings.model_fields.keys()
