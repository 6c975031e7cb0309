// The page: signing in, which view is shown, and keeping it fresh.

import { $, fill, h, text, when } from "./dom.js";
import { call, metricsText, onRefused, signIn, signOut, signedIn } from "./api.js";
import * as keys from "./keys.js";
import * as overview from "./overview.js";

const views = ["overview", "models", "keys", "errors", "configuration"];
const current = () => (views.includes(location.hash.slice(1)) ? location.hash.slice(1) : "overview");

function showModels(models, upstreams) {
  const breaker = (t) => h("span", { class: `badge ${t.breaker === "closed" ? "good" : "bad"}` },
    t.serves_in_seconds > 0 ? `${t.breaker}, ${Math.ceil(t.serves_in_seconds)} s` : t.breaker);
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

function showConfiguration(c) {
  text($("config-state"), `Configuration ${c.generation} is in effect since ${when(c.loaded_at)}.` +
    (c.error ? ` The newest, tried ${when(c.tried_at)}, is not:` : ""));
  const findings = c.error ? c.error.split("\n") : [];
  if ($("config-findings").innerText !== findings.join("\n")) $("config-findings").replaceChildren(...findings.map((f) => h("p", {}, f)));
  text($("config-text"), JSON.stringify(c.config, null, 2));
}

async function refresh() {
  const view = current();
  const [metrics, models, config] = await Promise.all([metricsText(), call("GET", "/api/models"), call("GET", "/api/config")]);
  overview.show(metrics, models.data); // the charts go on while another view is shown
  if (view === "models") showModels(models.data, (await call("GET", "/api/upstreams")).data);
  if (view === "keys") await keys.show(config, models.data);
  if (view === "errors") showErrors((await call("GET", "/api/errors")).data);
  if (view === "configuration") showConfiguration(config);
}

let timer = 0;
let running = false;

async function tick() {
  clearTimeout(timer);
  if (!signedIn() || running) return;
  running = true;
  try {
    if (!document.hidden) await refresh();
    text($("connection"), "");
  } catch (e) {
    if (signedIn()) text($("connection"), e.message);
  }
  running = false;
  if (signedIn()) timer = setTimeout(tick, overview.every);
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

function leave() {
  clearTimeout(timer);
  signOut();
  for (const d of document.querySelectorAll("dialog[open]")) d.close();
  overview.forget();
  keys.forget();
  for (const id of ["errors-table", "models-table", "upstreams-table"]) $(id).tBodies[0].replaceChildren();
  $("config-text").textContent = "";
  $("app").hidden = true;
  $("sign-in").hidden = false;
  $("token").value = "";
  $("token").focus();
  document.title = "sluice";
}

onRefused(leave);
keys.listen();
addEventListener("hashchange", () => { if (signedIn()) { route(); $("content").focus(); } });
document.addEventListener("visibilitychange", () => { if (!document.hidden) void tick(); });
$("sign-out").addEventListener("click", leave);
for (const b of document.querySelectorAll("[data-close]")) b.addEventListener("click", () => b.closest("dialog").close());

$("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  text($("sign-in-error"), "");
  try {
    await signIn($("token").value);
  } catch (e) {
    text($("sign-in-error"), e.status === 401 ? "This is not the admin token." : e.message);
    return;
  }
  $("token").value = "";
  $("sign-in").hidden = true;
  $("app").hidden = false;
  route();
  $("content").focus();
});

$("reload").addEventListener("click", async () => {
  try {
    const { generation } = await call("POST", "/api/reload");
    showConfiguration(await call("GET", "/api/config"));
    text($("config-state"), `Reloaded: configuration ${generation} is in effect.`);
  } catch (e) {
    if (signedIn()) {
      text($("config-state"), "It was not reloaded. What was in effect still is:");
      $("config-findings").replaceChildren(...e.message.split("\n").map((f) => h("p", {}, f)));
    }
  }
});
