// What the charts show, from the text of /metrics (Prometheus text format 0.0.4) at two moments.

const sample = /^(sluice_[a-z_]+)(?:\{(.*)\})? (\S+)/;
const label = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;

// parse returns samples by name: [{labels, value}]. wanted are the names that are looked at: with a thousand models
// there are many others.
export function parse(text, wanted) {
  const all = new Map();
  for (const line of text.split("\n")) {
    const end = line.search(/[ {]/);
    if (!wanted.has(line.slice(0, end))) continue;
    const m = sample.exec(line);
    if (!m) continue;
    const labels = {};
    for (const [, name, value] of (m[2] ?? "").matchAll(label)) {
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    const list = all.get(m[1]) ?? [];
    list.push({ labels, value: Number(m[3]) });
    all.set(m[1], list);
  }
  return all;
}

const key = (labels) => JSON.stringify(labels);

function matches(labels, filter) {
  return (!filter.model || labels.model === undefined || labels.model === filter.model) &&
    (!filter.upstream || labels.upstream === undefined || labels.upstream === filter.upstream);
}

// Window is two scrapes and the time between them.
export class Window {
  constructor(before, after) {
    this.seconds = (after.at - before.at) / 1000;
    this.before = before.samples;
    this.after = after.samples;
  }

  // rates gives the increase per second of a counter, added up by what of(labels) returns.
  rates(name, filter, of) {
    const was = new Map((this.before.get(name) ?? []).map((s) => [key(s.labels), s.value]));
    const now = (this.after.get(name) ?? []).filter((s) => matches(s.labels, filter));
    // A process that has taken over, or has been started again, counts from zero, in every bucket of a histogram.
    const series = (labels) => key({ ...labels, le: "" });
    const anew = new Set(now.filter((s) => s.value < was.get(key(s.labels))).map((s) => series(s.labels)));
    const sums = new Map();
    for (const { labels, value } of now) {
      const old = anew.has(series(labels)) ? 0 : was.get(key(labels)) ?? 0;
      const group = of(labels);
      sums.set(group, (sums.get(group) ?? 0) + (value - old) / this.seconds);
    }
    return sums;
  }

  // rate is the whole of rates.
  rate(name, filter) { return this.rates(name, filter, () => "").get("") ?? 0; }

  // quantile of a histogram's observations in between, or null if there were none. Inside a bucket they are
  // taken to lie evenly, as Prometheus does (histogram_quantile).
  quantile(name, q, filter) {
    const buckets = [...this.rates(name + "_bucket", filter, (l) => l.le)]
      .map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count]).sort((a, b) => a[0] - b[0]);
    const total = buckets.length ? buckets[buckets.length - 1][1] : 0;
    if (!(total > 0)) return null;
    let low = 0;
    let below = 0;
    for (const [le, count] of buckets) {
      if (count >= q * total) {
        if (le === Infinity) return low;
        return low + (le - low) * (q * total - below) / (count - below || 1);
      }
      [low, below] = [le, count];
    }
    return low;
  }
}

// gauges gives a gauge's values by what of(labels) returns.
export function gauges(samples, name, filter, of) {
  const sums = new Map();
  for (const { labels, value } of samples.get(name) ?? []) {
    if (matches(labels, filter)) sums.set(of(labels), (sums.get(of(labels)) ?? 0) + value);
  }
  return sums;
}

// values are those of one label in a series, in order.
export function values(samples, name, labelName) {
  return [...new Set((samples.get(name) ?? []).map((s) => s.labels[labelName]))].sort();
}
