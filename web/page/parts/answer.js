// What a job has said so far: its reasoning, folded; its text, as Markdown; its tool calls.
import { $, element } from "./dom.js";
import { Markdown } from "./markdown.js";

export class Answer {
  #text = new Markdown($("text"));
  #toolCalls = "";

  /** Shows what the reader holds. `ended`: nothing will be added. */
  paint({ text, refusal, reasoning, toolCalls }, ended) {
    const said = [text, refusal].filter(Boolean).join("\n\n");
    if (ended) this.#text.finish(said);
    else this.#text.write(said);
    $("answer").setAttribute("aria-busy", String(!ended));
    this.#paintReasoning(reasoning);
    this.#paintToolCalls(toolCalls);
  }

  #paintReasoning(reasoning) {
    const box = $("reasoning");
    const held = box.textContent;
    // Appended where it can be: a long thought is not laid out anew for each token.
    if (reasoning.startsWith(held)) box.append(reasoning.slice(held.length));
    else box.textContent = reasoning;
    $("thoughts").hidden = !reasoning;
  }

  #paintToolCalls(toolCalls) {
    const now = JSON.stringify(toolCalls);
    if (now === this.#toolCalls) return;
    this.#toolCalls = now;
    $("tools").hidden = toolCalls.length === 0;
    $("tools").replaceChildren(...toolCalls.map(toolCall));
  }
}

function toolCall({ id, function: { name, arguments: given } }) {
  return element("figure", { className: "tool" },
    element("figcaption", { title: id ?? "" }, "Calls ", element("code", {}, name ?? "…")),
    element("pre", { tabIndex: 0 }, pretty(given)));
}

/** Arguments come in pieces; until the last one they are no JSON. */
function pretty(given) {
  try {
    return JSON.stringify(JSON.parse(given), null, 2);
  } catch {
    return given;
  }
}
