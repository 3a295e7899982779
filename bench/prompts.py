"""What the bench asks local models: prompts of one length, long answers, and nothing in common that a cache could share."""

from typing import Final

_SUBJECTS: Final = (
    "lighthouse keepers", "stone bridges", "paper maps", "night trains", "harbour cranes", "mountain huts", "church bells",
    "river ferries", "glass makers", "winter markets", "old libraries", "tide tables", "clock towers", "salt mines",
    "wind mills", "garden walls",
)  # fmt: skip


def prompt(i: int) -> str:
    subject = _SUBJECTS[i % len(_SUBJECTS)]
    return f"Write a long essay about {subject}."
