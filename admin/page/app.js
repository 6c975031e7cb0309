// The page: signing in, which view is shown, and keeping it fresh.

import { $, copy, text } from "./dom.js";
import { signIn, signInByCode, signOut, signedIn } from "./api.js";
import * as configuration from "./configuration.js";
import * as errors from "./errors.js";
import * as gateway from "./gateway.js";
import * as keys from "./keys.js";
import * as models from "./models.js";
import * as overview from "./overview.js";
import * as playground from "./playground.js";
import * as requests from "./requests.js";

const linkPrefix = "#sign-in=";

// views are what can be shown, each for a part of the address: how it is kept fresh, and how often.
const views = {
  overview: { show: () => overview.show(gateway.current()), every: 2000 },
  models: { show: models.show, every: 2000 },
  requests: { show: requests.show, every: 5000 },
  errors: { show: errors.show, every: 3000 },
  keys: { show: keys.show, every: 2000 },
  playground: { show: playground.show, every: 10000 },
  configuration: { show: configuration.show, every: 3000 },
};
const ones = {
  requests: { section: "request", show: requests.one, every: 60000 },
  keys: { section: "one-key", show: keys.one, every: 5000 },
};

// place is what the address names: a view, one thing in it, and filters.
function place() {
  const [path, query] = location.hash.slice(1).split("?");
  const [name, ...rest] = path.split("/");
  const view = Object.hasOwn(views, name) ? name : "overview";
  const id = rest.length && ones[view] ? decode(rest.join("/")) : "";
  return { view, id, query: new URLSearchParams(query), section: id ? ones[view].section : view };
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

async function refresh() {
  const { view, id } = place();
  banner(await gateway.refresh());
  if (id) await ones[view].show(id);
  else await views[view].show();
}

// banner says on each view what is wrong with the whole.
function banner(status) {
  const first = status.error.split("\n")[0];
  text($("banner-text"), status.error ? `The newest configuration is not in effect: ${first}` : status.ready ? "" : "The gateway drains: it takes no new requests.");
  $("banner").hidden = !$("banner-text").textContent;
  text($("version"), `sluice ${status.version} · configuration ${status.generation}`);
}

let timer = 0;
let running = false;
let waiting = false; // for another turn, at once

async function tick() {
  clearTimeout(timer);
  if (running) waiting = true;
  if (!signedIn() || running) return;
  running = true;
  waiting = false;
  try {
    if (!document.hidden) await refresh();
    text($("connection"), "");
  } catch (e) {
    if (signedIn()) text($("connection"), e.message);
  }
  running = false;
  const { view, id } = place();
  if (signedIn()) timer = setTimeout(tick, waiting ? 0 : (id ? ones[view] : views[view]).every);
}

let shown = "";

function route() {
  const { view, section, query } = place();
  if (shown === "requests" && section !== "requests") requests.close();
  if (shown === "playground" && section !== "playground") playground.close();
  shown = section;
  for (const s of document.querySelectorAll("#content > section")) s.hidden = s.id !== section;
  for (const a of document.querySelectorAll("nav a")) {
    if (a.hash === "#" + view) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  if (section === "requests" && [...query].length) {
    requests.filter(Object.fromEntries(query));
    requests.close();
  }
  document.title = `${$(section).querySelector("h1").textContent} · sluice`;
  void tick();
}

for (const view of [overview, models, requests, errors, keys, playground, configuration]) view.listen(() => void tick());
addEventListener("hashchange", () => {
  if (location.hash.startsWith(linkPrefix)) void enterByLink();
  else if (signedIn()) { route(); $("content").focus(); }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) void tick(); });
$("sign-out").addEventListener("click", signOut);
addEventListener("pageshow", (event) => { if (event.persisted) signOut(); }); // back to a page that was left
for (const b of document.querySelectorAll("[data-close]")) b.addEventListener("click", () => b.closest("dialog").close());
for (const b of document.querySelectorAll("[data-copy]")) {
  const field = $(b.dataset.copy);
  b.addEventListener("click", () => copy(field.value ?? field.textContent, field));
}

function begin() {
  $("token").value = "";
  $("sign-in").hidden = true;
  $("app").hidden = false;
  route();
  $("content").focus();
}

$("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  text($("sign-in-error"), "");
  try {
    await signIn($("token").value);
  } catch (e) {
    text($("sign-in-error"), e.status === 401 ? "This is not the admin token." : e.message);
    return;
  }
  begin();
});

// enterByLink signs in with a link's one-time code, which leaves the address before it is used.
async function enterByLink() {
  const code = location.hash.slice(linkPrefix.length);
  history.replaceState(null, "", location.pathname);
  if (signedIn()) return;
  try {
    await signInByCode(code);
  } catch (e) {
    text($("sign-in-error"), e.status === 401 ? "This link has been used, or is older than a minute. sluice page makes another." : e.message);
    return;
  }
  begin();
}

if (location.hash.startsWith(linkPrefix)) void enterByLink();
