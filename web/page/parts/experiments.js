// The buttons to see it for yourself: each takes something away from the answer that is coming, and it comes all the same.
import { $ } from "./dom.js";
import { SecondReader } from "./second_reader.js";
import { allowsChaos, killWorker } from "./server.js";

export class Experiments {
  #job;
  #timeline;
  #second = null;

  constructor(job, reader, timeline) {
    this.#job = job;
    this.#timeline = timeline;
    $("drop").hidden = $("reload").hidden = false;
    $("kill").hidden = !allowsChaos;
    $("kill").disabled = false;
    $("drop").onclick = () => reader.drop();
    $("reload").onclick = () => location.reload();
    $("second").onclick = () => (this.#second ? this.#closeSecond() : this.#openSecond(reader));
    $("kill").onclick = () => this.#kill();
    this.#closeSecond();
  }

  /** The job has ended: what is left is to read it once more. */
  end() {
    $("drop").hidden = $("reload").hidden = $("kill").hidden = true;
  }

  leave() {
    this.#second?.close();
  }

  #openSecond(reader) {
    this.#second = new SecondReader(this.#job, reader);
    $("second").textContent = "Close the second reader";
    $("second").ariaExpanded = "true";
  }

  #closeSecond() {
    this.#second?.close();
    this.#second = null;
    $("second").textContent = "Open a second reader";
    $("second").ariaExpanded = "false";
  }

  async #kill() {
    $("kill").disabled = true;
    try {
      const { worker, pid } = await killWorker(this.#job.id);
      this.#timeline.note(`SIGKILL to its worker ${worker}, pid ${pid}`, { look: "bad" });
    } catch (error) {
      this.#timeline.note(`Nothing was killed: ${error.message}`, { track: "page", look: "bad" });
    }
    $("kill").disabled = false;
  }
}
