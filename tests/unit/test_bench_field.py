"""A peer that is missing, or fails on the way, is said and left out; ours failing is the scenario's failure."""

from contextlib import AbstractAsyncContextManager
from typing import cast

import pytest

from bench.field import Field
from bench.figures import Row
from bench.peers import Ours, PeerMissing, Server, Stream
from bench.stage import BenchFailed, Stage


class SilentStage:
    def say(self, _text: str) -> None:
        pass


class Peer(Server):
    name = "peer"
    likely_crowd = 100

    async def start(self) -> None:
        pass

    def path_of(self, name: str) -> str:
        return f"/{name}"

    def stream(self, name: str) -> AbstractAsyncContextManager[Stream]:
        raise NotImplementedError

    def note(self) -> str:
        return f"{self.name} is one of many"


class Missing(Peer):
    name = "missing"

    async def start(self) -> None:
        raise PeerMissing("missing is not here: apt-get install missing")


class Broken(Peer):
    name = "broken"


class OursForNow(Ours):
    async def start(self) -> None:
        pass


@pytest.fixture
def field() -> Field:
    return Field(cast(Stage, SilentStage()))


async def measure(server: Server) -> Row:
    if server.name == "broken":
        raise BenchFailed("it ended")
    return Row("a case", server.name, {})


async def test_a_missing_peer_is_said_with_what_installs_it(field: Field) -> None:
    await field.start((Peer, Missing))
    assert field.absent == ["missing is not here: apt-get install missing"]
    assert field.notes() == ["peer is one of many"]


async def test_a_peer_that_fails_is_left_out_from_then_on(field: Field) -> None:
    await field.start((Broken, Peer))
    for _ in range(2):
        assert [row.server for row in await field.each((Broken, Peer), measure)] == ["peer"]
    (told,) = field.absent
    assert "broken failed" in told
    assert "it ended" in told


async def test_ours_failing_is_the_scenarios_failure(field: Field) -> None:
    await field.start((OursForNow,))

    async def fails(_: Server) -> Row:
        raise BenchFailed("it ended")

    with pytest.raises(BenchFailed, match="lastevent: it ended"):
        await field.each((Ours,), fails)
