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

async function send(method, path, body, { as = token, signal = AbortSignal.timeout(30000) } = {}) {
  const headers = { Authorization: "Bearer " + as };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "error", signal,
    });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new APIError(0, { message: "The gateway does not answer." });
  }
  return response;
}

async function failed(response) {
  const text = await response.text();
  let error = { message: `The gateway answered ${response.status}.` };
  try { error = JSON.parse(text).error ?? error; } catch { /* not one of its own */ }
  return new APIError(response.status, error);
}

async function checked(...args) {
  const response = await send(...args);
  if (response.ok) return response;
  if (response.status === 401 && signedIn()) signOut(); // it is not the right one any more
  throw await failed(response);
}

// signIn throws if the token is not the right one.
export async function signIn(text) {
  await checked("GET", "/api/status", undefined, { as: text });
  token = text;
}

// signInByCode throws if the code has been used, or has ended.
export async function signInByCode(code) {
  const response = await send("POST", "/api/sign-in", { code }, { as: "" });
  if (!response.ok) throw await failed(response);
  await signIn((await response.json()).token);
}

export async function call(method, path, body) { return (await checked(method, path, body)).json(); }

export const get = (path, params = {}) => call("GET", path + query(params));

// query writes the parameters that have a value.
export function query(params) {
  const text = new URLSearchParams(Object.entries(params).filter(([, v]) => v !== "" && v != null)).toString();
  return text && "?" + text;
}

// play sends a request of the playground; whatever its status is, it is the answer.
export const play = (request, signal) => send("POST", "/api/playground", request, { signal });

// follow calls on(event, data) for each server-sent event until it ends or signal aborts.
export async function follow(path, signal, on) {
  const response = await checked("GET", path, undefined, { signal });
  let text = "";
  for await (const piece of decoded(response)) {
    text += piece;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const event = lines.find((l) => l.startsWith("event: "));
      if (event) on(event.slice(7), JSON.parse(lines.find((l) => l.startsWith("data: ")).slice(6)));
    }
  }
}

// decoded gives a body's text as it comes.
export async function* decoded(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
