// One job on the page: reads it with lastevent.js and tells the answer, the figures and the timeline what comes.
import { hasEnded } from "../lastevent.js";
import { Answer } from "./answer.js";
import { $, oncePerFrame, say } from "./dom.js";
import { Experiments } from "./experiments.js";
import { Figures } from "./figures.js";
import { cancel, follow, getJob } from "./server.js";
import { Timeline } from "./timeline.js";
import { WAITING, endWords, startedWords } from "./words.js";

const FIRST_EVENT = "0-0"; // the cursor before it

export class JobView {
  status; // as in the Job
  stopping = false;

  #job;
  #reader;
  #answer = new Answer();
  #figures;
  #timeline;
  #experiments;
  #isReplay;
  #began; // ms
  #final = null; // the terminal event, or the Job that has ended
  #heard; // whether there was a token
  #over = false;
  #left = false;
  #onState;
  #paint = oncePerFrame(() => this.#draw());

  /** `asked`: just now and from here, so that the times need no clock but this one. `onState` hears of each change of
   *  `status`, `ended` and `stopping`. */
  constructor(job, { asked = false, onState = () => {} } = {}) {
    this.#job = job;
    this.status = job.status;
    this.#isReplay = hasEnded(job);
    this.#heard = Boolean(job.text || job.reasoning);
    this.#began = asked ? Date.now() : job.created_at * 1000;
    this.#onState = onState;
    this.#figures = new Figures(job);
    this.#timeline = new Timeline(this.#began, this.#isReplay ? ["job"] : undefined);
    $("asked").textContent = job.metadata.prompt ?? "";
    $("asked").hidden = !job.metadata.prompt;
    this.#tellWhatWas(asked);
    this.#say("running", this.#isReplay ? "Replaying" : job.text ? "Answering" : WAITING[job.status]);
    // An open job goes on from its snapshot; an ended one is read again from its first event, as any reader may at any time.
    this.#reader = follow(job.id, { job, cursor: this.#isReplay ? FIRST_EVENT : null });
    this.#listen();
    this.#experiments = new Experiments(job, this.#reader, this.#timeline);
    this.#paint();
  }

  get id() {
    return this.#job.id;
  }

  /** Whether everything of it was read. */
  get ended() {
    return this.#over;
  }

  async stop() {
    if (this.ended || this.stopping) return;
    this.stopping = true;
    this.#timeline.note("Asked to stop", { track: "page" });
    this.#say("running", "Stopping");
    try {
      await cancel(this.id);
    } catch (error) {
      this.stopping = false;
      if (!this.ended) this.#say("running", `The stop did not get through: ${error.message}`);
    }
  }

  /** Another job, or none, takes the place of this one, which goes on by itself. */
  leave() {
    this.#left = true;
    this.#reader.close();
    this.#figures.stop();
    this.#timeline.stop();
    this.#experiments.leave();
  }

  /** Of a job that was not asked from here: what its snapshot knows. */
  #tellWhatWas(asked) {
    const { created_at: created, started_at: started, attempts } = this.#job;
    this.#timeline.note("Queued", { at: this.#began, id: "0-1" });
    this.#timeline.begin("job", "wait", "waiting for a worker", this.#began);
    if (asked) this.#timeline.begin("page", "open", "reads", this.#began);
    if (asked || this.#isReplay) return;
    if (started !== null) {
      this.#timeline.note("Started", { at: started * 1000 });
      this.#timeline.begin("job", "work", `attempt ${attempts.at(-1)?.number ?? 1}`, started * 1000);
    }
    this.#timeline.begin("page", "shut", "not there", created * 1000);
    this.#timeline.begin("page", "open", "reads");
    this.#timeline.note("Opened here", { track: "page", id: this.#job.last_event_id });
  }

  #listen() {
    const on = (type, act) => this.#reader.addEventListener(type, (event) => act(event.detail));
    on("frame", (frame) => this.#happened(frame));
    on("change", () => this.#paint());
    on("dropped", ({ error, cursor }) => this.#dropped(error, cursor));
    on("resumed", ({ cursor }) => this.#resumed(cursor));
    on("gone", (error) => this.#end("failed", error.message));
    on("end", () => this.#finished());
  }

  #happened(frame) {
    if (frame.type === "started") this.#started(frame);
    else if (frame.type === "token" || frame.type === "reasoning" || frame.type === "refusal") this.#said(frame);
    else if (frame.type === "rewind") {
      this.#figures.startOver();
      this.#timeline.note("The log had lost its end; read again from the start", { track: "page", look: "bad" });
    }
  }

  #started(frame) {
    const isFirst = frame.reason === "first";
    this.status = "running";
    const at = this.#isReplay ? (isFirst ? this.#job.started_at * 1000 : null) : Date.now();
    this.#timeline.note(startedWords(frame), { at, id: frame.id, look: isFirst ? "" : "busy" });
    if (at !== null && !isFirst) this.#timeline.interrupt("silence");
    if (at !== null) this.#timeline.begin("job", "work", `attempt ${frame.attempt} on ${frame.worker}`, at);
    if (!this.stopping && !this.#isReplay) this.#say("running", WAITING.running);
  }

  #said({ type, id, n = 1 }) {
    this.#timeline.tokens(n, id);
    if (this.#isReplay) return;
    this.#figures.count(n, (Date.now() - this.#began) / 1000);
    if (!this.#heard) this.#timeline.note("First token", { id });
    this.#heard = true;
    if (!this.stopping) this.#say("running", type === "reasoning" ? "Thinking" : "Answering");
  }

  #dropped(error, cursor) {
    const at = cursor ?? "the start";
    this.#say("broken", `Connection lost, resuming from ${at}`);
    if (this.#isReplay) return;
    this.#timeline.note(`Dropped: ${error}`, { track: "page", look: "bad", id: cursor });
    this.#timeline.begin("page", "shut", "no connection");
  }

  #resumed(cursor) {
    this.#say("running", this.stopping ? "Stopping" : "Connected again");
    if (this.#isReplay) return;
    this.#timeline.note(`Resumed after ${cursor ?? "the start"}`, { track: "page" });
    this.#timeline.begin("page", "open", "reads");
  }

  async #finished() {
    this.#final = this.#reader.terminal ?? await getJob(this.id).catch(() => null);
    const { outcome } = this.#reader;
    this.#end(outcome, endWords(outcome, this.#final ?? {}));
  }

  #end(state, words) {
    if (this.#left) return;
    const at = this.#isReplay ? this.#job.finished_at * 1000 : Date.now();
    this.#over = true;
    this.status = state;
    this.#timeline.note(words, { at, id: this.#reader.cursor, look: state === "failed" ? "bad" : "good" });
    this.#timeline.close(at);
    this.#figures.stop();
    this.#experiments.end();
    this.#say(state, words);
    this.#paint();
  }

  #say(state, words) {
    if (this.#left) return;
    $("job").dataset.state = state;
    say($("status"), words);
    this.#onState();
  }

  #draw() {
    if (this.#left) return;
    this.#answer.paint(this.#reader, this.ended);
    this.#figures.paint(this.#reader, this.ended ? this.#final : null);
  }
}
