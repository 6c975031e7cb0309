// Keys: the list with its live use, the form, and the secret that is shown once.

import { $, fill, h, when } from "./dom.js";
import { call } from "./api.js";

const pageSize = 100;
let pages = 1;
let config; // what /api/config and /api/models said last: for the ready curl
let models = [];

// know takes those.
export function know(c, m) { [config, models] = [c, m]; }

// show lists the keys.
export async function show() {
  let list = [];
  let more = true;
  for (let n = 0; n < pages && more; n++) {
    const after = list.length ? list[list.length - 1].id : "";
    const page = await call("GET", `/api/keys?limit=${pageSize}&after=${encodeURIComponent(after)}`);
    list = list.concat(page.data);
    more = page.has_more;
  }
  $("keys-more").hidden = !more;
  fill($("keys-table"), ["Name", "Key", "State", "Models", "Requests", "Tokens", "At once", "Expires", "Actions"],
    list.map((k) => ({ id: k.id, cells: [k.name, k.prefix + "…", state(k), k.models.join(", "),
      use(k, "requests", k.used?.requests, k.limits.period), use(k, "tokens", k.used?.tokens, k.limits.period),
      use(k, "concurrent", k.in_flight), k.expires_at ? when(k.expires_at) : "never", actions(k)] })),
    "There is no key yet.");
  byID = new Map(list.map((k) => [k.id, k]));
}

let byID = new Map();

function state(k) {
  const s = k.disabled ? "disabled" : k.expires_at && new Date(k.expires_at) <= new Date() ? "expired" : "active";
  return h("span", { class: `badge ${s === "active" ? "good" : "off"}` }, s);
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
    name: $("key-name").value, models: names.length ? names : ["*"], disabled: $("key-disabled").checked,
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
    void again();
  } catch (e) {
    $("key-error").textContent = e.message;
    const field = $("key-" + (e.param ?? "").replace(/^limits\./, "").replace("expires_at", "expires"));
    field?.focus();
  } finally {
    button.disabled = false;
  }
}

// again lists the keys now; if that fails, the next refresh says so.
async function again() {
  try { await show(); } catch { /* see above */ }
}

// reveal shows a secret, this once.
function reveal(k) {
  $("secret").value = k.key;
  const model = models.find((m) => k.models.includes("*") || k.models.includes(m.id))?.id ?? "MODEL";
  $("secret-curl").value = `curl ${dataURL()}/v1/chat/completions \\
  -H "Authorization: Bearer ${k.key}" -H "Content-Type: application/json" \\
  -d '${JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] }).replaceAll("'", "'\\''")}'`;
  $("copied").textContent = "";
  $("secret-dialog").showModal();
}

// dataURL is where clients send requests, as far as this side can know.
function dataURL() {
  const at = config.data_address.lastIndexOf(":");
  const host = config.data_address.slice(0, at);
  const any = ["", "[::]", "0.0.0.0"].includes(host);
  return `${config.config.tls ? "https" : "http"}://${any ? location.hostname : host}${config.data_address.slice(at)}`;
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
      void again();
    } catch (e) {
      $("confirm-error").textContent = e.message;
    } finally {
      button.disabled = false;
    }
  };
  $("confirm-dialog").showModal();
}

async function copy(event) {
  const field = $(event.target.dataset.copy);
  try {
    await navigator.clipboard.writeText(field.value);
    $("copied").textContent = "Copied.";
  } catch { // over plain HTTP to another machine there is no clipboard
    field.select();
    $("copied").textContent = "Selected; copy it with the keyboard.";
  }
}

export function listen() {
  $("key-new").addEventListener("click", () => open(null));
  $("key-form").addEventListener("submit", save);
  $("keys-more").addEventListener("click", () => { pages++; void again(); });
  $("keys-table").addEventListener("click", (event) => {
    const action = event.target.dataset?.action;
    if (!action) return;
    const k = byID.get(event.target.closest("tr").dataset.id);
    const path = `/api/keys/${encodeURIComponent(k.id)}`;
    if (action === "edit") open(k);
    if (action === "rotate") {
      confirm(`Rotate ${k.name}?`, "It gets a new secret; the old one stops at once.", "Rotate", () => call("POST", path + "/rotate"));
    }
    if (action === "revoke") {
      confirm(`Revoke ${k.name}?`, "Its requests are refused from now on. This cannot be undone.", "Revoke", () => call("DELETE", path));
    }
  });
  for (const b of document.querySelectorAll("[data-copy]")) b.addEventListener("click", copy);
  $("secret-dialog").addEventListener("close", () => { $("secret").value = $("secret-curl").value = ""; });
}
