"""shared/logs.py: lines for people or machines, never a secret."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.logs import set_up_logs
from shared.settings import Settings


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Both kinds of logging are set up once a process; the next test finds them as they were."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers, root.level = handlers, level


def test_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(Settings(log_json=True), lane="api")
    structlog.get_logger().info("job ended", tokens=3)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["tokens"], line["lane"], line["level"]) == ("job ended", 3, "api", "info")
    assert line["timestamp"].endswith("Z")


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(Settings(), lane="api")
    structlog.get_logger().warning("job waits")
    out = capsys.readouterr()
    assert "job waits" in out.err
    assert out.out == ""


def test_below_the_level_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(Settings(log_level="error"))
    structlog.get_logger().warning("hush")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """They hold prompts and keys."""
    set_up_logs(Settings(log_json=as_json))

    def fail(prompt: str) -> None:
        raise ValueError(f"a fault of {len(prompt)} characters")

    try:
        fail("the prompt itself")
    except ValueError:
        structlog.get_logger().exception("attempt failed")
    said = capsys.readouterr().err
    assert "a fault of 17 characters" in said
    assert said.count("the prompt itself") <= 1, "the source line of the call at most"
    assert "prompt =" not in said


def test_lines_of_libraries_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers = []  # pytest's own
    set_up_logs(Settings(log_json=True), lane="api", worker="api-1")
    with structlog.contextvars.bound_contextvars(job="job_1"):
        logging.getLogger("a.library").error("Task %s was destroyed", "x")
        try:
            raise ValueError("of a library")
        except ValueError:
            logging.getLogger("another.library").exception("it failed")
    plain, traced = map(json.loads, capsys.readouterr().err.splitlines())
    assert (plain["event"], plain["logger"], plain["level"]) == ("Task x was destroyed", "a.library", "error")
    assert (plain["lane"], plain["worker"], plain["job"]) == ("api", "api-1", "job_1")
    assert "ValueError: of a library" in traced["exception"]
