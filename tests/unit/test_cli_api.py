"""What the commands that call a server share."""

import pytest

from cli.api import KEY_VARIABLE, ApiError, connected, key_headers
from shared.errors import ConfigurationError
from tests.support.scripted_sse import scripted_server

KEY = "le_" + "a" * 43


@pytest.mark.parametrize("said", [None, "", " "])
def test_without_a_key_nothing_is_said(monkeypatch: pytest.MonkeyPatch, said: str | None) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if said is not None:
        monkeypatch.setenv(KEY_VARIABLE, said)
    assert key_headers() == {}


def test_the_key_of_the_environment_is_shown_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{KEY}\n")  # as `$(cat file)` in some shells
    assert key_headers() == {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize("said", [f"Bearer {KEY}", "le_\u043a\u043b\u044e\u0447", "le_a\r\nX-Other: b"])
def test_what_cannot_be_a_key_is_one_line_that_does_not_repeat_it(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(KEY_VARIABLE, said)
    with pytest.raises(ConfigurationError, match=f"{KEY_VARIABLE} is no key") as caught:
        key_headers()
    assert said not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("https:", "", r"^no TLS with https://127\.0\.0\.1:\d+: \[SSL: .*; is it http://, or has it a certificate"),
        ("http:", "/v1", r"^no call /v1/v1/models The server is named without /v1: http://127\.0\.0\.1:\d+$"),
    ],
)
async def test_a_server_that_is_named_wrongly_is_told_from_none(before: str, after: str, said: str) -> None:
    async with scripted_server() as server, connected(before + server.url.removeprefix("http:") + after) as api:
        with pytest.raises(ApiError, match=said):
            await api.first_model()
