"""What the commands that call a server share."""

import pytest

from cli.api import KEY_VARIABLE, key_headers
from shared.errors import ConfigurationError

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
