package admin

import (
	"testing"
	"time"
)

// TestSensibleKeys: what is most likely a mistake is refused of a new key and of a change, unless it
// is forced; a pattern cannot be.
func TestSensibleKeys(t *testing.T) {
	p := start(t)
	past := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	status, made := p.call("POST", "/api/keys?force=true", `{"name":"x","models":["m","later"],"expires_at":"`+past+`"}`)
	if status != 201 {
		t.Fatalf("%d %v", status, made)
	}
	id, _ := made["id"].(string)
	for _, at := range []struct{ method, path, name string }{{"POST", "/api/keys", `"name":"y",`}, {"PATCH", "/api/keys/" + id, ""}} {
		p.refused(at.method, at.path, `{`+at.name+`"models":["m","mm"]}`, 400, "invalid_request", "models", `"mm" is not configured; correct it, or repeat with ?force=true`)
		p.refused(at.method, at.path, `{`+at.name+`"expires_at":"2001-01-01T00:00:00Z"}`, 400, "invalid_request", "expires_at", "2001-01-01T00:00:00Z is in the past")
		p.refused(at.method, at.path+"?force=true", `{`+at.name+`"models":["gpt-*"]}`, 400, "invalid_request", "models", `name each model, or write ["*"]`)
		p.refused(at.method, at.path+"?force=yes", `{`+at.name+`"models":["m"]}`, 400, "invalid_request", "force", "true or false")
	}
	for _, change := range []string{`{"name":"z"}`, `{"models":["later","n"]}`, `{"models":["*"]}`, `{"expires_at":"` + past + `"}`, `{"expires_at":null}`} {
		if status, v := p.call("PATCH", "/api/keys/"+id, change); status != 200 {
			t.Errorf("%s: %d %v", change, status, v)
		}
	}
}
