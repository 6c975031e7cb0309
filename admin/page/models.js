// Models and upstreams: what is not as it should be comes first, and says why, since when and what happens next.

import { $, badge, fill, h, later, number, said, when } from "./dom.js";
import { call, get } from "./api.js";
import { knowModels } from "./gateway.js";

const most = 200; // rows

export function listen(again) {
  $("models-search").addEventListener("input", later(again));
  $("upstreams-table").addEventListener("click", async (event) => {
    const { drain, name } = event.target.dataset ?? {};
    if (!drain) return;
    try {
      await call("POST", `/api/upstreams/${encodeURIComponent(name)}/${drain}`);
      said(drain === "drain" ? `${name} is drained: nothing new is sent to it.` : `${name} gets requests again.`);
    } catch (e) {
      said(e.message);
    }
    again();
  });
}

const seconds = (n) => `${Math.ceil(n)} s`;

// state says how a target is: how bad, in a word, and in words.
function state(t) {
  const since = t.since ? ` since ${when(t.since)}` : "";
  const next = t.serves_in_seconds > 0;
  if (t.drained) return [4, "warn", "drained", "by an admin; nothing new is sent to it"];
  if (t.credential) return [5, "bad", "no credential", "nothing is sent to it until its api_key is set and the configuration reloaded"];
  if (t.credential_refused) return [5, "bad", "credential refused", `${since.trim()}${next ? `; asked again in ${seconds(t.serves_in_seconds)}` : "; the next request asks again"}. Check the upstream's api_key`];
  if (t.breaker === "open") return [4, "bad", "open", `${since.trim()}${next ? `; one request is let through in ${seconds(t.serves_in_seconds)}` : "; one request is on its way"}`];
  if (t.breaker === "half_open") return [3, "warn", "half open", `${since.trim()}; the next request decides`];
  if (next) return [2, "warn", "rests", `after a 429; it serves again in ${seconds(t.serves_in_seconds)}`];
  return [0, "good", "closed", ""];
}

const failure = (f) => (f ? `${f.cause}, ${when(f.at)}` : "none");

const has = (words, ...texts) => words.every((w) => texts.some((t) => t.toLowerCase().includes(w)));

export async function show() {
  const [{ data: models }, { data: upstreams }] = await Promise.all([get("/api/models"), get("/api/upstreams")]);
  knowModels(models);
  const words = $("models-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = models.flatMap((m) => m.targets.map((t) => ({ m, t, s: state(t) })))
    .filter(({ m, t, s }) => has(words, m.id, t.upstream, t.model, s[2]));
  rows.sort((a, b) => b.s[0] - a.s[0] || (a.m.id < b.m.id ? -1 : a.m.id > b.m.id ? 1 : 0));
  fill($("models-table"), ["Model", "State", "Upstream", "Its name there", "Weight", "In flight", "Last failure there", "Falls back to"],
    rows.slice(0, most).map(({ m, t, s }) => ({ id: JSON.stringify([m.id, t.upstream, t.model]),
      cells: [m.id, h("span", {}, badge(s[1], s[2]), s[3] && h("small", {}, " " + s[3])), t.upstream, t.model, t.weight, t.in_flight,
        failure(t.last_failure), m.fallbacks.join(", ") || "nothing"] })), words.length ? "Nothing matches." : "No models.");
  $("models-count").textContent = rows.length > most ? `${number(rows.length)} targets; the first ${most} are shown. Search narrows them.` : "";
  showUpstreams(upstreams.filter((u) => has(words, u.name, u.address) || rows.some((r) => r.t.upstream === u.name)), models);
}

// worst is the worst state of an upstream's targets, and how many have it.
function worst(u, models) {
  const states = models.flatMap((m) => m.targets.filter((t) => t.upstream === u.name).map(state));
  if (u.drained) return [4, "warn", "drained"];
  const top = states.reduce((a, s) => (s[0] > a[0] ? s : a), [0, "good", "serves"]);
  const n = states.filter((s) => s[0] === top[0]).length;
  return top[0] ? [top[0], top[1], `${top[2]}: ${n} of ${states.length}`] : top;
}

function showUpstreams(upstreams, models) {
  const rows = upstreams.map((u) => ({ u, s: worst(u, models) })).sort((a, b) => b.s[0] - a.s[0] || (a.u.name < b.u.name ? -1 : 1));
  const drains = upstreams.some((u) => u.drained !== undefined);
  const columns = ["Upstream", "State", "Address", "In flight", "Waiting", "Connections", "Requests", "Failures", "Retries in 10 s", "Last failure"];
  fill($("upstreams-table"), drains ? [...columns, "Actions"] : columns, rows.map(({ u, s }) => ({ id: u.name, cells: [u.name, badge(s[1], s[2]), u.address,
    u.max_in_flight ? `${u.in_flight} of ${u.max_in_flight}` : u.in_flight, u.waiting, `${u.connections}, ${u.idle_connections} idle`,
    number(u.requests), number(u.failures), `${u.retries} of ${u.retries_allowed}`, failure(u.last_failure), ...(drains ? [drainer(u)] : [])] })), "Nothing matches.");
}

function drainer(u) {
  const what = u.drained ? "undrain" : "drain";
  const words = u.drained ? "Undrain" : "Drain";
  return h("button", { type: "button", class: "quiet small", "data-drain": what, "data-name": u.name, "aria-label": `${words} ${u.name}` }, words);
}
