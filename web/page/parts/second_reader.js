// Another reader of the same job, which begins with the first event, whenever it comes: no reader disturbs another.
import { $, oncePerFrame, say } from "./dom.js";
import { follow } from "./server.js";

export class SecondReader {
  #reader;
  #first;
  #paint = oncePerFrame(() => this.#draw());

  /** `first` is the reader to compare with at the end. */
  constructor(job, first) {
    this.#first = first;
    this.#reader = follow(job.id, { job, cursor: "0-0" });
    $("second-reader").hidden = false;
    $("second-text").textContent = "";
    say($("second-status"), "reads from the first event");
    this.#reader.addEventListener("change", this.#paint);
    this.#reader.addEventListener("end", this.#paint);
    this.#reader.addEventListener("gone", ({ detail }) => say($("second-status"), detail.message));
    first.addEventListener("end", this.#paint);
  }

  close() {
    this.#reader.close();
    this.#first.removeEventListener("end", this.#paint);
    $("second-reader").hidden = true;
  }

  #draw() {
    const { text, cursor, outcome, lost, doubled } = this.#reader;
    const box = $("second-text");
    if (text.startsWith(box.textContent)) box.append(text.slice(box.textContent.length));
    else box.textContent = text;
    box.scrollTop = box.scrollHeight;
    say($("second-status"), outcome && this.#first.outcome
      ? `${text === this.#first.text ? "the same text, letter for letter" : "not the same text"}; lost ${lost}, doubled ${doubled}`
      : `stands at ${cursor}`);
  }
}
