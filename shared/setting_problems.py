"""pydantic's findings in an operator's words: the variable, or the file with its table and key, and what would be right there.

    LASTEVENT_LEASE_S: Input should be greater than or equal to 0.5
    lastevent.toml: [providers.vllm] kind: must be 'openai', 'anthropic' or 'ollama'

The values themselves are never repeated: one of them may be a secret in the wrong place.
"""

import os
from collections.abc import Container, Iterator
from typing import Final

from pydantic import AliasChoices, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

from shared.config_file import config_path, suggestion
from shared.provider_table import SECRETS, ProviderTable

RELATION: Final = "relation"
"""The type of an error that is about two settings: either may be the one to mend."""


def lines_of(error: ValidationError, settings: type[BaseSettings], overrides: Container[str]) -> Iterator[str]:
    """One line a problem. `overrides`: the names of settings that came by options of the command line."""
    for item in error.errors(include_url=False, include_input=False):
        if item["type"] == RELATION:
            yield f"settings: {_sentence(item)}"
            continue
        field, *within = item["loc"]
        name = str(field).lower()
        sentence = _place(name, within) + _sentence(item)
        if name in overrides:
            yield f"--{name.replace('_', '-')}: {sentence}"
        elif _is_set(name, settings):
            yield f"{_variable(str(field))}: {sentence}"
        elif within:
            yield f"{config_path()}: {sentence}"
        else:
            yield f"{config_path()}: {name}: {sentence}"


def _variable(name: str) -> str:
    return name if name.isupper() else f"LASTEVENT_{name.upper()}"


def _is_set(name: str, settings: type[BaseSettings]) -> bool:
    """Whether the environment sets it, under whichever of its names."""
    alias = settings.model_fields[name].validation_alias
    others = [str(choice).upper() for choice in alias.choices] if isinstance(alias, AliasChoices) else []
    return not {_variable(name), *others}.isdisjoint(variable.upper() for variable in os.environ)


def _place(name: str, within: list[int | str]) -> str:
    """Where in the setting, up to the sentence: `[providers.vllm] models[0]: `."""
    if not within:
        return ""
    head, keys = f"{name}.{within[0]}", [key for key in within[1:] if key != "[key]"]  # pydantic's mark of a name
    if name != "providers":
        return f"{head}: "
    path = "".join(f"[{key}]" if isinstance(key, int) else str(key) for key in keys)
    return f"[{head}] {path}: " if path else f"[{head}] "


def _sentence(item: ErrorDetails) -> str:
    key = next((str(step) for step in reversed(item["loc"]) if not isinstance(step, int)), "")
    match item["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden" if key in SECRETS:
            return "put the key into an environment variable and name that in api_key_env"
        case "extra_forbidden":
            return f"is no key of a provider{suggestion(key, ProviderTable.model_fields)}"
        case "literal_error":
            return f"must be {item['ctx']['expected']}"
        case "tuple_type":
            return "must be a list"
        case "dict_type" | "model_type":
            return "must be a table"
        case "string_pattern_mismatch" if key == "api_key_env":
            return "must be the name of an environment variable, as VLLM_API_KEY, and never the key itself"
        case "string_pattern_mismatch" if key in ("models", "prefill"):
            return "must hold no white space"
    return item["msg"].removeprefix("Value error, ")
