// The admin API. The token lives in this module and nowhere else: not in storage, not in an
// address. What a page of another site makes a browser send has no Authorization header.

let token = "";

export function signedIn() { return token !== ""; }

// signOut loads the page anew: nothing that an admin has seen stays, nothing that is under way goes on.
export function signOut() {
  token = "";
  location.reload();
}

// APIError is what the gateway says of a request that it refuses.
export class APIError extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.param = error.param;
  }
}

async function send(method, path, body, as = token) {
  const headers = { Authorization: "Bearer " + as };
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
  if (response.status === 401 && signedIn()) signOut(); // it is not the right one any more
  throw new APIError(response.status, error);
}

// signIn throws if the token is not the right one.
export async function signIn(text) {
  await send("GET", "/api/config", undefined, text);
  token = text;
}

// signInByCode throws if the code has been used, or has ended.
export async function signInByCode(code) {
  const { token: text } = await (await send("POST", "/api/sign-in", { code }, "")).json();
  await signIn(text);
}

export async function call(method, path, body) { return (await send(method, path, body)).json(); }

export async function metricsText() { return (await send("GET", "/metrics")).text(); }
