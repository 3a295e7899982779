/**
 * lastevent.js: follows a job's event stream to its end, through any number of lost connections, in a browser.
 * One ES module, no dependencies, made to be copied. It keeps every rule of docs/PROTOCOL.md, section 4.
 *
 *     import { submit, cancel, JobReader } from "/lastevent.js";
 *
 *     const job = await submit({ model: "local/smollm2-135m-instruct", prompt: "Tell me a story." });
 *     const reader = new JobReader(job.id, { job });
 *     reader.addEventListener("change", () => { box.textContent = reader.text; });
 *     reader.addEventListener("end", () => { console.log(reader.outcome, reader.lost, reader.doubled); });
 *     reader.addEventListener("gone", (event) => { console.log(event.detail.message); });
 *     stopButton.onclick = () => cancel(job.id);
 *
 * After a reload, go on where the job is: `new JobReader(id, { job: await getJob(id) })`.
 *
 * A server with keys: every call and the reader take `{ key }`. An EventSource sends no headers, so the Job's `events_url`
 * carries a token that reads this job alone; give the reader the job that `submit` or `getJob` answered. A token that has
 * expired is replaced by asking for the job again.
 *
 * Events of a reader, each a CustomEvent:
 *
 *     frame    each event of the stream as it is taken in; detail: its data, with the event's `id` put in
 *              (a tool_call's own id is then its `call_id`)
 *     change   text, reasoning, refusal, toolCalls or attempts are others than before
 *     dropped  a connection broke or was cut; detail: { error, cursor }. The reader comes back by itself
 *     resumed  it is back; detail: { cursor }
 *     end      the job has ended and everything was read; no more events
 *     gone     the server says no for good (unknown or erased job, no right to it); detail: an Error; no more events
 *
 * HTTP/1.1 gives a browser six connections to one host, and each reader holds one: put HTTP/2 in front for more.
 */

const TERMINAL = new Set(["done", "error", "cancelled"]);
const STATUS_OF = { done: "done", error: "failed", cancelled: "cancelled" };
const HEARTBEAT_MS = 15_000; // the server's longest silence (protocol 4.6)
const SETTLED_MS = 500; // a server that only says "come again" has said it by then
const RETRY_MS = 1_000; // how soon a reader that closed its own connection opens the next
const MAX_BACKOFF_MS = 15_000;
const ANSWER_MS = 30_000; // a call without an answer for so long has none
const SUBMIT_TRIES = 3;

/** An answer other than 2xx. `status` is 0 where there was none; `problem` is the server's problem+json, or {}. */
export class RequestFailed extends Error {
  constructor(status, problem = {}) {
    const fields = (problem.errors ?? []).map((e) => (e.field ? `${e.field}: ${e.message}` : e.message));
    super(fields.join("; ") || problem.detail || problem.title || (status ? `HTTP ${status}` : "The server does not answer."));
    this.name = "RequestFailed";
    this.status = status;
    this.problem = problem;
  }

  /** Whether asking again, unchanged, would get the same answer. */
  get isFinal() {
    return this.status >= 400 && this.status < 500 && ![408, 425, 429].includes(this.status);
  }
}

/** Submits a job (protocol 2.1) and returns it. Where an answer is lost it asks again: one key, one job. */
export async function submit(request, { idempotencyKey = randomKey(), ...options } = {}) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey };
  for (let tries = 1; ; tries += 1) {
    try {
      return await call("/v1/jobs", { ...options, method: "POST", headers, body: JSON.stringify(request) });
    } catch (error) {
      if (error.status !== 0 || tries === SUBMIT_TRIES) throw error;
      await new Promise((resolve) => { setTimeout(resolve, RETRY_MS * tries); });
    }
  }
}

/** Asks the server to stop a job; its stream then ends with whichever terminal event was first. */
export function cancel(id, options = {}) {
  return call(`/v1/jobs/${encodeURIComponent(id)}/cancel`, { ...options, method: "POST" });
}

/** The job as it stands (protocol 2.2). */
export function getJob(id, options = {}) {
  return call(`/v1/jobs/${encodeURIComponent(id)}`, options);
}

/** Whether a job will change no more. */
export function hasEnded(job) {
  return Object.values(STATUS_OF).includes(job.status);
}

/** The models that the server offers, the default one first. */
export async function listModels(options = {}) {
  return (await call("/v1/models", options)).data;
}

/** Any call of the server: its answer's JSON, or {} where there is none. Throws RequestFailed. */
export async function call(path, { base = "", key = null, headers = {}, ...options } = {}) {
  const credentials = key ? { Authorization: `Bearer ${key}` } : {};
  const request = { signal: AbortSignal.timeout(ANSWER_MS), ...options, headers: { ...headers, ...credentials } };
  const response = await fetch(base + path, request).catch(() => { throw new RequestFailed(0); });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new RequestFailed(response.status, body);
  return body;
}

export class JobReader extends EventTarget {
  text = "";
  reasoning = "";
  refusal = "";
  attempts = []; // the `started` events
  cursor = null; // the id of the last event taken in: all that must be remembered
  outcome = null; // "done", "failed" or "cancelled", once it has ended
  terminal = null; // the terminal event, if this reader saw it itself
  connections = 0;
  lost = 0; // entries, proved from the ids: within an attempt, seq === previous seq + n (protocol 3)
  doubled = 0;

  #calls = new Map(); // index → call
  #id;
  #options; // of its calls: base, key
  #eventsUrl;
  #source = null;
  #silenceMs;
  #watchdog = null; // fires when nothing came for #silenceMs
  #reopening = null;
  #failures = 0;
  #broken = false; // between "dropped" and "resumed"
  #settling = null;
  #sentAway = null; // why, once the server has said `reconnect`
  #reread = new Set(); // the `started` events that made it read again from the start
  #seenAt = 0;
  #wake = () => this.#woken();

  /** Goes on from `job`, a snapshot from submit or getJob; or from `cursor`, "0-0" being the first event, without its text. */
  constructor(id, { job = null, cursor = null, base = "", key = null, silenceMs = 3 * HEARTBEAT_MS } = {}) {
    super();
    this.#id = id;
    this.#options = { base, key };
    this.#eventsUrl = job?.events_url ?? `/v1/jobs/${encodeURIComponent(id)}/events`;
    this.#silenceMs = silenceMs;
    this.cursor = cursor;
    if (job && cursor === null) this.#adopt(job);
    document.addEventListener("visibilitychange", this.#wake);
    addEventListener("online", this.#wake);
    queueMicrotask(() => this.#open()); // after the caller has added its listeners
  }

  /** In the Job's own form, in the order of their index. */
  get toolCalls() {
    return [...this.#calls].sort(([a], [b]) => a - b).map(([, call]) => call);
  }

  /** Cuts the connection, as a network would. The reader comes back after a second. */
  drop() {
    if (this.#source) this.#lose("cut by the reader");
  }

  /** Stops following. The job goes on. */
  close() {
    this.#closeSource();
    clearTimeout(this.#reopening);
    this.#reopening = "closed";
    document.removeEventListener("visibilitychange", this.#wake);
    removeEventListener("online", this.#wake);
  }

  get #closed() {
    return this.#reopening === "closed";
  }

  #open() {
    if (this.#closed) return;
    this.#closeSource();
    clearTimeout(this.#reopening);
    this.#reopening = null;
    const source = new EventSource(this.#nextUrl());
    this.#source = source;
    source.onopen = () => this.#opened();
    source.onmessage = (message) => this.#received(message);
    source.onerror = () => this.#failed(source);
    this.#alive();
  }

  /** A new EventSource knows no last event id, so the cursor goes into the URL; when it reconnects by itself it sends the
   *  header, which wins (protocol 4.1). */
  #nextUrl() {
    const query = new URLSearchParams({ heartbeat: "event" });
    if (this.cursor) query.set("last_event_id", this.cursor);
    return `${this.#options.base}${this.#eventsUrl}${this.#eventsUrl.includes("?") ? "&" : "?"}${query}`;
  }

  #closeSource() {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#settling);
    this.#source?.close();
    this.#source = null;
  }

  #opened() {
    this.connections += 1;
    this.#alive();
    this.#sentAway = null;
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#resumed(), SETTLED_MS);
  }

  #resumed() {
    clearTimeout(this.#settling);
    if (this.#broken) this.#tell("resumed", { cursor: this.cursor });
    this.#broken = false;
  }

  /** A sleeping tab or laptop can hold a socket that has long been dead and never says so. */
  #alive() {
    this.#seenAt = Date.now();
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lose("the connection fell silent"), this.#silenceMs);
  }

  #woken() {
    if (document.hidden || this.#closed) return;
    if (this.#source && Date.now() - this.#seenAt > this.#silenceMs) this.#lose("asleep for too long");
    if (!this.#source || this.#source.readyState === EventSource.CONNECTING) this.#open();
  }

  async #failed(source) {
    if (source !== this.#source) return;
    const why = this.#sentAway ?? "the connection broke";
    if (source.readyState !== EventSource.CLOSED) {
      clearTimeout(this.#settling);
      this.#tellDropped(why); // it reconnects by itself, after `retry:`
      return;
    }
    // CLOSED is final for an EventSource, but may have been a 204 past the end, a 404, a token that has expired, or a
    // proxy's bad moment.
    this.#closeSource();
    const { job = null, error = null } = await this.#ask();
    if (this.#closed || this.#source) return;
    if (job) this.#eventsUrl = job.events_url;
    if (job && hasEnded(job) && job.last_event_id === this.cursor) this.#finish(job.status);
    else if (error?.isFinal) this.#leave(error);
    else this.#lose(why);
  }

  async #ask() {
    try {
      return { job: await getJob(this.#id, this.#options) };
    } catch (error) {
      return { error };
    }
  }

  /** Ends this connection; the next comes after a while. */
  #lose(error) {
    this.#closeSource();
    this.#tellDropped(error);
    this.#openLater();
  }

  #openLater() {
    const grown = Math.min(RETRY_MS * 2 ** this.#failures, MAX_BACKOFF_MS);
    this.#failures += 1;
    clearTimeout(this.#reopening);
    this.#reopening = setTimeout(() => this.#open(), grown * (0.75 + Math.random() / 2));
  }

  #tellDropped(error) {
    if (!this.#broken) this.#tell("dropped", { error, cursor: this.cursor });
    this.#broken = true;
  }

  #received(message) {
    this.#alive();
    let frame;
    try {
      frame = JSON.parse(message.data);
    } catch {
      this.#lose("what came is not an event of this protocol");
      return;
    }
    // EventSource repeats the last id on frames that have none of their own; those are the ones that are not in the log.
    if (!["rewind", "reconnect", "heartbeat"].includes(frame.type)) {
      if ("id" in frame) frame.call_id = frame.id;
      frame.id = message.lastEventId;
    }
    this.#take(frame);
  }

  #take(frame) {
    if (frame.type === "reconnect") {
      this.#sentAway = frame.reason;
    } else {
      this.#failures = 0;
      this.#resumed();
    }
    if (frame.type === "rewind") this.#forget();
    const isNew = frame.id !== undefined && !this.#seen(frame);
    if (isNew && this.#misfits(frame)) return;
    if (isNew) {
      this.cursor = frame.id;
      this.#apply(frame);
    }
    this.#tell("frame", frame);
    if (isNew || frame.type === "rewind") this.#tell("change");
    if (isNew && TERMINAL.has(frame.type)) this.#finish(STATUS_OF[frame.type]);
  }

  /** Accounts for the entries that the frame stands for; true if all of them had been taken in before. */
  #seen({ id, n = 1 }) {
    const [attempt, last] = parseId(id);
    const [ownAttempt, ownLast] = parseId(this.cursor ?? "0-0");
    if (attempt < ownAttempt || (attempt === ownAttempt && last <= ownLast)) {
      this.doubled += n;
      return true;
    }
    const gap = last - n - (attempt === ownAttempt ? ownLast : -1);
    this.lost += Math.max(0, gap);
    this.doubled += Math.max(0, -gap);
    return false;
  }

  /** A `started` that follows something else than what was read: something was missed or outrun. Reads again from the
   *  start; once for each attempt, for what a whole replay does not mend, a second will not. */
  #misfits(frame) {
    if (frame.type !== "started" || frame.after === (this.cursor ?? "0-0")) return false;
    if (this.#reread.has(frame.id)) {
      this.lost += 1;
      return false;
    }
    this.#reread.add(frame.id);
    this.#forget();
    this.#tell("change");
    this.#open();
    return true;
  }

  #apply(frame) {
    if (frame.type === "token") this.text += frame.text;
    else if (frame.type === "reasoning") this.reasoning += frame.text;
    else if (frame.type === "refusal") this.refusal += frame.text;
    else if (frame.type === "tool_call") this.#joinToolCall(frame);
    else if (frame.type === "started") {
      this.attempts.push(frame);
      if (frame.reset) this.#discard();
    } else if (TERMINAL.has(frame.type)) this.terminal = frame;
  }

  #joinToolCall(frame) {
    const call = this.#calls.get(frame.index) ?? { id: null, type: "function", function: { name: null, arguments: "" } };
    this.#calls.set(frame.index, call);
    call.id = frame.call_id ?? call.id;
    call.function.name = frame.name ?? call.function.name;
    call.function.arguments += frame.arguments ?? "";
  }

  #adopt(job) {
    this.text = job.text;
    this.reasoning = job.reasoning;
    this.#calls = new Map(job.tool_calls.entries());
    this.attempts = job.attempts.map(({ number, ...attempt }) => ({ attempt: number, ...attempt }));
    this.cursor = job.last_event_id;
  }

  #discard() {
    this.text = this.reasoning = this.refusal = "";
    this.#calls = new Map();
  }

  #forget() {
    this.#discard();
    this.attempts = [];
    this.cursor = null;
  }

  #finish(status) {
    this.outcome = status;
    this.close();
    this.#tell("end");
  }

  #leave(error) {
    this.close();
    this.#tell("gone", error);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function parseId(id) {
  return id.split("-").map(Number);
}

function randomKey() {
  // Not crypto.randomUUID: that one is missing on pages served over plain HTTP.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
