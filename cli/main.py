"""`lastevent`: the commands, their options, and how a failure leaves them.

What a command needs is imported inside it: `lastevent --help` must not wait for a web framework, and the api lane never for
torch.
"""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_URL, SOME_ID, Host, JobId, Json, Port, RedisUrl, Url, examples
from cli.supervisor import CONFIGURATION_EXIT
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from cli.output import Output
    from shared.settings import Settings

# The panels of --help, in this order: what one starts with, what one does with it, and the parts of a deployment.
RUN, USE, TIERS = "Start here", "Jobs", "One process of a deployment"

app = typer.Typer(
    name="lastevent",
    help="Submit, stream, drop, resume, cancel: background generation for every LLM, on your own Redis.",
    epilog="Every setting is also an environment variable, LASTEVENT_…, and a line of lastevent.toml; see docs/SETTINGS.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

keys_app = typer.Typer(
    help="API keys: who may call a server that others can reach.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys_app, name="keys", rich_help_panel=TIERS)


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


@app.command(rich_help_panel=RUN, epilog=examples("lastevent up", "lastevent up --port 9000 --lanes api --api-workers 4"))
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
    allow_chaos: Annotated[
        bool, typer.Option("--allow-chaos", help="Let the page kill workers, to see that no answer is lost; loopback only.")
    ] = False,
) -> None:
    """Run everything on this machine: Redis, the web server and a worker per lane.

    Restarts what dies; Ctrl-C stops all of it within 10 seconds. Prints `ready http://…` once it serves.
    """
    from cli.up import run_up, workers_by_lane

    settings = _settings(port=port, host=host, data_dir=data_dir, redis_url=redis_url, lanes=lanes)
    workers = workers_by_lane(settings, api_workers, local_workers)
    asyncio.run(run_up(settings, workers, allow_chaos=allow_chaos))


@app.command(rich_help_panel=RUN, epilog=examples("lastevent demo", "lastevent demo --json | jq .lost"))
def demo(as_json: Json = False) -> None:
    """See a real model's answer survive a cut connection and a killed worker; about a minute."""
    from cli.demo import run_demo

    raise typer.Exit(asyncio.run(run_demo(_output(as_json))))


@app.command(rich_help_panel=RUN, epilog=examples("lastevent doctor", "lastevent doctor --json"))
def doctor(as_json: Json = False) -> None:
    """Check what must be right here, a line each: Redis, providers, models, limits. Says what to do; exit code 1 on a fail."""
    from cli.doctor import run_doctor

    try:
        settings: Settings | ConfigurationError = _settings()
    except ConfigurationError as error:
        settings = error
    raise typer.Exit(asyncio.run(run_doctor(settings, _output(as_json))))


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        'lastevent ask "Tell me about lighthouses."',
        'lastevent ask -m openai/gpt-4o-mini "Say hello." > hello.txt',
        'lastevent watch $(lastevent ask --detach "Tell me a long story.")',
    ),
)
def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
    url: Url = DEFAULT_URL,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="PROVIDER/NAME", show_default="local/smollm2-135m-instruct", help="The model to ask."
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, metavar="T", help="0 is greedy, 2 is wild.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Makes sampling repeatable.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Submit, print the job's id, and leave.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a model and stream its answer. Reconnects by itself; Ctrl-C cancels the job."""
    from cli.ask import run_ask

    asked: dict[str, object] = {"model": model or _settings().default_model, "prompt": prompt, "system": system}
    asked |= {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    raise typer.Exit(asyncio.run(run_ask(url, asked, _output(as_json), detach=detach)))


@app.command(
    rich_help_panel=USE,
    epilog=examples("lastevent jobs", "lastevent jobs --status running", "lastevent jobs --limit 500 --json"),
)
def jobs(
    status: Annotated[
        str | None,
        typer.Option(metavar="STATUS", help="Only these: queued, running, done, failed or cancelled.", show_default="all"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many, the newest first.")] = 20,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List recent jobs: state, age, tokens, model, first words. Tab-separated in a pipe."""
    from cli.jobs import run_jobs

    raise typer.Exit(asyncio.run(run_jobs(url, _output(as_json), status=status, limit=limit)))


@app.command(
    rich_help_panel=USE, epilog=examples(f"lastevent watch {SOME_ID}", f"lastevent watch {SOME_ID} --from 1-17 --json")
)
def watch(
    job_id: JobId,
    cursor: Annotated[
        str | None,
        typer.Option("--from", metavar="EVENT", help="Only what came after this event, as 1-17.", show_default="all"),
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Replay a job and follow it to its end. Ctrl-C leaves it running and says how to come back."""
    from cli.watch import run_watch

    raise typer.Exit(asyncio.run(run_watch(url, job_id, _output(as_json), cursor=cursor)))


@app.command(rich_help_panel=USE, epilog=examples(f"lastevent cancel {SOME_ID}"))
def cancel(job_id: JobId, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Cancel a job, and say what became of it. What it has written so far is kept."""
    from cli.cancel import run_cancel

    raise typer.Exit(asyncio.run(run_cancel(url, job_id, _output(as_json))))


@app.command(rich_help_panel=USE, epilog=examples(f"lastevent delete {SOME_ID}"))
def delete(job_id: JobId, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Erase a job and all its text, cancelling it first where it runs. There is no way back."""
    from cli.cancel import run_delete

    raise typer.Exit(asyncio.run(run_delete(url, job_id, _output(as_json))))


@app.command(
    rich_help_panel=USE,
    epilog=examples(
        "lastevent bench",
        "lastevent bench local/smollm2-135m-instruct openai/gpt-4o-mini --direct",
        "lastevent bench --runs 20 --chart bench.png",
    ),
)
def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Models to measure; the server's first.", show_default=False),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="Answers of each model.")] = 5,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What to ask.")] = "Tell me about lighthouses.",
    max_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Stop each answer after so many tokens.")] = 128,
    url: Url = DEFAULT_URL,
    direct: Annotated[
        bool, typer.Option("--direct", help="Call each provider's SDK from here as well: what does the queue add?")
    ] = False,
    as_json: Json = False,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw into a PNG file, with matplotlib, and not here.")
    ] = None,
) -> None:
    """Measure how soon and how fast models answer. Ctrl-C stops with what was measured."""
    from cli.bench import Plan, run_bench

    plan = Plan(prompt, tuple(models or ()), runs, max_tokens, direct)
    raise typer.Exit(asyncio.run(run_bench(plan, _settings(), url=url, json=as_json, chart=chart)))


@app.command(rich_help_panel=TIERS, epilog=examples("lastevent web --port 9000 --redis-url redis://10.0.0.5:6379/0"))
def web(
    port: Port = None,
    host: Host = None,
    redis_url: RedisUrl = None,
    chaos_fd: Annotated[int | None, typer.Option(hidden=True, help="The pipe of `up --allow-chaos`.")] = None,
) -> None:
    """Run one web process: takes jobs, serves their event streams and the page."""
    from web.main import run

    run(_settings(port=port, host=host, redis_url=redis_url), chaos_fd)


@app.command(rich_help_panel=TIERS, epilog=examples("lastevent worker --lane api --redis-url redis://10.0.0.5:6379/0"))
def worker(
    lane: Annotated[str, typer.Option(help="The lane to serve: api or local.", show_default=False)],
    redis_url: RedisUrl = None,
) -> None:
    """Run one worker: turns queued jobs of one lane into event logs."""
    from worker.main import run

    run(_settings(redis_url=redis_url), lane)


@app.command(rich_help_panel=TIERS)
def prepare() -> None:
    """Convert the local model that comes along, once, about 20 seconds; else the first local worker does it."""
    from worker.engine.model_files import bundled_model

    print(f"the model is in {bundled_model(_settings().cache_dir)}")


def _output(as_json: bool) -> "Output":
    from cli.output import Output

    return Output(as_json=as_json)


@keys_app.command("new", epilog=examples("lastevent keys new web", "lastevent keys new web --json"))
def new_key(
    name: Annotated[str, typer.Argument(help="Whose key it is: the tenant, who alone sees its jobs.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Make a key and print both halves: the key itself, once, and the entry for the server's settings."""
    from cli.keys import made_key

    print(made_key(name, as_json=as_json), end="")


def _settings(**options: object) -> "Settings":
    """The settings, with the options that were given on top."""
    from shared.settings import load_settings

    return load_settings(**{name: value for name, value in options.items() if value is not None})


if __name__ == "__main__":
    main()
