"""web/auth.py without a server: what it notes of a caller, what it leaves of the URL, and what it says while Redis is away."""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from starlette.types import Message, Receive, Scope, Send

from shared.ids import new_job_id
from shared.settings import Settings
from tests.support.tenants import API_KEYS, KEYS, SECRET
from web.auth import KeyGuard
from web.context import TENANT, TOKEN
from web.stream_tokens import StreamTokens

JOB = new_job_id()
SETTINGS = Settings(api_keys=API_KEYS, token_secret=SECRET)


class Seen:
    """An application that answers nothing, and remembers what it was called with."""

    def __init__(self) -> None:
        self.scope: Scope | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope


class AwayRedis:
    """Counts how often it was asked; answers nothing once it is away."""

    def __init__(self, secret: bytes | None = None) -> None:
        self.secret, self.away, self.asked = secret, secret is None, 0

    async def get(self, _name: str) -> bytes | None:
        self.asked += 1
        if self.away:
            raise RedisConnectionError
        return self.secret


def scope_of(path: str, query: str = "", key: str | None = None) -> Scope:
    headers = [(b"host", b"x")] + ([(b"authorization", f"Bearer {key}".encode())] if key else [])
    return {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": headers}


async def call(scope: Scope, redis: Any = None, settings: Settings = SETTINGS) -> tuple[Scope | None, list[Message]]:
    """What the application was called with, and what was answered in its place."""
    app, sent = Seen(), list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    await KeyGuard(app, settings, StreamTokens(redis, settings), frozenset({"/"}))(scope, receive, send)
    return app.scope, sent


async def test_the_scope_says_whose_call_it_is() -> None:
    scope, sent = await call(scope_of("/v1/jobs", key=KEYS["batch"]))
    assert sent == []
    assert scope is not None
    assert (scope[TENANT], TOKEN in scope) == ("batch", False)


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("token={}", ""),
        ("merge=0&token={}&last_event_id=1-2", "merge=0&last_event_id=1-2"),
        ("a=%2B&token={}&a=b+c", "a=%2B&a=b+c"),
        ("token={}&token=second", ""),
    ],
)
async def test_a_token_is_taken_out_of_the_url_and_nothing_else_is(query: str, left: str) -> None:
    token = (await StreamTokens(None, SETTINGS).make(JOB, "web")).text  # type: ignore[arg-type]  # it needs no Redis
    given = scope_of(f"/v1/jobs/{JOB}/events", query.format(token))
    scope, sent = await call(given)
    assert sent == []
    assert scope is given, "the server logs from the same one"
    assert scope["query_string"] == left.encode()
    assert (scope[TENANT], scope[TOKEN]) == ("web", token)


async def test_also_where_a_key_is_shown_beside_it() -> None:
    scope, _ = await call(scope_of("/v1/jobs", "limit=2&token=lt_x", KEYS["web"]))
    assert scope is not None
    assert (scope[TENANT], scope["query_string"]) == ("web", b"limit=2")


async def test_what_only_looks_like_a_token_stays() -> None:
    scope, _ = await call(scope_of("/v1/jobs", "my_token=1", KEYS["web"]))
    assert scope is not None
    assert scope["query_string"] == b"my_token=1"


async def test_while_redis_and_the_secret_in_it_are_away_a_reader_comes_again_and_a_call_gets_503() -> None:
    """Protocol 4.3: any other status than 200 would close an EventSource for good."""
    settings = Settings(api_keys=API_KEYS)
    stream_app, stream = await call(scope_of(f"/v1/jobs/{JOB}/events", "token=lt_x"), AwayRedis(), settings)
    call_app, snapshot = await call(scope_of(f"/v1/jobs/{JOB}", "token=lt_x"), AwayRedis(), settings)
    assert (stream_app, call_app) == (None, None)
    assert stream[0]["status"] == 200
    assert b'"type":"reconnect"' in stream[1]["body"]
    assert snapshot[0]["status"] == 503


async def test_a_key_needs_no_redis() -> None:
    redis = AwayRedis()
    scope, _ = await call(scope_of("/v1/jobs", key=KEYS["web"]), redis, Settings(api_keys=API_KEYS))
    assert scope is not None
    assert redis.asked == 0


async def test_a_secret_that_was_shared_once_stands_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.stream_tokens._LOOK_EVERY_S", 0)
    redis: Any = AwayRedis(SECRET.encode())
    tokens = StreamTokens(redis, Settings(api_keys=API_KEYS))
    made = await tokens.make(JOB, "web")
    redis.away = True
    assert await tokens.read(made.text) is not None
    assert redis.asked == 2


async def test_websockets_and_lifespans_are_none_of_its_business() -> None:
    scope, _ = await call({"type": "lifespan"})
    assert scope == {"type": "lifespan"}
