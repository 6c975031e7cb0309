// Charts over time, drawn by uPlot (MIT, see uPlot.LICENSE).

import { h, text, when } from "./dom.js";

/* global uPlot */

const colours = 8;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const charts = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((c) => c.restyle()));

// Chart shows the lines that it is given, and single ones that are chosen in its legend.
export class Chart {
  constructor(parent, { id, title, format }) {
    Object.assign(this, { title, format, lines: new Map(), times: [], marks: [], colour: new Map(), alone: null });
    this.legend = h("ul", { class: "legend" });
    this.box = h("div", { class: "plot", role: "img", "aria-label": title });
    this.figure = h("figure", { id, "aria-labelledby": id + "-title" }, h("figcaption", { id: id + "-title" }, title), this.box, this.legend);
    parent.append(this.figure);
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.box);
    charts.add(this);
  }

  size() { return { width: Math.max(this.box.clientWidth, 200), height: 170 }; }

  // show draws lines, name → values, and marks of moments. Lines that are zero all the time are left out.
  show(times, lines, marks, span) {
    const some = [...lines].filter(([, values]) => values.some((v) => v));
    const sum = (values) => values.reduce((a, v) => a + (v ?? 0), 0);
    some.sort((a, b) => sum(b[1]) - sum(a[1]) || (a[0] < b[0] ? -1 : 1));
    this.lines = new Map(some.slice(0, colours));
    Object.assign(this, { times, marks, span });
    if (!this.lines.has(this.alone)) this.alone = null;
    this.draw();
  }

  // colourOf gives a line the same colour for as long as it is there.
  colourOf(name) {
    for (const n of this.colour.keys()) if (!this.lines.has(n)) this.colour.delete(n);
    if (!this.colour.has(name)) {
      const taken = new Set(this.colour.values());
      this.colour.set(name, [...Array(colours).keys()].find((i) => !taken.has(i)) ?? 0);
    }
    return this.colour.get(name);
  }

  // restyle draws anew in the page's present colours.
  restyle() {
    this.plot?.destroy();
    this.plot = null;
    if (this.times.length) this.draw();
  }

  draw() {
    const names = [...this.lines.keys()].sort();
    const data = [this.times, ...names.map((n) => this.lines.get(n))];
    const shape = JSON.stringify([names, this.span]);
    if (!this.plot || this.shape !== shape) {
      this.plot?.destroy();
      this.shape = shape;
      this.plot = new uPlot(this.options(names), data, this.box);
    } else {
      this.plot.setData(data);
    }
    names.forEach((n, i) => {
      const show = this.alone === null || this.alone === n;
      if (this.plot.series[i + 1].show !== show) this.plot.setSeries(i + 1, { show });
    });
    this.tell(names);
  }

  // tell writes the legend, the largest value first, and the words for a screen reader.
  tell(names) {
    const now = names.map((n) => [n, this.lines.get(n).findLast((v) => v != null) ?? null]);
    now.sort((a, b) => (b[1] ?? -1) - (a[1] ?? -1) || (a[0] < b[0] ? -1 : 1));
    const words = now.map(([n, v]) => `${n} ${v == null ? "none" : this.format(v)}`);
    this.box.setAttribute("aria-label", `${this.title}, ${this.span ?? ""}. Now: ${words.join(", ") || "nothing"}`);
    now.forEach(([n, v], i) => {
      const item = this.legend.children[i] ?? this.legend.appendChild(h("li", {}, this.item()));
      const button = item.firstChild;
      button.dataset.name = n;
      button.setAttribute("aria-pressed", String(this.alone === n));
      button.firstChild.className = `c${this.colourOf(n)}`;
      text(button.children[1], n);
      text(button.children[2], v == null ? "–" : this.format(v));
    });
    while (this.legend.children.length > now.length) this.legend.lastChild.remove();
    this.figure.classList.toggle("empty", now.length === 0);
  }

  // item is a button that singles out its line.
  item() {
    return h("button", { type: "button", title: "show this line alone", onclick: (event) => {
      const name = event.currentTarget.dataset.name;
      this.alone = this.alone === name ? null : name;
      this.draw();
    } }, h("i", { "aria-hidden": "true" }), h("span"), h("b"));
  }

  options(names) {
    const axis = { stroke: css("--muted"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { y: false },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [{ ...axis, size: 32, values: (u, ticks) => ticks.map(u.data[0].at(-1) - u.data[0][0] > 90000 ? day : clock) }, { ...axis, size: 62, values: (_, ticks) => ticks.map(this.format) }],
      series: [{}, ...names.map((n) => ({ label: n, stroke: css(`--c${this.colourOf(n)}`), width: 1.5, points: { show: false }, spanGaps: true }))],
      hooks: { draw: [(u) => this.drawMarks(u)] },
    };
  }

  // drawMarks draws a line at each moment that is marked: reloads in the accent's colour, what went wrong in red.
  drawMarks(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.setLineDash([4, 4]);
    for (const m of this.marks) {
      const x = u.valToPos(Date.parse(m.at) / 1000, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = css(isBad(m) ? "--bad" : "--accent");
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}

const isBad = (m) => ["errors", "breaker", "credential", "reload_failed"].includes(m.kind);

// listMarks writes what is marked, the newest first.
export function listMarks(list, marks) {
  list.replaceChildren(...marks.slice(-12).reverse().map((m) =>
    h("li", { class: isBad(m) ? "bad" : "" }, h("time", { datetime: m.at }, when(m.at)), " ", m.text)));
}

// known is an answer's column without the steps before counting began, of which nothing is known.
export function known(answer, column) {
  return column?.map((v, i) => (answer.times[i] + answer.step_seconds <= answer.since ? null : v));
}

// rates divides the counts of an answer's column by the length of their steps. The last is not over.
export function rates(answer, column) {
  return known(answer, column)?.map((v, i) => v === null ? null : v / (i === column.length - 1 ? answer.last_step_seconds : answer.step_seconds));
}

const clock = (t) => new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = (t) => new Date(t * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
