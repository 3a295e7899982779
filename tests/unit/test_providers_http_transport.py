"""worker/providers/http_transport.py: connections made, used again, and given up; over real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trustme

from tests.support.waiting import wait_until
from worker.providers import http_transport
from worker.providers.http_transport import Transport, transport
from worker.providers.upstream import IDLE_CONNECTIONS


class Server:
    """Answers each request with its connection's number, and on /stream with a body that never ends."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while request := (await reader.readuntil(b"\r\n\r\n")).decode():
                said = f"{number}".encode()
                if request.startswith("GET /stream"):
                    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))
                if request.startswith("GET /last"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open -= 1


@asynccontextmanager
async def server(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    serving = Server()
    listening = await asyncio.start_server(serving.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    serving.url = f"{scheme}://localhost:{listening.sockets[0].getsockname()[1]}"
    try:
        yield serving
    finally:
        listening.close()
        await wait_until(lambda: serving.open == 0, message="all connections are closed")


@asynccontextmanager
async def client(timeout_s: float = 5) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=Transport(), timeout=timeout_s) as made:
        yield made


async def test_one_connection_serves_call_after_call() -> None:
    async with server() as there, client() as http:
        assert [(await http.get(there.url)).text for _ in range(3)] == ["1", "1", "1"]


async def test_calls_at_once_have_a_connection_each() -> None:
    async with server() as there, client() as http:
        answers = await asyncio.gather(*(http.get(there.url) for _ in range(IDLE_CONNECTIONS + 5)))
        assert {answer.text for answer in answers} == {f"{n}" for n in range(1, IDLE_CONNECTIONS + 6)}
        await wait_until(lambda: there.open == IDLE_CONNECTIONS, message="those over the limit are closed")


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async with server() as there, client() as http:
        assert (await http.get(f"{there.url}/last")).text == "1"
        await wait_until(lambda: there.open == 0, message="the server has closed it")
        await asyncio.sleep(0)  # its loop has closed the socket; ours may not know
        assert (await http.get(there.url)).text == "2"


async def test_an_idle_connection_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_transport, "IDLE_S", 0.02)
    async with server() as there, client() as http:
        await http.get(there.url)
        await wait_until(lambda: there.open == 0, message="it is closed")


async def test_a_stream_that_is_left_is_closed_at_once() -> None:
    async with server() as there, client() as http:
        async with http.stream("GET", f"{there.url}/stream") as answer:
            assert await anext(aiter(answer.aiter_bytes())) == b"x"
        await wait_until(lambda: there.open == 0, message="the server sees it end")


async def test_closing_the_client_ends_what_is_open() -> None:
    async with server() as there:
        http = httpx2.AsyncClient(transport=Transport())
        async with http.stream("GET", f"{there.url}/stream") as answer:
            pieces = aiter(answer.aiter_bytes())
            await anext(pieces)
            await http.aclose()
            with pytest.raises(httpx2.ReadError):
                await anext(pieces)


async def test_a_cancelled_call_leaves_no_connection() -> None:
    async with server() as there, client() as http:
        calling = asyncio.create_task(http.get(f"{there.url}/stream"))
        await wait_until(lambda: there.open == 1, message="it is under way")
        calling.cancel()
        await asyncio.wait([calling])
        await wait_until(lambda: there.open == 0, message="the server sees it end")


async def test_nobody_listens() -> None:
    async with client() as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get("http://127.0.0.1:9/")


async def test_no_such_host() -> None:
    async with client() as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get("http://nowhere.invalid/")


async def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("aiohappyeyeballs.start_connection", never)
    async with client(timeout_s=0.02) as http:
        with pytest.raises(httpx2.ConnectTimeout):
            await http.get("http://127.0.0.1:9/")


async def test_another_protocol_is_refused() -> None:
    async with client() as http:
        with pytest.raises(httpx2.UnsupportedProtocol):
            await http.get("ftp://127.0.0.1/")


async def test_tls_where_the_certificate_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with server(tls) as there, client() as http:
        assert [(await http.get(there.url)).text for _ in range(2)] == ["1", "1"]


async def test_tls_where_it_is_not() -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    async with server(tls) as there, client() as http:
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await http.get(there.url)


def test_where_the_environment_names_a_proxy_the_client_makes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    assert transport() is None
