// The playground: one request through the gateway, its answer as it comes, and the same request as code.

import { $, h, text } from "./dom.js";
import { decoded, play } from "./api.js";
import { dataURL, modelNames } from "./gateway.js";

let stop = null;
let language = "curl";

export function listen() {
  $("play-form").addEventListener("submit", (event) => { event.preventDefault(); void send(); });
  $("play-stop").addEventListener("click", () => stop?.abort());
  for (const name of ["play-model", "play-text", "play-stream"]) $(name).addEventListener("input", code);
  for (const b of $("play-languages").children) {
    b.addEventListener("click", () => { language = b.dataset.language; code(); });
  }
}

export function show() {
  const names = modelNames();
  const list = $("play-models");
  if (list.children.length !== names.length) list.replaceChildren(...names.slice(0, 1000).map((n) => h("option", { value: n })));
  if (!$("play-model").value && names.length) $("play-model").value = names[0];
  code();
}

// close forgets the key and the answer: they are shown while the view is.
export function close() {
  stop?.abort();
  $("play-key").value = "";
  for (const id of ["play-answer", "play-trail", "play-raw"]) $(id).replaceChildren();
}

const request = () => ({ model: $("play-model").value.trim(), stream: $("play-stream").checked, messages: [{ role: "user", content: $("play-text").value }] });

async function send() {
  stop?.abort();
  const own = (stop = new AbortController());
  for (const id of ["play-answer", "play-trail", "play-raw"]) $(id).replaceChildren();
  text($("play-state"), "Sent.");
  $("play-stop").hidden = false;
  const began = performance.now();
  const took = () => `${Math.round(performance.now() - began)} ms`;
  try {
    const response = await play({ key: $("play-key").value.trim(), path: "/v1/chat/completions", body: request() }, own.signal);
    text($("play-state"), `${response.status} after ${took()}.`);
    const names = [["x-sluice-trail", "Trail"], ["x-sluice-model", "Model"], ["x-sluice-upstream", "Upstream"], ["x-sluice-attempts", "Attempts"], ["x-request-id", "Request id"],
      ["x-sluice-upstream-request-id", "Upstream's id"], ["x-ratelimit-remaining-requests", "Requests left"], ["x-ratelimit-remaining-tokens", "Tokens left"]];
    $("play-trail").replaceChildren(...names.filter(([n]) => response.headers.get(n)).map(([n, label]) => h("div", {}, h("dt", {}, label), h("dd", {}, response.headers.get(n)))));
    await read(response);
    text($("play-state"), `${response.status}, complete after ${took()}.`);
  } catch (e) {
    text($("play-state"), e.name === "AbortError" ? "Stopped." : e.message ?? "The answer broke off.");
  }
  if (stop === own) $("play-stop").hidden = true;
}

const mostRaw = 64 << 10; // characters of what has come that are shown as they are

// read shows an answer as it comes: its text, and below what came.
async function read(response) {
  let raw = "";
  let rest = "";
  for await (const piece of decoded(response)) {
    raw = (raw + piece).slice(-mostRaw);
    text($("play-raw"), raw);
    rest += piece;
    if (!(response.headers.get("content-type") ?? "").startsWith("text/event-stream")) continue;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) append(event.replace(/^data: ?/m, ""));
  }
  append(rest);
}

function append(json) {
  let data;
  try { data = JSON.parse(json); } catch { return; }
  const words = data.error?.message ?? data.choices?.map((c) => c.delta?.content ?? c.message?.content ?? "").join("") ?? "";
  $("play-answer").append(words);
}

const quoted = (v) => JSON.stringify(v);

// programs are the same request in four languages. The key comes from the environment.
const programs = {
  curl: (url, r) => `curl -N ${url}/v1/chat/completions \\
  -H "Authorization: Bearer $SLUICE_KEY" -H "Content-Type: application/json" \\
  -d '${quoted(r).replaceAll("'", "'\\''")}'`,
  python: (url, r) => `import os
from openai import OpenAI

client = OpenAI(base_url=${quoted(url + "/v1")}, api_key=os.environ["SLUICE_KEY"])
answer = client.chat.completions.create(
    model=${quoted(r.model)},
    messages=${quoted(r.messages)},
${r.stream ? `    stream=True,
)
for chunk in answer:
    print(chunk.choices[0].delta.content or "", end="", flush=True)` : `)
print(answer.choices[0].message.content)`}`,
  node: (url, r) => `import OpenAI from "openai";

const client = new OpenAI({ baseURL: ${quoted(url + "/v1")}, apiKey: process.env.SLUICE_KEY });
const answer = await client.chat.completions.create({
  model: ${quoted(r.model)},
  messages: ${quoted(r.messages)},
${r.stream ? `  stream: true,
});
for await (const chunk of answer) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");` : `});
console.log(answer.choices[0].message.content);`}`,
  go: (url, r) => `package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	body := strings.NewReader(${quoted(quoted(r))})
	req, err := http.NewRequest("POST", ${quoted(url + "/v1/chat/completions")}, body)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+os.Getenv("SLUICE_KEY"))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		log.Fatal(err)
	}
}`,
};

function code() {
  for (const b of $("play-languages").children) b.setAttribute("aria-pressed", String(b.dataset.language === language));
  $("play-code").value = programs[language](dataURL(), request());
  $("play-code").rows = $("play-code").value.split("\n").length;
}

