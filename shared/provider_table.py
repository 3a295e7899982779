"""One `[providers.<name>]` table: a server of one of the kinds, the variable that holds its key, its models. No I/O.

    [providers.vllm]                        models are asked for as vllm/…
    kind = "openai"
    base_url = "http://127.0.0.1:8001/v1"
    api_key_env = "VLLM_API_KEY"

A table named after a kind configures the provider that is there anyway, and needs no `kind`.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, StringConstraints, field_validator
from pydantic_core.core_schema import ValidationInfo

Kind = Literal["openai", "anthropic", "ollama"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

PrefillStyle = Literal["message", "vllm", "prefix"]

SETTING_OF: Final[Mapping[Kind, Mapping[str, str]]] = {
    "openai": {"base_url": "openai_base_url", "models": "openai_models", "background": "openai_background"},
    "anthropic": {
        "base_url": "anthropic_base_url",
        "models": "anthropic_models",
        "prefill": "anthropic_prefill_models",
    },
    "ollama": {"base_url": "ollama_host", "models": "ollama_models"},
}
"""Keys of the tables named after a kind that are also settings of their own."""

_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_KINDS_WITH: Final[Mapping[str, tuple[Kind, ...]]] = {
    "prefill": ("openai", "anthropic"),
    "prefill_style": ("openai",),
    "background": ("openai",),
}
"""Keys that not every kind has."""
SECRETS: Final = ("api_key", "key", "token", "secret", "password")
"""What a key might be given as; none of them is a key of the table."""

_Word = Annotated[str, StringConstraints(pattern=r"^\S+$")]


def _provider_name(name: str) -> str:
    if not name or not _NAME.issuperset(name):
        raise ValueError("a name has a-z, 0-9, _ and - only")
    if name == "local":
        raise ValueError("local models have no server: name them in local_models")
    return name


ProviderName = Annotated[str, AfterValidator(_provider_name)]


class _OtherKind:
    """In the place of a kind that the table's own name contradicts."""

    def __init__(self, name: str) -> None:
        self.name = name


class ProviderTable(BaseModel):
    """As written; what a key leaves out is None, and decided in `shared/providers.py`. Its key is read when it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    """The API that the server speaks: `openai` (Chat Completions), `anthropic` (Messages) or `ollama`. Not needed in a table
    that is named after one."""
    base_url: str | None = None
    """Where it is, as `http://host:port/v1`; without it where the kind's own maker serves."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Z_][A-Z0-9_]*$")
    """The environment variable that holds its key, read where the workers run. Never the key itself."""
    lane: str | None = None
    """Only `api`: what waits for another server runs there."""
    models: tuple[_Word, ...] | None = None
    """What `/v1/models` lists for it; any other name is passed on all the same."""
    prefill: tuple[_Word, ...] | None = None
    """Models, as shell patterns, that go on from a trailing assistant message. `openai` and `anthropic` only; for models that
    are not named here the answer starts anew."""
    prefill_style: PrefillStyle | None = None
    """`openai` only, how the server is told to go on: `message` by the message alone, `vllm` by `continue_final_message`,
    `prefix` by a mark in the message (docs/decisions/0024)."""
    background: bool | None = None
    """`openai` only: call its models in background mode, by the Responses API (docs/decisions/0022)."""

    _key: SecretStr = PrivateAttr(SecretStr(""))

    def model_post_init(self, _context: object) -> None:
        self._key = SecretStr(os.environ.get(self.api_key_env or "", ""))

    @property
    def key(self) -> SecretStr:
        """What the variable held; empty where it was not set, or none is named."""
        return self._key

    @field_validator("kind", mode="before")
    @classmethod
    def _as_the_name_says(cls, kind: object) -> object:
        if isinstance(kind, _OtherKind):
            raise ValueError(f"is {kind.name}, as the name says; give a server of another kind another name")
        return kind

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None:
            _check_address(url)
        return url

    @field_validator("lane")
    @classmethod
    def _lane(cls, lane: str | None) -> str | None:
        if lane not in (None, "api"):
            raise ValueError("must be api: what waits for another server runs there; local is for models in the worker itself")
        return lane

    @field_validator("prefill", "prefill_style", "background")
    @classmethod
    def _of_this_kind(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("kind")  # not there where it was wrong itself
        kinds = _KINDS_WITH[info.field_name or ""]
        if kind is not None and kind not in kinds:
            raise ValueError(f"is for kind {' or '.join(kinds)}, and this is {kind}")
        return value


def named_tables(tables: object) -> object:
    """`providers` as written, with the kinds that names imply. What cannot be is left to the validation that follows."""
    if not isinstance(tables, dict):
        return tables
    return {name: _named(name, table) for name, table in tables.items()}


def _named(name: str, table: object) -> object:
    if name not in KINDS or not isinstance(table, dict):
        return table
    return table | {"kind": name if table.get("kind", name) == name else _OtherKind(name)}


def _check_address(url: str) -> None:
    try:
        split = urlsplit(url)
        usable = split.scheme in ("http", "https") and split.hostname and (split.port is None or split.port > 0)
    except ValueError:
        usable = False
    if not usable or any(map(str.isspace, url)):
        raise ValueError("must be an address as http://host:port/v1")
    if "@" in split.netloc:
        raise ValueError("must hold no password: put the key into an environment variable and name that in api_key_env")
