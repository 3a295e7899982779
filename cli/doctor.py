"""`lastevent doctor`: one line for each thing that must be right, and what to do where it is not.

Exit codes: 0 all is well, or there are warnings; 1 something does not work.
"""

from collections.abc import AsyncIterator

import msgspec
from rich.console import Console
from rich.markup import escape

from cli import checks
from cli.finding import Finding
from cli.output import Output, harmless
from cli.provider_checks import provider_findings
from cli.redis_checks import redis_findings
from shared.errors import ConfigurationError
from shared.settings import Settings

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
NAME_WIDTH = 14


async def run_doctor(settings: Settings | ConfigurationError, output: Output) -> int:
    """Looks at everything, and returns the exit code. Settings that cannot be read are what it tells of first."""
    found: list[Finding] = []
    async for finding in _findings(settings):
        found.append(finding)
        if not output.as_json:
            _print(output.out, finding)
    failed = any(finding.state == "fail" for finding in found)
    if output.as_json:
        output.document({"ok": not failed, "findings": [msgspec.to_builtins(finding) for finding in found]})
    return 1 if failed else 0


async def _findings(settings: Settings | ConfigurationError) -> AsyncIterator[Finding]:
    """In the order in which one would mend them."""
    yield checks.python()
    yield checks.encoding()
    if isinstance(settings, ConfigurationError):
        yield checks.settings_refused(settings)
        return
    yield checks.settings_read()
    yield checks.open_files(settings)
    yield checks.exposure(settings)
    yield await checks.port(settings)
    for finding in (*await provider_findings(settings), *checks.models(settings), *await redis_findings(settings)):
        yield finding


def _print(out: Console, finding: Finding) -> None:
    advice = f" → {finding.advice}" if finding.advice else ""
    line = harmless(" ".join(f"{finding.detail}{advice}".split()))
    head = f"[{STYLES[finding.state]}]{finding.state:<5}[/]{escape(finding.name):<{NAME_WIDTH}} "
    out.print(f"{head}{escape(line)}", soft_wrap=True, highlight=False)
