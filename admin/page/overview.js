// The overview: tiles, charts over a range of time, and what happened meanwhile.

import { $, choices, duration, h, number, perSecond, text } from "./dom.js";
import { get, query } from "./api.js";
import { Chart, known, listMarks, rates } from "./charts.js";

const spans = { "15m": "last 15 minutes", "1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days" };
const every = { "15m": 2000, "1h": 5000, "24h": 30000, "7d": 60000 };

let charts;
let range = "15m";
let fresh = 0; // when what is shown was asked for

// listen makes the charts and the choices of time. again has the view shown anew.
export function listen(again) {
  const chart = (id, title, format) => new Chart($("charts"), { id, title, format });
  charts = {
    requests: chart("chart-requests", "Requests", perSecond),
    errors: chart("chart-errors", "Errors", perSecond),
    duration: chart("chart-duration", "Duration", duration),
    firstByte: chart("chart-first-byte", "First byte", duration),
    tokens: chart("chart-tokens", "Tokens", perSecond),
    inFlight: chart("chart-in-flight", "In flight, peak", number),
  };
  const changed = () => { fresh = 0; again(); };
  ranges($("ranges"), (r) => { range = r; changed(); });
  $("overview-by").addEventListener("change", () => { choices($("overview-name"), []); changed(); });
  $("overview-name").addEventListener("change", changed);
}

// ranges makes the buttons of a choice of time.
export function ranges(bar, chosen) {
  bar.append(...Object.entries(spans).map(([r, words]) => h("button", { type: "button", class: "quiet", "data-range": r,
    "aria-pressed": String(r === "15m"), "aria-label": words, onclick: () => {
      for (const b of bar.children) b.setAttribute("aria-pressed", String(b.dataset.range === r));
      chosen(r);
    } }, r.replace("m", " min").replace("h", " h").replace("d", " days"))));
}

const column = (answer, name) => new Map(answer.data.filter((l) => l.values[name]).map((l) => [l.label || l.name, rates(answer, l.values[name])]));

// show draws what the gateway counted. status is what it said of itself just now.
export async function show(status) {
  first(status);
  if (Date.now() - fresh < every[range] - 500) {
    tiles(status);
    return;
  }
  const by = $("overview-by").value;
  const name = $("overview-name").value;
  const asked = (params) => get("/api/series" + query({ range, ...params }));
  const [total, lines, kinds] = await Promise.all([asked({ by: "total" }), asked({ by }), asked({ by: "error" })]);
  const one = name ? await asked({ by, name }) : total;
  fresh = Date.now();
  choices($("overview-name"), [...new Set([...lines.data.map((l) => l.name), ...(name ? [name] : [])])].filter((n) => n !== "(others)").sort());
  draw(one, lines, name ? null : kinds, name);
  newest = one;
  tiles(status);
  listMarks($("marks"), total.marks);
  $("marks-box").hidden = total.marks.length === 0;
  text($("overview-left"), lines.left_out && !name ? `and ${lines.left_out} more with fewer requests; choose one to see it` : "");
}

let newest;

function draw(one, lines, kinds, name) {
  const values = one.data[0]?.values ?? {};
  const some = (pairs) => new Map(pairs.filter(([, v]) => v));
  const at = (chart, data) => chart.show(one.times, data, one.marks, spans[range]);
  const of = (names, make) => some(names.map(([label, key]) => [label, make(values[key])]));
  const plain = (v) => known(one, v);
  const rate = (v) => rates(one, v);
  at(charts.requests, name ? some([[one.data[0]?.label || name, rate(values.requests)]]) : column(lines, "requests"));
  at(charts.errors, kinds ? column(kinds, "requests")
    : of([["caller", "errors_caller"], ["policy", "errors_policy"], ["upstream", "errors_upstream"], ["gateway", "errors_gateway"]], rate));
  at(charts.duration, of([["p50", "duration_p50"], ["p99", "duration_p99"]], plain));
  at(charts.firstByte, of([["p50", "first_byte_p50"], ["p99", "first_byte_p99"]], plain));
  at(charts.tokens, of([["in", "tokens_in"], ["out", "tokens_out"]], rate));
  at(charts.inFlight, of([["in flight", "in_flight"]], plain));
}

// lately adds up a column's last minute, or its last steps where these are longer.
function lately(name) {
  const values = newest?.data[0]?.values[name] ?? [];
  const steps = Math.max(2, Math.round(60 / (newest?.step_seconds ?? 10)));
  const seconds = (steps - 1) * (newest?.step_seconds ?? 10) + (newest?.last_step_seconds ?? 0);
  const some = values.slice(-steps).filter((v) => v != null);
  return { sum: some.reduce((a, v) => a + v, 0), rate: some.reduce((a, v) => a + v, 0) / seconds, most: some.length ? Math.max(...some) : null };
}

function tiles(status) {
  const requests = lately("requests");
  const faults = lately("errors_upstream").sum + lately("errors_gateway").sum;
  const refused = lately("errors_caller").sum + lately("errors_policy").sum;
  const part = (n) => (requests.sum ? `${number(100 * n / requests.sum)} %` : "–");
  const level = (n, warn, bad) => (n >= bad ? "bad" : n >= warn ? "warn" : "");
  const share = requests.sum ? faults / requests.sum : 0;
  const t = status.targets;
  put([
    ["requests", perSecond(requests.rate), ""],
    ["error rate", part(faults), requests.sum ? level(share, 0.01, 0.05) || "good" : "", "of upstreams and the gateway, in the last minute"],
    ["refused", part(refused), level(requests.sum ? refused / requests.sum : 0, 0.1, 0.5), "by a policy, or the caller's own mistake"],
    ["p99", duration(lately("duration_p99").most), ""],
    ["first byte, p99", duration(lately("first_byte_p99").most), ""],
    ["in flight", number(status.in_flight), ""],
    ["open breakers", number(t.open), t.open ? "bad" : t.half_open ? "warn" : "good"],
    ["credentials", t.refused + t.not_set ? `${t.refused + t.not_set} wrong` : "good", t.refused + t.not_set ? "bad" : "good"],
    ["active keys", number(status.keys.active ?? 0), ""],
  ]);
}

function put(list) {
  const at = $("tiles");
  list.forEach(([name, value, kind, why], i) => {
    const tile = at.children[i] ?? at.appendChild(h("div", { id: "tile-" + name.replace(/\W+/g, "-"), title: why }, h("dt", {}, name), h("dd")));
    tile.className = kind;
    text(tile.children[1], value);
  });
}

// first says what to do while there is nothing to see.
function first(status) {
  $("first").hidden = status.requests > 0;
  $("first-key").hidden = (status.keys.active ?? 0) > 0;
}
