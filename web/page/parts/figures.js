// The figures below an answer: first token, tokens/s with its curve, tokens, attempts, and what the ids prove.
import { $, say } from "./dom.js";
import { sparkline } from "./chart.js";

const SAMPLE_MS = 500;
const SAMPLES = 60; // half a minute
const RATE_OVER = 4; // samples, so that the figure can be read while it changes
const CURVE_FROM = 3;

export class Figures {
  #counted; // tokens that the snapshot had
  #streamed = 0; // tokens that came since
  #sampled = 0;
  #samples = []; // tokens in each SAMPLE_MS
  #firstTokenS;
  #timer;

  constructor({ usage, timing }) {
    this.#counted = usage.output_tokens;
    this.#firstTokenS = timing.ttft_s;
    $("sparkline").replaceChildren();
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  /** `n` tokens came, in one frame; `sinceAsked` seconds after the job was queued. */
  count(n, sinceAsked) {
    if (this.#counted + this.#streamed === 0) this.#firstTokenS ??= sinceAsked;
    this.#streamed += n;
  }

  /** All that was counted is read again from the start. */
  startOver() {
    this.#counted = this.#streamed = this.#sampled = 0;
  }

  /** `final`, the terminal event or the ended Job, has the figures that count. */
  paint({ attempts, lost, doubled }, final) {
    const ttft = final?.timing.ttft_s ?? this.#firstTokenS;
    const rate = final ? final.timing.tokens_per_s : this.#rate();
    say($("ttft"), ttft == null ? "–" : `${ttft.toFixed(2)} s`);
    say($("rate"), rate == null ? "–" : rate.toFixed(1));
    say($("tokens"), String(final?.usage.output_tokens ?? this.#counted + this.#streamed));
    say($("attempts"), String(attempts.length));
    say($("proof"), `${lost}, ${doubled}`);
    $("proof").classList.toggle("bad", lost + doubled > 0);
  }

  stop() {
    clearInterval(this.#timer);
  }

  #rate() {
    const latest = this.#samples.slice(-RATE_OVER);
    if (latest.length < 2) return null;
    return latest.reduce((sum, tokens) => sum + tokens, 0) / ((latest.length * SAMPLE_MS) / 1000);
  }

  #sample() {
    if (this.#streamed === 0) return; // the curve begins with the first token
    this.#samples.push(this.#streamed - this.#sampled);
    this.#sampled = this.#streamed;
    if (this.#samples.length > SAMPLES) this.#samples.shift();
    if (this.#samples.length >= CURVE_FROM) $("sparkline").replaceChildren(sparkline(this.#samples));
    say($("rate"), this.#rate()?.toFixed(1) ?? "–");
  }
}
