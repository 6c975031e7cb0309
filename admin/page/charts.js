// Charts of the last ten minutes, drawn by uPlot (MIT, see uPlot.LICENSE).

import { h, text } from "./dom.js";

/* global uPlot */

const points = 300; // of two seconds
const most = 8; // series in a chart; the others go together

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Chart shows lines whose names come and go.
export class Chart {
  constructor(parent, { id, title, format }) {
    this.format = format;
    this.title = title;
    this.times = [];
    this.lines = new Map(); // name → values
    this.legend = h("ul", { class: "legend" });
    this.box = h("div", { class: "plot", role: "img" });
    parent.append(h("figure", { id, "aria-labelledby": id + "-title" }, h("figcaption", { id: id + "-title" }, title), this.box, this.legend));
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.box);
  }

  size() { return { width: Math.max(this.box.clientWidth, 200), height: 170 }; }

  // add appends the values of one moment: name → number or null.
  add(at, values) {
    this.times.push(at / 1000);
    for (const name of values.keys()) {
      if (!this.lines.has(name)) this.lines.set(name, new Array(this.times.length - 1).fill(null));
    }
    for (const [name, list] of this.lines) {
      list.push(values.get(name) ?? null);
      if (list.length > points) list.shift();
      if (list.every((v) => v === null)) this.lines.delete(name);
    }
    if (this.times.length > points) this.times.shift();
    this.draw();
  }

  // shown are the lines to draw: those that were largest over the whole time, and the others together.
  shown() {
    if (this.lines.size <= most) return new Map([...this.lines].sort(([a], [b]) => (a < b ? -1 : 1)));
    const sum = (list) => list.reduce((a, v) => a + (v ?? 0), 0);
    const sorted = [...this.lines].map(([name, list]) => [name, list, sum(list)]).sort((a, b) => b[2] - a[2] || (a[0] < b[0] ? -1 : 1));
    const lines = new Map(sorted.slice(0, most - 1).map(([name, list]) => [name, list]).sort(([a], [b]) => (a < b ? -1 : 1)));
    const rest = sorted.slice(most - 1);
    lines.set(`${rest.length} others`, this.times.map((_, i) => rest.reduce((a, [, list]) => a + (list[i] ?? 0), 0)));
    return lines;
  }

  // clear forgets what was drawn: it was of something else.
  clear() {
    this.times = [];
    this.lines.clear();
    this.draw();
  }

  // restyle draws anew in the page's present colours.
  restyle() {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  }

  draw() {
    const lines = this.shown();
    const names = [...lines.keys()];
    const data = [this.times, ...lines.values()];
    const shape = names.join("\n");
    if (!this.plot || this.shape !== shape) {
      this.plot?.destroy();
      this.shape = shape;
      this.plot = new uPlot(this.options(names), data, this.box);
    } else {
      this.plot.setData(data);
    }
    const last = names.map((n) => [n, lines.get(n).at(-1)]);
    const said = last.map(([n, v]) => `${n} ${v == null ? "none" : this.format(v)}`);
    this.box.setAttribute("aria-label", `${this.title}, last ten minutes. Now: ${said.join(", ") || "nothing"}`);
    last.forEach(([n, v], i) => {
      const item = this.legend.children[i] ?? this.legend.appendChild(h("li", {}, h("i", { class: `c${i}`, "aria-hidden": "true" }), h("span"), h("b")));
      text(item.children[1], n);
      text(item.children[2], v == null ? "–" : this.format(v));
    });
    while (this.legend.children.length > last.length) this.legend.lastChild.remove();
  }

  options(names) {
    const axis = { stroke: css("--muted"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { y: false },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [axis, { ...axis, size: 62, values: (_, ticks) => ticks.map(this.format) }],
      series: [{}, ...names.map((n, i) => ({ label: n, stroke: css(`--c${i}`), width: 1.5, points: { show: false }, spanGaps: false }))],
    };
  }
}
