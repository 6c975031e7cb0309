// Errors: in groups, and the last ones of each kind.

import { $, copier, fill, h, later, link, number, when } from "./dom.js";
import { get } from "./api.js";
import { keyLink, status } from "./requests.js";

const fields = ["key", "model", "upstream", "error"];

export function listen(again) {
  for (const f of fields) $("errors-" + f).addEventListener("input", later(again));
}

export async function show() {
  const params = Object.fromEntries(fields.map((f) => [f, $("errors-" + f).value.trim()]));
  const { data, groups } = await get("/api/errors", params);
  $("error-kinds").replaceChildren(...[...new Set(["upstream", "gateway", "policy", "caller", ...groups.map((g) => g.error)])].map((k) => h("option", { value: k })));
  fill($("groups-table"), ["Kind", "Model", "Upstream", "How often", "Last", "What it said", "Actions"], groups.map((g) => ({
    id: JSON.stringify([g.error, g.model, g.upstream]), cells: [g.error, g.model ?? "–", g.upstream ?? "–", number(g.count),
      link("requests/" + g.ref, when(g.last)), g.message ?? `status ${g.status}`, link(`requests?error=${encodeURIComponent(g.error)}${g.model ? "&model=" + encodeURIComponent(g.model) : ""}`, "Its requests")] })),
    "None since the start.");
  fill($("errors-table"), ["Time", "Status", "Kind", "Model", "Upstream", "Key", "Trail", "Why", "Request id", "Actions"],
    data.map((e) => ({ id: e.request_id + e.time, cells: [when(e.time), status(e), e.error, e.model ?? "–", e.upstream ?? "–", keyLink(e),
      e.trail ?? "–", [e.message, e.cause].filter(Boolean).join(" · ") || "–", link("requests/" + encodeURIComponent(e.request_id), e.request_id), copied(e)] })), "None so far.");
}

// copied is a button that copies an error as JSON.
function copied(e) {
  const button = copier(`Copy the error of request ${e.request_id}`, () => JSON.stringify(e));
  button.dataset.json = JSON.stringify(e); // so that a row of another error is another
  return button;
}
