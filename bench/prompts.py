"""What the bench asks local models: prompts of one length, long answers, none asked twice of one server.

They begin alike with what a model's chat template puts before a request that has no system message. With the bundled model that
is 24 of their 38 tokens, which an engine may share; the rest has nothing in common that a cache could share.
"""

from itertools import count
from typing import Final

_FORMS: Final = ("essay", "poem", "story", "letter")

_SUBJECTS: Final = (
    "lighthouse keepers", "stone bridges", "paper maps", "night trains", "harbour cranes", "mountain huts", "church bells",
    "river ferries", "glass makers", "winter markets", "old libraries", "tide tables", "clock towers", "salt mines",
    "wind mills", "garden walls",
)  # fmt: skip


class Prompts:
    """One server's. Calling it gives the next one; after 64 they come again."""

    def __init__(self) -> None:
        self._numbers = count()

    def __call__(self) -> str:
        form, subject = divmod(next(self._numbers), len(_SUBJECTS))
        return f"Write a long {_FORMS[form % len(_FORMS)]} about {_SUBJECTS[subject]}."
