"""The documents say what the code does: keys, scripts, statuses, settings, links."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import pytest

from shared import keys
from shared.job import TRANSITIONS
from shared.provider_table import ProviderTable
from shared.redis_client import ScriptName
from tests.architecture import settings_table
from web.problems import STATUS_OF

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]

_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE_BLOCK: Final = re.compile(r"```.*?```", re.DOTALL)


def page(name: str) -> str:
    return (DOCS / name).read_text()


def table_after(text: str, heading: str) -> Iterator[list[str]]:
    """The cells of the first table below a heading, without its own head."""
    below = text.split(f"{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert rows is not None, f"no table below {heading!r}"
    for line in rows[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def code_words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# --- keys and scripts ----------------------------------------------------------------------------------------------------


def listed_keys() -> list[str]:
    """The patterns in the table of shared/keys.py."""
    assert keys.__doc__ is not None
    return re.findall(r"^((?:lastevent|arq):\S+)", keys.__doc__, re.MULTILINE)


@pytest.mark.parametrize("pattern", listed_keys())
def test_every_key_is_described(pattern: str) -> None:
    assert f"`{pattern}" in page("REDIS.md")


def test_every_key_that_the_code_makes_is_listed_in_keys_py() -> None:
    functions = [value for _, value in inspect.getmembers(keys, inspect.isfunction) if value is not keys.is_permanent]
    fixed = {value for _, value in inspect.getmembers(keys) if isinstance(value, str) and re.fullmatch(r"lastevent:\w+", value)}
    listed = {re.sub(r"\{\w+\}$", "{}", pattern) for pattern in listed_keys()}
    assert {function("{}") for function in functions} | fixed == listed


def test_every_key_that_a_script_names_is_listed_in_keys_py() -> None:
    listed = {re.sub(r"\{\w+\}$", "", pattern) for pattern in listed_keys()}
    named = {
        name
        for file in (ROOT / "shared" / "lua").glob("*.lua")
        for name in re.findall(r"'((?:lastevent|arq):[\w:-]+:)'", file.read_text())
    }
    assert named
    assert named <= listed


def test_every_script_is_described_and_no_other() -> None:
    described = [code_words(row[0])[0] for row in table_after(page("REDIS.md"), "## Scripts")]
    assert sorted(described) == sorted(get_args(ScriptName))


@pytest.mark.parametrize("script", get_args(ScriptName))
def test_every_answer_of_a_script_is_described(script: str) -> None:
    source = (ROOT / "shared" / "lua" / f"{script}.lua").read_text()
    (row,) = [row for row in table_after(page("REDIS.md"), "## Scripts") if row[0] == f"`{script}`"]
    words = set(re.findall(r"return \{?'(\w+)'", source)) | set(re.findall(r"answers\[#answers \+ 1\] = .*?'(\w+)'", source))
    described = row[-1] if row[-1] != "as `append`" else "`ok` `superseded` `ended` `gone` `behind`"
    assert words <= set(code_words(described))


# --- statuses, problems --------------------------------------------------------------------------------------------------


def test_the_status_table_is_the_transition_table() -> None:
    drawn = {}
    for before, events, after in table_after(page("ARCHITECTURE.md"), "## Statuses"):
        for event in code_words(events):
            drawn[code_words(before)[0], event] = code_words(after)[0]
    assert drawn == TRANSITIONS


def test_every_problem_slug_is_in_the_protocol_with_its_status() -> None:
    additions = page("PROTOCOL.md").split("**Problem slugs**", 1)[1].split("\n- ", 1)[0]
    told = {}
    for group in additions.split(";"):
        status = re.search(r"\b([45]\d\d)\b", group)
        if status is not None:
            told.update(dict.fromkeys(code_words(group), int(status[1])))
    for error, status_code in STATUS_OF.items():
        assert told.get(error.code) == status_code, error.code


# --- settings ------------------------------------------------------------------------------------------------------------


def test_the_page_of_settings_is_current() -> None:
    assert page("SETTINGS.md") == settings_table.page(), "write it anew: python -m tests.architecture.settings_table"


@pytest.mark.parametrize("field", settings_table.fields() + settings_table.fields(ProviderTable), ids=lambda field: field.name)
def test_every_setting_has_a_meaning(field: settings_table.Documented) -> None:
    assert field.meaning


# --- links and words -----------------------------------------------------------------------------------------------------


def relative_links() -> list[tuple[Path, str]]:
    targets = [(path, target) for path in PAGES for target in _LINK.findall(_CODE_BLOCK.sub("", path.read_text()))]
    return [(path, target) for path, target in targets if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize(("path", "target"), relative_links(), ids=lambda value: str(value).removeprefix(str(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    linked = (path.parent / name) if name else path
    assert linked.exists()
    if anchor:
        slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in _HEADING.findall(linked.read_text())]
        assert anchor in slugs


def test_documents_that_the_code_names_exist() -> None:
    sources = [file for top in ("shared", "web", "worker", "cli", "bench", "tests") for file in (ROOT / top).rglob("*.py")]
    named = {name for file in sources for name in re.findall(r"docs/[\w./-]+\.md", file.read_text())}
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_files_that_the_reading_order_names_exist() -> None:
    for files, _ in table_after(page("ARCHITECTURE.md"), "## Files, in the order in which to read them"):
        folder = ""
        for name in code_words(files):
            top = name.partition("/")[0]
            if "/" in name and (ROOT / top).is_dir():
                folder = name.rpartition("/")[0] if not name.endswith("/") else name.split("/")[0]
                assert (ROOT / name).exists(), name
            else:
                assert (ROOT / folder / name).exists(), f"{folder}/{name}"


def test_decisions_are_numbered_without_doubles_and_open_with_their_number() -> None:
    files = sorted((DOCS / "decisions").glob("*.md"))
    numbers = [file.name[:4] for file in files]
    assert len(numbers) == len(set(numbers))
    for file in files:
        assert file.read_text().startswith(f"# {file.name[:4]} ")
