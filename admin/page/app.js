// The page: signing in, which view is shown, and keeping it fresh.

import { $, fill, h, text, when } from "./dom.js";
import { call, metricsText, signIn, signInByCode, signOut, signedIn } from "./api.js";
import * as keys from "./keys.js";
import * as overview from "./overview.js";

const views = ["overview", "models", "keys", "errors", "configuration"];
const linkPrefix = "#sign-in=";
const current = () => (views.includes(location.hash.slice(1)) ? location.hash.slice(1) : "overview");

function showModels(models, upstreams) {
  const state = (t) => (t.drained ? "drained" : t.credential ? `credential ${t.credential}` : t.credential_refused ? "credential refused" : t.breaker);
  const breaker = (t) => h("span", { class: `badge ${state(t) === "closed" ? "good" : "bad"}` },
    t.serves_in_seconds > 0 ? `${state(t)}, ${Math.ceil(t.serves_in_seconds)} s` : state(t));
  const failure = (f) => (f ? `${f.cause}, ${when(f.at)}` : "none");
  fill($("models-table"), ["Model", "Upstream", "Its name there", "Weight", "In flight", "Breaker", "Falls back to"],
    models.flatMap((m) => m.targets.map((t) => ({ id: JSON.stringify([m.id, t.upstream, t.model]),
      cells: [m.id, t.upstream, t.model, t.weight, t.in_flight, breaker(t), m.fallbacks.join(", ") || "nothing"] }))), "");
  fill($("upstreams-table"), ["Upstream", "Address", "In flight", "Waiting", "Connections", "Requests", "Failures", "Retries in 10 s", "Last failure"],
    upstreams.map((u) => ({ id: u.name, cells: [u.name, u.address,
      u.max_in_flight ? `${u.in_flight} of ${u.max_in_flight}` : u.in_flight, u.waiting,
      `${u.connections}, ${u.idle_connections} idle`, u.requests, u.failures, `${u.retries} of ${u.retries_allowed}`, failure(u.last_failure)] })), "");
}

function showErrors(list) {
  fill($("errors-table"), ["Time", "Status", "Kind", "Model", "Upstream", "Key", "Trail", "Why", "Request id"],
    list.map((e) => ({ id: e.request_id + e.time, cells: [when(e.time), e.status, e.error, e.model ?? "–", e.upstream ?? "–", e.key ?? "–",
      e.trail ?? "–", [e.message, e.cause].filter(Boolean).join(" · ") || "–", e.request_id] })), "None so far.");
}

let findings = "";

// showFindings shows what is wrong with a configuration, each finding a line. It is read out only when it changes.
function showFindings(error) {
  if (error === findings) return;
  findings = error;
  $("config-findings").replaceChildren(...error.split("\n").filter(Boolean).map((f) => h("p", {}, f)));
}

function showConfiguration(c) {
  text($("config-state"), `Configuration ${c.generation} is in effect since ${when(c.loaded_at)}.` +
    (c.error ? ` The newest, tried ${when(c.tried_at)}, is not:` : ""));
  showFindings(c.error);
  text($("config-text"), JSON.stringify(c.config, null, 2));
}

async function refresh() {
  const view = current();
  const [metrics, models, config] = await Promise.all([metricsText(), call("GET", "/api/models"), call("GET", "/api/config")]);
  overview.show(metrics, models.data); // the charts go on while another view is shown
  keys.know(config, models.data);
  if (view === "models") showModels(models.data, (await call("GET", "/api/upstreams")).data);
  if (view === "keys") await keys.show();
  if (view === "errors") showErrors((await call("GET", "/api/errors")).data);
  if (view === "configuration") showConfiguration(config);
}

let timer = 0;
let running = false;
let waiting = false; // for another turn, at once

async function tick() {
  clearTimeout(timer);
  if (running) waiting = true;
  if (!signedIn() || running) return;
  running = true;
  waiting = false;
  try {
    if (!document.hidden) await refresh();
    text($("connection"), "");
  } catch (e) {
    if (signedIn()) text($("connection"), e.message);
  }
  running = false;
  if (signedIn()) timer = setTimeout(tick, waiting ? 0 : overview.every);
}

function route() {
  for (const v of views) $(v).hidden = v !== current();
  for (const a of document.querySelectorAll("nav a")) {
    if (a.hash === "#" + current()) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  document.title = `${$(current()).querySelector("h1").textContent} · sluice`;
  void tick();
}

keys.listen();
addEventListener("hashchange", () => {
  if (location.hash.startsWith(linkPrefix)) void enterByLink();
  else if (signedIn()) { route(); $("content").focus(); }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) void tick(); });
$("sign-out").addEventListener("click", signOut);
addEventListener("pageshow", (event) => { if (event.persisted) signOut(); }); // back to a page that was left
for (const b of document.querySelectorAll("[data-close]")) b.addEventListener("click", () => b.closest("dialog").close());

function enter() {
  $("token").value = "";
  $("sign-in").hidden = true;
  $("app").hidden = false;
  route();
  $("content").focus();
}

$("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  text($("sign-in-error"), "");
  try {
    await signIn($("token").value);
  } catch (e) {
    text($("sign-in-error"), e.status === 401 ? "This is not the admin token." : e.message);
    return;
  }
  enter();
});

// enterByLink signs in with a link's one-time code, which leaves the address before it is used.
async function enterByLink() {
  const code = location.hash.slice(linkPrefix.length);
  history.replaceState(null, "", location.pathname);
  try {
    await signInByCode(code);
  } catch (e) {
    text($("sign-in-error"), e.status === 401 ? "This link has been used, or is older than a minute. sluice page makes another." : e.message);
    return;
  }
  enter();
}

if (location.hash.startsWith(linkPrefix)) void enterByLink();

$("reload").addEventListener("click", async () => {
  text($("reload-result"), "");
  try {
    const { generation } = await call("POST", "/api/reload");
    text($("reload-result"), `Reloaded: configuration ${generation} is in effect.`);
    showConfiguration(await call("GET", "/api/config"));
  } catch (e) {
    if (!signedIn()) return;
    text($("reload-result"), "It was not reloaded. What was in effect still is.");
    showFindings(e.message);
  }
});
