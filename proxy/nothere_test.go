package proxy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

// TestPathsOfOthers: who comes with another API's path reads what to use here, in that API's shape.
func TestPathsOfOthers(t *testing.T) {
	g := start(t, oneModel, "127.0.0.1:1")
	for path, says := range map[string]string{
		"/v1/v1/chat/completions": "/v1 twice", "/openai/deployments/gpt/chat/completions?api-version=1": "Azure", "/v1/chat": "Cohere", "/v2/chat": "Cohere",
		"/api/chat": "Ollama", "/api/generate": "Ollama", "/api/tags": "GET /v1/models", "/v1/audio/transcriptions": "multipart", "/v1/images/edits": "multipart",
		"/v1/files": "files are not kept", "/v1/files/f-1/content": "files are not kept", "/v1/batches": "batches", "/nowhere": "nothing at this path",
	} {
		errorRow{404, "invalid_request_error", "", "not_found", says}.check(t, g.post(path, plainM))
	}
	for _, path := range []string{"/v1beta/models/gemini-2:generateContent", "/v1/models/gemini-2:streamGenerateContent?alt=sse", "/v1beta/models"} {
		a := g.post(path, plainM)
		var shape struct {
			Error struct {
				Code            int
				Message, Status string
			}
		}
		err := json.Unmarshal([]byte(a.body), &shape)
		if e := shape.Error; err != nil || a.status != 404 || e.Code != 404 || e.Status != "NOT_FOUND" || !strings.Contains(e.Message, "Gemini") || a.header.Get("Allow") != "" {
			t.Errorf("%s: %d %s %v", path, a.status, a.body, a.header)
		}
	}
	a := g.post("/v1/messages/batches", plainM)
	if a.status != 404 || !strings.HasPrefix(a.body, `{"type":"error","error":{"type":"not_found_error","message":"batches`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	errorRow{404, "invalid_request_error", "model", "model_not_found", "ft:m:org"}.check(t, g.send("GET", "/v1/models/ft:m:org", ""))
}

func TestUpgrades(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	for _, path := range []string{"/v1/responses", "/v1/realtime?model=m", "/v1/chat/completions"} {
		a := g.send("GET", path, "", "Connection", "Upgrade", "Upgrade", "websocket")
		errorRow{426, "invalid_request_error", "", "upgrade_not_supported", "POST"}.check(t, a)
		if a.header.Get("Upgrade") != "HTTP/1.1" || a.header.Get("Connection") != "Upgrade" || a.header.Get("Allow") != "" {
			t.Errorf("%v", a.header)
		}
	}
	// An offer that need not be taken.
	if a := g.post("/v1/chat/completions", plainM, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "Http2-Settings", "AA"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if h := up.Requests()[0].Header; h["Upgrade"] != nil || h["Http2-Settings"] != nil {
		t.Errorf("%v", h)
	}
}

func TestModelWithASlashInItsName(t *testing.T) {
	g := start(t, strings.Replace(oneModel, "models: {", "models: {org/n: {targets: [{upstream: up}]}, ", 1), "127.0.0.1:1")
	for _, path := range []string{"/v1/models/org/n", "/v1/models/org%2Fn", "/v1/models/org%2fn/", "/models/org%2Fn"} {
		if a := g.send("GET", path, ""); a.status != 200 || !strings.Contains(a.body, `"id":"org/n"`) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/v1/models/..%2Fkey", "/v1/models/%2Fn", "/v1/models/org%2F%2Fn", "/v1/models/org%5Cn", "/v1/models%2Fm", "/v1/x%2Fmodels/m"} {
		if a := g.send("GET", path, ""); a.status != 400 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// TestFirstLooks of agents get an answer, and leave no trace.
func TestFirstLooks(t *testing.T) {
	g := start(t, oneModel+"access_log: true\n", "127.0.0.1:1")
	for _, path := range []string{"/", "/api/hello"} {
		for _, method := range []string{"GET", "HEAD"} {
			a := g.send(method, path, "", "Authorization", "")
			if a.status != 200 || method == "GET" && !strings.Contains(a.body, `"name":"sluice"`) {
				t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
			}
		}
	}
	g.send("GET", "/nowhere", "")
	eventually(t, "the last one is logged", func() bool { return strings.Contains(g.log.String(), `"status":404`) })
	if log := g.log.String(); strings.Contains(log, `"status":200`) {
		t.Error(log)
	}
	if n := len(g.lastErrors()); n != 1 {
		t.Errorf("%d errors", n)
	}
}

// TestWhetherToTryAgain: an error that repeating cannot mend says so, and on Anthropic's paths has the
// header that its SDKs read.
func TestWhetherToTryAgain(t *testing.T) {
	g := start(t, oneModel, "127.0.0.1:1")
	for _, test := range []struct {
		path, body, key string
		status          int
		retry           string
	}{
		{"/v1/chat/completions", "{", g.secret, 400, "false"}, {"/v1/chat/completions", plainM, "nope", 401, "false"},
		{"/v1/chat/completions", `{"model":"x"}`, g.secret, 404, "false"}, {"/v1/messages", `{"model":"x"}`, g.secret, 404, "false"},
		{"/v1/messages", plainM, g.secret, 502, ""}, {"/v1/chat/completions", plainM, g.secret, 502, ""}, {"/v1/key", plainM, g.secret, 405, "false"},
	} {
		a := g.post(test.path, test.body, "Authorization", "Bearer "+test.key)
		id := a.header.Get("X-Request-Id")
		if test.path != "/v1/messages" {
			id = ""
		}
		got := fmt.Sprint(a.status, a.header.Get("X-Should-Retry"), a.header.Get("Request-Id"))
		if want := fmt.Sprint(test.status, test.retry, id); got != want {
			t.Errorf("%s %s: %s, want %s", test.path, test.body, got, want)
		}
	}
}
