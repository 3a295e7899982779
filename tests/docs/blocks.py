"""The code blocks of README.md and docs/*.md, and what is done with each. Its info string says it, behind the language:

```sh run                   run by bash, all of a page's in one session        (tests/docs/test_examples.py)
```python run               run by this Python, each by itself
```html run                 opened in a browser
```js run=use-job.js        served to a browser under this name, for the test that is about it
```toml run                 read as lastevent.toml
```sh not-run=docker        shown alone; why is in NOT_RUN
```text output              what the block before it prints, or shows; … stands for anything
```nginx                    a language of SHOWN: not for running
"""

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

RUN: Final = frozenset({"sh", "python", "html", "js", "toml"})
"""Languages that have to say whether they are run."""

SHOWN: Final = {
    "text": "a picture, or what is printed",
    "nginx": "another server's configuration; tests/architecture/test_proxies.py has it read by nginx",
    "caddyfile": "the same, by Caddy",
    "yaml": "for docker compose, Traefik or Kubernetes",
    "ini": "for systemd",
    "json": "a shape",
    "http": "headers on the wire",
    "promql": "for Prometheus",
}
"""Languages that are not for running, and why."""

NOT_RUN: Final = {
    "docker": "takes an engine; tests/compose/run does it",
    "installs": "installs, then runs for a minute; CI and tests/system do both",
    "minutes": "takes minutes; its own tests run it in short",
    "redis": "changes a Redis of yours, or starts one",
    "settings": "a setting in its place, and nothing else",
    "keys": "serves other machines, with a key that is not known before; tests/guide/test_11_keys_and_tenants.py does it",
    "server": "another server's command",
}
"""Why a block is not run."""


class Block(NamedTuple):
    """One block. `line` is that of its fence, as an editor counts."""

    page: Path
    line: int
    language: str
    marker: str
    text: str
    output: str | None
    """What the block right behind it says that it prints."""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.marker.partition("=")[0] == "run"

    def problem(self) -> str | None:
        """What is wrong with its info string; None if nothing is."""
        how, _, what = self.marker.partition("=")
        if self.language in SHOWN:
            return None if self.marker in ("", "output") else f"{self.language} takes no {self.marker!r}"
        if self.language not in RUN:
            return f"the language {self.language or 'is missing'!r}: name one of {sorted(RUN | SHOWN.keys())}"
        if how == "not-run":
            return None if what in NOT_RUN else f"not-run={what} is no reason: give one of {sorted(NOT_RUN)}"
        return (
            None
            if how == "run"
            else f"say `{self.language} run`, or `{self.language} not-run=` and a reason of {sorted(NOT_RUN)}"
        )


def blocks_of(page: Path) -> Iterator[Block]:
    """All of a page's, fenced or indented, in order; `output` blocks are a part of the one before."""
    tokens = [token for token in MarkdownIt("commonmark").parse(page.read_text()) if token.type in ("fence", "code_block")]
    for token, following in zip_longest(tokens, tokens[1:]):
        language, _, marker = token.info.strip().partition(" ")
        if marker == "output":
            continue
        output = following.content if following is not None and following.info.strip().endswith(" output") else None
        assert token.map is not None, "blocks have lines"
        yield Block(page, token.map[0] + 1, language, marker.strip(), token.content, output)


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]


def matches(printed: str, told: str) -> bool:
    """Whether this is what the page says; `…` is anything in a line, a line of `…` alone any lines."""
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", ".*") + r"\n"
        for line in told.strip("\n").splitlines()
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None
