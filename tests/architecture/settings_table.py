"""docs/SETTINGS.md, drawn from shared/settings.py and shared/provider_table.py: `python -m tests.architecture.settings_table`
writes it anew.

A field's meaning is the docstring below it; fields above it without one of their own share it. Sections are the module's own
`# --- name ---` lines.
"""

import ast
import inspect
import os
import re
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin
from unittest.mock import patch

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from shared.provider_table import ProviderTable
from shared.settings import Settings

PAGE: Final = Path(__file__).parents[2] / "docs" / "SETTINGS.md"
_SECTION: Final = re.compile(r"^    # --- (.+?) -*$")
_OWN_NAMES: Final = {
    name: name.upper()
    for name in (
        "openai_api_key",
        "openai_base_url",
        "anthropic_api_key",
        "anthropic_base_url",
        "ollama_host",
        "ollama_api_key",
    )
}
"""Known to the providers' own clients by these names."""
_HEAD: Final = """# Settings

Read once, at a process' start: from the environment, and below it from `lastevent.toml` in the working directory, or from the
file that `LASTEVENT_CONFIG` names (empty: from none). In the file a setting has its name without `LASTEVENT_`, in lower case:
`lease_s = 3`; lists are lists. What is no setting is refused there, and so is every secret: those come from the environment
alone. [`lastevent.example.toml`](../lastevent.example.toml) is one to copy.

Durations are seconds and sizes bytes, unless the name says otherwise. This page is drawn from
[`shared/settings.py`](../shared/settings.py) by `python -m tests.architecture.settings_table`; a test says when it is old.
"""
_TABLES: Final = """
## A table `[providers.<name>]`

One more server, in `lastevent.toml` (or as JSON in `LASTEVENT_PROVIDERS`). Its models are asked for as `<name>/<model>`; a name
has a-z, 0-9, `_` and `-`. Tables named `openai`, `anthropic` and `ollama` configure the providers of that name, below the
variables above. Web and workers read the same file; keys are needed by workers of the lane `api` alone.

| key | allowed | meaning |
|---|---|---|
"""


class Documented(NamedTuple):
    """A field as its source shows it."""

    name: str
    section: str
    meaning: str


def fields(model: type[BaseModel] = Settings) -> list[Documented]:
    """All fields of a model, in the order of the source; without a docstring the meaning is empty."""
    source = inspect.getsource(model)
    section_at = {0: ""}
    section_at |= {i: match[1] for i, line in enumerate(source.splitlines(), 1) if (match := _SECTION.match(line))}
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found: list[Documented] = []
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in model.model_fields:
            section = section_at[max(line for line in section_at if line < node.lineno)]
            found.append(Documented(node.target.id, section, ""))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            meaning = " ".join(node.value.value.split())
            last_documented = max((i for i, field in enumerate(found) if field.meaning), default=-1)
            found[last_documented + 1 :] = [field._replace(meaning=meaning) for field in found[last_documented + 1 :]]
    return found


def page() -> str:
    lines = [_HEAD]
    section = ""
    for field in fields():
        if field.section != section:
            section = field.section
            lines.append(
                f"\n## {section[0].upper()}{section[1:]}\n\n| variable | default | allowed | meaning |\n|---|---|---|---|\n"
            )
        info = Settings.model_fields[field.name]
        variable = _OWN_NAMES.get(field.name, f"LASTEVENT_{field.name.upper()}")
        lines.append(
            f"| `{variable}` | {_shown_default(info)} | {_allowed(info)} | {field.meaning.replace('|', chr(92) + '|')} |\n"
        )
    return "".join([*lines, _TABLES, *_keys_of_tables()])


def _keys_of_tables() -> list[str]:
    allowed = {name: _allowed(info) for name, info in ProviderTable.model_fields.items()}
    return [f"| `{field.name}` | {allowed[field.name]} | {field.meaning} |\n" for field in fields(ProviderTable)]


def _shown_default(info: FieldInfo) -> str:
    default = default_of(info)
    return default if default == "none" else f"`{default}`"


def default_of(info: FieldInfo) -> str:
    """As the environment would have it; `none` where there is none."""
    # Defaults under the home folder must not depend on whose it is.
    with patch.dict(os.environ, {"HOME": "/~"}):
        os.environ.pop("XDG_DATA_HOME", None)
        value: Any = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value in ("", {}, ()):
        return "none"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, int | float):
        return f"{value:.15g}"
    return str(value).removeprefix("/")


def _allowed(info: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "pattern": ""}
    told = []
    for rule in info.metadata:
        for name, sign in signs.items():
            bound = getattr(rule, name, None)
            if bound is not None:
                told.append(_words(bound) if name == "pattern" else f"{sign} {bound:.15g}")
    words = [get_args(part) for part in (info.annotation, *get_args(info.annotation)) if get_origin(part) is Literal]
    told += [" ".join(f"`{word}`" for word in literal) for literal in words]
    if info.annotation is bool:
        told.append("`0` `1`")
    return ", ".join(told)


def _words(pattern: str) -> str:
    """`^(a|b)$` → `a` `b`."""
    return " ".join(f"`{word}`" for word in pattern.strip("^$()").split("|"))


if __name__ == "__main__":
    PAGE.write_text(page())
