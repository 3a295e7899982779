"""`lastevent keys new`: both halves of a key, for those whom each is for."""

import json
import re

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from cli import main as cli_main
from shared.api_keys import ApiKey, digest_of
from shared.errors import ConfigurationError
from shared.settings import load_settings


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(cli_main.app, ["keys", "new", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_it_prints_the_key_once_and_the_entry_for_the_settings() -> None:
    text = printed("web")
    [key] = re.findall(r"le_[\w-]{43}", text)
    [entry] = re.findall(r"web:[0-9a-f]{64}", text)
    assert load_settings(api_keys=entry).api_keys == (ApiKey("web", SecretStr(digest_of(key.encode()))),)
    assert "LASTEVENT_API_KEYS" in text
    assert "LASTEVENT_API_KEY=" in text


def test_as_json() -> None:
    made = json.loads(printed("web", "--json"))
    assert set(made) == {"name", "key", "entry"}
    assert made["entry"] == f"web:{digest_of(made['key'].encode())}"


def test_a_name_that_is_none_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="'a b' cannot be the name of a key: a name has 1 to 64 letters"):
        printed("a b")
