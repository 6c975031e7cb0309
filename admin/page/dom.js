// Small helpers over the DOM. Text only ever goes in as text.

export const $ = (id) => document.getElementById(id);

// h makes an element: properties, then children.
export function h(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
    else if (value === true) e.setAttribute(name, "");
    else if (value !== false && value != null) e.setAttribute(name, value);
  }
  e.append(...children.flat().filter((c) => c != null && c !== false));
  return e;
}

// text changes an element's text if it is another: what has not changed is not read out again.
export function text(e, value) {
  if (e.textContent !== value) e.textContent = value;
}

// fill makes a table of rows, each {id, cells}; a row that stays is changed in place, so that focus and
// selection stay where they are. A cell is text or an element that makes itself anew.
export function fill(table, columns, rows, empty) {
  const head = table.tHead;
  if (!head.rows.length) {
    head.append(h("tr", {}, ...columns.map((c) => h("th", { scope: "col" }, c))));
  }
  const times = new Map(); // an id may be there twice: some are the clients'
  const next = (rows.length ? rows : [{ id: "", cells: [empty] }]).map(({ id, cells }) => {
    times.set(id, (times.get(id) ?? 0) + 1);
    return { id, cells, row: id + "\n" + times.get(id) };
  });
  const body = table.tBodies[0];
  const wanted = new Set(next.map((n) => n.row));
  for (const row of [...body.rows]) if (!wanted.has(row.dataset.row)) row.remove();
  const old = new Map([...body.rows].map((r) => [r.dataset.row, r]));
  next.forEach(({ id, cells, row: name }, i) => {
    let row = old.get(name);
    if (!row) {
      row = h("tr", { "data-row": name, "data-id": id });
      cells.forEach((_, j) => row.append(h("td", { "data-label": columns[j], colspan: id === "" ? columns.length : null })));
    }
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
    cells.forEach((cell, j) => {
      const at = row.cells[j];
      if (!(cell instanceof Element)) text(at, String(cell));
      else if (!at.firstElementChild?.isEqualNode(cell)) at.replaceChildren(cell);
    });
  });
}

export const number = (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 2 : n < 100 ? 1 : 0 });

export const perSecond = (n) => `${number(n)}/s`;

export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 0.001) return `${number(seconds * 1e6)} µs`;
  if (seconds < 1) return `${number(seconds * 1000)} ms`;
  return `${number(seconds)} s`;
}

export function when(time) {
  const d = new Date(time);
  return d.toDateString() === new Date().toDateString() ? d.toLocaleTimeString() : d.toLocaleString();
}

// badge is a word with a colour: good, warn, bad or off.
export const badge = (kind, words) => h("span", { class: `badge ${kind}` }, words);

// link leads to another view.
export const link = (hash, words) => h("a", { href: "#" + hash }, words);

// said tells what has happened, on the screen and to a screen reader.
let quiet = 0;
export function said(words) {
  text($("toast"), words);
  $("toast").classList.add("shown");
  clearTimeout(quiet);
  quiet = setTimeout(() => $("toast").classList.remove("shown"), 2500);
}

// copy copies a text, and says that it did. Over plain HTTP to another machine there is no clipboard.
export async function copy(words, field) {
  try {
    await navigator.clipboard.writeText(words);
    said("Copied.");
  } catch {
    field?.select?.();
    if (field && !field.select) getSelection().selectAllChildren(field);
    said(field ? "Selected; copy it with the keyboard." : "This browser has no clipboard here; use HTTPS or localhost.");
  }
}

// copier is a button that copies what of() returns.
export function copier(label, of, field) {
  return h("button", { type: "button", class: "quiet small", "aria-label": label, onclick: () => copy(of(), field) }, "Copy");
}

// choices makes a select's options of names, and keeps what is chosen.
export function choices(select, names, all = "all") {
  const wanted = ["", ...names];
  if (wanted.join("\n") === [...select.options].map((o) => o.value).join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...wanted.map((n) => h("option", { value: n }, n || all)));
  select.value = wanted.includes(chosen) ? chosen : "";
}

// facts fills a list of names and values.
export function facts(list, pairs) {
  list.replaceChildren(...pairs.filter(([, v]) => v != null && v !== "").map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

// later calls f once words have not been typed for a moment.
export function later(f) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(f, 250); };
}
