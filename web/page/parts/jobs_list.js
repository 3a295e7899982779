// The newest jobs: what was asked, how it stands. A click reads one again; open ones can be stopped, all be deleted.
import { hasEnded } from "../lastevent.js";
import { $, element, whileSeen } from "./dom.js";
import { cancel, erase, listJobs } from "./server.js";
import { STATE, age, plural } from "./words.js";

const REFRESH_MS = 10_000;
const PAGE = 12;
const SURE_MS = 4_000; // how long a second click on Delete means yes

export class JobsList {
  #shown = null; // the id of the job that the page shows
  #limit = PAGE;
  #onErased;
  #asked = 0; // only the newest answer counts

  /** `onErased` hears the id of each job that was deleted here. */
  constructor({ onErased }) {
    this.#onErased = onErased;
    $("jobs-more").addEventListener("click", () => {
      this.#limit += PAGE;
      this.refresh();
    });
    whileSeen(REFRESH_MS, () => this.refresh());
  }

  /** Marks the job that the page shows. */
  mark(id) {
    this.#shown = id;
    for (const link of $("jobs-list").querySelectorAll("a")) mark(link, link.hash === `#${id}`);
  }

  async refresh() {
    const turn = ++this.#asked;
    try {
      const { data, next } = await listJobs(Math.min(this.#limit, 100));
      if (turn === this.#asked) this.#draw(data, next !== null && this.#limit < 100);
    } catch (error) {
      this.#tell(`They cannot be listed: ${error.message}`);
    }
  }

  #draw(jobs, more) {
    this.#tell(jobs.length ? "" : "None yet. What you ask shows up here, and stays for a day.");
    const held = $("jobs-list").contains(document.activeElement) ? document.activeElement.id : null;
    $("jobs-list").replaceChildren(...jobs.map((job) => this.#item(job)));
    $("jobs-more").hidden = !more;
    if (held) $(held)?.focus();
  }

  #tell(words) {
    $("jobs-words").textContent = words;
    $("jobs-words").hidden = !words;
  }

  #item(job) {
    const link = element("a", { id: `open-${job.id}`, href: `#${job.id}` },
      element("span", { className: "title" }, job.metadata.prompt || job.text || "(no text yet)"),
      element("span", { className: "state" },
        `${STATE[job.status]} · ${age(Date.now() / 1000 - job.created_at)} ago · ${plural(job.usage.output_tokens, "token")}`));
    link.dataset.state = job.status;
    mark(link, job.id === this.#shown);
    const buttons = [this.#deleteButton(job)];
    if (!hasEnded(job)) buttons.unshift(this.#cancelButton(job));
    return element("li", {}, link, element("div", { className: "actions" }, ...buttons));
  }

  #cancelButton({ id }) {
    const button = smallButton(`cancel-${id}`, "Cancel", "Cancel this job");
    button.addEventListener("click", () => this.#call(button, () => cancel(id)));
    return button;
  }

  #deleteButton({ id }) {
    const button = smallButton(`delete-${id}`, "Delete", "Delete this job and all that is known of it");
    button.addEventListener("click", () => {
      if (button.textContent === "Sure?") {
        this.#call(button, () => erase(id).then(() => this.#onErased(id)));
        return;
      }
      button.textContent = "Sure?";
      setTimeout(() => { button.textContent = "Delete"; }, SURE_MS);
    });
    return button;
  }

  async #call(button, act) {
    button.disabled = true;
    try {
      await act();
      await this.refresh();
    } catch (error) {
      this.#tell(error.message);
      button.disabled = false;
    }
  }
}

function smallButton(id, words, title) {
  return element("button", { id, type: "button", className: "small", title }, words);
}

function mark(link, isShown) {
  if (isShown) link.ariaCurrent = "true";
  else link.removeAttribute("aria-current");
}
