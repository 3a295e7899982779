"""An HTTP/1.1 answer as it comes, in pieces cut anywhere. Parsed by llhttp, in C. No I/O."""

from typing import Final, NamedTuple

import httptools

Headers = list[tuple[bytes, bytes]]

HEAD_LIMIT: Final = 100 * 1024
"""Bytes that come without an end of the headers: no honest server sends more."""


class NotHttp(Exception):
    """The server speaks something else; the message says what of it is wrong."""


class Head(NamedTuple):
    """What stands before the body."""

    status: int
    reason: bytes
    headers: Headers
    version: bytes


class Answer:
    """One answer; what a server sends after it makes its connection useless, and nothing else."""

    def __init__(self, *, has_body: bool = True) -> None:
        """`has_body`: not the answer to a HEAD, whose headers tell of a body that does not come."""
        self.head: Head | None = None
        self.complete = False
        self.keeps = False
        """It is whole, and its connection may serve another exchange."""
        self.held = 0
        """Bytes of the body that came and were not taken."""
        self._has_body = has_body
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._headers: Headers = []
        self._reason = b""
        self._interim = False
        self._ends_itself = False
        self._head_bytes = 0

    def feed(self, data: bytes) -> None:
        """Takes in what came. Raises NotHttp."""
        if self._parser is None:
            self.keeps = False
            raise NotHttp("The server sends what nobody asked for.")  # as one that gives up an idle connection does
        if self.head is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.keeps = False
            raise NotHttp(f"The server's answer is no HTTP: {error}") from None
        finally:
            if self.complete:
                self._parser = None  # the two refer to each other
        if self.head is None and self._head_bytes > HEAD_LIMIT:
            raise NotHttp(f"The server's answer has more than {HEAD_LIMIT} bytes of headers.")

    def end(self) -> None:
        """The server has closed the connection, which is how a body without a length ends."""
        self.complete = self.complete or (self.head is not None and not self._ends_itself)
        self._parser = None

    def take(self) -> bytes:
        """The body since the last call, as one piece."""
        body, self._body, self.held = self._body, [], 0
        return body[0] if len(body) == 1 else b"".join(body)

    # --- called by the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.keeps = False  # a second answer, if there was one before

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self._headers.append((name, value))
            self._ends_itself |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        if self.complete or self._parser is None:
            return
        status = self._parser.get_status_code()
        self._interim = 100 <= status < 200
        if not self._interim:
            self.head = Head(status, self._reason, self._headers, b"HTTP/" + self._parser.get_http_version().encode())
            self.complete = not self._has_body
        self._headers, self._reason = [], b""

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._body.append(body)
            self.held += len(body)

    def on_message_complete(self) -> None:
        if not self._interim and not self.complete and self._parser is not None:
            self.complete = True
            self.keeps = self._parser.should_keep_alive()
