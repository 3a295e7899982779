"""`lastevent`: the commands, their options, and how a failure leaves them.

What a command needs is imported inside it: `lastevent --help` must not wait for a web framework, and the api lane never for
torch.
"""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.supervisor import CONFIGURATION_EXIT
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from shared.settings import Settings

INTERRUPTED_EXIT = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="lastevent",
    help="Submit, stream, drop, resume, cancel: background generation for every LLM, on your own Redis.",
    epilog="Every setting is also an environment variable, LASTEVENT_…, and a line of lastevent.toml; see docs/SETTINGS.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The console script. A configuration error is one line and exit code 2; Ctrl-C is 130; a bug keeps its traceback."""
    try:
        app()
    except ConfigurationError as error:
        print(f"lastevent: {error}", file=sys.stderr)
        sys.exit(CONFIGURATION_EXIT)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"lastevent {version('lastevent')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


# The defaults shown are those of shared/settings.py, which --help does not load; a test compares them.
Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        show_default="127.0.0.1",
        help="Address to serve on; one that other machines reach needs LASTEVENT_ALLOW_REMOTE=1.",
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


@app.command()
def up(
    port: Port = None,
    host: Host = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where its Redis keeps the data.", show_default="~/.local/share/lastevent"),
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Use this Redis (7.0 or newer) instead of starting one.")
    ] = None,
    lanes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", show_default="api,local", help="Lanes to run: api waits for providers, local computes."),
    ] = None,
    api_workers: Annotated[int, typer.Option(min=0, metavar="N", help="Worker processes of the lane api.")] = 1,
    local_workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Worker processes of the lane local; each loads the model, about 1 GB.")
    ] = 1,
) -> None:
    """Run everything on this machine: Redis, the web server and a worker per lane.

    Restarts what dies; Ctrl-C stops all of it within 10 seconds. Prints `ready http://…` once it serves.
    """
    from cli.up import run_up, workers_by_lane

    settings = _settings(port=port, host=host, data_dir=data_dir, redis_url=redis_url, lanes=lanes)
    asyncio.run(run_up(settings, workers_by_lane(settings, api_workers, local_workers)))


@app.command()
def web(port: Port = None, host: Host = None, redis_url: RedisUrl = None) -> None:
    """Run one web process: takes jobs, serves their event streams and the page."""
    from cli.ports import check_exposure

    settings = _settings(port=port, host=host, redis_url=redis_url)
    check_exposure(settings)
    from web.main import run

    run(settings)


@app.command()
def worker(
    lane: Annotated[str, typer.Option(help="The lane to serve: api or local.", show_default=False)],
    redis_url: RedisUrl = None,
) -> None:
    """Run one worker: turns queued jobs of one lane into event logs."""
    from worker.main import run

    run(_settings(redis_url=redis_url), lane)


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
    url: Annotated[str, typer.Option(envvar="LASTEVENT_URL", help="Where lastevent serves.")] = "http://127.0.0.1:8000",
    model: Annotated[
        str | None, typer.Option(metavar="PROVIDER/NAME", show_default="local/smollm2-135m-instruct", help="The model to ask.")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, metavar="T", help="0 is greedy, 2 is wild.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Makes sampling repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished Job as JSON instead.")] = False,
) -> None:
    """Ask a model and stream its answer. Reconnects by itself; Ctrl-C cancels the job."""
    from cli.ask import run_ask

    answer = run_ask(
        prompt,
        url=url,
        model=model or _settings().default_model,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        as_json=as_json,
    )
    raise typer.Exit(asyncio.run(answer))


@app.command()
def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Models to measure; the server's first.", show_default=False),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="Answers of each model.")] = 5,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What to ask.")] = "Tell me about lighthouses.",
    max_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Stop each answer after so many tokens.")] = 128,
    url: Annotated[str, typer.Option(envvar="LASTEVENT_URL", help="Where lastevent serves.")] = "http://127.0.0.1:8000",
    direct: Annotated[
        bool, typer.Option("--direct", help="Call each provider's SDK from here as well: what does the queue add?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead.")] = False,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw into a PNG file, with matplotlib, and not here.")
    ] = None,
) -> None:
    """Measure how soon and how fast models answer. Ctrl-C stops with what was measured."""
    from cli.bench import Plan, run_bench

    plan = Plan(prompt, tuple(models or ()), runs, max_tokens, direct)
    raise typer.Exit(asyncio.run(run_bench(plan, _settings(), url=url, json=as_json, chart=chart)))


@app.command()
def prepare() -> None:
    """Convert the local model that comes along, once, about 20 seconds; else the first local worker does it."""
    from worker.engine.model_files import bundled_model

    print(f"the model is in {bundled_model(_settings().cache_dir)}")


@app.command()
def demo() -> None:
    """See a real model's answer survive a cut connection and a killed worker; about a minute."""
    from cli.demo import run_demo

    raise typer.Exit(asyncio.run(run_demo()))


def _settings(**options: object) -> "Settings":
    """The settings, with the options that were given on top."""
    from shared.settings import load_settings

    return load_settings(**{name: value for name, value in options.items() if value is not None})


if __name__ == "__main__":
    main()
