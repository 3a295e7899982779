"""shared/settings.py: read from the environment, refused in one clear line, secrets masked."""

import os

import pytest

from shared.errors import ConfigurationError
from shared.settings import load_settings

SECRET = "sk-test-8f14e45fceea167a"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("LASTEVENT_", "OPENAI_", "ANTHROPIC_", "OLLAMA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LASTEVENT_CONFIG", "")


def test_the_defaults_hold_together() -> None:
    """Relations between knobs that the design rests on."""
    settings = load_settings()
    assert settings.host == "127.0.0.1"
    assert settings.poll_s < 1, "protocol P4 allows a second on top of the lease"
    assert settings.redis_timeout_s <= settings.lease_s
    assert settings.idle_timeout_s <= settings.total_timeout_s
    assert settings.retention_s < settings.open_ttl_s
    assert (settings.lease_s, settings.body_limit, settings.frame_limit) == (5.0, 8 * 1024 * 1024, 64 * 1024)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("LASTEVENT_PORT", "9000", "port", 9000),
        ("LASTEVENT_LANES", "api", "lanes", ("api",)),
        ("LASTEVENT_LANES", " api , local ", "lanes", ("api", "local")),
        ("LASTEVENT_OPENAI_MODELS", "a,b,", "openai_models", ("a", "b")),
        ("LASTEVENT_ANTHROPIC_MODELS", "a", "anthropic_models", ("a",)),
        ("LASTEVENT_ANTHROPIC_PREFILL_MODELS", "", "anthropic_prefill_models", ()),
        ("LASTEVENT_OLLAMA_MODELS", "a , b", "ollama_models", ("a", "b")),
        ("ANTHROPIC_BASE_URL", "http://llm:8000", "anthropic_base_url", "http://llm:8000"),
        ("LASTEVENT_ANTHROPIC_BASE_URL", "http://llm:8000", "anthropic_base_url", "http://llm:8000"),
        ("OLLAMA_HOST", "llm:1", "ollama_host", "llm:1"),
        ("LASTEVENT_OLLAMA_HOST", "llm:1", "ollama_host", "llm:1"),
        ("LASTEVENT_API_KEYS", "", "api_keys", ()),
        ("LASTEVENT_CORS_ORIGINS", "https://a.b , http://[::1]:80", "cors_origins", ("https://a.b", "http://[::1]:80")),
        ("LASTEVENT_LOCAL_MODELS", '{"mine":"/models/mine"}', "local_models", {"mine": "/models/mine"}),
        ("LASTEVENT_LOG_JSON", "true", "log_json", True),
        ("OPENAI_BASE_URL", "http://llm:8000/v1", "openai_base_url", "http://llm:8000/v1"),
        ("LASTEVENT_OPENAI_BASE_URL", "http://llm:8000/v1", "openai_base_url", "http://llm:8000/v1"),
    ],
)
def test_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: object) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(), field) == expected


@pytest.mark.parametrize("prefix", ["", "LASTEVENT_"])
@pytest.mark.parametrize("field", ["openai_api_key", "anthropic_api_key", "ollama_api_key"])
def test_a_key_is_read_and_not_shown(monkeypatch: pytest.MonkeyPatch, prefix: str, field: str) -> None:
    monkeypatch.setenv(prefix + field.upper(), SECRET)
    settings = load_settings()
    assert getattr(settings, field).get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_redis_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTEVENT_REDIS_URL", f"redis://:{SECRET}@redis:6379/0")
    assert SECRET not in repr(load_settings())


def test_keys_and_what_signs_tokens_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    digest, secret = "ab" * 32, "cd" * 16
    monkeypatch.setenv("LASTEVENT_API_KEYS", f"web:{digest}, batch:{'0' * 64}")
    monkeypatch.setenv("LASTEVENT_TOKEN_SECRET", secret)
    settings = load_settings()
    assert [key.name for key in settings.api_keys] == ["web", "batch"]
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert digest not in shown
    assert secret not in shown


def test_a_token_outlives_the_job_and_what_its_readers_have_left_to_read() -> None:
    settings = load_settings()
    assert settings.token_ttl_s > settings.queue_timeout_s + settings.total_timeout_s + settings.retention_s


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LASTEVENT_API_KEYS", f"web:{'a' * 64},web", "LASTEVENT_API_KEYS: entry 2 must be name:sha256"),
        ("LASTEVENT_TOKEN_SECRET", "short", "LASTEVENT_TOKEN_SECRET: must have 32 characters or more"),
        ("LASTEVENT_TOKEN_SECRET", f"{'a' * 32},short", "LASTEVENT_TOKEN_SECRET: must have 32 characters or more"),
        ("LASTEVENT_CORS_ORIGINS", "*", "LASTEVENT_CORS_ORIGINS: entry 1 must be an origin as browsers send it"),
        ("LASTEVENT_CORS_ORIGINS", "https://a.b,https://a.b/", "LASTEVENT_CORS_ORIGINS: entry 2 must be an origin"),
        ("LASTEVENT_CORS_ORIGINS", "https://A.b", "LASTEVENT_CORS_ORIGINS: entry 1 must be an origin"),
        ("LASTEVENT_CORS_ORIGINS", "app.example.com", "LASTEVENT_CORS_ORIGINS: entry 1 must be an origin"),
        ("LASTEVENT_PORT", "abc", "LASTEVENT_PORT: "),
        ("LASTEVENT_PORT", "70000", "LASTEVENT_PORT: "),
        ("LASTEVENT_LEASE_S", "0", "LASTEVENT_LEASE_S: "),
        ("LASTEVENT_LEASE_S", "nan", "LASTEVENT_LEASE_S: "),
        ("LASTEVENT_LANES", "gpu", "LASTEVENT_LANES: lanes are api and local, comma-separated; got gpu"),
        ("LASTEVENT_LANES", "", "LASTEVENT_LANES: lanes are api and local, comma-separated; got none"),
        ("LASTEVENT_LOCAL_MODELS", "mine", "LASTEVENT_LOCAL_MODELS: must be JSON"),
        ("LASTEVENT_LOCAL_MODELS", "[]", "LASTEVENT_LOCAL_MODELS: "),
        ("LASTEVENT_LOG_LEVEL", "loud", "LASTEVENT_LOG_LEVEL: "),
        ("LASTEVENT_RETRY_MAX_MS", "1", "retry_max_ms must not be below retry_min_ms"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTEVENT_PORT", "abc")
    monkeypatch.setenv("LASTEVENT_LEASE_S", "0")
    with pytest.raises(ConfigurationError, match=r"LASTEVENT_LEASE_S.*; LASTEVENT_PORT"):
        load_settings()


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # that is the point
