"""lastevent.toml: the settings that are written down, below those of the environment. Never a secret. Which file it is:

    LASTEVENT_CONFIG=/etc/lastevent.toml     that file, and it must be there
    LASTEVENT_CONFIG=                        none
    not set                                  lastevent.toml in the working directory, if there is one

Keys that are no settings are refused by name: a typo must not be silent.
"""

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from shared.errors import ConfigurationError
from shared.provider_table import SETTING_OF

NAME: Final = "lastevent.toml"
VARIABLE: Final = "LASTEVENT_CONFIG"


def config_path() -> Path | None:
    """The file that is read; None where there is none.

    Raises:
        ConfigurationError: LASTEVENT_CONFIG names no file, or something else than a file has the name.
    """
    named = os.environ.get(VARIABLE)
    path = Path(NAME if named is None else named).expanduser()
    if named == "" or (named is None and not path.exists()):
        return None
    if not path.is_file():
        raise ConfigurationError(f"{VARIABLE if named else NAME}: there is no file {path}")
    return path


REFUSED: Final = "refused by the file's rules"
"""Beside the settings a source gives, under this name, a line for each key that the file must not have: told together with
what is wrong with the values."""


class FileRefused(Exception):
    """The file has keys that it must not have. `lines` says which, `values` what else is wrong, if anything is."""

    def __init__(self, lines: list[str], values: ValidationError | None) -> None:
        super().__init__("; ".join(lines))
        self.lines, self.values = lines, values


class ConfigFile(TomlConfigSettingsSource):
    """The file as a source of settings; REFUSED names the keys that are no settings, and secrets.

    Raises:
        ConfigurationError: the file cannot be read.
    """

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        path = config_path()
        try:
            super().__init__(settings_cls, toml_file=path)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            why = error if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8"
            raise ConfigurationError(f"{path} is not TOML: {why}") from None
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        problems = [problem for key, value in self.toml_data.items() if (problem := _problem(key, value, settings_cls))]
        self._refused = [f"{path}: {problem}" for problem in (*problems, *_said_twice(self.toml_data))]

    def __call__(self) -> dict[str, Any]:
        return super().__call__() | ({REFUSED: self._refused} if self._refused else {})


def _problem(key: str, value: object, settings_cls: type[BaseSettings]) -> str | None:
    field = settings_cls.model_fields.get(key)
    if field is None:
        return f"{key}: is no setting{suggestion(key, settings_cls.model_fields)}"
    if _is_secret(field) and (key != "redis_url" or _has_password(str(value))):
        variable = key.upper() if key.endswith("_api_key") else f"LASTEVENT_{key.upper()}"
        return f"{key}: secrets have no place in a file: set {variable} in the environment instead"
    return None


def suggestion(key: str, known: Any) -> str:
    """`; did you mean lease_s?`, or nothing."""
    close = get_close_matches(key, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


def _has_password(url: str) -> bool:
    split = urlsplit(url)
    return "@" in split.netloc or "password" in parse_qs(split.query)


def _said_twice(data: dict[str, Any]) -> list[str]:
    """Settings that a table named after a kind says too: which one would win, nobody should have to know."""
    providers = data.get("providers")
    tables = providers if isinstance(providers, dict) else {}
    return [
        f"{setting}: [providers.{kind}] {key} says it too; keep one of them"
        for kind, settings in SETTING_OF.items()
        for key, setting in settings.items()
        if setting in data and isinstance(tables.get(kind), dict) and key in tables[kind]
    ]
