"""The search for the largest crowd, without crowds."""

import pytest

from bench.largest import largest


class Server:
    """Serves crowds up to `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[int] = []

    async def serves(self, readers: int) -> bool:
        self.asked.append(readers)
        return readers <= self.most


@pytest.mark.parametrize("most", [400, 2000, 3900, 9000])
async def test_it_comes_near_from_both_sides(most: int) -> None:
    assert most / 1.25 <= await largest(Server(most).serves, 2000, trials=9) <= most


async def test_it_asks_no_more_often_than_it_may_and_nothing_twice() -> None:
    server = Server(100_000)
    assert await largest(server.serves, 1000, trials=3) == server.asked[-1]
    assert server.asked == [1000, 1500, 2200]


async def test_a_server_that_serves_nobody_well_is_told_as_such() -> None:
    server = Server(0)
    assert await largest(server.serves, 200, trials=9) == 0
    assert len(server.asked) == len(set(server.asked))
