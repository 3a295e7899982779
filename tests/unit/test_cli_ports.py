"""Where `lastevent` serves: only where it may, only where nobody else does."""

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from cli.ports import base_url, check_exposure, claim_port
from shared.errors import ConfigurationError
from shared.settings import Settings
from tests.support.tenants import API_KEYS
from web.main import check_host


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_loopback_needs_no_permission(host: str) -> None:
    check_exposure(Settings(host=host))
    check_host(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_anything_else_is_refused_and_the_line_says_why_and_how(host: str) -> None:
    line = r"can be reached from other machines.*`lastevent keys new NAME`.*LASTEVENT_API_KEYS.*LASTEVENT_ALLOW_REMOTE=1"
    with pytest.raises(ConfigurationError, match=line):
        check_exposure(Settings(host=host))
    with pytest.raises(ConfigurationError, match=r"`lastevent keys new NAME`.*LASTEVENT_API_KEYS.*LASTEVENT_ALLOW_REMOTE=1"):
        check_host(Settings(host=host))


@pytest.mark.parametrize("settings", [Settings(host="0.0.0.0", allow_remote=True), Settings(host="::", api_keys=API_KEYS)])
def test_unless_there_are_keys_or_it_is_wanted_without(settings: Settings) -> None:
    check_exposure(settings)
    check_host(settings)


def test_a_host_without_an_address_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"host 'nowhere\.invalid' has no address"):
        check_exposure(Settings(host="nowhere.invalid"))


def test_a_free_port_is_taken_as_it_is_and_zero_becomes_a_free_one() -> None:
    free = claim_port("127.0.0.1", 0)
    assert free > 0
    assert claim_port("127.0.0.1", free) == free


@pytest.mark.skipif(sys.platform != "linux", reason="the owner is read from /proc")
def test_a_taken_port_names_who_has_it(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    line = rf"port {port} on 127.0.0.1 is taken by .+ \(pid {os.getpid()}\); stop that, or choose another one with --port"
    with pytest.raises(ConfigurationError, match=line):
        claim_port("127.0.0.1", port)


def test_a_port_that_was_closed_a_moment_ago_is_free(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        accepted, _ = listener.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
    listener.close()
    assert claim_port("127.0.0.1", port) == port


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot serve on 192\.0\.2\.7 port 8000"):
        claim_port("192.0.2.7", 8000)


def test_the_url_puts_an_ipv6_address_in_brackets() -> None:
    assert base_url("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert base_url("::1", 8000) == "http://[::1]:8000"
