// The page at /. What follows a job is lastevent.js; the parts of the page are in parts/, one noun a file. This one puts them
// together, and shows what the URL names: nothing yet (#), a job (#job_…), the operations (#/ops).
import { Composer } from "./parts/composer.js";
import { $ } from "./parts/dom.js";
import { JobView } from "./parts/job_view.js";
import { JobsList } from "./parts/jobs_list.js";
import { complain } from "./parts/notice.js";
import { openOps } from "./parts/ops.js";
import { getJob, submit } from "./parts/server.js";

const RETRY_MS = 2_000;
const OPS = "#/ops";

let shown = null; // the job on the page
let listed = null; // its status, as the list was last asked for
let closeOps = null;

const composer = new Composer({ onSend: send, onStop: () => { if (!$("ask").hidden) shown?.stop(); } });
const jobs = new JobsList({ onErased: (id) => { if (shown?.id === id) begin(); } });

async function send(request) {
  const job = await submit(request);
  history.pushState(null, "", `#${job.id}`);
  show(job, true);
}

function show(job, asked = false) {
  shown?.leave();
  shown = null;
  $("loading").hidden = true;
  $("empty").hidden = job !== null;
  $("job").hidden = job === null;
  if (job) shown = new JobView(job, { asked, onState: told });
  told();
  jobs.mark(job?.id ?? null);
  $("to-ask").href = job ? `#${job.id}` : "#"; // back from the operations to where one was
}

/** The composer has Stop for a job that runs; the list learns what has become of it. */
function told() {
  const status = shown?.status ?? null;
  if (status !== listed && status !== null) jobs.refresh();
  listed = status;
  composer.show({ busy: shown !== null && !shown.ended, stopping: shown?.stopping });
}

/** Shows what the URL names: after a click, a reload, a bookmark, Back. */
async function route() {
  const isOps = location.hash === OPS;
  $("ops").hidden = !isOps;
  $("ask").hidden = isOps;
  $("to-ops").ariaCurrent = isOps ? "page" : null;
  $("to-ask").ariaCurrent = isOps ? null : "page";
  closeOps?.();
  closeOps = isOps ? openOps() : null;
  if (!isOps) await openJob(location.hash.slice(1));
}

async function openJob(id) {
  if (id === (shown?.id ?? "")) return;
  complain();
  if (!id) {
    show(null);
    return;
  }
  $("empty").hidden = true;
  $("loading").hidden = shown !== null;
  try {
    const job = await getJob(id);
    if (location.hash.slice(1) === id) show(job);
  } catch (error) {
    show(null);
    complain(error.message);
    if (!error.isFinal) setTimeout(route, RETRY_MS);
  }
}

function begin() {
  history.pushState(null, "", location.pathname);
  complain();
  show(null);
  composer.clear();
}

$("new").addEventListener("click", begin);
addEventListener("hashchange", route);
route();
