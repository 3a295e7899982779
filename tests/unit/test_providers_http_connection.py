"""worker/providers/http_connection.py: one request and its answer, in bytes as servers send them."""

import asyncio
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.http_answer import HEAD_LIMIT
from worker.providers.http_connection import HELD_BYTES, Connection

OK = b"HTTP/1.1 200 OK\r\n"
HOST = b"host: server\r\n"


class Wire(asyncio.Transport):
    """The other end: keeps what was written, and says what becomes of the connection."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.written = b""
        self.aborted = False
        self.paused = False
        connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.connection.connection_lost(None)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def wire() -> Wire:
    return Wire(Connection(lambda connection: None))


def request(method: str = "POST", **more: Any) -> httpx2.Request:
    return httpx2.Request(method, "http://server/v1/x?y=1", **more)


async def answered(*pieces: bytes, closed: bool = False, method: str = "POST") -> tuple[Wire, int, bytes]:
    """An exchange in which the server sends `pieces`, and closes after them or not."""
    there = wire()
    beginning = asyncio.create_task(there.connection.begin(request(method), read_s=5, write_s=5))
    await asyncio.sleep(0)
    for piece in pieces:
        there.connection.data_received(piece)
    if closed:
        there.connection.connection_lost(None)
    head = await beginning
    body = b""
    while piece := await there.connection.read():
        body += piece
    return there, head.status, body


async def test_the_request_goes_out_as_one_write() -> None:
    there = wire()
    beginning = asyncio.create_task(there.connection.begin(request(json={"a": 1}), read_s=5, write_s=5))
    await asyncio.sleep(0)
    head, _, body = there.written.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\nHost: server\r\n")
    assert b"Content-Length: 7" in head
    assert body == b'{"a":1}'
    there.connection.data_received(OK + b"content-length: 0\r\n\r\n")
    assert (await beginning).status == 200


async def test_a_body_of_unknown_length_goes_out_in_chunks() -> None:
    async def parts() -> Any:
        yield b"one"
        yield b"three"

    there = wire()
    beginning = asyncio.create_task(there.connection.begin(request(content=parts()), read_s=5, write_s=5))
    await asyncio.sleep(0)
    there.connection.data_received(OK + b"content-length: 0\r\n\r\n")
    await beginning
    assert there.written.endswith(b"\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "closed", "body", "reusable"),
    [
        (OK + b"content-length: 5\r\n\r\nhello", False, b"hello", True),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", False, b"hello", True),
        (OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", False, b"hello", False),
        (OK + b"\r\nhello", True, b"hello", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", False, b"hello", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, b"", True),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK + b"content-length: 5\r\n\r\nhello", False, b"hello", True),
        (OK + b"content-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\nmore", False, b"hello", False),
    ],
    ids=["length", "chunks", "closes", "until-closed", "http-1.0", "no-body", "early-hints", "answers-twice"],
)
async def test_an_answer_is_read_to_its_end_and_no_further(answer: bytes, closed: bool, body: bytes, reusable: bool) -> None:
    there, status, read = await answered(answer, closed=closed)
    assert (status in (200, 204), read, there.connection.reusable) == (True, body, reusable)


async def test_what_answers_head_has_no_body() -> None:
    there, status, body = await answered(OK + b"content-length: 5\r\n\r\n", method="HEAD")
    assert (status, body, there.connection.reusable) == (200, b"", False)


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=5), st.booleans(), st.lists(st.integers(0, 150), max_size=8))
def test_wherever_it_is_cut_the_answer_is_the_same(chunks: list[bytes], in_chunks: bool, cuts: list[int]) -> None:
    body = b"".join(chunks)
    if in_chunks:
        sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        answer = OK + b"transfer-encoding: chunked\r\n\r\n" + sent
    else:
        answer = OK + b"content-length: %d\r\n\r\n" % len(body) + body
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    there, status, read = asyncio.run(answered(*(answer[a:b] for a, b in pairwise(edges) if a < b)))
    assert (status, read, there.connection.reusable) == (200, body, True)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"", httpx2.RemoteProtocolError, "without sending a response"),
        (OK + b"content-length: 5\r\n\r\nhel", httpx2.RemoteProtocolError, "before its answer was whole"),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", httpx2.RemoteProtocolError, "before its answer was whole"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", httpx2.RemoteProtocolError, "no HTTP"),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", httpx2.RemoteProtocolError, "no HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            httpx2.RemoteProtocolError,
            "no HTTP",
        ),
        (OK + b"x: " + b"y" * HEAD_LIMIT, httpx2.RemoteProtocolError, "bytes of headers"),
    ],
    ids=["nothing", "cut-length", "cut-chunks", "not-http", "bad-chunk", "upgrade", "endless-head"],
)
async def test_what_is_no_whole_answer_is_an_error(answer: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        await answered(*([answer] if answer else []), closed=True)


async def test_what_came_before_a_cut_is_read_first() -> None:
    there = wire()
    beginning = asyncio.create_task(there.connection.begin(request(), read_s=5, write_s=5))
    await asyncio.sleep(0)
    there.connection.data_received(OK + b"content-length: 9\r\n\r\nhello")
    there.connection.connection_lost(ConnectionResetError("reset by peer"))
    await beginning
    assert await there.connection.read() == b"hello"
    with pytest.raises(httpx2.ReadError, match="reset by peer"):
        await there.connection.read()


async def test_a_silent_server_is_given_up() -> None:
    there = wire()
    with pytest.raises(httpx2.ReadTimeout):
        await there.connection.begin(request(), read_s=0.02, write_s=5)
    assert there.aborted


async def test_silence_counts_from_the_last_byte_that_was_waited_for() -> None:
    there = wire()
    beginning = asyncio.create_task(there.connection.begin(request(), read_s=0.2, write_s=5))
    await asyncio.sleep(0)
    there.connection.data_received(OK + b"content-length: 9\r\n\r\n")
    await beginning
    loop = asyncio.get_running_loop()
    loop.call_later(0.15, there.connection.data_received, b"hello")
    assert await there.connection.read() == b"hello"
    since = loop.time()
    with pytest.raises(httpx2.ReadTimeout):
        await there.connection.read()
    assert loop.time() - since > 0.19


async def test_a_server_that_takes_nothing_is_given_up() -> None:
    there = wire()
    there.connection.pause_writing()
    with pytest.raises(httpx2.WriteTimeout):
        await there.connection.begin(request(json={}), read_s=5, write_s=0.02)


async def test_a_server_that_refuses_in_the_middle_of_a_request_is_heard() -> None:
    there = wire()
    there.connection.pause_writing()
    beginning = asyncio.create_task(there.connection.begin(request(json={}), read_s=5, write_s=5))
    await asyncio.sleep(0)
    there.connection.data_received(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    there.connection.connection_lost(BrokenPipeError())
    assert (await beginning).status == 413


async def test_a_body_that_nobody_reads_holds_the_server_up() -> None:
    there = wire()
    beginning = asyncio.create_task(there.connection.begin(request(), read_s=5, write_s=5))
    await asyncio.sleep(0)
    there.connection.data_received(OK + b"content-length: 999999\r\n\r\n" + b"x" * (HELD_BYTES + 1))
    await beginning
    assert there.paused
    assert len(await there.connection.read()) == HELD_BYTES + 1
    assert not there.paused


async def test_a_word_that_nobody_asked_for_ends_an_idle_connection() -> None:
    there, _, _ = await answered(OK + b"content-length: 0\r\n\r\n")
    there.connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert there.aborted
    assert not there.connection.reusable


async def test_a_second_exchange_finds_nothing_of_the_first() -> None:
    there, _, _ = await answered(OK + b"x-first: 1\r\ncontent-length: 5\r\n\r\nhello")
    beginning = asyncio.create_task(there.connection.begin(request(), read_s=5, write_s=5))
    await asyncio.sleep(0)
    there.connection.data_received(b"HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\n\r\nno")
    head = await beginning
    assert (head.status, head.reason, head.headers) == (429, b"Too Many", [(b"content-length", b"2")])
    assert await there.connection.read() == b"no"


async def test_a_header_with_a_line_break_is_refused() -> None:
    there = wire()
    with pytest.raises(httpx2.LocalProtocolError, match="line break"):
        await there.connection.begin(request(headers={"x-key": "a\r\nx-other: b"}), read_s=5, write_s=5)
    assert there.written == b""


async def test_closed_from_this_side_the_reader_is_told_why() -> None:
    there = wire()
    beginning = asyncio.create_task(there.connection.begin(request(), read_s=5, write_s=5))
    await asyncio.sleep(0)
    there.connection.abort(httpx2.ReadError("The client was closed."))
    with pytest.raises(httpx2.ReadError, match="The client was closed"):
        await beginning
