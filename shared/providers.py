"""The providers that call other servers: what the environment, their tables and the defaults say together. No I/O."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from shared.provider_table import KINDS, SETTING_OF, Kind, PrefillStyle, ProviderTable
from shared.settings import Settings

_ADDRESS_OF: Final[Mapping[Kind, str]] = {kind: names["base_url"].upper() for kind, names in SETTING_OF.items()}
"""The variables by which the kinds' own clients know their server."""

_WANT_KEYS: Final[frozenset[Kind]] = frozenset({"openai", "anthropic"})
"""The kinds whose makers serve nobody without a key."""


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider needs to know. `name` stands before the slash in its models' ids; several may be of one kind."""

    name: str
    kind: Kind
    base_url: str | None = None
    """None: where the kind's own maker serves."""
    key: SecretStr = SecretStr("")
    key_env: str | None = None
    """The variable that holds the key; None where a table names none."""
    key_wanted: bool = False
    """A table names the variable, so the server wants a key, whoever runs it."""
    address_setting: str
    """What to look at when the server is not found, in an operator's words."""
    models: tuple[str, ...] = ()
    prefill: tuple[str, ...] = ()
    prefill_style: PrefillStyle = "message"
    background: bool = False
    max_tokens: int
    """Where the caller sets none, for the one API that wants a number."""
    silence_s: float
    """The longest that an attempt waits for a piece of output."""

    def prefills(self, model: str) -> bool:
        """Whether this model goes on from a trailing assistant message."""
        return any(fnmatchcase(model, pattern) for pattern in self.prefill)

    def missing_key(self) -> str | None:
        """The variable to set where the server is known to want a key and none is set; None where nothing is known to miss."""
        wanted = self.key_wanted or (self.base_url is None and self.kind in _WANT_KEYS)
        return (self.key_env or self.name) if wanted and not self.key.get_secret_value().strip() else None

    def key_advice(self) -> str:
        """What to do about a key that was refused."""
        if self.key_env is None:
            return f"name the key's variable in api_key_env of [providers.{self.name}], then start the workers again"
        return f"check {self.key_env} where the workers run, then start them again"


def provider_configs(settings: Settings) -> dict[str, ProviderConfig]:
    """All of them by name: one for each kind, then those with tables of their own, as the file has them."""
    named = [name for name in settings.providers if name not in KINDS]
    return {config.name: config for config in (*_built_in(settings), *(_named(name, settings) for name in named))}


def missing_keys(settings: Settings) -> dict[str, str]:
    """The providers that would refuse every call for want of a key, by name, each with the variable to set."""
    wanted = {name: config.missing_key() for name, config in provider_configs(settings).items()}
    return {name: variable for name, variable in wanted.items() if variable is not None}


def _built_in(settings: Settings) -> Iterator[ProviderConfig]:
    for kind in KINDS:
        table = settings.providers.get(kind) or ProviderTable(kind=kind)
        merged = {key: _own_or(settings, setting, getattr(table, key)) for key, setting in SETTING_OF[kind].items()}
        from_table = table.base_url is not None and merged["base_url"] == table.base_url
        yield _config(
            kind,
            table,
            settings,
            address_setting=_base_url_of(kind) if from_table else _ADDRESS_OF[kind],
            **_keys(table, f"{kind}_api_key", settings),
            **merged,
        )


def _named(name: str, settings: Settings) -> ProviderConfig:
    table = settings.providers[name]
    prefill = settings.anthropic_prefill_models if table.prefill is None and table.kind == "anthropic" else table.prefill
    return _config(
        name,
        table,
        settings,
        address_setting=_base_url_of(name),
        key=table.key,
        key_env=table.api_key_env,
        key_wanted=table.api_key_env is not None,
        base_url=table.base_url,
        models=table.models or (),
        prefill=prefill or (),
    )


def _config(name: str, table: ProviderTable, settings: Settings, **settled: Any) -> ProviderConfig:
    """What all share, and `settled` on top."""
    shared: dict[str, Any] = {
        "prefill": table.prefill or (),
        "prefill_style": table.prefill_style or "message",
        "background": bool(table.background),
        "max_tokens": settings.anthropic_max_tokens,
        "silence_s": max(settings.first_token_timeout_s, settings.idle_timeout_s),
    }
    return ProviderConfig(name=name, kind=table.kind, **(shared | settled))


def _keys(table: ProviderTable, setting: str, settings: Settings) -> dict[str, Any]:
    if table.api_key_env is not None:
        return {"key": table.key, "key_env": table.api_key_env, "key_wanted": True}
    return {"key": getattr(settings, setting) or SecretStr(""), "key_env": setting.upper()}


def _own_or(settings: Settings, setting: str, of_table: Any) -> Any:
    """The setting where it was set by itself, else what the table says, else the setting's default."""
    return getattr(settings, setting) if of_table is None or setting in settings.model_fields_set else of_table


def _base_url_of(name: str) -> str:
    return f"base_url of [providers.{name}]"
