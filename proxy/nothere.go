package proxy

import (
	"bytes"
	"strings"

	"github.com/valyala/fasthttp"
)

// The refusals of requests that no route takes.

const (
	adviceGemini = "Gemini's API is not spoken here; use POST /v1/chat/completions with the model's name in the body"
	adviceUpload = "uploads (multipart) are not taken here: a body must be JSON; send images and audio in the messages of POST /v1/chat/completions, " +
		"or ask the provider itself"
	adviceFiles = "files are not kept here; send what is in them in the request's body, or ask the provider itself"
	adviceBatch = "batches are not taken here; send their requests one by one"
	adviceOther = "there is nothing at this path; POST /v1/chat/completions, /v1/responses and /v1/messages take requests, GET /v1/models lists the models"
)

// elsewhere are paths that clients try which are set up for something else, and what to use here. One that
// ends in a slash stands for all below it.
var elsewhere = []struct{ path, advice string }{
	{"/v1/v1/", "the path has /v1 twice: the client adds it, so its base URL should end without"},
	{"/openai/", "Azure's paths are not spoken here; use POST /v1/chat/completions with the deployment as model, as an OpenAI client does whose base URL ends in /v1"},
	{"/v1beta/", adviceGemini},
	{"/v1/chat", "Cohere's API is not spoken here; use POST /v1/chat/completions"},
	{"/v2/chat", "Cohere's API is not spoken here; use POST /v1/chat/completions"},
	{"/api/chat", "Ollama's API is not spoken here; use POST /v1/chat/completions, as Ollama's OpenAI-compatible clients do"},
	{"/api/generate", "Ollama's API is not spoken here; use POST /v1/completions or /v1/chat/completions, as Ollama's OpenAI-compatible clients do"},
	{"/api/tags", "Ollama's API is not spoken here; GET /v1/models lists the models"},
	{"/v1/audio/transcriptions", adviceUpload},
	{"/v1/audio/translations", adviceUpload},
	{"/v1/images/edits", adviceUpload},
	{"/v1/images/variations", adviceUpload},
	{"/v1/files", adviceFiles},
	{"/v1/files/", adviceFiles},
	{"/v1/uploads", adviceFiles},
	{"/v1/uploads/", adviceFiles},
	{"/v1/batches", adviceBatch},
	{"/v1/batches/", adviceBatch},
	{"/v1/messages/batches", adviceBatch},
	{"/v1/messages/batches/", adviceBatch},
}

func adviceFor(path string) string {
	if namesGeminiMethod([]byte(path)) {
		return adviceGemini
	}
	for _, e := range elsewhere {
		if path == e.path || strings.HasSuffix(e.path, "/") && strings.HasPrefix(path, e.path) {
			return e.advice
		}
	}
	return adviceOther
}

// refuseNotFound refuses a path that is none of the gateway's.
func (r *request) refuseNotFound() {
	if r.wantsUpgrade() {
		r.refuse(refuseUpgrade())
		return
	}
	r.refuse(refusal(notFound, "", "%s", adviceFor(string(r.ctx.Request.URI().PathOriginal()))))
}

// refuseMethod refuses a method that a path does not take. The router has set Allow.
func (r *request) refuseMethod() {
	h := &r.ctx.Response.Header
	if r.wantsUpgrade() || r.dialect() == gemini { // of which each model's method is a path
		h.Del(fasthttp.HeaderAllow)
		r.refuseNotFound()
		return
	}
	// The router counts OPTIONS in, though it was told not to answer it.
	allow := strings.ReplaceAll(string(h.Peek(fasthttp.HeaderAllow)), "OPTIONS, ", "")
	h.Set(fasthttp.HeaderAllow, strings.TrimSuffix(allow, ", OPTIONS"))
	r.refuse(refusal(methodNotAllowed, "", "this path does not take that method; the Allow header names those it takes"))
}

// wantsUpgrade reports whether the client asks to go on in another protocol. A request that can be
// answered without is: an Upgrade is an offer (RFC 9110, section 7.8).
func (r *request) wantsUpgrade() bool {
	return len(r.ctx.Request.Header.Peek(fasthttp.HeaderUpgrade)) > 0
}

func refuseUpgrade() *failure {
	return refusal(upgradeNotSupported, "", "WebSocket and other upgrades are not done here; send the request as an HTTP POST, with stream: true for events")
}

// dialectOf is the error shape of a path that has no route: what it is called as tells.
func dialectOf(path []byte) dialect {
	short := bytes.TrimPrefix(path, []byte("/v1"))
	switch {
	case bytes.HasPrefix(short, anthropicPath):
		return anthropic
	case bytes.HasPrefix(path, geminiPath), namesGeminiMethod(path):
		return gemini
	}
	return openAI
}

// namesGeminiMethod reports whether a path ends as those of Gemini's API do: models/name:method.
func namesGeminiMethod(path []byte) bool {
	switch string(path[bytes.LastIndexByte(path, ':')+1:]) {
	case "generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents", "predict":
		return true
	}
	return false
}

var (
	anthropicPath = []byte("/messages")
	geminiPath    = []byte("/v1beta/")
)
