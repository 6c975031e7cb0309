// Keys: the list with its live use, one key's page, the form, and the secret that is shown once.

import { $, badge, copier, fill, facts, h, later, number, perSecond, text, when, link } from "./dom.js";
import { call, get } from "./api.js";
import { Chart, rates } from "./charts.js";
import { dataURL, modelNames } from "./gateway.js";
import { ranges } from "./overview.js";
import { columns, row } from "./requests.js";

const pageSize = 50;
let offset = 0;
let byID = new Map();
let again = () => {};
let range = "15m";
let charts;

// show lists a page of the keys.
export async function show() {
  const page = await get("/api/keys", { q: $("keys-search").value.trim(), sort: $("keys-sort").value, state: $("keys-state").value, limit: pageSize, offset });
  if (!page.data.length && offset > 0) { // they have gone
    offset = 0;
    return show();
  }
  const searched = $("keys-search").value || $("keys-state").value;
  fill($("keys-table"), ["Name", "Key", "State", "Models", "Requests", "Tokens", "At once", "Expires", "Actions"],
    page.data.map((k) => ({ id: k.id, cells: [h("span", {}, link("keys/" + k.id, k.name), k.note && h("small", {}, " " + k.note)), k.prefix + "…", state(k), models(k),
      use(k, "requests", k.used?.requests, k.limits.period), use(k, "tokens", k.used?.tokens, k.limits.period),
      use(k, "concurrent", k.in_flight), k.expires_at ? when(k.expires_at) : "never", actions(k)] })),
    searched ? "No key matches." : "There is no key yet. Make one with “New key”: clients send it as their API key.");
  byID = new Map(page.data.map((k) => [k.id, k]));
  $("keys-before").disabled = offset === 0;
  $("keys-next").disabled = !page.has_more;
  text($("keys-count"), page.total ? `${number(offset + 1)} to ${number(offset + page.data.length)} of ${number(page.total)}` : "");
}

const models = (k) => (k.models.length > 5 ? `${k.models.slice(0, 5).join(", ")} and ${k.models.length - 5} more` : k.models.join(", "));

// one shows a key: what it may do and has done, its use over time, and its last errors.
export async function one(id) {
  let k;
  try {
    k = await get("/api/keys/" + encodeURIComponent(id));
  } catch (e) {
    if (e.status !== 404) throw e;
    text($("one-missing"), "No key has this id. It may have been revoked.");
    $("one-known").hidden = true;
    return;
  }
  text($("one-missing"), "");
  $("one-known").hidden = false;
  byID = new Map([[k.id, k]]);
  text($("one-title"), k.name);
  $("one-key").dataset.id = k.id;
  facts($("one-facts"), [["State", state(k)], ["Note", k.note], ["Key", k.prefix + "…"], ["Made", when(k.created_at)], ["Expires", k.expires_at ? when(k.expires_at) : "never"],
    ["Models", models(k)], ["Requests", use(k, "requests", k.used?.requests, k.limits.period)], ["Tokens", use(k, "tokens", k.used?.tokens, k.limits.period)],
    ["At once", use(k, "concurrent", k.in_flight)], ["Id", h("span", {}, k.id, " ", copier("Copy the key's id", () => k.id))]]);
  $("one-actions").replaceChildren(actions(k));
  const [answer, errors, requests] = await Promise.all([get("/api/series", { by: "key", name: id, range }),
    get("/api/requests", { key: id, error: "any", limit: 20 }), get("/api/requests", { key: id, limit: 20 })]);
  history(answer);
  fill($("one-errors"), columns, errors.data.map(row), "None among the requests that are kept.");
  fill($("one-requests"), columns, requests.data.map(row), "None among those that are kept.");
}

function history(answer) {
  charts ??= {
    requests: new Chart($("one-charts"), { id: "one-chart-requests", title: "Requests and errors", format: perSecond }),
    tokens: new Chart($("one-charts"), { id: "one-chart-tokens", title: "Tokens", format: perSecond }),
  };
  const values = answer.data[0]?.values ?? {};
  const lines = (pairs) => new Map(pairs.filter(([, v]) => v).map(([n, v]) => [n, rates(answer, v)]));
  charts.requests.show(answer.times, lines([["requests", values.requests], ["refused by a limit or policy", values.errors_policy], ["the caller's errors", values.errors_caller],
    ["upstreams' errors", values.errors_upstream], ["the gateway's errors", values.errors_gateway]]), answer.marks, answer.range);
  charts.tokens.show(answer.times, lines([["in", values.tokens_in], ["out", values.tokens_out]]), answer.marks, answer.range);
}

function state(k) {
  const s = k.disabled ? "disabled" : k.expires_at && new Date(k.expires_at) <= new Date() ? "expired" : "active";
  return badge(s === "active" ? "good" : "off", s);
}

// use is a meter of what is used of a limit.
function use(k, name, used, period) {
  const limit = k.limits[name];
  if (limit === undefined) return name === "concurrent" ? `${used} (no limit)` : "no limit";
  const words = `${used ?? 0} of ${limit}${period ? " in " + period : ""}`;
  return h("span", { class: "use" }, words, h("meter", { min: 0, max: limit, high: limit * 0.9, optimum: 0, value: used ?? 0, "aria-label": words }));
}

function actions(k) {
  const button = (what, words) => h("button", { type: "button", class: "quiet", "data-action": what, "aria-label": `${words} ${k.name}` }, words);
  return h("span", { class: "actions" }, button("edit", "Edit"), button("rotate", "Rotate"), button("revoke", "Revoke"));
}

let editing = null; // the key in the form; null for a new one
let before = null; // what the form said when it opened

function open(k) {
  editing = k;
  $("key-form").reset();
  $("key-error").textContent = "";
  $("key-dialog-title").textContent = k ? `Edit ${k.name}` : "New key";
  $("key-save").textContent = k ? "Save" : "Make the key";
  if (k) {
    $("key-name").value = k.name;
    $("key-note").value = k.note ?? "";
    $("key-models").value = k.models.join(", ");
    for (const name of ["requests", "tokens", "period", "concurrent"]) $("key-" + name).value = k.limits[name] ?? "";
    $("key-expires").value = k.expires_at ? localTime(new Date(k.expires_at)) : "";
    $("key-disabled").checked = k.disabled;
  }
  before = k && body();
  $("key-dialog").showModal();
}

// localTime is what a datetime-local field takes.
function localTime(d) {
  return new Date(d.getTime() - d.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

// body is what the form says. An empty limit is null: no limit.
function body() {
  const whole = (name) => {
    const text = $("key-" + name).value.trim();
    return text === "" ? null : /^\d+$/.test(text) ? Number(text) : text; // the gateway says what is wrong with it
  };
  const limits = { requests: whole("requests"), tokens: whole("tokens"), concurrent: whole("concurrent") };
  if (limits.requests !== null || limits.tokens !== null) limits.period = $("key-period").value.trim() || "60s";
  const names = $("key-models").value.split(",").map((s) => s.trim()).filter(Boolean);
  const expires = $("key-expires").value;
  return {
    name: $("key-name").value, note: $("key-note").value, models: names.length ? names : ["*"], disabled: $("key-disabled").checked,
    expires_at: expires ? new Date(expires).toISOString() : null, limits,
  };
}

// changed is what of after is not as in before: the rest may have been changed by somebody else meanwhile.
function changed(before, after) {
  const fields = Object.entries(after).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name]));
  return Object.fromEntries(fields.map(([name, value]) => [name, name === "limits" ? changed(before.limits, value) : value]));
}

async function save(event) {
  event.preventDefault();
  const button = $("key-save");
  button.disabled = true;
  try {
    if (editing) {
      await call("PATCH", `/api/keys/${encodeURIComponent(editing.id)}`, changed(before, body()));
      $("key-dialog").close();
    } else {
      const made = await call("POST", "/api/keys", body());
      $("key-dialog").close();
      reveal(made);
    }
    again();
  } catch (e) {
    $("key-error").textContent = e.message;
    const field = $("key-" + (e.param ?? "").replace(/^limits\./, "").replace("expires_at", "expires"));
    field?.focus();
  } finally {
    button.disabled = false;
  }
}

// reveal shows a secret, this once.
function reveal(k) {
  $("secret").value = k.key;
  const model = k.models.includes("*") ? modelNames()[0] : k.models.find((m) => modelNames().includes(m));
  $("secret-curl").value = `curl ${dataURL()}/v1/chat/completions \\
  -H "Authorization: Bearer ${k.key}" -H "Content-Type: application/json" \\
  -d '${JSON.stringify({ model: model ?? "MODEL", messages: [{ role: "user", content: "Hello" }] }).replaceAll("'", "'\\''")}'`;
  $("secret-dialog").showModal();
}

function confirm(title, words, yes, act) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = words;
  $("confirm-error").textContent = "";
  const button = $("confirm-yes");
  button.textContent = yes;
  button.onclick = async () => {
    button.disabled = true;
    try {
      const answer = await act();
      $("confirm-dialog").close();
      if (answer.key) reveal(answer);
      again();
    } catch (e) {
      $("confirm-error").textContent = e.message;
    } finally {
      button.disabled = false;
    }
  };
  $("confirm-dialog").showModal();
}

function act(event) {
  const action = event.target.dataset?.action;
  if (!action) return;
  const k = byID.get(event.target.closest("[data-id]").dataset.id);
  const path = `/api/keys/${encodeURIComponent(k.id)}`;
  if (action === "edit") open(k);
  if (action === "rotate") {
    confirm(`Rotate ${k.name}?`, "It gets a new secret; the old one stops at once.", "Rotate", () => call("POST", path + "/rotate"));
  }
  if (action === "revoke") {
    confirm(`Revoke ${k.name}?`, "Its requests are refused from now on. This cannot be undone.", "Revoke", () => call("DELETE", path));
  }
}

export function listen(refresh) {
  again = refresh;
  const anew = () => { offset = 0; again(); };
  $("keys-search").addEventListener("input", later(anew));
  for (const id of ["keys-sort", "keys-state"]) $(id).addEventListener("change", anew);
  $("keys-before").addEventListener("click", () => { offset = Math.max(0, offset - pageSize); again(); });
  $("keys-next").addEventListener("click", () => { offset += pageSize; again(); });
  ranges($("one-ranges"), (r) => { range = r; again(); });
  for (const id of ["key-new", "first-key-new"]) $(id).addEventListener("click", () => open(null));
  $("key-form").addEventListener("submit", save);
  for (const id of ["keys-table", "one-actions"]) $(id).addEventListener("click", act);
  $("secret-dialog").addEventListener("close", () => { $("secret").value = $("secret-curl").value = ""; });
}
