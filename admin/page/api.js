// The admin API. The token lives in this module and nowhere else: not in storage, not in an
// address. What a page of another site makes a browser send has no Authorization header.

let token = "";
let leave = () => {};

// onRefused is called when the token is not, or no longer, the right one.
export function onRefused(f) { leave = f; }

export function signedIn() { return token !== ""; }

export function signOut() { token = ""; }

// APIError is what the gateway says of a request that it refuses.
export class APIError extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.param = error.param;
  }
}

async function send(method, path, body) {
  const headers = { Authorization: "Bearer " + token };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(30000),
    });
  } catch {
    throw new APIError(0, { message: "The gateway does not answer." });
  }
  if (response.ok) return response;
  const text = await response.text();
  let error = { message: `The gateway answered ${response.status}.` };
  try { error = JSON.parse(text).error; } catch { /* not one of its own */ }
  if (response.status === 401) {
    signOut();
    leave();
  }
  throw new APIError(response.status, error);
}

// signIn throws if the token is not the right one.
export async function signIn(text) {
  token = text;
  try {
    await send("GET", "/api/config");
  } catch (e) {
    token = "";
    throw e;
  }
}

export async function call(method, path, body) { return (await send(method, path, body)).json(); }

export async function metricsText() { return (await send("GET", "/metrics")).text(); }
