// The server's calls as this page makes them: those of lastevent.js and a few more, each with the key where one is wanted.
import * as lastevent from "../lastevent.js";
import { currentKey, withKey } from "./key.js";

export const submit = (request) => withKey((key) => lastevent.submit(request, { key }));
export const cancel = (id) => withKey((key) => lastevent.cancel(id, { key }));
export const getJob = (id) => withKey((key) => lastevent.getJob(id, { key }));
export const listModels = () => withKey((key) => lastevent.listModels({ key }));
export const operations = () => withKey((key) => lastevent.call("/v1/operations", { key }));

/** Follows a job; the options are those of JobReader. */
export const follow = (id, options) => new lastevent.JobReader(id, { ...options, key: currentKey() });

/** A page of the newest jobs: `{ data, next }`; `after` is the `next` of the page before. */
export function listJobs(limit, after = null) {
  const query = new URLSearchParams({ limit, ...(after && { after }) });
  return withKey((key) => lastevent.call(`/v1/jobs?${query}`, { key }));
}

/** Erases a job with all that is known of it. */
export function erase(id) {
  return withKey((key) => lastevent.call(`/v1/jobs/${encodeURIComponent(id)}`, { key, method: "DELETE" }));
}

/** Whether this server was started with `lastevent up --allow-chaos`. */
export const allowsChaos = document.documentElement.dataset.chaos === "yes";

/** SIGKILL to the worker that runs a job; answers `{ worker, pid }`. */
export function killWorker(id) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ job_id: id });
  return withKey((key) => lastevent.call("/v1/chaos/kill-worker", { key, method: "POST", headers, body }));
}
