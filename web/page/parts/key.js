// The API key, where the server wants one: asked for at the first 401, kept in this tab's sessionStorage and nowhere else.
import { $ } from "./dom.js";

const STORED_AS = "lastevent-key";

let key = read();
let asking = null; // one promise for all calls that wait for a key

export function currentKey() {
  return key;
}

/** Runs `act(key)`. Where the answer is 401 the page asks for a key, and the call is made again with it. */
export async function withKey(act) {
  for (;;) {
    const tried = key;
    try {
      return await act(tried);
    } catch (error) {
      if (error.status !== 401) throw error;
      if (key === tried) await (asking ??= ask(tried !== null));
    }
  }
}

async function ask(refused) {
  document.body.dataset.locked = "yes";
  $("key-refused").hidden = !refused;
  $("key-form").hidden = false;
  $("key").focus();
  await new Promise((resolve) => {
    $("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      keep($("key").value.trim());
      resolve();
    }, { once: true });
  });
  $("key-form").hidden = true;
  $("key").value = "";
  delete document.body.dataset.locked;
  asking = null;
}

function keep(given) {
  key = given;
  try {
    sessionStorage.setItem(STORED_AS, given);
  } catch { /* storage is switched off: this page keeps it until it is reloaded */ }
}

function read() {
  try {
    return sessionStorage.getItem(STORED_AS);
  } catch {
    return null;
  }
}
