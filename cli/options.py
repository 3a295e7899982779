"""The options that several commands share. The defaults shown are those of shared/settings.py, which `--help` does not load;
a test compares them."""

from typing import Annotated, Final

import typer

from shared.errors import ConfigurationError
from shared.ids import is_job_id

DEFAULT_URL: Final = "http://127.0.0.1:8000"
URL_VARIABLE: Final = "LASTEVENT_URL"
SOME_ID: Final = "job_7k3uhlzsyq4wvm5dntxgabc2ef"

Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        show_default="127.0.0.1",
        help="Address to serve on; one that other machines reach needs keys: see `lastevent keys`.",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, metavar="N", show_default="8000", help="TCP port to serve on; 0 picks a free one."),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        show_default="redis://127.0.0.1:6379/0",
        help="redis://, rediss://, unix:// or sentinel://; Redis 7.0 or newer.",
    ),
]
Url = Annotated[str, typer.Option(envvar=URL_VARIABLE, help="Where lastevent serves.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout instead.")]


def job_id(text: str) -> str:
    """The id, as it was typed. Raises ConfigurationError for what cannot be one."""
    if not is_job_id(text):
        raise ConfigurationError(f"{text!r} is no job's id: those are as {SOME_ID}, and `lastevent jobs` lists them")
    return text


JobId = Annotated[
    str, typer.Argument(metavar="ID", help="The job's id, as `lastevent jobs` lists it.", show_default=False, callback=job_id)
]


def examples(*lines: str) -> str:
    """The end of a command's help. Typer joins lines that no empty one stands between."""
    return "\n\n".join(("Examples:", *lines))
