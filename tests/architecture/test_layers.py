"""The import rule (docs/ARCHITECTURE.md), and lists that must name all there is."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from shared import keys
from shared.redis_client import ScriptName

ROOT = Path(__file__).parents[2]
_PLACEHOLDER = re.compile(r"\{\w+\}")


def test_the_layers_hold() -> None:
    """import-linter's contracts, as pyproject.toml states them."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_keys_under_permanent_are_the_permanent_ones() -> None:
    assert keys.__doc__ is not None
    passing, permanent = keys.__doc__.split("permanent, and bounded:")
    for part, expected in ((passing, False), (permanent, True)):
        names = [line.split()[0] for line in part.splitlines() if line.startswith(("lastevent:", "arq:"))]
        assert [keys.is_permanent(_PLACEHOLDER.sub("x", name)) for name in names] == [expected] * len(names)


def test_every_script_is_a_file_and_every_file_a_script() -> None:
    files = {path.stem for path in (ROOT / "shared" / "lua").glob("*.lua")}
    assert files == {*get_args(ScriptName), "_common"}


def test_keys_are_named_in_one_place() -> None:
    """Python code takes its keys from shared/keys.py; the scripts that build one say so in the files themselves."""
    for tier in ("shared", "web", "worker", "cli"):
        for path in (ROOT / tier).rglob("*.py"):
            if path.name != "keys.py":
                assert not re.search(r'f?"(lastevent|arq):[a-z-]+:', path.read_text()), path


def test_every_script_says_what_it_takes_and_answers() -> None:
    for path in (ROOT / "shared" / "lua").glob("[a-z]*.lua"):
        head = path.read_text()
        assert head.startswith("-- "), path
        assert "-- KEYS " in head, path
        assert "-- ARGV " in head, path
