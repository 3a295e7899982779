"""Every example of README.md and docs/*.md that is marked `run`, on a real web tier and real workers. Models are scripted."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.async_api import Page, Route

from shared.models import BUNDLED_MODEL
from shared.settings import load_settings
from tests.docs.blocks import PAGES, ROOT, Block, all_blocks, matches
from tests.support.browser import chromium, faultless_page
from tests.support.openai_server import OpenAIServer, answer
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, Web, running_web, running_worker
from tests.support.waiting import wait_until

SERVED_AT = "http://127.0.0.1:8000"
"""Where the documents say that Lastevent serves."""

STORY = "Once upon a time, there was a lighthouse keeper who counted the ships, and wrote them all down."
BEGINNING = "It was the best of times, it was the worst of times."
BETWEEN = "--- the next block ---"
SHIM = Path(__file__).parent / "react_shim.js"


class Scene(NamedTuple):
    """What the documents take for granted: Lastevent, and an OpenAI. `folder` is where their reader stands."""

    web: Web
    openai: OpenAIServer
    folder: Path

    def localised(self, text: str) -> str:
        assert SERVED_AT not in self.web.url
        return text.replace(SERVED_AT, self.web.url)

    async def run(self, *command: str) -> str:
        """Runs a command as a reader of the documents would; its stdout. It must end well."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "CURL_HOME": str(self.folder)}
        env |= {"LASTEVENT_URL": self.web.url, "OPENAI_BASE_URL": self.openai.url, "OPENAI_API_KEY": "none"}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, f"{err.decode()}\n{out.decode()}"
        return out.decode()


@pytest.fixture
async def scene(make_settings: Making, tmp_path: Path) -> AsyncIterator[Scene]:
    """A web process, a worker of each lane, a local model that tells a story, and an OpenAI that begins one."""
    async with AsyncExitStack() as stack:
        openai = await stack.enter_async_context(OpenAIServer())
        openai.on("gpt-4o-mini", *answer(BEGINNING))
        settings = make_settings(lanes=("api", "local"), openai_base_url=openai.url)
        await stack.enter_async_context(running_worker(settings))
        local = ScriptedProvider([f"{word} " for word in STORY.split()], pace_s=0.002, name="local")
        await stack.enter_async_context(running_worker(settings, local, lane="local"))
        _furnish(tmp_path)
        yield Scene(await stack.enter_async_context(running_web(settings)), openai, tmp_path)


def _furnish(folder: Path) -> None:
    """`lastevent` in .venv, cli/reader.py copied beside one's own code, and a curl to which a problem is a failure."""
    command = folder / ".venv" / "bin" / "lastevent"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m cli.main "$@"\n')
    command.chmod(0o755)
    shutil.copy(ROOT / "cli" / "reader.py", folder)
    (folder / ".curlrc").write_text("fail-with-body\n")


def runnable(language: str) -> list[Block]:
    return [block for block in all_blocks() if block.language == language and block.runs]


def compare(block: Block, printed: str) -> None:
    """Fails where a page says that something else is printed."""
    if block.output is not None:
        assert matches(printed, block.output), f"{block.where} prints\n{printed}"


# --- shell ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.page == page for b in runnable("sh"))], ids=lambda p: p.name)
async def test_a_page_s_shell_examples_run_one_after_the_other(scene: Scene, page: Path) -> None:
    blocks = [block for block in runnable("sh") if block.page == page]
    session = f"echo '{BETWEEN}'\n".join(block.text for block in blocks)
    printed = await scene.run("bash", "-euc", scene.localised(session))

    for block, said in zip(blocks, printed.split(f"{BETWEEN}\n"), strict=True):
        compare(block, said)
    if page.name == "README.md":
        _check_the_tour(printed)


def _check_the_tour(printed: str) -> None:
    """It prints raw streams, too long for a page; this is what they have to hold."""
    assert "urn:lastevent:problem" not in printed
    _, _dropped, resumed, replayed = printed.split("retry: ")

    first = re.search(r"id: 1-(\d+)\ndata: (.*)", resumed)
    assert first is not None
    assert int(first[1]) - json.loads(first[2]).get("n", 1) == 5, "it goes on behind 1-5, nothing left out, nothing twice"
    assert '"type":"done"' in resumed
    assert f'"text":"{STORY} "' in resumed, "the Job comes behind it"

    ids = [int(seq) for seq in re.findall(r"id: 1-(\d+)\n", replayed)]
    assert ids == list(range(len(STORY.split()) + 2)), "every single entry, from started to done"
    assert replayed.rstrip().rpartition("\n")[2].startswith('{"id":"job_'), "the other job, cancelled, comes last"


# --- Python --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", runnable("python"), ids=lambda block: block.where)
async def test_a_python_example_runs_by_itself(scene: Scene, block: Block) -> None:
    program = scene.folder / "example.py"
    program.write_text(scene.localised(block.text))
    compare(block, await scene.run(sys.executable, str(program)))


# --- in a browser --------------------------------------------------------------------------------------------------------


async def _serve(page: Page, url: str, body: str, content_type: str) -> None:
    """Adds a file to what the web tier serves."""

    async def fulfil(route: Route) -> None:
        await route.fulfill(body=body, content_type=content_type)

    await page.route(url, fulfil)


async def test_the_pages_show_what_the_guide_says_and_go_on_after_a_reload(scene: Scene) -> None:
    blocks = runnable("html")
    assert blocks
    async with chromium() as browser:
        for block in blocks:
            async with faultless_page(browser) as page:
                assert block.output is not None, f"{block.where}: say what it shows"
                await _serve(page, f"{scene.web.url}/example*", f"<!doctype html>{block.text}", "text/html")
                await page.goto(f"{scene.web.url}/example")
                await _until_shown(page, block.output)
                await page.reload()
                await _until_shown(page, block.output)


async def _until_shown(page: Page, told: str) -> None:
    async def shown() -> bool:
        return matches(await page.inner_text("body"), told)

    await wait_until(shown, message=f"{told!r} is shown")


async def test_the_react_hook_follows_a_job_and_lets_go_of_it(scene: Scene) -> None:
    (block,) = runnable("js")
    name = block.marker.partition("=")[2]
    html = f"""<!doctype html><script type="importmap">{{"imports": {{"react": "/react-shim.js"}}}}</script>
        <main></main><script type="module">
        import {{ mount }} from "react";
        import {{ submit }} from "/lastevent.js";
        import {{ Answer }} from "/{name}";
        const job = await submit({{ model: "local/{BUNDLED_MODEL}", prompt: "Tell me a story." }});
        globalThis.mounted = mount(Answer, {{ id: job.id }}, document.querySelector("main"));
        </script>"""
    async with chromium() as browser, faultless_page(browser) as page:
        await _serve(page, f"{scene.web.url}/example", html, "text/html")
        await _serve(page, f"{scene.web.url}/react-shim.js", SHIM.read_text(), "text/javascript")
        await _serve(page, f"{scene.web.url}/{name}", block.text, "text/javascript")
        await page.goto(f"{scene.web.url}/example")
        await _until_shown(page, f"{STORY}\ndone\n")
        await page.evaluate("mounted.update({ id: 'job_unknown' })")
        await _until_shown(page, "…\nThere is no job …")
        await page.evaluate("mounted.unmount()")
    await wait_until(lambda: len(scene.web.hub) == 0, message="no reader is left")


# --- settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", runnable("toml"), ids=lambda block: block.where)
def test_a_settings_example_is_taken(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lastevent.toml").write_text(block.text)
    monkeypatch.setenv("LASTEVENT_CONFIG", str(tmp_path / "lastevent.toml"))
    assert load_settings().providers
