"""Where `lastevent` serves: only where nobody else does."""

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from cli.ports import base_url, claim_port
from shared.errors import ConfigurationError


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


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
