// What happens to a job, in words.

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

export const WAITING = { queued: "Waiting for a worker", running: "Waiting for the first token" };

/** One word for a list. */
export const STATE = { queued: "queued", running: "running", done: "done", failed: "failed", cancelled: "stopped" };

/** A `started` event. */
export function startedWords({ reason, reset, attempt, worker, model }) {
  const how = `${STARTED[reason] ?? reason}${reset ? ", from the beginning" : ""}`;
  return `${how} (attempt ${attempt} on ${worker}${reason === "fallback" ? `, ${model}` : ""})`;
}

/** How a job ended. `end` is its terminal event, or the ended Job. */
export function endWords(outcome, end) {
  if (outcome === "done") return DONE[end.finish_reason] ?? "Done";
  if (outcome === "cancelled") return "Stopped. What came is kept.";
  const { code, message } = end.error ?? end;
  return message ? `Failed (${code}): ${message}` : "Failed";
}

export function plural(n, one, many = `${one}s`) {
  return `${n.toLocaleString()} ${n === 1 ? one : many}`;
}

/** Seconds, as people say them. */
export function age(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return plural(Math.floor(seconds / 86_400), "day");
}
