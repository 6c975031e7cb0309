// The overview: tiles and charts, from a scrape every two seconds.

import { $, duration, h, number, text } from "./dom.js";
import { Chart } from "./charts.js";
import { Window, gauges, parse, values } from "./metrics.js";

const every = 2000; // of the scrapes, in milliseconds
const over = 5; // scrapes: what rates and quantiles are taken over

// What of /metrics is looked at.
const series = new Set(["sluice_requests_total", "sluice_errors_total", "sluice_refused_total", "sluice_tokens_total",
  "sluice_request_duration_seconds_bucket", "sluice_first_byte_seconds_bucket", "sluice_overhead_seconds_bucket",
  "sluice_in_flight", "sluice_upstream_in_flight", "sluice_keys", "sluice_breaker_state"]);

const perSecond = (n) => `${number(n)}/s`;

let charts;
const scrapes = []; // the newest

function make() {
  const chart = (id, title, format) => new Chart($("charts"), { id, title, format });
  charts = {
    requests: chart("chart-requests", "Requests", perSecond),
    duration: chart("chart-duration", "Duration", duration),
    firstByte: chart("chart-first-byte", "First byte", duration),
    errors: chart("chart-errors", "Errors", perSecond),
    tokens: chart("chart-tokens", "Tokens", perSecond),
    inFlight: chart("chart-in-flight", "In flight", number),
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Object.values(charts).forEach((c) => c.restyle()));
  for (const id of ["filter-model", "filter-upstream"]) {
    $(id).addEventListener("change", () => {
      Object.values(charts).forEach((c) => c.clear()); // what is shown from now on is something else
      if (scrapes.length) draw(scrapes[scrapes.length - 1]);
    });
  }
}

export { every };

// show takes a scrape, and what /api/models said at the same moment.
export function show(metrics, models) {
  if (!charts) make();
  const samples = parse(metrics, series);
  choices($("filter-model"), models.map((m) => m.id));
  choices($("filter-upstream"), values(samples, "sluice_upstream_in_flight", "upstream"));
  const scrape = { at: Date.now(), samples, models };
  scrapes.push(scrape);
  if (scrapes.length > over + 1) scrapes.shift();
  draw(scrape);
}

function choices(select, names) {
  const wanted = ["", ...names];
  if (wanted.join("\n") === [...select.options].map((o) => o.value).join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...wanted.map((n) => h("option", { value: n }, n || "all")));
  select.value = wanted.includes(chosen) ? chosen : "";
}

function draw(scrape) {
  if (scrapes.length < 2) return;
  const filter = { model: $("filter-model").value, upstream: $("filter-upstream").value };
  const w = new Window(scrapes[0], scrape);
  const { at, samples, models } = scrape;
  const quantiles = (name) => new Map([["p50", w.quantile(name, 0.5, filter)], ["p99", w.quantile(name, 0.99, filter)]]);
  const duration99 = quantiles("sluice_request_duration_seconds");
  const filtered = filter.model || filter.upstream;
  const errors = filtered
    ? new Map([...w.rates("sluice_requests_total", filter, (l) => l.class)].filter(([c]) => c !== "2xx"))
    : w.rates("sluice_errors_total", {}, (l) => l.kind);
  const inFlight = new Map();
  for (const m of models) {
    for (const t of m.targets) {
      if ((filter.model || m.id) !== m.id || (filter.upstream || t.upstream) !== t.upstream) continue;
      const name = `${m.id} at ${t.upstream}`;
      inFlight.set(name, (inFlight.get(name) ?? 0) + t.in_flight);
    }
  }
  charts.requests.add(at, some(w.rates("sluice_requests_total", filter, (l) => `${l.model} at ${l.upstream}`)));
  charts.duration.add(at, duration99);
  charts.firstByte.add(at, quantiles("sluice_first_byte_seconds"));
  charts.errors.add(at, some(errors));
  charts.tokens.add(at, w.rates("sluice_tokens_total", filter, (l) => l.direction));
  charts.inFlight.add(at, some(inFlight));

  const keys = gauges(samples, "sluice_keys", {}, (l) => l.state);
  tiles([
    ["requests", perSecond(w.rate("sluice_requests_total", filter))],
    ["p99", duration(duration99.get("p99"))],
    ["errors", perSecond([...errors.values()].reduce((a, b) => a + b, 0))],
    ["refused", perSecond(w.rate("sluice_refused_total", {}))],
    ["own time, p99", duration(w.quantile("sluice_overhead_seconds", 0.99, filter))],
    ["in flight", number(gauges(samples, "sluice_in_flight", {}, () => "").get("") ?? 0)],
    ["active keys", number(keys.get("active") ?? 0)],
    ["open breakers", number((samples.get("sluice_breaker_state") ?? []).filter((s) => s.value > 0).length)],
  ]);
}

// some leaves out lines that are zero, once there are many: a gateway may have hundreds of models.
function some(lines) {
  return lines.size <= 8 ? lines : new Map([...lines].filter(([, v]) => v > 0));
}

function tiles(list) {
  const at = $("tiles");
  list.forEach(([name, value], i) => {
    const tile = at.children[i] ?? at.appendChild(h("div", { id: "tile-" + name.replace(/\W+/g, "-") }, h("dt", {}, name), h("dd")));
    text(tile.children[1], value);
  });
}
