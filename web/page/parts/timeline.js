// What happened to a job, drawn over time and told in lines. Two tracks: what the job does, and what this page sees of it,
// so that a dropped connection shows as what it is: nothing that the job notices.
import { $, element, oncePerFrame } from "./dom.js";
import { plural } from "./words.js";

const SHORTEST_MS = 1_000; // of the scale, while it grows
const TRACKS = { job: "Job", page: "This page" };

export class Timeline {
  #began; // ms, when the job was accepted; all is drawn from there
  #spans = []; // { track, from, to, words, item, and its tokens }; `to` null: it goes on
  #marks = []; // { at, item }
  #tracks = {};
  #paint = oncePerFrame(() => this.#draw());
  #timer = setInterval(() => this.#paint(), 250);

  /** `tracks`: which are drawn; nothing happens on the others. */
  constructor(began, tracks = Object.keys(TRACKS)) {
    this.#began = began;
    $("timeline").replaceChildren();
    for (const track of tracks) this.#tracks[track] = element("div", { className: "track" });
    $("bar").replaceChildren(...tracks.map((track) =>
      element("div", { className: "lane" }, element("span", { className: "track-name" }, TRACKS[track]), this.#tracks[track])));
    $("told").textContent = "Point at the timeline to see times and ids.";
  }

  /** Something that happened at a moment; `at` in ms, null where nobody knows: such a line has no mark. */
  note(words, { track = "job", look = "", at = Date.now(), id = null } = {}) {
    const time = at === null ? "–" : this.#since(at);
    const line = element("li", {},
      element("time", { title: at === null ? "" : clock(at) }, time), element("span", { className: look }, words));
    if (id) line.append(element("code", {}, id));
    $("timeline").append(line);
    if (at === null) return;
    const told = [time, clock(at), words, id].filter(Boolean).join(" · ");
    this.#marks.push({ at, item: this.#item(track, `mark ${look}`, () => told) });
    this.#paint();
  }

  /** Something that lasts, from now or `at` on; ends the one before it on this track. */
  begin(track, look, words, at = Date.now()) {
    this.end(track, at);
    const span = { track, from: at, to: null, words, tokens: 0, firstId: null, lastId: null, lastAt: null };
    span.item = this.#item(track, `span ${look}`, () => this.#spanWords(span));
    this.#spans.push(span);
    this.#paint();
  }

  /** What lasted on the job's track was over with its last token, though nobody knew; since then `words`. */
  interrupt(words) {
    const span = this.#lasting("job");
    if (span) this.begin("job", "shut", words, span.lastAt ?? span.from);
  }

  /** Tokens came: they belong to what lasts on the job's track. */
  tokens(n, id) {
    const span = this.#lasting("job");
    if (!span) return;
    span.tokens += n;
    span.firstId ??= id;
    span.lastId = id;
    span.lastAt = Date.now();
  }

  end(track, at = Date.now()) {
    const span = this.#lasting(track);
    if (span) span.to = Math.max(at, span.from);
    this.#paint();
  }

  /** Nothing more will happen. */
  close(at = Date.now()) {
    for (const track of Object.keys(this.#tracks)) this.end(track, at);
    this.stop();
  }

  stop() {
    clearInterval(this.#timer);
  }

  #lasting(track) {
    return this.#spans.findLast((span) => span.track === track && span.to === null);
  }

  /** A part of the picture that tells of itself when it is pointed at, touched or reached by the keyboard. */
  #item(track, look, words) {
    const item = element("span", { role: "img", tabIndex: 0, className: look });
    const tell = () => {
      $("told").textContent = item.ariaLabel = words();
    };
    for (const event of ["pointerenter", "focus", "click"]) item.addEventListener(event, tell);
    this.#tracks[track].append(item);
    item.ariaLabel = words();
    return item;
  }

  #spanWords({ from, to, words, tokens, firstId, lastId }) {
    const lasted = to === null ? `${this.#since(from)} until now` : `${this.#since(from)} to ${this.#since(to)}`;
    const what = tokens ? ` · ${plural(tokens, "token")}, ${firstId} to ${lastId}` : "";
    return `${lasted} · ${words}${what}`;
  }

  #draw() {
    const ends = [...this.#spans.map(({ to }) => to ?? Date.now()), ...this.#marks.map(({ at }) => at)];
    const grows = this.#spans.some(({ to }) => to === null);
    const length = Math.max(grows ? SHORTEST_MS : 1, ...ends.map((at) => at - this.#began));
    const share = (at) => Math.min(100, Math.max(0, ((at - this.#began) / length) * 100));
    for (const { from, to, item } of this.#spans) {
      item.style.left = `${share(from)}%`;
      item.style.width = `${share(to ?? Date.now()) - share(from)}%`;
    }
    for (const { at, item } of this.#marks) item.style.left = `${share(at)}%`;
  }

  #since(at) {
    return `+${Math.max(0, (at - this.#began) / 1000).toFixed(1)} s`;
  }
}

function clock(at) {
  const time = new Date(at).toLocaleTimeString([], { hour12: false });
  return `${time}.${String(new Date(at).getMilliseconds()).padStart(3, "0")}`;
}
