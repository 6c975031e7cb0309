package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/keys"
	"sluice/record"
)

// tell records a request that nobody made.
func (p *port) tell(id string, change func(*record.Request)) {
	r := record.Request{Began: time.Unix(1, 0), ID: id, Took: 3 * time.Second, Status: 200, Key: "key_1", KeyName: "team", Model: "m", Upstream: "up", Tried: 1,
		Method: "POST", Path: "/v1/chat/completions", Attempts: []record.Attempt{{Model: "m", Upstream: "up", Status: 200, ShowsStatus: true}}}
	if change != nil {
		change(&r)
	}
	p.a.proxy.Recorder().Tell(&r, 0, nil)
}

func limited429(r *record.Request) {
	r.Status, r.Error, r.Message, r.Took, r.Tried, r.Attempts, r.Upstream = 429, "policy_limit", "the key is at its limit", time.Millisecond, 0, nil, ""
}

// ids are those of the requests that a path lists.
func (p *port) ids(path string) string {
	p.t.Helper()
	var v struct {
		Data []struct {
			ID string `json:"request_id"`
		}
	}
	w := p.raw("GET", path, "")
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 {
		p.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	var ids []string
	for _, e := range v.Data {
		ids = append(ids, e.ID)
	}
	return strings.Join(ids, " ")
}

func TestRequests(t *testing.T) {
	p := start(t)
	p.tell("a", nil)
	p.tell("b", limited429)
	p.tell("c", nil)
	for path, want := range map[string]string{
		"": "c b a", "?key=team": "c b a", "?key=x": "", "?status=4xx": "b", "?error=any": "b", "?slow=1s": "c a", "?limit=2": "c b", "?after=@2": "a", "?upstream=up&limit=1": "c",
	} {
		if got := p.ids("/api/requests" + path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for _, at := range []string{"b", "@2"} {
		if status, v := p.call("GET", "/api/requests/"+at, ""); status != 200 || v["key_name"] != "team" || v["key"] != "key_1" || v["message"] != "the key is at its limit" || v["ref"] != "@2" || v["steps"] == nil {
			t.Errorf("%s: %d %v", at, status, v)
		}
	}
	p.refused("GET", "/api/requests/nobody", "", 404, "not_found", "", "last 4096")
	for query, param := range map[string]string{"status=5": "status", "slow=x": "slow", "error=x": "error", "limit=0": "limit", "after=1": "after", "kee=1": "kee"} {
		p.refused("GET", "/api/requests?"+query, "", 400, "invalid_request", param, "")
	}
	_, v := p.call("GET", "/api/errors?error=policy", "")
	if text := fmt.Sprint(v["data"], v["groups"]); !strings.Contains(text, "key_name:team") || !strings.Contains(text, "count:1") || !strings.Contains(text, "ref:@2") {
		t.Errorf("%s", text)
	}
	if _, v := p.call("GET", "/api/errors?error=upstream", ""); fmt.Sprint(v["data"], v["groups"]) != "[] []" {
		t.Errorf("%v", v)
	}
}

func TestSeries(t *testing.T) {
	p := start(t)
	p.tell("a", nil)
	p.tell("b", limited429)
	for by, want := range map[string]string{"total": "total 2", "model": "m 1", "upstream": "up 1", "target": "m at up 1", "key": "key_1 2", "error": "policy_limit 1"} {
		_, v := p.call("GET", "/api/series?range=1h&by="+by, "")
		line := v["data"].([]any)[0].(map[string]any)
		if got := fmt.Sprint(line["name"], " ", line["sum"]); got != want || len(v["times"].([]any)) != 360 || v["step_seconds"] != 10.0 {
			t.Errorf("%s: %s, want %s", by, got, want)
		}
	}
	for query, param := range map[string]string{"range=2h": "range", "by=x": "by", "top=0": "top", "top=101": "top", "rang=1h": "rang", "name=x" + strings.Repeat("&name=x", 100): "name"} {
		p.refused("GET", "/api/series?"+query, "", 400, "invalid_request", param, "")
	}
	p.refused("GET", "/api/series?range=2h", "", 400, "invalid_request", "range", "1m, 15m, 1h, 24h, 7d")
}

func TestStatusAtAGlance(t *testing.T) {
	p := start(t)
	p.tell("a", nil)
	p.write(strings.Replace(good, "weight: 3", "weight: many", 1))
	p.call("POST", "/api/reload", "")
	_, v := p.call("GET", "/api/status", "")
	if v["version"] != "test" || v["ready"] != true || v["generation"] != 1.0 || !strings.Contains(v["error"].(string), "weight") || v["requests"] != 1.0 ||
		fmt.Sprint(v["targets"]) != "map[closed:2 half_open:0 not_set:0 open:0 refused:0]" || v["models"] != 2.0 || v["data_address"] != ":8080" || v["tls"] != false {
		t.Errorf("%v", v)
	}
}

// followed is a client of the stream of requests.
type followed struct {
	t     *testing.T
	lines *bufio.Scanner
	resp  *http.Response
}

func (p *port) follow(url, query string) *followed {
	p.t.Helper()
	req, _ := http.NewRequest("GET", url+"/api/requests/stream"+query, nil)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	return &followed{p.t, bufio.NewScanner(resp.Body), resp}
}

// next is the next event with its data.
func (f *followed) next() (event, data string) {
	f.t.Helper()
	for f.lines.Scan() {
		if name, is := strings.CutPrefix(f.lines.Text(), "event: "); is {
			f.lines.Scan()
			return name, strings.TrimPrefix(f.lines.Text(), "data: ")
		}
	}
	return "", ""
}

// TestFollowRequests: requests come as they end, what was lost is told, and the stream ends with the port.
func TestFollowRequests(t *testing.T) {
	p := start(t)
	server := httptest.NewServer(p.a.server.Handler)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	p.tell("before", nil)
	all, some := p.follow(server.URL, ""), p.follow(server.URL, "?error=any")
	for _, f := range []*followed{all, some} { // its comment: it follows from here on
		if f.lines.Scan(); f.lines.Text() != ": follows" {
			t.Fatalf("%q", f.lines.Text())
		}
	}
	p.tell("one", nil)
	p.tell("two", limited429)
	for f, want := range map[*followed]string{all: "one two", some: "two"} {
		for _, id := range strings.Fields(want) {
			if event, data := f.next(); event != "request" || !strings.Contains(data, `"request_id":"`+id+`"`) {
				t.Errorf("%s %s, want %s", event, data, id)
			}
		}
	}
	for range 3 * record.Kept {
		p.tell("many", nil)
	}
	lost, seen := 0, 0
	for lost+seen < 3*record.Kept {
		event, data := all.next()
		var n struct{ Lost int }
		switch _ = json.Unmarshal([]byte(data), &n); event {
		case "request":
			seen++
		case "lost":
			lost += n.Lost
		default:
			t.Fatalf("%q after %d and %d lost", event, seen, lost)
		}
	}
	close(p.a.stop)
	p.a.stopping.Do(func() {})
	event := "lost"
	for event == "lost" { // it lost some as well
		event, _ = some.next()
	}
	if event != "end" {
		t.Errorf("%q at the end", event)
	}
	for range p.a.follows.most {
		p.a.follows.enter()
	}
	p.refused("GET", "/api/requests/stream", "", 429, "rate_limit_exceeded", "", "follow")
	p.refused("GET", "/api/requests/stream?status=x", "", 400, "invalid_request", "status", "")
}

func TestSearchKeys(t *testing.T) {
	p := start(t)
	for _, body := range []string{`{"name":"Alpha","note":"the search team"}`, `{"name":"beta","disabled":true}`, `{"name":"gamma","expires_at":"2099-01-01T00:00:00Z","limits":{"requests":5}}`} {
		if status, v := p.call("POST", "/api/keys", body); status != 201 {
			t.Fatalf("%d %v", status, v)
		}
	}
	for query, want := range map[string]string{
		"q=ALPHA": "Alpha", "q=search": "Alpha", "q=key_&sort=name": "Alpha beta gamma", "q=nobody": "", "sort=name": "Alpha beta gamma", "sort=-name": "gamma beta Alpha",
		"sort=name&offset=1&limit=1": "beta", "sort=name&offset=9": "", "state=disabled": "beta", "state=active&sort=name": "Alpha gamma", "state=expired": "", "sort=expires&limit=1": "gamma",
	} {
		_, v := p.call("GET", "/api/keys?"+query, "")
		var names []string
		for _, k := range v["data"].([]any) {
			names = append(names, k.(map[string]any)["name"].(string))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for query, param := range map[string]string{"sort=x": "sort", "q=x&after=key_1": "after", "offset=-1": "offset", "state=x": "state", "sate=disabled": "sate"} {
		p.refused("GET", "/api/keys?"+query, "", 400, "invalid_request", param, "")
	}
	p.refused("POST", "/api/keys", `{"name":"x","note":"`+strings.Repeat("ä", 201)+`"}`, 400, "invalid_request", "note", "at most 200")
	p.refused("POST", "/api/keys", `{"name":"x","note":"a\u202eb"}`, 400, "invalid_request", "note", "U+202E")
}

// TestConfigDiff: what a reload would change, without secrets.
func TestConfigDiff(t *testing.T) {
	p := start(t)
	diff := func() (map[string]any, string) {
		_, v := p.call("GET", "/api/config/diff", "")
		text := fmt.Sprint(v)
		if strings.Contains(text, "sesame") || strings.Contains(text, token) {
			t.Errorf("a secret is shown: %s", text)
		}
		return v, text
	}
	if v, text := diff(); v["changed"] != false || !strings.Contains(text, "changes:[]") {
		t.Errorf("%s", text)
	}
	p.write(strings.Replace(strings.Replace(good, "weight: 3", "weight: 4", 1), "\n", "\nlisten: ':8099'\n", 1))
	if v, text := diff(); v["changed"] != true || v["hidden"] != false || !strings.Contains(text, "map[from::8080 path:listen to::8099] map[from:3 path:models.m.targets[0].weight to:4]") || !strings.Contains(text, "restart:[listen]") {
		t.Errorf("%s", text)
	}
	p.write(strings.Replace(good, "sesame-key", "sesame-other", 1))
	if v, text := diff(); v["changed"] != true || v["hidden"] != true {
		t.Errorf("%s", text)
	}
	p.write(strings.Replace(good, "weight: 3", "weight: many", 1))
	if v, text := diff(); !strings.Contains(v["error"].(string), "must be a whole number") {
		t.Errorf("%s", text)
	}
	if _, v := p.call("GET", "/api/config", ""); v["generation"] != 1.0 || v["error"] != "" || v["version"] != "test" {
		t.Errorf("a look has changed something: %v", v)
	}
}

// TestPlayground: a request goes to the data port with the key that was typed, and its answer comes back as
// it is.
func TestPlayground(t *testing.T) {
	p := start(t)
	served := make(chan string, 1)
	data := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served <- fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Header.Get("Authorization"), " ", r.Header.Get("Content-Type"))
		w.Header().Set("x-sluice-trail", "m@up;200;1")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(201)
		_, _ = w.Write([]byte("data: 1\n\n"))
	}))
	defer data.Close()
	p.a.data = data.Listener.Addr()
	w := p.raw("POST", "/api/playground", `{"key":"sk-1","path":"/v1/messages","body":{"model":"m"}}`)
	if got := <-served; got != "POST /v1/messages Bearer sk-1 application/json" || w.Code != 201 || w.Body.String() != "data: 1\n\n" ||
		w.Header().Get("X-Sluice-Trail") == "" || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("%s: %d %v %s", got, w.Code, w.Header(), w.Body)
	}
	for body, param := range map[string]string{`{"body":{}}`: "key", `{"key":"a b","body":{}}`: "key", `{"key":"a\r\nx: y","body":{}}`: "key", `{"key":"a"}`: "body",
		`{"key":"a","body":{},"path":"/metrics"}`: "path", `{"key":"a","body":{},"x":1}`: "x"} {
		p.refused("POST", "/api/playground", body, 400, "invalid_request", param, "")
	}
	p.refused("POST", "/api/playground", strings.Repeat(" ", maxPlayed+1), 413, "body_too_large", "", "")
	if strings.Contains(p.log.String(), "sk-1") {
		t.Error("the key is in the log")
	}
	for range p.a.played.most {
		p.a.played.enter()
	}
	p.refused("POST", "/api/playground", `{"key":"a","body":{}}`, 429, "rate_limit_exceeded", "", "under way")
	for range p.a.played.most {
		p.a.played.leave()
	}
	data.Close()
	p.refused("POST", "/api/playground", `{"key":"a","body":{}}`, 502, "upstream_error", "", "does not answer")
}

// TestManyKeys: a search among many keys is one answer of one page, and the pages together are all keys in order.
func TestManyKeys(t *testing.T) {
	p := start(t)
	for i := range 300 {
		if _, _, err := p.keys.Create(keys.Spec{Name: fmt.Sprintf("key %03d", (i*77)%300)}); err != nil {
			t.Fatal(err)
		}
	}
	w := p.raw("GET", "/api/keys?q=key&limit=20", "")
	if w.Code != 200 || w.Body.Len() > 20*500 || !strings.Contains(w.Body.String(), `"total":300`) {
		t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
	}
	for _, down := range []bool{false, true} {
		of := keySorts["name"]
		all := func() []*keys.Key { return p.keys.Find(func(*keys.Key) bool { return true }) }
		whole := firstKeys(p.a, all(), of, down, mostKept+1)
		for i, k := range whole {
			if want := fmt.Sprintf("key %03d", map[bool]int{false: i, true: 299 - i}[down]); k.Spec().Name != want {
				t.Fatalf("%d is %s, not %s", i, k.Spec().Name, want)
			}
		}
		for _, n := range []int{1, 37, 299, 300, 301} {
			if some := firstKeys(p.a, all(), of, down, n); len(some) != min(n, 300) || some[len(some)-1] != whole[len(some)-1] {
				t.Errorf("the first %d are others", n)
			}
		}
	}
}
