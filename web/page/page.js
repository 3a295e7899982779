// The page at /: a prompt, an answer, and what happened on the way. What follows the job is lastevent.js.
import { JobReader, cancel, getJob, hasEnded, listModels, submit } from "/lastevent.js";

const $ = (id) => document.getElementById(id);
const RETRY_MS = 2_000;

const STARTED = {
  first: "Started",
  retry: "Started again: the provider had failed",
  fallback: "Started with another model",
  handover: "Handed over: its worker is stopping",
  takeover: "Taken over: its worker was lost",
};
const DONE = {
  stop: "Done",
  length: "Done: the token limit was reached",
  budget: "Done: the token budget was reached",
  content_filter: "Done: the content filter stopped it",
  tool_calls: "Done: it asks for tools",
};

const WAITING = { queued: "Waiting for a worker", running: "Waiting for the first token" };

/** What the page shows; one at a time. */
let shown = null;

class Answer {
  #text = document.createTextNode("");
  #painting = false;
  #stopping = false;
  #began;
  #firstAt = null;
  #counted = 0; // tokens in the snapshot
  #streamed = 0; // tokens that came while the page was looking
  #seconds = null; // until the first token

  /** `asked`: just now, from here; then the times below need no clock but this one. */
  constructor(job, asked) {
    this.id = job.id;
    this.#began = asked ? Date.now() : job.created_at * 1000;
    this.#counted = job.usage.output_tokens;
    this.#seconds = job.timing.ttft_s;
    this.ended = false;
    $("text").replaceChildren(this.#text);
    $("timeline").replaceChildren();
    $("asked").textContent = recall(job.id) ?? "";
    $("asked").hidden = !$("asked").textContent;
    this.#note("Queued", asked ? null : job.created_at);
    if (job.started_at !== null) this.#note("Started", job.started_at);
    if (!asked) this.#note("Opened here");
    this.#state("running", job.text ? "Answering" : WAITING[job.status]);
    this.#follow(job);
  }

  #follow(job) {
    this.reader = new JobReader(job.id, { job });
    const on = (type, act) => this.reader.addEventListener(type, (event) => act(event.detail));
    on("frame", (frame) => this.#happened(frame));
    on("change", () => this.#paint());
    on("dropped", ({ error, cursor }) => {
      this.#note(`Dropped: ${error}`, null, "bad");
      this.#state("broken", `Connection lost, resuming from ${cursor ?? "the start"}`);
    });
    on("resumed", ({ cursor }) => {
      this.#note(`Resumed after ${cursor ?? "the start"}`);
      this.#state("running", this.#stopping ? "Stopping" : "Connected again");
    });
    on("gone", (error) => this.#end("failed", error.message));
    on("end", () => this.#finished(job));
    if (hasEnded(job)) {
      this.reader.close();
      this.#finished(job);
    }
    this.#paint();
  }

  #happened(frame) {
    if (frame.type === "started") {
      const how = `${STARTED[frame.reason] ?? frame.reason}${frame.reset ? ", from the beginning" : ""}`;
      const model = frame.reason === "fallback" ? `, ${frame.model}` : "";
      this.#note(`${how} (attempt ${frame.attempt} on ${frame.worker}${model})`);
      if (!this.#stopping) this.#state("running", "Waiting for the first token");
    } else if (frame.type === "token" || frame.type === "reasoning") {
      this.#streamed += frame.n ?? 1;
      this.#firstAt ??= this.#sawFirst();
      if (!this.#stopping) this.#state("running", frame.type === "token" ? "Answering" : "Thinking");
    } else if (frame.type === "rewind") {
      this.#note("The log had lost its end; read again from the start", null, "bad");
    }
  }

  #sawFirst() {
    if (this.#counted === 0) {
      this.#seconds ??= (Date.now() - this.#began) / 1000;
      this.#note("First token");
    }
    return performance.now();
  }

  /** Once a frame of the screen, however many tokens came in between. */
  #paint() {
    if (this.#painting) return;
    this.#painting = true;
    requestAnimationFrame(() => {
      this.#painting = false;
      if (shown !== this) return;
      const { text, refusal, reasoning, toolCalls, attempts, lost, doubled } = this.reader;
      const calls = toolCalls.map(({ function: { name, arguments: given } }) => `${name}(${given})`);
      this.#write([text + refusal, ...calls].filter(Boolean).join("\n"));
      $("reasoning").textContent = reasoning;
      $("thoughts").hidden = !reasoning;
      $("attempts").textContent = attempts.length;
      $("proof").textContent = `${lost}, ${doubled}`;
      this.#figures();
    });
  }

  /** Appends where it can: a long answer is not laid out anew for each token. */
  #write(text) {
    const { data } = this.#text;
    if (text.startsWith(data)) this.#text.appendData(text.slice(data.length));
    else this.#text.data = text;
  }

  #figures() {
    const { usage, timing } = this.reader.terminal ?? this.final ?? {};
    const elapsed = this.#firstAt === null ? 0 : (performance.now() - this.#firstAt) / 1000;
    const rate = this.ended ? timing?.tokens_per_s : elapsed > 0.5 ? this.#streamed / elapsed : null;
    const ttft = timing?.ttft_s ?? this.#seconds;
    $("ttft").textContent = ttft == null ? "–" : `${ttft.toFixed(2)} s`;
    $("rate").textContent = rate == null ? "–" : rate.toFixed(1);
    $("tokens").textContent = usage?.output_tokens ?? this.#counted + this.#streamed;
  }

  async stop() {
    if (this.ended || this.#stopping) return;
    this.#stopping = true;
    this.#note("Asked to stop");
    this.#state("running", "Stopping");
    try {
      await cancel(this.id);
    } catch (error) {
      this.#stopping = false;
      if (!this.ended) this.#state("running", `The stop did not get through: ${error.message}`);
    }
  }

  async #finished(job) {
    if (!this.reader.terminal) this.final = hasEnded(job) ? job : await getJob(this.id).catch(() => null);
    const end = this.reader.terminal ?? this.final ?? {};
    const outcome = this.reader.outcome ?? job.status;
    if (outcome === "done") this.#end("done", DONE[end.finish_reason] ?? "Done");
    else if (outcome === "cancelled") this.#end("cancelled", "Stopped. What came is kept.");
    else this.#end("failed", failure(end.error ?? end));
  }

  #end(state, words) {
    this.ended = true;
    this.#note(words, this.final?.finished_at ?? null);
    this.#state(state, words);
    this.#paint();
  }

  #state(state, words) {
    if (shown !== null && shown !== this) return;
    $("job").dataset.state = state;
    if ($("status").textContent !== words) $("status").textContent = words;
    $("answer").setAttribute("aria-busy", String(!this.ended));
    $("drop").disabled = this.ended;
    $("stop").hidden = this.ended;
    $("stop").disabled = this.#stopping;
    $("send").hidden = !this.ended;
    $("send").disabled = !this.ended || !$("model").value;
  }

  #note(words, at = null, look = "") {
    const item = document.createElement("li");
    const time = document.createElement("time");
    const what = document.createElement("span");
    const seconds = ((at === null ? Date.now() : at * 1000) - this.#began) / 1000;
    time.textContent = `+${Math.max(0, seconds).toFixed(1)} s`;
    what.textContent = words;
    what.className = look;
    item.append(time, what);
    if (shown === null || shown === this) $("timeline").append(item);
  }

  leave() {
    this.reader.close();
  }
}

function failure({ code, message }) {
  return message ? `Failed (${code}): ${message}` : "Failed";
}

function complain(words) {
  $("banner").textContent = words ?? "";
  $("banner").hidden = !words;
}

function show(job, asked = false) {
  shown?.leave();
  shown = null;
  $("empty").hidden = job !== null;
  $("job").hidden = job === null;
  if (job) {
    shown = new Answer(job, asked);
  } else {
    $("stop").hidden = true;
    $("send").hidden = false;
    $("send").disabled = !$("model").value;
  }
}

async function send() {
  const prompt = $("prompt").value.trim();
  if (!prompt || $("send").disabled) return;
  $("send").disabled = true;
  complain(null);
  try {
    const job = await submit({ model: $("model").value, prompt });
    remember(job.id, prompt);
    $("prompt").value = "";
    history.pushState(null, "", `#${job.id}`);
    show(job, true);
  } catch (error) {
    complain(error.message);
    $("send").disabled = false;
  }
}

/** Shows the job that the URL names: after a reload, a bookmark, Back. */
async function openFromUrl() {
  const id = location.hash.slice(1);
  if (id === (shown?.id ?? "")) return;
  complain(null);
  if (!id) {
    show(null);
    return;
  }
  try {
    const job = await getJob(id);
    if (location.hash.slice(1) === id) show(job);
  } catch (error) {
    show(null);
    complain(error.message);
    if (!error.isFinal) setTimeout(openFromUrl, RETRY_MS);
  }
}

function begin() {
  history.pushState(null, "", location.pathname);
  complain(null);
  show(null);
  $("prompt").value = "";
  $("prompt").focus();
}

async function loadModels(failed = false) {
  try {
    const models = await listModels();
    $("model").replaceChildren(...models.map((id) => new Option(id)));
    $("model").disabled = models.length === 0;
    $("send").disabled = models.length === 0 || (shown !== null && !shown.ended);
    if (failed) complain(null);
    if (models.length === 0) complain("The server offers no model.");
  } catch (error) {
    complain(`The models cannot be listed: ${error.message} Trying again.`);
    setTimeout(() => loadModels(true), RETRY_MS);
  }
}

// The Job does not give its prompt back; this tab remembers what it asked. Storage can be switched off.
function remember(id, prompt) {
  try {
    sessionStorage.setItem(id, prompt);
  } catch { /* then the page shows the answer alone */ }
}

function recall(id) {
  try {
    return sessionStorage.getItem(id);
  } catch {
    return null;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") shown?.stop();
});
$("stop").addEventListener("click", () => shown?.stop());
$("drop").addEventListener("click", () => shown?.reader.drop());
$("new").addEventListener("click", begin);
addEventListener("popstate", openFromUrl);
addEventListener("hashchange", openFromUrl);
addEventListener("offline", () => complain("You are offline. The job goes on; this page catches up when the network is back."));
addEventListener("online", () => complain(null));

loadModels();
openFromUrl();
