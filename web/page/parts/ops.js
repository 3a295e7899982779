// The operations view at /#/ops: GET /v1/operations, drawn anew every few seconds while somebody looks.
import { lineChart, tableRow } from "./chart.js";
import { $, element, whileSeen } from "./dom.js";
import { operations } from "./server.js";
import { age, plural } from "./words.js";

const REFRESH_MS = 5_000;

/** Shows the view until the function that it returns is called. */
export function openOps() {
  let open = true;
  const end = whileSeen(REFRESH_MS, async () => {
    try {
      const now = await operations();
      if (open) draw(now);
    } catch (error) {
      if (open) tell(`It cannot be told how things stand: ${error.message} Trying again.`);
    }
  });
  return () => {
    open = false;
    end();
  };
}

function draw(now) {
  tell("");
  $("ops-body").hidden = false;
  $("ops-totals").replaceChildren(...totals(now));
  $("ops-lanes").replaceChildren(table("Lanes", ["Lane", "Waiting", "Oldest", "Running"], now.lanes.map(laneRow)));
  $("ops-workers").replaceChildren(workers(now));
  $("ops-errors").replaceChildren(errors(now.errors));
  const { at: times, ttft_p50_s: p50, ttft_p99_s: p99, tokens_per_s: rate } = now.history;
  const ttft = [{ name: "median", values: p50 }, { name: "99th percentile", values: p99 }];
  $("ops-ttft").replaceChildren(lineChart({ title: "Time to first token", times, series: ttft, unit: " s" }));
  const series = [{ name: "tokens/s", values: rate }];
  $("ops-rate").replaceChildren(lineChart({ title: "Tokens per second", times, series, unit: "" }));
}

function tell(words) {
  $("ops-words").textContent = words;
  $("ops-words").hidden = !words;
}

function totals({ lanes, workers: live, web, history }) {
  const sum = (field) => lanes.reduce((total, lane) => total + lane[field], 0);
  const figures = {
    Waiting: sum("queued"),
    Running: sum("running"),
    "Live workers": live.length,
    "Jobs followed": web.streams,
    Readers: web.readers,
    "Finished in 15 min": history.finished.reduce((total, n) => total + (n ?? 0), 0),
  };
  return Object.entries(figures).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value.toLocaleString())));
}

function laneRow({ lane, queued, oldest_s: oldest, running, slots }) {
  return [lane, String(queued), oldest === null ? "–" : age(oldest), usage(running, slots)];
}

function workers({ workers: live, at }) {
  if (live.length === 0) return element("p", { className: "bad" }, "No worker is live: what is submitted now has to wait.");
  const rows = live.map(({ id, lane, host, pid, running, slots, started_at: started }) =>
    [element("code", {}, id), lane, `${host}, pid ${pid}`, usage(running, slots), age(at - started)]);
  return table("Live workers", ["Worker", "Lane", "Where", "Busy slots", "Up for"], rows);
}

function errors(codes) {
  const rows = Object.entries(codes).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
  if (rows.length === 0) return element("p", { className: "quiet" }, "None.");
  return table("Errors by code", ["Code", "Jobs"], rows.map(([code, n]) => [element("code", {}, code), String(n)]));
}

function usage(running, slots) {
  const meter = element("meter", { min: 0, max: slots || 1, value: running, ariaHidden: "true" });
  return element("span", { className: "usage", title: `${running} of ${plural(slots, "slot")}` }, `${running} of ${slots} `, meter);
}

function table(title, head, rows) {
  return element("div", { className: "wide-table", tabIndex: 0 },
    element("table", {}, element("caption", { className: "unseen" }, title),
      element("thead", {}, tableRow("th", head)), element("tbody", {}, ...rows.map((row) => tableRow("td", row)))));
}
