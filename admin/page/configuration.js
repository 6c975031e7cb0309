// The configuration: what is in effect, what the file says now, and what a reload would change.

import { $, fill, h, said, text, when } from "./dom.js";
import { call, get, signedIn } from "./api.js";

let findings = null;
let busy = false;

export function listen(again) {
  $("reload").addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    text($("reload-result"), "");
    try {
      const { generation, restart } = await call("POST", "/api/reload");
      text($("reload-result"), `Reloaded: configuration ${generation} is in effect${later(restart)}.`);
      said("Reloaded.");
    } catch (e) {
      if (signedIn()) text($("reload-result"), "It was not reloaded. What was in effect still is.");
    }
    busy = false;
    again();
  });
}

// later names what takes effect at the next start, for the end of a sentence.
const later = (fields = []) => (fields.length ? `; at the next start only: ${fields.join(", ")}` : "");

const value = (v) => (v === null ? "–" : typeof v === "object" ? JSON.stringify(v) : String(v));

export async function show() {
  const [c, d] = await Promise.all([get("/api/config"), get("/api/config/diff")]);
  text($("config-state"), `Configuration ${c.generation} is in effect since ${when(c.loaded_at)}${later(c.restart)}. ${fileState(c, d)}`);
  showFindings(d.error || c.error, d.warnings.length ? d.warnings : c.warnings);
  $("diff-box").hidden = d.changes.length === 0;
  fill($("diff-table"), ["Field", "In effect", "In the file"], d.changes.map((x) => ({ id: x.path, cells: [x.path, value(x.from), value(x.to)] })), "");
  text($("diff-more"), [d.more ? `and ${d.more} more` : "", d.restart.length ? `${d.restart.join(", ")}: at the next start only` : ""].filter(Boolean).join("; "));
  text($("config-text"), JSON.stringify(c.config, null, 2));
}

function fileState(c, d) {
  if (d.error) return "The file cannot take effect:";
  if (d.hidden) return "The file differs in what is not shown: a secret, a file that it names, or a comment.";
  if (d.changes.length) return "The file says something else:";
  return c.error ? "The file is right again; reload it." : "The file says the same.";
}

// showFindings shows what is wrong, each finding a line. It is read out only when it changes.
function showFindings(error, warnings) {
  const all = JSON.stringify([error, warnings]);
  if (all === findings) return;
  findings = all;
  $("config-findings").replaceChildren(...error.split("\n").filter(Boolean).map((f) => h("p", {}, f)));
  $("config-warnings").replaceChildren(...warnings.map((f) => h("p", {}, f)));
}
