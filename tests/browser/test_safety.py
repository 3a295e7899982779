"""What a model says is hostile input: nothing of it runs, loads, or becomes more than the Markdown that it may be."""

import json

import pytest
from playwright.async_api import Page, expect

from tests.support.page import answer, ask, status
from tests.support.scripted_sse import ScriptedServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

HIT = "document.title='hit'"
VECTORS = [
    f'<img src=x onerror="{HIT}">',
    f"<script>{HIT}</script>",
    f"<svg/onload={HIT}>",
    f'<svg><script href="data:text/javascript,{HIT}"/></svg>',
    f"<math><mtext><table><mglyph><style><!--</style><img src=x onerror={HIT}>",
    f'<iframe srcdoc="<script>parent.{HIT}</script>"></iframe>',
    f"<details open ontoggle={HIT}>x</details>",
    f"<form><button formaction=javascript:{HIT}>x</button></form>",
    f"<a href=javascript:{HIT}>x</a>",
    "<style>@import 'x'; body { display: none }</style><base href=//x.example/>",
    f'<meta http-equiv=refresh content="0;url=javascript:{HIT}">',
    f"<code><img src=x onerror={HIT}></code><noscript><p title='</noscript><img src=x onerror={HIT}>'>",
    f"[x](javascript:{HIT})",
    f"[x](JaVa\tScript:{HIT})",
    f"[x](&#106;avascript:{HIT})",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    f'[x](https://x.example/" onmouseover="{HIT})',
    '[x](/v1/jobs "relative")',
    "![x](https://x.example/?secret)",
    f'![x" onerror="{HIT}](x)',
    f"<javascript:{HIT}>",
    f"[x]: javascript:{HIT}\n\n[x]",
    f'```"><img src=x onerror={HIT}>\n</code></pre><img src=x onerror={HIT}>\n```',
    f"| <img src=x onerror={HIT}> |\n|---|\n| <img src=x onerror={HIT}> |",
    f"# <img src=x onerror={HIT}>\n- <img src=x onerror={HIT}>\n> <img src=x onerror={HIT}>",
    "<div id=text></div><input name=form><a id=status name=getElementById>x</a>",
    "\u202e<img src=x>\u0000<img src=x>&lt;img src=x&gt;",
]
WHAT_IS_THERE = """
    (box) => {
        const nodes = [...box.querySelectorAll("*")];
        return {
            tags: [...new Set(nodes.map((node) => node.localName))].sort(),
            attributes: [...new Set(nodes.flatMap((node) => [...node.attributes].map((attribute) => attribute.name)))].sort(),
            links: [...new Set(nodes.filter((node) => node.href).map((node) => node.protocol))].sort(),
        };
    }
"""


async def test_no_vector_runs_loads_or_becomes_an_element(server: ScriptedServer, page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    job = await ask(page, server)
    job.start()
    for i, vector in enumerate(VECTORS):
        for start in range(0, len(vector), 7):  # in pieces, as a model would say it
            job.say(vector[start : start + 7])
        job.say(f"\n\nend {i}\n\n")
        if i % 5 == 0:
            await expect(answer(page)).to_contain_text(f"end {i}")
    job.end(finish_reason="stop")
    await expect(status(page)).to_have_text("Done")
    there = await answer(page).evaluate(WHAT_IS_THERE)
    assert set(there["tags"]) <= {
        "a",
        "blockquote",
        "br",
        "code",
        "div",
        "h1",
        "li",
        "p",
        "pre",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    }
    assert set(there["attributes"]) <= {"class", "href", "rel", "tabindex", "target", "title"}
    assert there["links"] == ["https:"]
    await expect(answer(page)).to_contain_text(VECTORS[0])
    assert await page.title() == "Lastevent"
    assert all(url.startswith(server.url) for url in requests)
    for link in await answer(page).locator("a").all():
        assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
        assert await link.get_attribute("target") == "_blank"


async def test_what_stands_elsewhere_is_never_markup_either(server: ScriptedServer, page: Page) -> None:
    hostile = f'<img src=x onerror="{HIT}"></span><h1>x</h1>&amp;'
    server.operations = None
    job = await ask(page, server, hostile)
    job.model = hostile
    job.start(1, hostile)
    job.say(hostile, kind="reasoning")
    job.add("1-2", "tool_call", index=0, id=hostile, name=hostile, arguments=json.dumps({hostile: hostile}))
    job.end("error", code="internal", message=hostile, retryable=False, partial=True)
    await expect(status(page)).to_contain_text("Failed (internal): <img")
    await expect(page.locator("#asked")).to_have_text(hostile)
    await expect(page.locator("#reasoning")).to_have_text(hostile)
    await expect(page.locator("#tools figcaption")).to_have_text(f"Calls {hostile}")
    await expect(page.get_by_role("complementary").get_by_role("link")).to_contain_text("<img")
    assert await page.locator("main h1:visible, main img, main script").count() == 0
    assert await page.title() == "Lastevent"


async def test_text_becomes_markup_through_the_sanitiser_alone(server: ScriptedServer, page: Page) -> None:
    """The page's own policy, which this server sends as the real one does."""
    await page.goto(server.url)
    blocked = """
        ["innerHTML", "outerHTML"].map((sink) => {
            try { document.createElement("p")[sink] = "<b>x</b>"; return "went through"; } catch (error) { return error.name; }
        })
    """
    assert await page.evaluate(blocked) == ["TypeError", "TypeError"]
