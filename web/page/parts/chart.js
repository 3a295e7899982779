// Charts in plain SVG, small enough to read. Colours come from CSS classes; for screen readers a table says the same.
import { element, svg } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 160;
const LEFT = 54; // where the numbers stand
const BOTTOM = 24; // where the times stand
const STEPS_UP = [1, 2, 2.5, 5, 10];

/** A line without axes for one figure's last values. */
export function sparkline(values) {
  const [width, height] = [80, 20];
  const top = Math.max(...values, 1e-9);
  const step = width / Math.max(1, values.length - 1);
  const points = values.map((value, i) => `${round(i * step)},${round(height - 1 - (value / top) * (height - 2))}`);
  return svg("svg", { class: "sparkline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("polyline", { points: points.join(" "), "vector-effect": "non-scaling-stroke" }));
}

/**
 * Lines over time. `times` are Unix seconds, oldest first; each series is `{ name, values }`, a value null where there was
 * nothing to measure. `unit` stands behind the numbers.
 */
export function lineChart({ title, times, series, unit }) {
  const values = series.flatMap((line) => line.values).filter((value) => value !== null);
  if (values.length === 0) return element("p", { className: "quiet" }, "Nothing finished in the last 15 minutes.");
  const top = niceTop(Math.max(...values));
  const x = (i) => LEFT + (i / Math.max(1, times.length - 1)) * (WIDTH - LEFT - 4);
  const y = (value) => 6 + (1 - value / top) * (HEIGHT - BOTTOM - 6);
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" },
    ...[0, top / 2, top].map((value) => gridLine(y(value), `${number(value)}${unit}`)),
    ...timeMarks(times).map(({ i, words, anchor }) => label(x(i), HEIGHT - 4, words, anchor)),
    ...series.flatMap(({ values: line }, s) => pieces(line).map((piece) => stroke(piece, `line-${s}`, x, y))));
  return element("div", {}, legend(series), picture, table(title, times, series, unit));
}

function gridLine(at, words) {
  return svg("g", {},
    svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: at, y2: at }),
    label(LEFT - 6, at + 4, words, "end"));
}

function label(x, y, words, anchor) {
  return svg("text", { x: round(x), y: round(y), "text-anchor": anchor }, words);
}

function timeMarks(times) {
  const last = times.length - 1;
  return [
    { i: 0, words: clock(times[0]), anchor: "start" },
    { i: last / 2, words: clock(times[Math.floor(last / 2)]), anchor: "middle" },
    { i: last, words: clock(times[last]), anchor: "end" },
  ];
}

/** A line broken where nothing was measured: `[[i, value], …]` for each piece. */
function pieces(values) {
  const found = [];
  let piece = [];
  values.forEach((value, i) => {
    if (value !== null) piece.push([i, value]);
    if (piece.length && (value === null || i === values.length - 1)) {
      found.push(piece);
      piece = [];
    }
  });
  return found;
}

function stroke(piece, name, x, y) {
  if (piece.length === 1) {
    const [[i, value]] = piece;
    return svg("circle", { class: name, cx: round(x(i)), cy: round(y(value)), r: 2.5 });
  }
  return svg("polyline", { class: name, points: piece.map(([i, value]) => `${round(x(i))},${round(y(value))}`).join(" ") });
}

function legend(series) {
  if (series.length < 2) return "";
  return element("p", { className: "legend", ariaHidden: "true" },
    ...series.map(({ name }, i) => element("span", { className: `key-${i}` }, name)));
}

function table(title, times, series, unit) {
  const head = ["Time", ...series.map(({ name }) => name)];
  const rows = times
    .map((at, i) => [clock(at), ...series.map(({ values }) => values[i])])
    .filter(([, ...cells]) => cells.some((cell) => cell !== null))
    .map(([at, ...cells]) => [at, ...cells.map((cell) => (cell === null ? "–" : `${number(cell)}${unit}`))]);
  return element("div", { className: "unseen" },
    element("table", {}, element("caption", {}, title), tableRow("th", head), ...rows.map((row) => tableRow("td", row))));
}

export function tableRow(kind, cells) {
  return element("tr", {}, ...cells.map((cell) => element(kind, {}, cell)));
}

/** The next round number at or above `value`, so that the axis can be read. */
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return power * STEPS_UP.find((step) => step * power >= value);
}

function number(value) {
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function round(value) {
  return Math.round(value * 10) / 10;
}
