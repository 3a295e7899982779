// Markdown as safe DOM, while it is still being written. What a model says is hostile input, so there are three walls:
// HTML in it is text; DOMPurify lets through the few elements that Markdown makes; and the page's
// Content-Security-Policy runs no script and loads no picture of others, were something to slip past both.
import { Marked } from "../vendor/marked/marked.esm.js";
import DOMPurify from "../vendor/dompurify/purify.es.mjs";

const SAFE = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i, // no javascript:, no data:, and nothing relative: this server is not theirs
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const marked = new Marked({
  gfm: true,
  breaks: true, // models break lines where they mean it
  // No HTML: where CommonMark would read some, these find none, and it stays the text that it is.
  tokenizer: { html: () => undefined, tag: () => undefined },
  renderer: {
    // A picture would tell its server who reads, and could carry the conversation in its address. A link waits for a click.
    image({ href, text }) {
      return `<a href="${escaped(href)}">${escaped(text || href)}</a>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** A text of Markdown as a fragment that may be put into the page. */
export function render(text) {
  const fragment = DOMPurify.sanitize(marked.parse(text), SAFE);
  for (const link of fragment.querySelectorAll("a")) settle(link);
  for (const table of fragment.querySelectorAll("table")) makeScrollable(table);
  for (const code of fragment.querySelectorAll("pre")) code.tabIndex = 0; // scrolls sideways, so the keyboard must reach it
  return fragment;
}

/**
 * A growing text, shown in `box`. Blocks that can no longer change are left as they are; what is parsed anew for each
 * frame of the screen is the end of the text, from its last block on. So a long answer costs no more than a short one.
 */
export class Markdown {
  #box;
  #settled = ""; // its blocks stand in the box, before the open ones
  #settledNodes = 0;
  #shown = "";

  constructor(box) {
    this.#box = box;
    box.replaceChildren();
  }

  write(text) {
    if (text === this.#shown) return;
    if (!text.startsWith(this.#settled)) this.#startOver();
    this.#shown = text;
    this.#replaceOpen(render(this.#settle(text)));
  }

  /** The whole text once more: a link may be defined after it was used. */
  finish(text) {
    this.#startOver();
    this.#shown = text;
    this.#replaceOpen(render(text));
  }

  #startOver() {
    this.#box.replaceChildren();
    this.#settled = "";
    this.#settledNodes = 0;
  }

  /** Moves finished blocks over to the settled ones; returns the rest of the text. */
  #settle(text) {
    const open = text.slice(this.#settled.length);
    const blocks = marked.lexer(open);
    const last = blocks.findLastIndex((block) => block.type !== "space");
    const finished = blocks.slice(0, Math.max(0, last)).map((block) => block.raw).join("");
    if (!finished || !open.startsWith(finished)) return open; // the lexer has normalised it: tabs, odd line ends
    this.#replaceOpen(render(finished));
    this.#settled += finished;
    this.#settledNodes = this.#box.childNodes.length;
    return open.slice(finished.length);
  }

  #replaceOpen(fragment) {
    while (this.#box.childNodes.length > this.#settledNodes) this.#box.lastChild.remove();
    this.#box.append(fragment);
  }
}

function settle(link) {
  if (!link.hasAttribute("href")) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
}

function makeScrollable(table) {
  const frame = document.createElement("div");
  frame.className = "wide-table";
  frame.tabIndex = 0;
  table.replaceWith(frame);
  frame.append(table);
}

function escaped(text) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => names[character]);
}
