// The few lines of DOM that every part needs. Text goes in as text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** `element("p", { className: "quiet" }, "Loading…")`: properties, then children, which are nodes or text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** The same for SVG, which has attributes where HTML has properties. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}

/** Sets a text, and leaves the page alone where it is there already: screen readers would say it again. */
export function say(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

/** `act`, at most once for each frame of the screen, however often it is asked for. */
export function oncePerFrame(act) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      act();
    });
  };
}

/** `act` now and every `ms` for as long as somebody can see it; returns what ends it. */
export function whileSeen(ms, act) {
  const look = () => { if (!document.hidden) act(); };
  const timer = setInterval(look, ms);
  document.addEventListener("visibilitychange", look);
  look();
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", look);
  };
}
