// Requests that are over: live, filtered, and one of them with its attempts.

import { $, badge, copier, duration, facts, fill, h, later, link, number, text, when } from "./dom.js";
import { follow, get, query, signedIn } from "./api.js";
import { dataURL } from "./gateway.js";

const most = 200; // rows
const fields = ["key", "model", "upstream", "status", "error", "slow"];

let list = [];
let lost = 0;
let stop = null; // ends the following
let drawn = 0;
let more = false;

const filters = () => Object.fromEntries(fields.map((f) => [f, $("requests-" + f).value.trim()]));

export function listen() {
  const changed = later(() => { void begin().catch(complain); });
  for (const f of fields) $("requests-" + f).addEventListener("input", changed);
  $("requests-live").addEventListener("change", () => { $("requests-live").checked ? void begin().catch(complain) : leave(); });
  $("requests-more").addEventListener("click", () => { void older().catch(complain); });
  $("requests-clear").addEventListener("click", () => { for (const f of fields) $("requests-" + f).value = ""; changed(); });
}

function complain(e) {
  if (!signedIn() || e.name === "AbortError") return;
  text($("requests-state"), e.message);
}

// filter shows the requests that others point at.
export function filter(values) {
  for (const f of fields) $("requests-" + f).value = values[f] ?? "";
}

// show begins when the view is opened, and else leaves what is shown to the stream.
export async function show() {
  if (!stop && !list.length) await begin();
}

// leave ends the following: the view is not shown any more.
export function leave() {
  stop?.abort();
  stop = null;
}

// close leaves, and forgets what was shown.
export function close() {
  leave();
  list = [];
}

async function begin() {
  leave();
  const own = new AbortController();
  stop = own;
  text($("requests-state"), "");
  const page = await get("/api/requests", { ...filters(), limit: 100 });
  if (stop !== own) return;
  [list, more, lost] = [page.data, page.has_more, 0];
  draw();
  if (!$("requests-live").checked) return;
  void follow("/api/requests/stream" + query(filters()), own.signal, (event, data) => {
    if (event === "request") {
      if (list.length && number64(data.ref) <= number64(list[0].ref)) return;
      list.unshift(data);
      list.length = Math.min(list.length, most);
    }
    if (event === "lost") lost += data.lost;
    if (event === "end") text($("requests-state"), `The stream ended: ${data.reason}.`);
    soon();
  }).catch(complain).finally(() => { if (stop === own) close(); }); // it begins anew at the next turn
}

const number64 = (ref) => Number(ref.slice(1));

// soon draws at most four times a second.
function soon() {
  if (drawn) return;
  drawn = setTimeout(() => { drawn = 0; if (stop) draw(); }, 250);
}

async function older() {
  if (!list.length) return;
  const page = await get("/api/requests", { ...filters(), limit: 100, after: list[list.length - 1].ref });
  list = list.concat(page.data);
  more = page.has_more;
  draw();
}

export const status = (e) => badge(e.error === undefined ? "good" : e.status >= 500 || e.error.startsWith("upstream") || e.error.startsWith("gateway") ? "bad" : "warn", String(e.status));

export const keyLink = (e) => (e.key ? link("keys/" + e.key, e.key_name || e.key) : "–");

export const columns = ["Time", "Status", "Kind", "Model", "Upstream", "Key", "Total", "First byte", "Tokens", "Trail"];

export function row(e) {
  const tokens = e.tokens_in === undefined ? "–" : `${number(e.tokens_in)} in, ${number(e.tokens_out)} out`;
  return { id: e.ref, cells: [link("requests/" + e.ref, when(e.time)), status(e), e.error ?? "–", e.model ?? "–", e.upstream ?? "–", keyLink(e),
    duration(e.total), duration(e.first_byte), tokens, e.trail ?? "–"] };
}

function draw() {
  fill($("requests-table"), columns, list.map(row), Object.values(filters()).some(Boolean) ? "No request that is kept matches." : "No request has ended yet.");
  $("requests-more").hidden = !more;
  text($("requests-lost"), lost ? `${number(lost)} requests came too fast to be shown.` : "");
}

// one shows a request with its attempts.
export async function one(ref) {
  let e;
  try {
    e = await get("/api/requests/" + encodeURIComponent(ref));
  } catch (error) {
    if (error.status !== 404) throw error;
    text($("request-missing"), error.message);
    $("request-known").hidden = true;
    return;
  }
  text($("request-missing"), "");
  $("request-known").hidden = false;
  text($("request-title"), `Request ${e.request_id}`);
  facts($("request-facts"), [
    ["Ended with", h("span", {}, status(e), e.error ? " " + e.error : "")], ["Time", when(e.time)], ["Total", duration(e.total)], ["First byte", duration(e.first_byte)],
    ["The gateway's own", duration(e.overhead)], ["Key", keyLink(e)], ["Model", e.model], ["Upstream", e.upstream], ["Client", e.client],
    ["Request", e.path && `${e.method} ${e.path}`], ["Tokens", e.tokens_in === undefined ? null : `${number(e.tokens_in)} in, ${number(e.tokens_out)} out`],
    ["Bytes", `${number(e.bytes_in)} in, ${number(e.bytes_out)} out`], ["Client was told", e.message], ["Log was told", e.cause], ["Trail", e.trail],
    ["Request id", h("span", {}, e.request_id, " ", copier("Copy the request id", () => e.request_id))],
    ["Upstream's id", e.upstream_request_id && h("span", {}, e.upstream_request_id, " ", copier("Copy the upstream's request id", () => e.upstream_request_id))],
  ]);
  waterfall(e);
  $("request-curl").value = curl(e);
}

// curl repeats a request without its content, which nobody has kept.
function curl(e) {
  const body = JSON.stringify({ model: e.model ?? "MODEL", ...(e.stream ? { stream: true } : {}), messages: [{ role: "user", content: "Hello" }] });
  return `curl ${e.method === "POST" || !e.method ? "" : `-X ${e.method} `}${dataURL()}${e.path ?? "/v1/chat/completions"} \\
  -H "Authorization: Bearer $SLUICE_KEY" -H "Content-Type: application/json" \\
  -d '${body.replaceAll("'", "'\\''")}'`;
}

const parts = [["wait", "wait"], ["connect", "connect"], ["first_byte", "first byte"], ["answer", "answer"]];

// waterfall draws each attempt as a bar of its times, beside their numbers.
function waterfall(e) {
  const width = (bar, seconds) => { bar.style.width = `${Math.max(0.3, 100 * seconds / (e.total || 1))}%`; return bar; };
  fill($("waterfall"), ["Attempt", "Target", "Ended with", ...parts.map(([, label]) => label), "Over time"], e.steps.map((s, i) => {
    const bar = h("div", { class: "water", "aria-hidden": "true" });
    const before = s.begins - s.wait;
    if (before > 0) bar.append(width(h("i", { class: "before" }), before));
    for (const [name] of parts) if (s[name] > 0) bar.append(width(h("i", { class: name }), s[name]));
    return { id: `${e.ref}-${i}`, cells: [`${e.attempts - e.steps.length + i + 1}`, `${s.target} (${s.model} at ${s.upstream})`,
      s.cause ? badge("bad", s.status ? `${s.cause} ${s.status}` : s.cause) : badge("good", String(s.status ?? "–")),
      ...parts.map(([name]) => (s[name] === undefined ? "–" : name === "connect" && !s[name] ? "was open" : duration(s[name]))), bar] };
  }), "No upstream was asked.");
}
