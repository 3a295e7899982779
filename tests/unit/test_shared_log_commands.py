"""What the log's scripts are told, and what their answers mean."""

import msgspec
import pytest

from shared.errors import AlreadyEnded, LogBehind, LogErased, LogRefused, Superseded
from shared.events import Cancelled, Done, Error, Terminal, Timing, Usage
from shared.log_commands import check_answer, final_status, outside_start, private_of_start

_USAGE, _TIMING = Usage(), Timing()


def test_ok_is_no_refusal() -> None:
    check_answer([b"ok"], "j")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([b"superseded"], Superseded),
        ([b"ended"], AlreadyEnded),
        ([b"gone"], LogErased),
        ([b"behind", b"1-4"], LogBehind),
        ([b"behind", b""], LogBehind),
    ],
)
def test_each_refusal_is_an_error_of_its_own(answer: list[bytes], error: type[LogRefused]) -> None:
    with pytest.raises(error, match="job_x"):
        check_answer(answer, "job_x")


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (Done("stop", _USAGE, _TIMING), "done"),
        (Error("timeout", "late", True, False, _USAGE, _TIMING), "failed"),
        (Cancelled("user", False, _USAGE, _TIMING), "cancelled"),
    ],
)
def test_the_terminal_event_decides_the_final_status(event: Terminal, status: str) -> None:
    assert final_status(event) == status


def test_scripts_put_the_front_before_the_rest_of_a_started_event() -> None:
    """Model names may hold what JSON must escape."""
    rest = outside_start('openai/"odd"', "w1")
    whole = msgspec.json.decode(b'{"type":"started","attempt":2,"after":"1-1",' + rest)
    assert (whole["model"], whole["worker"], whole["reason"], whole["reset"]) == ('openai/"odd"', "w1", "takeover", False)


def test_what_a_started_entry_keeps_to_itself() -> None:
    assert private_of_start(None, None) == {"v": 1}
    assert private_of_start(None, 0) == {"v": 1, "u": 0}, "a response can be read on from its start"
