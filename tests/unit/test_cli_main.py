"""The command line: what it offers, and how a failure leaves it."""

import asyncio
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli import main as cli_main
from cli.log_lines import LogLines
from cli.options import SOME_ID
from cli.up import workers_by_lane
from shared.errors import ConfigurationError
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
COMMANDS = ("up", "demo", "doctor", "ask", "jobs", "watch", "cancel", "delete", "bench", "web", "worker", "prepare", "keys")


def lastevent(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Runs the real command."""
    command = [sys.executable, "-P", "-m", "cli.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "PYTHONPATH": str(ROOT), **env}
    )


def help_of(*command: str) -> str:
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(cli_main.app, [*command, "--help"])
    assert result.exit_code == 0
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


# --- what it offers --------------------------------------------------------------------------------------------------


def test_the_help_lists_every_command_with_one_sentence() -> None:
    text = help_of()
    for command in COMMANDS:
        assert re.search(rf"\b{command} [A-Z]", text), command


def test_the_help_goes_from_what_one_starts_with_to_the_parts_of_a_deployment() -> None:
    text = help_of()
    places = [re.search(rf"\b{command} [A-Z]", text) for command in COMMANDS]
    assert [place.start() for place in places if place] == sorted(place.start() for place in places if place)


def examples() -> list[list[str]]:
    """The commands in the epilogs, as a shell would split them; what it puts in by itself is left out."""
    found = [line for command in cli_main.app.registered_commands for line in (command.epilog or "").split("\n\n")[1:]]
    lines = [re.sub(r"\$\(.*\)", SOME_ID, line).split(" | ")[0].split(" > ")[0] for line in found]
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("example", examples(), ids=" ".join)
def test_every_example_in_a_help_is_a_command_that_is_understood(example: list[str]) -> None:
    assert example[0] == "lastevent"
    group = typer.main.get_command(cli_main.app)
    command = group.commands[example[1]]  # type: ignore[attr-defined]  # a group has them
    command.make_context(example[1], example[2:])


@pytest.mark.parametrize("command", ["ask", "jobs", "watch", "cancel", "delete", "bench", "demo", "doctor"])
def test_whatever_tells_something_tells_it_as_json_too(command: str) -> None:
    assert "--json Print one JSON document" in re.sub(r" <bool> ", " ", help_of(command))


def test_without_a_command_the_help_is_shown() -> None:
    assert "Start here" in lastevent().stdout


@pytest.mark.parametrize(
    ("option", "default"),
    [("--port", "8000"), ("--host", "127.0.0.1"), ("--lanes", "api,local"), ("--api-workers", "1"), ("--local-workers", "1")],
)
def test_up_shows_the_defaults_that_the_settings_have(option: str, default: str) -> None:
    assert re.search(rf"{option} .*?\[default: \(?{re.escape(default)}\)?", help_of("up")), help_of("up")


def test_the_defaults_shown_are_the_true_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LASTEVENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LASTEVENT_CONFIG", "")
    settings = Settings()
    assert (settings.port, settings.host, settings.lanes) == (8000, "127.0.0.1", ("api", "local"))


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert lastevent("--version").stdout == f"lastevent {version('lastevent')}\n"


def test_the_help_loads_neither_web_framework_nor_redis_nor_torch() -> None:
    code = "import sys, cli.main; print([m for m in ('torch', 'starlette', 'redis', 'httpx2', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout == "[]\n"


# --- how a failure leaves it -----------------------------------------------------------------------------------------


def assert_one_line(result: "subprocess.CompletedProcess[str]", pattern: str) -> None:
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert re.fullmatch(rf"lastevent: {pattern}[^\n]*\n", result.stderr), result.stderr


def test_a_wrong_setting_is_one_line_and_exit_code_two() -> None:
    assert_one_line(lastevent("up", LASTEVENT_LEASE_S="soon"), "LASTEVENT_LEASE_S: ")


def test_a_wrong_file_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    path = tmp_path / "lastevent.toml"
    path.write_text('lease_s = "soon"\n[providers.vllm]\nkind = "vllm"\n')
    lines = rf"{path}: lease_s: .*; {path}: \[providers\.vllm\] kind: must be 'openai', 'anthropic' or 'ollama'"
    assert_one_line(lastevent("web", LASTEVENT_CONFIG=str(path)), lines)
    assert_one_line(
        lastevent("worker", "--lane", "api", LASTEVENT_CONFIG=str(tmp_path / "no.toml")), "LASTEVENT_CONFIG: there is no"
    )


def test_an_unknown_lane_is_one_line() -> None:
    assert_one_line(lastevent("up", "--lanes", "gpu"), "--lanes: lanes are api and local")


def test_a_host_that_others_reach_is_one_line() -> None:
    assert_one_line(lastevent("up", "--host", "0.0.0.0"), r"host 0\.0\.0\.0 can be reached")
    assert_one_line(lastevent("web", "--host", "0.0.0.0"), r"host 0\.0\.0\.0 can be reached")


def test_a_key_in_the_place_of_its_digest_is_one_line_that_does_not_show_it() -> None:
    result = lastevent("web", LASTEVENT_API_KEYS="web:le_secretsecret")
    assert_one_line(result, "LASTEVENT_API_KEYS: entry 1 holds the key itself; it must be name:sha256")
    assert "le_secret" not in result.stderr


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_line(lastevent("prepare", LASTEVENT_CACHE_DIR=str(tmp_path / "file" / "cache")), ".*/file/cache")


def test_an_unknown_option_is_a_usage_error() -> None:
    result = lastevent("up", "--prot", "8000")
    assert result.returncode == 2
    assert "--prot" in result.stderr


def test_a_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(main: object) -> None:
        main.close()  # type: ignore[attr-defined]  # the coroutine that will not be awaited
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["lastevent", "up", "--port", "0"])
    with pytest.raises(SystemExit) as exit_:
        cli_main.main()
    assert exit_.value.code == 130


# --- small parts -----------------------------------------------------------------------------------------------------


def test_only_the_lanes_that_are_wanted_get_workers() -> None:
    assert workers_by_lane(Settings(lanes=("local",)), 3, 2) == {"local": 2}
    assert workers_by_lane(Settings(lanes=("api", "local")), 3, 2) == {"api": 3, "local": 2}


def test_a_lane_without_a_worker_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lane local would have no worker: leave it out of --lanes"):
        workers_by_lane(Settings(lanes=("api", "local")), 1, 0)


def test_log_lines_stand_behind_names_of_one_width() -> None:
    stream = io.StringIO()
    log = LogLines(["web", "local-1"], stream)
    log("web", "hello")
    log("local-1", "hello")
    assert stream.getvalue() == "web     │ hello\nlocal-1 │ hello\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_names_are_coloured_on_a_terminal_and_never_against_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = _Terminal()
    LogLines(["web"], stream)("web", "hello")
    assert stream.getvalue() == "\x1b[36mweb │\x1b[0m hello\n"
    monkeypatch.setenv("NO_COLOR", "1")
    stream = _Terminal()
    LogLines(["web"], stream)("web", "hello")
    assert stream.getvalue() == "web │ hello\n"


class _Closed(io.StringIO):
    tries = 0

    def write(self, _text: str) -> int:
        self.tries += 1
        raise BrokenPipeError


def test_a_log_that_nobody_reads_any_more_does_not_end_the_stack() -> None:
    closed = _Closed()
    log = LogLines(["web"], closed)
    log("web", "hello")
    log("web", "hello")
    assert closed.tries == 1
