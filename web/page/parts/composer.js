// The prompt, the model and the options: what a request is made of.
import { $, element } from "./dom.js";
import { complain } from "./notice.js";
import { listModels } from "./server.js";

const RETRY_MS = 2_000;
const PROMPT_KEPT = 480; // characters of the prompt in the job's metadata, whose values hold 512
const NO_KEY = " (no key)";
const NUMBERS = { max_tokens: "max-tokens", token_budget: "token-budget", temperature: "temperature", seed: "seed" };

export class Composer {
  #models = new Map(); // id → model
  #busy = false;
  #sending = false;

  /** `onSend` takes a request and returns a promise; `onStop` takes nothing. */
  constructor({ onSend, onStop }) {
    $("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send(onSend);
    });
    $("prompt").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      $("form").requestSubmit();
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") onStop(); });
    $("stop").addEventListener("click", onStop);
    $("examples").addEventListener("click", ({ target }) => { if (target.type === "button") this.#suggest(target.textContent); });
    $("model").addEventListener("change", () => this.#tellOfModel());
    this.#loadModels();
  }

  /** While a job runs there is Stop instead of Send. */
  show({ busy, stopping = false }) {
    this.#busy = busy;
    $("stop").hidden = !busy;
    $("stop").disabled = stopping;
    $("send").hidden = busy;
    this.#enable();
  }

  clear() {
    this.#suggest("");
  }

  #suggest(prompt) {
    $("prompt").value = prompt;
    $("prompt").focus();
  }

  #enable() {
    $("send").disabled = this.#busy || this.#sending || this.#models.size === 0;
  }

  async #send(onSend) {
    const prompt = $("prompt").value.trim();
    if (!prompt || $("send").disabled) return;
    this.#sending = true;
    this.#enable();
    complain();
    try {
      await onSend(this.#request(prompt));
      $("prompt").value = "";
    } catch (error) {
      complain(error.message);
    }
    this.#sending = false;
    this.#enable();
  }

  /** Protocol 2.1. Options that were left alone are left out. */
  #request(prompt) {
    const request = { model: $("model").value, prompt, metadata: { prompt: shortened(prompt) } };
    const system = $("system").value.trim();
    if (system) request.system = system;
    for (const [field, id] of Object.entries(NUMBERS)) {
      if ($(id).value !== "") request[field] = $(id).valueAsNumber;
    }
    if ($("on-interrupt").value !== "continue") request.on_interrupt = $("on-interrupt").value;
    return request;
  }

  async #loadModels(failed = false) {
    try {
      const models = await listModels();
      this.#models = new Map(models.map((model) => [model.id, model]));
      $("model").replaceChildren(...options(models));
      $("model").disabled = models.length === 0;
      this.#tellOfModel();
      this.#enable();
      if (models.length === 0) complain("The server offers no model: LASTEVENT_LANES and the providers' models say which.");
      else if (failed) complain();
    } catch (error) {
      complain(`The models cannot be listed: ${error.message} Trying again.`);
      setTimeout(() => this.#loadModels(true), RETRY_MS);
    }
  }

  #tellOfModel() {
    const missing = this.#models.get($("model").value)?.missing_key;
    $("model-note").hidden = !missing;
    $("model-note").textContent = missing ? `No key: set ${missing} and start lastevent again. Without it this model cannot be called.` : "";
  }
}

/** The models by provider; those whose key is missing come last, and say so. */
function options(models) {
  const names = [...new Set(models.map(groupOf))].sort((a, b) => a.endsWith(NO_KEY) - b.endsWith(NO_KEY));
  return names.map((label) => element("optgroup", { label },
    ...models.filter((model) => groupOf(model) === label).map(({ id }) => new Option(id))));
}

function groupOf({ owned_by: provider, missing_key: missing }) {
  return missing ? `${provider}${NO_KEY}` : provider;
}

function shortened(prompt) {
  const characters = [...prompt.slice(0, 2 * PROMPT_KEPT + 2)];
  return characters.length > PROMPT_KEPT ? `${characters.slice(0, PROMPT_KEPT).join("")}…` : prompt;
}
