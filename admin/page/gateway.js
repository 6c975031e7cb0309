// What the gateway has said of itself, for whoever needs it.

import { get } from "./api.js";

let status = null;
let models = [];
let asked = 0;

export async function refresh() {
  status = await get("/api/status");
  if (!asked || Date.now() - asked > 60000) {
    models = (await get("/api/models")).data;
    asked = Date.now();
  }
  return status;
}

export function knowModels(list) { [models, asked] = [list, Date.now()]; }

export const modelNames = () => models.map((m) => m.id);

export const current = () => status;

// dataURL is where clients send requests, as far as this side can know.
export function dataURL() {
  const at = status.data_address.lastIndexOf(":");
  const host = status.data_address.slice(0, at);
  const any = ["", "[::]", "0.0.0.0"].includes(host);
  return `${status.tls ? "https" : "http"}://${any ? location.hostname : host}${status.data_address.slice(at)}`;
}
