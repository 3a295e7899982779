"""bench/growth.py: what a token costs between two moments."""

from bench.growth import ALL, Shape, Spent, _figures


def test_each_process_part_of_a_token() -> None:
    before, after = Spent(1.0, 2.0, 3.0, tokens=100), Spent(1.4, 2.1, 3.08, tokens=8_100)
    figures = _figures(before, after, window_s=4.0, late_ms=7.0)
    assert (figures["worker µs"], figures["web µs"], figures["Redis µs"]) == (50.0, 12.5, 10.0)
    assert (figures[ALL], figures["tokens/s"], figures["upstream late ms"]) == (72.5, 2000, 7.0)


def test_a_shape_in_words() -> None:
    assert (Shape(200, 4, 2).case, Shape(200, 4, 2).processes) == ("200 streams", "4 workers, 2 web")
    assert Shape(20, 1, 1).processes == "1 worker, 1 web"
