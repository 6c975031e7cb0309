package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/mock"
)

// shell runs a command of the program against n, and returns what it prints.
func (n *node) shell(args ...string) (string, error) {
	n.t.Helper()
	var out bytes.Buffer
	err := run(context.Background(), args, &out, &out, nil, nil)
	return out.String(), err
}

func TestKeysFromAShell(t *testing.T) {
	n := begin(t, provider(t, &mock.Provider{Chunks: 1}), "")
	t.Setenv("SLUICE_ADMIN", n.admin+"/")
	t.Setenv("SLUICE_ADMIN_TOKEN", adminToken)
	must := func(args ...string) string {
		t.Helper()
		out, err := n.shell(args...)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return out
	}
	type key struct {
		ID, Key, Name string
		ExpiresAt     *string `json:"expires_at"`
		Models        []string
		Limits        map[string]any
	}
	made := func(text string) (k key) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &k); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return k
	}
	has := func(text string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("there is no %q in\n%s", part, text)
			}
		}
	}
	k := made(must("keys", "create", "--json", "-name", "search team", "-force", "-models", "demo, other", "-requests", "2", "-tokens", "1000", "-period", "1h", "-concurrent", "5", "-expires", "2099-01-01T00:00:00Z"))
	if k.Name != "search team" || k.Models[1] != "other" || k.Limits["requests"] != 2.0 || k.Limits["period"] != "3600s" || *k.ExpiresAt != "2099-01-01T00:00:00Z" {
		t.Errorf("%+v", k)
	}
	post := func(secret string) int {
		status, _ := n.call("POST", n.data+"/v1/chat/completions", secret, `{"model":"demo","max_tokens":10}`)
		return status
	}
	if got := [3]int{post(k.Key), post(k.Key), post(k.Key)}; got != [3]int{200, 200, 429} {
		t.Errorf("%v", got)
	}
	has(must("keys", "show", k.ID), "search team", "2 of 2 in 3600s", "active", "demo, other", "expires")
	must("keys", "update", "-requests", "none", k.ID, "-expires", "none", "-models", "*")
	if got := made(must("keys", "show", k.ID, "-json")); got.Limits["requests"] != nil || got.Limits["tokens"] != 1000.0 || got.ExpiresAt != nil || got.Models[0] != "*" {
		t.Errorf("%+v", got)
	}
	must("keys", "update", k.ID, "-disabled")
	has(must("keys", "list"), "search team", "disabled", "0/5")
	must("keys", "update", k.ID, "-disabled=false")
	rotated := must("keys", "rotate", k.ID)
	fresh := rotated[strings.Index(rotated, "sk-sluice-"):][:53]
	if post(k.Key) != 401 || post(fresh) != 200 {
		t.Error("the old secret still works, or the new one does not")
	}
	for range 3 {
		must("keys", "create", "-name", "another")
	}
	var all struct{ Data []key }
	if err := json.Unmarshal([]byte(must("keys", "list", "-json")), &all); err != nil || len(all.Data) != 4 {
		t.Errorf("%d keys, %v", len(all.Data), err)
	}
	has(must("status"), "ready: true", "configuration 1", "UPSTREAM", "closed")
	has(must("status", "-json"), `"ready":true`, `"generation":1`, `"models":[{`)
	has(must("models"), "FALLS BACK TO", "demo-model", "closed")
	has(must("models", "-json"), `"breaker":"closed"`)
	has(must("upstreams"), "LAST FAILURE", "http://127.0.0.1:")
	has(must("upstreams", "-json"), `"max_in_flight":0`)
	has(must("upstreams", "drain", "up"), "up is drained; in flight there: 0")
	has(must("upstreams"), "drained")
	has(must("models"), "drained")
	has(must("upstreams", "undrain", "up", "-json"), `"name":"up"`, `"drained":false`)
	has(must("upstreams", "drain", "up/demo-model"), "up/demo-model is drained")
	has(must("status", "-json"), `"drained":true`)
	has(must("upstreams", "undrain", "up/demo-model"), "up/demo-model is undrained")
	has(must("reload"), "configuration 2 is in effect")
	has(must("reload", "-json"), `{"generation":3,"restart":[]}`)
	has(must("keys", "revoke", k.ID), "revoked")
	has(must("keys", "-h"), "usage:")
	has(must("status", "-h"), "usage:")

	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"keys", "show"}, "takes the id of one key"},
		{[]string{"keys", "show", "a", "b"}, "takes the id of one key"},
		{[]string{"keys", "show", k.ID}, "no key has this id"},
		{[]string{"keys", "show", "../config"}, "there is nothing at this path"},
		{[]string{"keys", "update", k.ID}, "nothing to change"},
		{[]string{"upstreams", "drain", "down"}, `no upstream is called "down"; upstreams are up`},
		{[]string{"upstreams", "drain", "up/"}, "the target must be what the upstream calls a model"},
		{[]string{"upstreams", "undrain", "up/x/y"}, `upstream up has no target called "x/y"; its targets are demo-model`},
		{[]string{"keys", "create"}, "name: is needed"},
		{[]string{"keys", "create", "-name", "x", "-period", "1s"}, "limits.period: needs limits.requests"},
		{[]string{"keys", "create", "-name", "x", "-models", "other"}, `models: "other" is not configured; correct it, or repeat with ?force=true (sluice keys: -force)`},
		{[]string{"keys", "create", "-name", "\x1b]0;x\x07"}, "name: must be text without control or invisible characters; it has U+001B"},
		{[]string{"keys", "create", "-requests", "many"}, "must be a whole number, or none"},
		{[]string{"keys", "create", "-expires", "tomorrow"}, "a time from now such as 720h"},
	} {
		if out, err := n.shell(test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v %s", test.args, err, out)
		}
	}
}

// TestAdminThatIsNone: what a shell is told when the other end is no sluice, or not there.
func TestAdminThatIsNone(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			return
		}
		http.Redirect(w, r, "http://elsewhere.test/", http.StatusFound)
	}))
	defer other.Close()
	n := &node{t: t}
	for _, test := range []struct{ admin, token, want string }{
		{other.URL, "x", "answered 302, and not as a sluice does"},
		{"http://127.0.0.1:1", "x", "cannot reach the admin port"},
		{"127.0.0.1:9090", "x", "must be the admin port's URL"},
		{"", "", "SLUICE_ADMIN_TOKEN is not set"},
	} {
		t.Setenv("SLUICE_ADMIN", test.admin)
		t.Setenv("SLUICE_ADMIN_TOKEN", test.token)
		for _, args := range [][]string{{"keys", "list"}, {"status"}} {
			if out, err := n.shell(args...); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%q at %q: %v %s", args, test.admin, err, out)
			}
		}
	}
}
