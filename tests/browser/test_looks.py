"""How the page looks, as far as a test can say: narrow windows, colours, the keyboard. Its pictures are kept for people in
tests/artifacts/."""

import time
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.page import answer, ask, overflow, status
from tests.support.scripted_sse import ScriptedServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
GROUNDS = {"light": "rgb(246, 247, 246)", "dark": "rgb(16, 22, 21)"}
CONTRASTS = """
    () => {
        const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
        const light = (color) => {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = color;
            canvas.fillRect(0, 0, 1, 1);
            const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
            const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (node) => {
            const color = getComputedStyle(node).backgroundColor;
            return color === "rgba(0, 0, 0, 0)" && node.parentElement ? ground(node.parentElement) : color;
        };
        const ratio = (node) => {
            const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
            return (pair[0] + 0.05) / (pair[1] + 0.05);
        };
        const says = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        return [...document.querySelectorAll("body *")]
            .filter((node) => says(node) && node.checkVisibility({ opacityProperty: true }) && !node.disabled)
            .filter((node) => ratio(node) < 4.5)
            .map((node) => `${node.localName}#${node.id}.${node.className}: ${ratio(node).toFixed(2)}`);
    }
"""


def operations() -> dict[str, Any]:
    """A busy quarter of an hour, with a hole in it."""
    now = time.time()
    worker = {"lane": "api", "host": "app-1", "pid": 4211, "slots": 200, "started_at": now - 8000}
    return {
        "at": now,
        "lanes": [
            {"lane": "api", "queued": 7, "oldest_s": 90.0, "running": 143, "slots": 400},
            {"lane": "local", "queued": 0, "oldest_s": None, "running": 0, "slots": 8},
        ],
        "workers": [{**worker, "id": "api-18ab23f0", "running": 81}, {**worker, "id": "api-9977aa01", "running": 62}],
        "web": {"streams": 148, "readers": 322},
        "history": {
            "step_s": 15,
            "at": [now - 15 * (59 - i) for i in range(60)],
            "ttft_p50_s": [None if i in (20, 21) else 0.3 + 0.01 * (i % 5) for i in range(60)],
            "ttft_p99_s": [None if i in (20, 21) else 0.9 + 0.1 * (i % 7) for i in range(60)],
            "tokens_per_s": [2400 + 60 * (i % 9) for i in range(60)],
            "finished": [11] * 60,
        },
        "errors": {"timeout": 3, "rate_limit": 12},
    }


def quiet() -> dict[str, Any]:
    now = time.time()
    nothing = [None] * 60
    return {
        "at": now,
        "lanes": [{"lane": "api", "queued": 0, "oldest_s": None, "running": 0, "slots": 0}],
        "workers": [],
        "web": {"streams": 0, "readers": 0},
        "history": {
            "step_s": 15, "at": [now] * 60, "ttft_p50_s": nothing, "ttft_p99_s": nothing, "tokens_per_s": nothing,
            "finished": [0] * 60,
        },
        "errors": {},
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_overflows_at_320_px_and_every_text_has_contrast(server: ScriptedServer, page: Page, scheme: Any) -> None:
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": 320, "height": 700})
    server.models = ["local/" + "a-very-long-model-name-" * 6]
    job = await ask(page, server, "w" * 200)
    job.start()
    job.say("unbroken" * 40, "\n\n    code  with   spaces " * 8, "\n\n" + "| wide " * 20 + "|\n" + "|---" * 20 + "|\n\nend")
    await expect(answer(page)).to_contain_text("end")
    await page.get_by_role("button", name="Open a second reader").click()
    await page.get_by_text("Options", exact=True).click()
    await expect(page.locator("#second-text")).to_contain_text("end")
    assert await overflow(page) == 0
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    assert await page.evaluate(CONTRASTS) == []
    job.end("error", code="internal", message="m" * 200, retryable=False, partial=True)
    await expect(status(page)).to_contain_text("Failed")
    assert await overflow(page) == 0
    assert await page.evaluate(CONTRASTS) == []


class TestOperations:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_how_things_stand_in_a_wide_and_a_narrow_window(
        self, server: ScriptedServer, page: Page, scheme: Any
    ) -> None:
        await page.emulate_media(color_scheme=scheme)
        server.operations = operations()
        await page.goto(f"{server.url}/#/ops")
        await expect(page.locator("#ops-totals")).to_contain_text("Readers322")
        await expect(page.locator("#ops-lanes tr", has_text="api")).to_contain_text("71 min143 of 400")
        await expect(page.locator("#ops-workers tbody tr")).to_have_count(2)
        await expect(page.locator("#ops-errors tbody tr").first).to_have_text("rate_limit12")
        assert await page.locator("#ops-ttft svg polyline.line-0").count() == 2, "a hole in the line where nothing finished"
        await expect(page.locator("#ops-ttft table caption")).to_have_text("Time to first token")
        await expect(page.locator("#ops-ttft table tr")).to_have_count(59)
        assert await page.evaluate(CONTRASTS) == []
        ARTIFACTS.mkdir(exist_ok=True)
        await page.screenshot(path=ARTIFACTS / f"operations-{scheme}.png", full_page=True)
        await page.set_viewport_size({"width": 320, "height": 700})
        assert await overflow(page) == 0

    async def test_a_quiet_server_says_so(self, server: ScriptedServer, page: Page) -> None:
        server.operations = quiet()
        await page.goto(f"{server.url}/#/ops")
        await expect(page.locator("#ops-ttft")).to_have_text("Nothing finished in the last 15 minutes.")
        await expect(page.locator("#ops-workers")).to_contain_text("No worker is live")
        await expect(page.locator("#ops-errors")).to_have_text("None.")

    async def test_what_cannot_be_had_is_said_and_leaving_stops_the_asking(self, server: ScriptedServer, page: Page) -> None:
        await page.goto(f"{server.url}/#/ops")
        await expect(page.locator("#ops-words")).to_contain_text("no call /v1/operations")
        job = server.job(prompt="Back to me")
        await page.get_by_role("link", name="Ask").click()
        await expect(page.get_by_label("Your prompt")).to_be_visible()
        await expect(page.locator("#ops")).to_be_hidden()
        assert job.id in server.jobs


async def test_the_keyboard_reaches_what_the_mouse_does(server: ScriptedServer, page: Page) -> None:
    server.chaos = {"worker": "api-1", "pid": 1}
    job = await ask(page, server)
    job.start()
    job.say("Hello")
    await expect(answer(page)).to_have_text("Hello")
    await page.get_by_label("Your prompt").focus()
    reached = []
    for _ in range(24):
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate("document.activeElement.id || document.activeElement.className"))
    for part in ("model", "stop", "drop", "reload", "second", "kill", "new", f"open-{job.id}", f"cancel-{job.id}"):
        assert part in reached, f"{part} is not among {reached}"
    assert any(part.startswith("mark") for part in reached), "the timeline tells by the keyboard too"
