"""What is drawn of a run, and what its tables leave to the files."""

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from bench.chart import bars, can_draw, draw, groups
from bench.figures import OURS, Finding, Row
from bench.report import tables

ROWS = [
    Row("100 readers", OURS, {"CPU": 9.0, "gaps": 0}),
    Row("100 readers", "Nchan", {"CPU": 18.0, "gaps": 0}),
    Row("alone", OURS, {"CPU": 5.0, "gaps": 0}),
    Row("quiet", OURS, {"RSS": 9.0}),
    Row("quiet", "Nchan", {"RSS": 10.0}),
]
FINDING = Finding("A", "Fan-out", ROWS, compare="CPU", unseen=["gaps"])


def text_of(shown: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(shown)
    return out.getvalue()


def test_what_stands_beside_others_is_drawn() -> None:
    (group,) = groups([FINDING])
    assert group.title == "A  100 readers: CPU"
    assert group.values == [(OURS, 9.0), ("Nchan", 18.0)]


def test_a_bar_is_as_long_as_its_figure() -> None:
    ours, nchan = text_of(bars(groups([FINDING])[0])).splitlines()[1:]
    assert (ours.count("█"), nchan.count("█")) == (20, 40)


def test_what_is_for_the_file_alone_is_in_no_table() -> None:
    shown = "".join(map(text_of, tables(FINDING)))
    assert "gaps" not in shown
    assert "× 2" in shown


def test_a_file_is_drawn_where_there_is_something_to_draw_with(tmp_path: Path) -> None:
    if not can_draw():
        pytest.skip("no matplotlib; not a dependency")
    draw(groups([FINDING]), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
