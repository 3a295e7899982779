"""No example in the documents goes unrun by accident."""

from pathlib import Path

import pytest

from tests.docs.blocks import NOT_RUN, Block, all_blocks, blocks_of, matches


@pytest.mark.parametrize("block", all_blocks(), ids=lambda block: block.where)
def test_every_block_says_what_is_done_with_it(block: Block) -> None:
    assert block.problem() is None, f"{block.where}: {block.problem()} (tests/docs/blocks.py)"


def test_every_reason_is_still_given_or_is_there_for_operators() -> None:
    given = {block.marker.partition("=")[2] for block in all_blocks() if block.marker.startswith("not-run")}
    assert given <= NOT_RUN.keys()


@pytest.mark.parametrize(
    ("fence", "problem"),
    [
        ("```\nx\n```", "the language 'is missing'"),
        ("    x", "the language 'is missing'"),
        ("```cobol run\nx\n```", "the language 'cobol'"),
        ("```sh\nx\n```", "say `sh run`"),
        ("```sh not-run\nx\n```", "not-run= is no reason"),
        ("```sh not-run=tired\nx\n```", "not-run=tired is no reason"),
        ("```nginx run\nx\n```", "nginx takes no 'run'"),
        ("- a list\n\n  ```sh\n  x\n  ```", "say `sh run`"),
    ],
)
def test_one_that_does_not_is_found(tmp_path: Path, fence: str, problem: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"words\n\n{fence}\n")
    (block,) = blocks_of(page)
    assert problem in str(block.problem())


def test_what_a_block_prints_stands_behind_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh run\necho 1\n```\n```text output\n1\n```\n\n```sh run\ntrue\n```\n")
    assert [(block.line, block.text, block.output) for block in blocks_of(page)] == [
        (1, "echo 1\n", "1\n"),
        (8, "true\n", None),
    ]


def test_an_ellipsis_is_anything_and_nothing_else_is() -> None:
    assert matches("Once upon a time \n", "Once …\n")
    assert matches("a\nb\nc\n", "…\nc\n")
    assert matches("c\n", "…\nc\n")
    assert not matches("a\nb\n", "a …\n")
    assert not matches("a.c\n", "abc\n")
    assert not matches("a\nc\nd\n", "…\nc\n")
