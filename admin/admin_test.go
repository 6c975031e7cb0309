package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sluice/config"
	"sluice/history"
	"sluice/keys"
	"sluice/metrics"
	"sluice/pool"
	"sluice/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "0123456789abcdef"

const good = `
admin: {token: 0123456789abcdef}
upstreams: {up: {base_url: "http://user:sesame@127.0.0.1:1/v1", api_key: sesame-key, headers: {x-a: sesame-header}, query: {q: sesame-query}}}
models: {m: {targets: [{upstream: up, model: up-m, weight: 3}], max_retries: 5, fallbacks: [n]}, n: {targets: [{upstream: up}]}}
`

type port struct {
	t    *testing.T
	a    *Admin
	path string // of the configuration
	log  bytes.Buffer
	keys *keys.Store

	requests int // each from an address of its own, as far as there are
}

func start(t *testing.T) *port {
	t.Helper()
	p := &port{t: t, path: filepath.Join(t.TempDir(), "config.yaml")}
	p.write(good)
	log := slog.New(slog.NewJSONHandler(&p.log, nil))
	clock := func() time.Duration { return 0 }
	var err error
	if p.keys, err = keys.Open(filepath.Join(t.TempDir(), "keys.db"), clock); err != nil {
		t.Fatal(err)
	}
	m := metrics.New()
	upstreams := pool.New(m, log, clock, nil)
	gateway := proxy.New(proxy.Parts{Keys: p.keys, Pool: upstreams, Metrics: m, Log: log, Clock: clock, Memory: 1 << 40, Access: &p.log})
	cfg, digest, err := config.Load(t.Context(), p.path)
	if err != nil {
		t.Fatal(err)
	}
	live, err := config.NewLive(p.path, cfg, digest, log, gateway.Apply, func(s config.Status) { m.Reloaded(s.Error == "", s.Generation, s.LoadedAt) })
	if err != nil {
		t.Fatal(err)
	}
	p.a = New(Parts{Live: live, Keys: p.keys, Proxy: gateway, Pool: upstreams, Metrics: m, Log: log, Clock: clock, Data: &net.TCPAddr{Port: 8080},
		Series: history.New(history.Parts{Ring: gateway.Recorder().Ring, InFlight: gateway.InFlight, States: m.UpstreamStates, Log: log}), Version: "test"})
	t.Cleanup(func() {
		upstreams.Close()
		p.keys.Close()
	})
	return p
}

func (p *port) write(text string) {
	p.t.Helper()
	if err := os.WriteFile(p.path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// call returns the status and the decoded body.
func (p *port) call(method, path, body string, header ...string) (int, map[string]any) {
	p.t.Helper()
	r := p.raw(method, path, body, header...)
	var v map[string]any
	if err := json.Unmarshal(r.Body.Bytes(), &v); err != nil {
		p.t.Fatalf("%s %s: %d %q: %v", method, path, r.Code, r.Body, err)
	}
	return r.Code, v
}

func (p *port) raw(method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	p.requests++
	r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", p.requests%250+1)
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return p.serve(r)
}

func (p *port) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.a.server.Handler.ServeHTTP(w, r)
	return w
}

// refused checks an error's status, code and param.
func (p *port) refused(method, path, body string, status int, code, param, says string, header ...string) {
	p.t.Helper()
	got, v := p.call(method, path, body, header...)
	e, _ := v["error"].(map[string]any)
	if e["param"] == nil {
		e["param"] = ""
	}
	if got != status || e["code"] != code || e["param"] != param || !strings.Contains(e["message"].(string), says) {
		p.t.Errorf("%s %s %s: %d %v, want %d %s %s %q", method, path, body, got, e, status, code, param, says)
	}
}

func TestEverythingNeedsTheToken(t *testing.T) {
	p := start(t)
	for _, path := range []string{"/api/keys", "/api/keys/x", "/api/models", "/api/upstreams", "/api/config", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/nowhere"} {
		for _, auth := range []string{"", "Bearer", "Bearer ", "Bearer " + token + "x", "Bearer " + token[1:], "Basic " + token, token} {
			p.refused("GET", path, "", 401, "invalid_api_key", "", "ADMIN_TOKEN", "Authorization", auth)
		}
	}
	p.refused("POST", "/api/reload", "", 401, "invalid_api_key", "", "", "Authorization", "Bearer x")
	for _, path := range []string{"/healthz", "/readyz"} {
		if w := p.raw("GET", path, "", "Authorization", ""); w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
		if w := p.raw("GET", path, ""); w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	p.refused("GET", "/nowhere", "", 404, "not_found", "", "")
	p.refused("DELETE", "/api/config", "", 401, "invalid_api_key", "", "", "Authorization", "")
	for _, path := range []string{"//api/keys", "/api/../api/keys", "/api/keys/"} {
		p.refused("GET", path, "", 404, "not_found", "", "")
	}
	for _, seconds := range []string{"61", "-1", "x", "NaN"} {
		p.refused("GET", "/debug/pprof/profile?seconds="+seconds, "", 400, "invalid_request", "seconds", "at most 60")
	}
	if w := p.raw("PUT", "/api/keys", ""); w.Code != 405 || w.Header().Get("Allow") != "GET, POST" {
		t.Errorf("%d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}

func TestLifeOfAKey(t *testing.T) {
	p := start(t)
	status, made := p.call("POST", "/api/keys", `{"name":"search team","expires_at":"2030-01-01T00:00:00Z","models":["m"],"limits":{"requests":600,"concurrent":50}}`)
	secret, _ := made["key"].(string)
	id, _ := made["id"].(string)
	if status != 201 || !strings.HasPrefix(secret, "sk-sluice-") || !strings.HasPrefix(id, "key_") {
		t.Fatalf("%d %v", status, made)
	}
	want := map[string]any{"id": id, "key": secret, "prefix": secret[:14], "name": "search team", "created_at": made["created_at"], "expires_at": "2030-01-01T00:00:00Z",
		"disabled": false, "models": []any{"m"}, "limits": map[string]any{"requests": 600.0, "period": "60s", "concurrent": 50.0}}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	delete(want, "key")
	want["in_flight"], want["used"] = 0.0, map[string]any{"requests": 0.0}
	_, got := p.call("GET", "/api/keys/"+id, "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	change := func(body string, check func(v map[string]any) bool) {
		t.Helper()
		status, v := p.call("PATCH", "/api/keys/"+id, body)
		if status != 200 || !check(v) {
			t.Errorf("%s: %d %v", body, status, v)
		}
	}
	limits := func(want string) func(map[string]any) bool {
		return func(v map[string]any) bool { return fmt.Sprint(v["limits"]) == want }
	}
	change(`{"name":"other"}`, func(v map[string]any) bool { return v["name"] == "other" && v["expires_at"] != nil })
	change(`{"expires_at":null,"disabled":true}`, func(v map[string]any) bool { return v["expires_at"] == nil && v["disabled"] == true })
	change(`{"models":["*"]}`, func(v map[string]any) bool { return fmt.Sprint(v["models"]) == "[*]" })
	change(`{"limits":{"requests":5}}`, limits("map[concurrent:50 period:60s requests:5]"))
	change(`{"limits":{"period":"90s","concurrent":null}}`, limits("map[period:90s requests:5]"))
	change(`{"limits":{"requests":null}}`, limits("map[]"))
	change(`{"limits":{"requests":7}}`, limits("map[period:60s requests:7]"))
	change(`{"limits":null}`, limits("map[]"))
	change(`{"disabled":false}`, func(v map[string]any) bool { return v["disabled"] == false })

	k := p.keys.Lookup([]byte(secret))
	if k == nil {
		t.Fatal("the secret does not work")
	}
	change(`{"limits":{"requests":9,"tokens":1000}}`, func(map[string]any) bool { return true })
	k.Reserve(0, thirtyTokens{}, new(keys.Reservation))
	if _, got := p.call("GET", "/api/keys/"+id, ""); fmt.Sprint(got["used"]) != "map[requests:1 tokens:30]" {
		t.Errorf("%v", got)
	}
	status, rotated := p.call("POST", "/api/keys/"+id+"/rotate", "")
	if status != 200 || rotated["key"] == secret || rotated["id"] != id || p.keys.Lookup([]byte(secret)) != nil {
		t.Errorf("%d %v", status, rotated)
	}
	if status, v := p.call("DELETE", "/api/keys/"+id, ""); status != 200 || v["deleted"] != true {
		t.Errorf("%d %v", status, v)
	}
	for _, call := range [][2]string{{"GET", ""}, {"PATCH", ""}, {"DELETE", ""}, {"POST", "/rotate"}} {
		p.refused(call[0], "/api/keys/"+id+call[1], "{}", 404, "not_found", "", "no key")
	}
	if strings.Contains(p.log.String(), secret) || strings.Contains(p.log.String(), token) {
		t.Errorf("a secret is in the log: %s", &p.log)
	}
}

// thirtyTokens is what a request asks of its key.
type thirtyTokens struct{}

func (thirtyTokens) TokensNeeded() int64     { return 30 }
func (thirtyTokens) TokensUsed(int64) int64  { return 30 }
func (thirtyTokens) TokensNote(int64) string { return "" }

func TestKeysThatCannotBe(t *testing.T) {
	p := start(t)
	_, made := p.call("POST", "/api/keys", `{"name":"x"}`)
	for body, want := range map[string][2]string{
		``: {"", "one JSON object"}, `[]`: {"", "one JSON object"}, `null`: {"", "one JSON object"}, `{"name":"x"}{}`: {"", "one JSON object"},
		`{"name":1}`: {"name", "a string"}, `{"name":""}`: {"name", "is needed"}, `{"name":"x","owner":"y"}`: {"owner", "not a known field"},
		`{"name":"x","expires_at":"tomorrow"}`: {"expires_at", "2027-01-31T00:00:00Z"}, `{"name":"x","expires_at":5}`: {"expires_at", "2027"},
		`{"name":"x","disabled":"no"}`: {"disabled", "true or false"}, `{"name":"x","models":"m"}`: {"models", "a list"}, `{"name":"x","models":[]}`: {"models", "must name"},
		`{"name":"x","models":[1]}`: {"models", "a list"}, `{"name":"x","limits":5}`: {"limits", "an object"}, `{"name":"x","limits":{"requets":5}}`: {"limits.requets", "not a known"},
		`{"name":"x","limits":{"requests":"5"}}`: {"limits.requests", "whole number"}, `{"name":"x","limits":{"requests":1.5}}`: {"limits.requests", "whole number"},
		`{"name":"x","limits":{"requests":0}}`: {"limits.requests", "from 1 to"}, `{"name":"x","limits":{"requests":5,"period":60}}`: {"limits.period", "60s"},
		`{"name":"x","limits":{"requests":5,"period":"1ms"}}`: {"limits.period", "from"}, `{"name":"x","limits":{"period":"60s"}}`: {"limits.period", "needs limits.requests or limits.tokens"},
		`{"name":"x","limits":{"concurrent":0}}`: {"limits.concurrent", "from 1"}, `{"name":"x","disabled":null}`: {"disabled", "true or false"}, `{"name":"x","models":null}`: {"models", "a list"}, `{"name":null}`: {"name", "a string"},
		`{"name":"x","name":"y"}`: {"name", "twice"}, `{"name":"x","limits":{"requests":5,"period":null}}`: {"limits.period", "60s"},
		`{"name":"x","id":"key_1"}`: {"id", "not a known"}, `{"name":"x","key":"sk"}`: {"key", "not a known"},
	} {
		code := "invalid_request"
		if want[0] == "" {
			code = "invalid_json"
		}
		p.refused("POST", "/api/keys", body, 400, code, want[0], want[1])
		p.refused("PATCH", "/api/keys/"+made["id"].(string), body, 400, code, want[0], want[1])
	}
	p.refused("POST", "/api/keys", `{}`, 400, "invalid_request", "name", "is needed")
	p.refused("POST", "/api/keys", `{"name":"`+strings.Repeat("x", 300<<10)+`"}`, 413, "body_too_large", "", "larger")
	if n := p.keys.Count(); n != 1 {
		t.Errorf("%d keys, want the one", n)
	}
}

func TestListKeys(t *testing.T) {
	p := start(t)
	var want []string
	for i := range 3 {
		_, made := p.call("POST", "/api/keys", fmt.Sprintf(`{"name":"k%d"}`, i))
		want = append(want, made["id"].(string))
	}
	var got []string
	after := ""
	for more := true; more; {
		w := p.raw("GET", "/api/keys?limit=2&after="+after, "")
		var list struct {
			Object string
			Data   []struct{ ID, Key string }
			More   bool `json:"has_more"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || list.Object != "list" {
			t.Fatal(err, w.Body)
		}
		for _, k := range list.Data {
			if k.Key != "" {
				t.Error("a list shows a secret")
			}
			after = k.ID
			got = append(got, k.ID)
		}
		more = list.More
	}
	if len(got) != 3 {
		t.Errorf("-want +got\n%s", cmp.Diff(want, got))
	}
	for _, limit := range []string{"0", "-1", "1001", "x"} {
		p.refused("GET", "/api/keys?limit="+limit, "", 400, "invalid_request", "limit", "from 1 to 1000")
	}
}

func TestStatus(t *testing.T) {
	p := start(t)
	target := p.a.proxy.Set().Models["m"].Targets[0]
	for range 5 { // its breaker opens
		place, _ := target.Enter(0)
		target.Leave(0, place, pool.Failed)
	}
	target.Upstream.Retry(0)
	_, v := p.call("GET", "/api/upstreams", "")
	up := v["data"].([]any)[0].(map[string]any)
	if got := fmt.Sprint(up["retries"], up["retries_allowed"], up["targets"]); got != "1 10 [map[breaker:open credential_refused:false drained:false in_flight:0 model:m serves_in_seconds:1 target:up-m] "+
		"map[breaker:closed credential_refused:false drained:false in_flight:0 model:n serves_in_seconds:0 target:n]]" {
		t.Errorf("%s", got)
	}
	if up["name"] != "up" || up["address"] != "http://127.0.0.1:1" || up["in_flight"] != 0.0 {
		t.Errorf("%v", up)
	}
	_, v = p.call("GET", "/api/models", "")
	if got := fmt.Sprint(v["data"]); got != "[map[fallbacks:[n] id:m max_retries:5 targets:[map[breaker:open credential_refused:false drained:false in_flight:0 last_failure:<nil> model:up-m serves_in_seconds:1 upstream:up weight:3]]] "+
		"map[fallbacks:[] id:n max_retries:2 targets:[map[breaker:closed credential_refused:false drained:false in_flight:0 last_failure:<nil> model:n serves_in_seconds:0 upstream:up weight:1]]]]" {
		t.Errorf("%s", got)
	}
	w := p.raw("GET", "/metrics", "")
	for _, line := range []string{
		`sluice_upstream_in_flight{upstream="up"} 0`,
		`sluice_upstream_connections{upstream="up"} 0`,
		`sluice_breaker_state{model="m",target="up-m",upstream="up"} 2`,
		`sluice_retries_total{upstream="up"} 1`,
		`sluice_refused_total{code="no_healthy_upstream"} 0`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no %s in\n%s", line, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), `model="n"`) {
		t.Errorf("a model that nobody has asked for has series:\n%s", w.Body)
	}
}

func TestConfigAndReload(t *testing.T) {
	p := start(t)
	w := p.raw("GET", "/api/config", "")
	if strings.Contains(w.Body.String(), "sesame") || strings.Contains(w.Body.String(), token) {
		t.Errorf("a secret is shown: %s", w.Body)
	}
	for _, part := range []string{`"generation":1`, `"listen":":8080"`, `"base_url":"http://[redacted]@127.0.0.1:1/v1"`, `"x-a":"[redacted]"`, `"total":"10m0s"`, `"body":"32MiB"`, `"error":""`} {
		if !strings.Contains(w.Body.String(), part) {
			t.Errorf("%s is not in %s", part, w.Body)
		}
	}
	if status, v := p.call("POST", "/api/reload", ""); status != 200 || v["generation"] != 2.0 {
		t.Errorf("%d %v", status, v)
	}
	p.write(strings.Replace(good, "upstreams:", "limits: {head: 64KiB}\nupstreams:", 1))
	for _, ask := range [][2]string{{"POST", "/api/reload"}, {"GET", "/api/config"}, {"GET", "/api/status"}} {
		if _, v := p.call(ask[0], ask[1], ""); fmt.Sprint(v["restart"]) != "[limits.head]" {
			t.Errorf("%s does not say what takes effect at the next start only: %v", ask[1], v)
		}
	}
	p.write(good)
	if _, v := p.call("POST", "/api/reload", ""); fmt.Sprint(v["restart"]) != "[]" || v["generation"] != 4.0 {
		t.Errorf("what was taken back needs no restart: %v", v)
	}
	p.write(strings.Replace(good, "weight: 3", "weight: many", 1))
	p.refused("POST", "/api/reload", "", 400, "invalid_config", "models.m.targets[0].weight", p.path+":4:60: models.m.targets[0].weight: must be a whole number")
	if _, v := p.call("GET", "/api/config", ""); v["generation"] != 4.0 || !strings.Contains(v["error"].(string), "weight") {
		t.Errorf("%v", v)
	}
	if w := p.raw("GET", "/metrics", ""); !strings.Contains(w.Body.String(), "sluice_config_last_reload_successful 0") ||
		!strings.Contains(w.Body.String(), `sluice_config_reloads_total{result="failure"} 1`) {
		t.Errorf("%s", w.Body)
	}
	p.write(strings.Replace(good, token, "another-token-1234567", 1))
	if status, _ := p.call("POST", "/api/reload", ""); status != 200 {
		t.Fatalf("%d", status)
	}
	p.refused("GET", "/api/config", "", 401, "invalid_api_key", "", "")
	if w := p.raw("GET", "/api/config", "", "Authorization", "Bearer another-token-1234567"); w.Code != 200 {
		t.Errorf("the new token: %d", w.Code)
	}
	if err := os.Remove(p.path); err != nil {
		t.Fatal(err)
	}
	p.refused("POST", "/api/reload", "", 400, "invalid_config", "", "cannot read config", "Authorization", "Bearer another-token-1234567")
}

// TestCredentialThatIsNotSet: a target that is never asked is shown as such.
func TestCredentialThatIsNotSet(t *testing.T) {
	p := start(t)
	text := strings.Replace(good, "sesame-key", `"${SLUICE_TEST_UNSET:-}"`, 1)
	p.write(strings.Replace(text, "user:sesame@", "", 1))
	if status, v := p.call("POST", "/api/reload", ""); status != 200 {
		t.Fatalf("%d %v", status, v)
	}
	_, v := p.call("GET", "/api/models", "")
	for _, m := range v["data"].([]any) {
		if target := m.(map[string]any)["targets"].([]any)[0].(map[string]any); target["credential"] != "not set" || target["upstream"] != "up" {
			t.Errorf("%v", target)
		}
	}
	if !strings.Contains(p.log.String(), "SLUICE_TEST_UNSET is empty or not set") {
		t.Errorf("the log does not say so: %s", p.log.String())
	}
}
