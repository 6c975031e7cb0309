package admin

import (
	"encoding/json"
	"io"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// TestBodyThatBreaksOff is the client's error on every path that takes one.
func TestBodyThatBreaksOff(t *testing.T) {
	p := start(t)
	_, made := p.call("POST", "/api/keys", `{"name":"x"}`)
	id, _ := made["id"].(string)
	for path, method := range map[string]string{"/api/keys": "POST", "/api/keys/" + id: "PATCH", "/api/import": "POST"} {
		r := httptest.NewRequest(method, path, io.MultiReader(strings.NewReader(`{"name":"y"`), iotest.ErrReader(io.ErrUnexpectedEOF)))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		p.a.server.Handler.ServeHTTP(w, r)
		if w.Code != 400 || !strings.Contains(w.Body.String(), "invalid_json") {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	if strings.Contains(p.log.String(), "key store failed") {
		t.Errorf("the log blames the key store: %s", p.log.String())
	}
}

// TestBodiesAreBounded: the largest body that is read costs no more than twice one of half its
// length, whatever is in it, and its error is short.
func TestBodiesAreBounded(t *testing.T) {
	p := start(t)
	_, made := p.call("POST", "/api/keys", `{"name":"x"}`)
	id, _ := made["id"].(string)
	repeated := func(head, part, tail string) func(int) string {
		return func(n int) string { return head + strings.Repeat(part, (n-len(head)-len(tail))/len(part)) + tail }
	}
	for name, body := range map[string]func(int) string{
		"a long name":     repeated(`{"name":"`, "x", `"}`),
		"a long field":    repeated(`{"`, "x", `":1}`),
		"many models":     repeated(`{"name":"x","models":[`, `"m",`, `"m"]}`),
		"many fields":     repeated(`{"name":"x",`, `"name":"x",`, `"name":"x"}`),
		"spaces":          repeated(`{"name":"x"`, " ", `,"name":1}`),
		"deep limits":     repeated(`{"name":"x","limits":`, `{"limits":`, ""),
		"brackets":        repeated("", "[", ""),
		"escapes":         repeated(`{"name":"`, `\u00e9`, `"}`),
		"a long number":   repeated(`{"name":"x","limits":{"requests":`, "9", `}}`),
		"a long period":   repeated(`{"name":"x","limits":{"requests":1,"period":"`, "1h", `"}}`),
		"a long exponent": repeated(`{"name":"x","limits":{"requests":1e`, "9", `}}`),
		"many keys":       repeated(`{"keys":[`, `{},`, `{}]}`),
		"many nulls":      repeated(`{"keys":[`, `1,`, `1]}`),
	} {
		for path, method := range map[string]string{"/api/keys": "POST", "/api/keys/" + id: "PATCH", "/api/import": "POST"} {
			cost := func(n int) uint64 {
				text := body(n)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				w := p.raw(method, path, text)
				runtime.ReadMemStats(&after)
				var v struct{ Error struct{ Code string } }
				if json.Unmarshal(w.Body.Bytes(), &v) != nil || w.Code != 400 || v.Error.Code == "" || w.Body.Len() > 1000 {
					t.Errorf("%s, %s %s: %d %.300s", name, method, path, w.Code, w.Body)
				}
				return after.TotalAlloc - before.TotalAlloc
			}
			if half, full := cost(maxBody/2), cost(maxBody); float64(full) > 2.5*float64(half)+64<<10 {
				t.Errorf("%s, %s %s: %d bytes for half a body, %d for a whole one", name, method, path, half, full)
			}
		}
	}
	for path, most := range map[string]int{"/api/keys": maxBody, "/api/import": maxImport} {
		p.refused("POST", path, strings.Repeat(" ", most+1), 413, "body_too_large", "", "larger than")
	}
}
