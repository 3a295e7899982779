"""Readers that are nothing but a browser's own EventSource: no library, no watchdog, no second try of our making."""

from typing import Any, NamedTuple

from playwright.async_api import Page

_FOLLOW = """
(urls) => {
  window.readers = urls.map((url) => {
    const reader = { text: "", ended: null, closed: false, opens: 0 };
    const source = new EventSource(url);
    source.onopen = () => { reader.opens += 1; };
    source.onerror = () => { reader.closed ||= source.readyState === EventSource.CLOSED; };
    source.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "rewind" || (event.type === "started" && event.reset)) reader.text = "";
      if (event.type === "token") reader.text += event.text;
      if (["done", "error", "cancelled"].includes(event.type)) {
        reader.ended = event.type;
        source.close();
      }
    };
    return reader;
  });
}
"""


class NativeReader(NamedTuple):
    """`closed`: the browser gave up, for good. `opens`: answers of 200 that it took for a stream."""

    text: str
    ended: str | None
    closed: bool
    opens: int


async def follow(page: Page, origin: str, job_ids: list[str]) -> str:
    """Opens a page of this origin and in it an EventSource a job; says which HTTP the page came by."""
    await page.goto(f"{origin}/")
    await page.evaluate(_FOLLOW, [f"/v1/jobs/{job_id}/events" for job_id in job_ids])
    protocol: str = await page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
    return protocol


async def readers(page: Page) -> list[NativeReader]:
    found: list[dict[str, Any]] = await page.evaluate("window.readers")
    return [NativeReader(**one) for one in found]
