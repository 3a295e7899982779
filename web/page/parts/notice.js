// The one line on top of the page for what went wrong: one's own network first, else the last complaint.
import { $ } from "./dom.js";

const OFFLINE = "You are offline. The job goes on; this page catches up when the network is back.";

let complaint = "";

/** Says what went wrong; nothing takes it back. */
export function complain(words = "") {
  complaint = words;
  show();
}

function show() {
  const words = navigator.onLine ? complaint : OFFLINE;
  $("notice").textContent = words;
  $("notice").hidden = !words;
}

addEventListener("offline", show);
addEventListener("online", show);
