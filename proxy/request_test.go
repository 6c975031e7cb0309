package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/upstreamtest"
	"sluice/keys"
	"sluice/record"
)

func TestPlainRequest(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	a := g.post("/v1/chat/completions?a=1&b=%20x", `{"model_id": "m", "messages": [], "gateway": {"timeout": "5s"}, "n": 1.0}`, "X-Request-Id", "my-id")
	if a.status != 200 || a.body != okAnnotated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r := up.Requests()[0]
	if r.Target != "/base/chat/completions?a=1&b=%20x" || r.Host != up.Address() || r.Method != "POST" {
		t.Errorf("went to %s %s at %s", r.Method, r.Target, r.Host)
	}
	if got := string(r.Body); got != `{"model_id":"up-m","messages": [],"n": 1.0}` {
		t.Errorf("body %s", got)
	}
	for name, want := range map[string]string{
		"X-Request-Id": "my-id", "X-Sluice-Model": "m", "X-Sluice-Upstream": "up", "X-Sluice-Attempts": "1", "Content-Type": "application/json",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if trail := a.header.Get("X-Sluice-Trail"); !strings.HasPrefix(trail, "m@up;200;") {
		t.Errorf("trail %q", trail)
	}
}

// TestForwardedByteForByte: what is not ours comes out as it went in.
func TestForwardedByteForByte(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel+"limits: {body: 8MiB}\n", up.Address())
	deep := strings.Repeat("[", 299) + strings.Repeat("]", 299)
	tests := []struct{ name, in, want string }{
		{"numbers", `{"model":"m","a":1.0,"b":1e400,"c":12345678901234567890,"d":-0,"e":0.1e-7}`, ""},
		{"escapes", `{"model":"m","a":"\u00e9\/\b\f\n\r\t\"\\","\u0061":1,"s":"\ud83d\ude00"}`, ""},
		{"lone surrogates", `{"model":"m","a":"\ud800","b":"\udc00x","c":{"\udfff":1}}`, ""},
		{"odd names", `{"k\u0001\"":1,"model":"m","":2,"mod\\el":3," model":4,"Models":5,"a":{"Model":6}}`, ""},
		{"duplicate names inside", `{"model":"m","a":{"x":1,"x":2,"model":"y","gateway":{}},"b":[{"stream":1,"stream":2}],"c":1,"c":2}`, ""},
		{"invalid utf-8", "{\"model\":\"m\",\"a\":\"\xff\xfe\"}", ""},
		{"deep", `{"model":"m","a":` + deep + `}`, ""},
		{"1 MB string", `{"model":"m","a":"` + strings.Repeat("x", 1<<20) + `"}`, ""},
		{"1 MB of quotes", `{"model":"m","a":"` + strings.Repeat(`\"`, 1<<19) + `"}`, ""},
		{"order", `{"z":1,"model":"m","a":2}`, ""},
		{"model last", `{"z":1,"model":"m"}`, ""},
		{"escaped name", `{"mod\u0065l":"m","a":1}`, ""},
		{"escaped value", `{"model":"\u006d","a":1}`, `{"model":"up-m","a":1}`},
		{"both fields", `{"model":"m","x":1,"model_id":"m"}`, ""},
		{"space", " {\n\t\"model\" : \"m\" , \"a\" : [ 1 , 2 ] } \r\n", "{\"model\":\"up-m\",\"a\" : [ 1 , 2 ]}"},
		{"gateway first", `{"gateway":{},"model":"m","a":1}`, `{"model":"up-m","a":1}`},
		{"gateway last", `{"model":"m","a":1,"gateway":{}}`, `{"model":"up-m","a":1}`},
		{"gateway between", `{"a":1,"gateway":{},"b":2,"model":"m"}`, `{"a":1,"b":2,"model":"up-m"}`},
		{"gateway and model last", `{"a":1,"gateway":{},"model":"m"}`, `{"a":1,"model":"up-m"}`},
		{"model and gateway last", `{"a":1,"model":"m","gateway":{}}`, `{"a":1,"model":"up-m"}`},
		{"gateway alone", `{"gateway":{"models":["m"]}}`, `{"model":"up-m"}`},
		{"no model", `{"a":1,"gateway":{"models":["m"]},"b":2}`, `{"model":"up-m","a":1,"b":2}`},
		{"stream stays", `{"a":1,"stream":false,"model":"m","stream_options":{}}`, ""},
		{"gateway inside", `{"model":"m","metadata":{"gateway":{"x":1}}}`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := test.want
			if want == "" {
				want = strings.ReplaceAll(test.in, `l":"m"`, `l":"up-m"`)
				want = strings.ReplaceAll(want, `id":"m"`, `id":"up-m"`)
			}
			before := len(up.Requests())
			if a := g.post("/v1/chat/completions", test.in); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if got := string(up.Requests()[before].Body); got != want {
				t.Errorf("got  %.200s\nwant %.200s", got, want)
			}
		})
	}
}

func TestModelField(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, strings.Replace(oneModel, "api_key: provider-key", "model_field: model_name", 1), up.Address())
	for i, test := range []struct{ in, want string }{
		{`{"a":1,"model_id":"m","b":2}`, `{"a":1,"model_name":"up-m","b":2}`},
		{`{"model":"m","b":2,"model_id":"m"}`, `{"model_name":"up-m","b":2}`},
		{`{"gateway":{"models":["m"]},"b":2}`, `{"model_name":"up-m","b":2}`},
	} {
		if a := g.post("/v1/completions", test.in); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if got := string(up.Requests()[i].Body); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

// errorRow is what a refusal looks like.
type errorRow struct {
	status          int
	typ, param, cod string
	says            string // part of the message
}

func (e errorRow) check(t *testing.T, a response) {
	t.Helper()
	var body struct {
		Error struct {
			Message, Type, Code string
			Param               *string
		}
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
	param := ""
	if body.Error.Param != nil {
		param = *body.Error.Param
	}
	got := errorRow{a.status, body.Error.Type, param, body.Error.Code, e.says}
	if !strings.Contains(body.Error.Message, e.says) {
		got.says = body.Error.Message
	}
	if got != e {
		t.Errorf("got  %+v\nwant %+v", got, e)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type is %q", ct)
	}
	if a.header.Get("X-Request-Id") == "" {
		t.Error("no request id")
	}
}

func TestRefusedBodies(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel+"limits: {body: 4KiB}\n", up.Address())
	notJSON := errorRow{400, "invalid_request_error", "", "invalid_json", "not one valid JSON object"}
	invalid := func(param, says string) errorRow {
		return errorRow{400, "invalid_request_error", param, "invalid_request", says}
	}
	ours := func(param, says string) errorRow {
		return errorRow{400, "invalid_request_error", param, "invalid_gateway_field", says}
	}
	const in, end = `{"model":"m","gateway":`, `}`
	tests := []struct {
		body string
		want errorRow
	}{
		{"", notJSON}, {"   ", notJSON}, {"null", notJSON}, {"[]", notJSON}, {`"model"`, notJSON}, {"{", notJSON}, {`{"model":"m"`, notJSON},
		{`{"model":"m"}x`, notJSON}, {`{"model":"m"}{}`, notJSON}, {`{"model":"m",}`, notJSON}, {`{,"model":"m"}`, notJSON},
		{`{"model":"m","a":01}`, notJSON}, {`{"model":"m","a":NaN}`, notJSON}, {`{"model":"m","a":-inf}`, notJSON},
		{`{"model":"m","a":"\x"}`, notJSON}, {`{"model":"m","a":"\u12g4"}`, notJSON}, {"{\"model\":\"m\",\"a\":\"\n\"}", notJSON},
		{"{\"model\":\"m\",\"a\x01\":1}", notJSON}, {"{\"model\":\"m\",\"a\":[\"\x02\\b\"]}", notJSON}, {"{\"model\":\"m\",\"\x1f\\b\":1}", notJSON},
		{"{\"model\":\"m\",\"a\":\"1234567\n\\\\\"}", notJSON}, {`{"model":"m","a":1.}`, notJSON}, {`{"model":"m","a":.5}`, notJSON}, {`{"model":"m","a":+1}`, notJSON},
		{`{"model":"m","a":1e}`, notJSON}, {`{"model":"m","a":'x'}`, notJSON}, {`{"model":"m","a":[1,]}`, notJSON}, {`{"model":"m","a":[1}}`, notJSON},
		{`{"model":"m" "a":1}`, notJSON}, {`{"model":"m","a"}`, notJSON}, {`{model:"m"}`, notJSON}, {"\xEF\xBB\xBF{\"model\":\"m\"}", notJSON},
		{"{\"model\":\"m\"}\x00", notJSON}, {`{"model":"m"}//`, notJSON}, {`{"model":"m","a":tru}`, notJSON}, {`{"model":"m","a":nul}`, notJSON},
		{`{"model":"m","a":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`, errorRow{400, "invalid_request_error", "", "invalid_json", "deeper than 300"}},
		{`{"model":"m","a":` + strings.Repeat("[", 3000), errorRow{400, "invalid_request_error", "", "invalid_json", "deeper than 300"}},
		{`{}`, errorRow{400, "invalid_request_error", "model", "model_required", "names no model"}},
		{`{"model":""}`, errorRow{400, "invalid_request_error", "model", "model_required", "must not be empty"}},
		{`{"model_id":""}`, errorRow{400, "invalid_request_error", "model_id", "model_required", "must not be empty"}},
		{`{"model":1}`, invalid("model", "must be a string")}, {`{"model":null}`, invalid("model", "must be a string")},
		{`{"model":"m","model_id":"n"}`, invalid("model", "different models")},
		{`{"model":"m","model":"m"}`, invalid("model", "once at most")}, {`{"model":"m","mod\u0065l":"m"}`, invalid("model", "once at most")},
		{`{"model":"m","stream":true,"stream":true}`, invalid("stream", "once at most")},
		{`{"model":"m","gateway":{},"gateway":{}}`, invalid("gateway", "once at most")},
		{`{"model":"m","stream":1}`, invalid("stream", "true or false")},
		{`{"model":"m","stream":"true"}`, invalid("stream", "true or false")},
		{in + `[]` + end, ours("gateway", "must be an object")},
		{in + `{"x":1}` + end, ours("gateway.x", "is not known")}, {in + `{"models":[]}` + end, ours("gateway.models", "1 to 16")},
		{in + `{"models":["m",1]}` + end, ours("gateway.models[1]", "a model's name")}, {in + `{"models":[""]}` + end, ours("gateway.models[0]", "a model's name")},
		{in + `{"models":"m"}` + end, ours("gateway.models", "1 to 16")},
		{in + `{"models":[` + strings.Repeat(`"m",`, 16) + `"m"]}` + end, ours("gateway.models", "1 to 16")},
		{in + `{"max_retries":-1}` + end, ours("gateway.max_retries", "whole number")}, {in + `{"max_retries":1.5}` + end, ours("gateway.max_retries", "whole number")},
		{in + `{"timeout":5}` + end, ours("gateway.timeout", "duration")}, {in + `{"timeout":"0s"}` + end, ours("gateway.timeout", "duration")},
		{in + `{"first_byte_timeout":"soon"}` + end, ours("gateway.first_byte_timeout", "duration")},
		{in + `{"timeout":"5s","timeout":"6s"}` + end, ours("gateway.timeout", "twice")}, {in + `{"timeout":null,"time\u006fut":null}` + end, ours("gateway.timeout", "twice")},
		{in + `{"models":["m"],"Models":["m"]}` + end, ours("gateway.Models", "is not known")}, {in + `{"a\u0001\"\ud800":1}` + end, ours("gateway.a\x01\"\\ud800", "is not known")},
		{in + `{"` + strings.Repeat("x", 1000) + `":1}` + end, ours("gateway."+strings.Repeat("x", 100)+"…", "is not known")},
		{in + `{"max_retries":"1"}` + end, ours("gateway.max_retries", "whole number")}, {in + `{"max_retries":99999999999999999999}` + end, ours("gateway.max_retries", "whole number")},
		{in + `{"timeout":"` + strings.Repeat("0", 100) + `1s"}` + end, ours("gateway.timeout", "duration")},
		{`{"model":"nope"}`, errorRow{404, "invalid_request_error", "model", "model_not_found", `"nope"`}},
		{`{"model":"m","gateway":{"models":["m","nope"]}}`, errorRow{404, "invalid_request_error", "model", "model_not_found", `"nope"`}},
		{`{"model":"m","a":"` + strings.Repeat("x", 5000) + `"}`, errorRow{413, "invalid_request_error", "", "body_too_large", "4096 bytes"}},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.40q", test.body), func(t *testing.T) {
			test.want.check(t, g.post("/v1/chat/completions", test.body))
		})
	}
	if n := len(up.Requests()); n != 0 {
		t.Errorf("%d malformed requests went upstream", n)
	}
}

func TestAuthentication(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	gone, revoked := g.key(keys.Spec{Name: "revoked"})
	if err := g.keys.Delete(gone.ID); err != nil {
		t.Fatal(err)
	}
	_, disabled := g.key(keys.Spec{Name: "disabled", Disabled: true})
	past := time.Now().Add(-time.Second)
	_, expired := g.key(keys.Spec{Name: "expired", ExpiresAt: &past})
	ok := func(header ...string) {
		t.Helper()
		if a := g.post("/v1/chat/completions", `{"model":"m"}`, header...); a.status != 200 {
			t.Errorf("%q: %d %s", header, a.status, a.body)
		}
	}
	no := func(says string, header ...string) {
		t.Helper()
		errorRow{401, "authentication_error", "", "invalid_api_key", says}.check(t, g.post("/v1/chat/completions", `{"model":"m"}`, header...))
	}
	ok()
	ok("Authorization", "bearer "+g.secret)
	ok("Authorization", "BEARER  "+g.secret)
	ok("Authorization", "", "x-api-key", g.secret)
	ok("Authorization", "", "api-key", g.secret)
	ok("x-api-key", g.secret)
	ok("Authorization", "", "x-goog-api-key", g.secret)
	// Of two the one counts that is a usable key of ours.
	ok("x-api-key", disabled)
	ok("x-api-key", "sk-ant-their-own")
	ok("Authorization", "Bearer their-account-token", "x-api-key", g.secret)
	ok("Authorization", "Basic dTpw", "x-api-key", g.secret)
	_, other := g.key(keys.Spec{Name: "other"})
	no("two different", "x-api-key", other)
	no("two different", "Authorization", "", "x-api-key", other, "x-goog-api-key", g.secret)
	no("unknown", "Authorization", "Basic dTpw", "api-key", "nope")
	no("no API key", "Authorization", "")
	no("Bearer KEY", "Authorization", "Basic "+g.secret)
	no("Bearer KEY", "Authorization", g.secret)
	no("Bearer KEY", "Authorization", "Bearer")
	no("unknown", "Authorization", "Bearer sk-sluice-nope")
	no("unknown", "Authorization", "Bearer "+revoked)
	no("unknown", "Authorization", "Bearer "+disabled)
	no("unknown", "Authorization", "Bearer "+expired)
	if n := len(up.Requests()); n != 11 {
		t.Errorf("%d requests went upstream, want 11", n)
	}
	for _, r := range up.Requests() {
		if got := r.Header.Get("Authorization"); got != "Bearer provider-key" || r.Header.Get("X-Api-Key")+r.Header.Get("Api-Key") != "" {
			t.Errorf("credentials upstream: %q %v", got, r.Header)
		}
	}
}

func TestModelsOfAKey(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, strings.Replace(oneModel, "models: {", "models: {org/n: {targets: [{upstream: up}]}, ", 1), up.Address())
	_, only := g.key(keys.Spec{Name: "only m", Models: []string{"m"}})
	auth := []string{"Authorization", "Bearer " + only}
	errorRow{403, "permission_error", "model", "model_not_allowed", "org/n"}.check(t, g.post("/v1/chat/completions", `{"model":"org/n"}`, auth...))
	errorRow{403, "permission_error", "model", "model_not_allowed", "org/n"}.check(t, g.post("/v1/chat/completions", `{"model":"m","gateway":{"models":["m","org/n"]}}`, auth...))
	if n := len(up.Requests()); n != 0 {
		t.Errorf("%d requests went upstream", n)
	}
	ids := func(header ...string) (ids []string) {
		var list struct {
			Object string
			Data   []struct{ ID, Object string }
		}
		a := g.send("GET", "/v1/models", "", header...)
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || list.Object != "list" {
			t.Fatalf("%s %v", a.body, err)
		}
		for _, m := range list.Data {
			ids = append(ids, m.ID)
		}
		return ids
	}
	if got := ids(); !cmp.Equal(got, []string{"m", "org/n"}) {
		t.Errorf("all: %v", got)
	}
	if got := ids(auth...); !cmp.Equal(got, []string{"m"}) {
		t.Errorf("only m: %v", got)
	}
	if a := g.send("GET", "/v1/models/org/n", ""); a.status != 200 || !strings.Contains(a.body, `"id":"org/n"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.send("GET", "/v1/models/%6d", ""); a.status != 200 || !strings.Contains(a.body, `"id":"m"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	errorRow{404, "invalid_request_error", "model", "model_not_found", "org/n"}.check(t, g.send("GET", "/v1/models/org/n", "", auth...))
	errorRow{401, "authentication_error", "", "invalid_api_key", ""}.check(t, g.send("GET", "/v1/models", "", "Authorization", ""))
}

func TestPaths(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel+"paths: [/images/edits]\n", up.Address())
	for path, want := range map[string]string{
		"/v1/chat/completions": "/base/chat/completions", "/v1/completions": "/base/completions", "/v1/embeddings": "/base/embeddings",
		"/v1/responses": "/base/responses", "/v1/messages": "/base/messages", "/v1/messages/count_tokens": "/base/messages/count_tokens",
		"/v1/images/generations": "/base/images/generations", "/v1/audio/speech": "/base/audio/speech", "/v1/moderations": "/base/moderations",
		"/v1/rerank": "/base/rerank", "/v1/images/edits": "/base/images/edits", "/api/llm": "/base/chat/completions",
		"/v1/chat/completions/": "/base/chat/completions", "/chat/completions": "/base/chat/completions", "/messages/count_tokens/": "/base/messages/count_tokens",
		"/images/edits": "/base/images/edits", "/v1/embeddings/?a=/": "/base/embeddings?a=/",
	} {
		before := len(up.Requests())
		if a := g.post(path, `{"model":"m"}`); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
			continue
		}
		if got := up.Requests()[before].Target; got != want {
			t.Errorf("%s went to %s", path, got)
		}
	}
	before := len(up.Requests())
	for _, path := range []string{"/v1", "/v1/", "/V1/chat/completions", "/v1/fine_tuning/jobs", "/v1/chat/completions%20", "/*"} {
		errorRow{404, "invalid_request_error", "", "not_found", "nothing at this path"}.check(t, g.post(path, `{"model":"m"}`))
	}
	for _, path := range []string{"/v1/./chat/completions", "/v1/../v1/chat/completions", "/v1//chat/completions", "/v1/%2e%2e/chat", "/v1/%2E/x", "/v1/a%2fb",
		"/v1/a%2Fb", `/v1/a\b`, "/v1/a%5cb", "/v1/a%00b", "/v1/a%0ab", "/v1/a%zz", "/v1/a%2", "//v1/models"} {
		errorRow{400, "invalid_request_error", "", "invalid_request", "path"}.check(t, g.post(path, `{"model":"m"}`))
	}
	for path, allow := range map[string]string{"/v1/chat/completions": "POST", "/v1/models": "GET, HEAD", "/models/": "GET, HEAD", "/": "GET, HEAD", "/api/llm": "POST", "/healthz": "GET, HEAD"} {
		a := g.send("DELETE", path, "")
		errorRow{405, "invalid_request_error", "", "method_not_allowed", "Allow"}.check(t, a)
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow is %q, want %q", path, got, allow)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := g.send("GET", path, "", "Authorization", ""); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	if n := len(up.Requests()); n != before {
		t.Errorf("%d refused requests went upstream", n-before)
	}
}

func TestHeaders(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply("HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n"+
		"Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a=b\r\nX-RateLimit-Limit-Requests: 9\r\nx-ratelimit-anything: 9\r\n"+
		"OpenAI-Organization: org\r\nAlt-Svc: h3\r\nX-Sluice-Model: forged\r\nX-Request-Id: theirs\r\nOpenAI-Processing-Ms: 12\r\nX-Many: 1\r\nX-Many: 2\r\nServer: theirs\r\n\r\n{}"))
	g := start(t, strings.Replace(oneModel, "api_key: provider-key",
		`api_key: provider-key, headers: {x-team: edge, User-Agent: ours}, query: {api-version: "a b"}`, 1), up.Address())
	a := g.post("/v1/chat/completions?api-version=1&x=1&api%2Dversion=2&y", `{"model":"m"}`,
		"Cookie", "c=d", "X-Goog-Api-Key", "k", "OpenAI-Organization", "o", "OpenAI-Project", "p", "Forwarded", "for=1", "X-Forwarded-For", "1.2.3.4",
		"X-Forwarded-Host", "h", "Proxy-Authorization", "p", "Accept-Encoding", "gzip", "Te", "trailers", "Expect", "", "X-Team", "theirs",
		"Anthropic-Version", "2023-06-01", "X-Custom", "kept", "User-Agent", "sdk/1", "Connection", "keep-alive, X-Named", "X-Named", "1")
	if a.status != 200 || a.body != `{"gateway":{"model":"m","upstream":"up","attempts":1}}` {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r := up.Requests()[0]
	want := http.Header{"Authorization": {"Bearer provider-key"}, "Accept-Encoding": {"identity"}, "X-Team": {"edge"}, "User-Agent": {"ours"},
		"Anthropic-Version": {"2023-06-01"}, "X-Custom": {"kept"}, "Content-Type": {"application/json"}, "Content-Length": {"16"},
		"X-Request-Id": {a.header.Get("X-Request-Id")}}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Errorf("upstream: -want +got\n%s", diff)
	}
	if r.Target != "/base/chat/completions?x=1&y&api-version=a+b" {
		t.Errorf("target %s", r.Target)
	}
	for _, name := range []string{"X-Hop", "Keep-Alive", "Set-Cookie", "X-Ratelimit-Limit-Requests", "X-Ratelimit-Anything", "Openai-Organization", "Alt-Svc"} {
		if v := a.header.Values(name); len(v) > 0 {
			t.Errorf("%s came through: %q", name, v)
		}
	}
	if a.header.Get("X-Sluice-Model") != "m" || strings.HasPrefix(a.header.Get("X-Request-Id"), "theirs") || !strings.HasPrefix(a.header.Get("X-Request-Id"), "req_") {
		t.Errorf("forged: %v", a.header)
	}
	for name, want := range map[string][]string{"Openai-Processing-Ms": {"12"}, "X-Many": {"1", "2"}, "Server": {"theirs"}, "Content-Type": {"application/json; charset=utf-8"}} {
		if diff := cmp.Diff(want, a.header.Values(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	for id, kept := range map[string]bool{"a": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "with space": false, "é": false} {
		if got := g.post("/v1/chat/completions", `{"model":"m"}`, "X-Request-Id", id).header.Get("X-Request-Id"); (got == id) != kept || got == "" {
			t.Errorf("%q became %q", id, got)
		}
	}
}

func TestAuthHeaders(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	for config, want := range map[string][2]string{
		`auth_header: api-key, api_key: k`: {"Api-Key", "k"}, `api_key: k`: {"Authorization", "Bearer k"}, ``: {"Authorization", ""},
		`headers: {authorization: Token t}, api_key: k`: {"Authorization", "Token t"},
	} {
		g := start(t, strings.Replace(oneModel, "api_key: provider-key", config, 1), up.Address())
		before := len(up.Requests())
		g.post("/v1/chat/completions", `{"model":"m"}`)
		if got := up.Requests()[before].Header.Get(want[0]); got != want[1] {
			t.Errorf("%s: %s is %q", config, want[0], got)
		}
	}
	g := start(t, strings.Replace(oneModel, `http://UP/base", api_key: provider-key`, `http://me:pass@UP/base"`, 1), up.Address())
	before := len(up.Requests())
	g.post("/v1/chat/completions", `{"model":"m"}`)
	if got := up.Requests()[before].Header.Get("Authorization"); got != "Basic bWU6cGFzcw==" {
		t.Errorf("user info became %q", got)
	}
}

func TestAnnotation(t *testing.T) {
	const member = `"gateway":{"model":"m","upstream":"up","attempts":1}`
	long := `{"a":"` + strings.Repeat("x", 5000) + `"}`
	tests := []struct{ name, contentType, body, want string }{
		{"object", "application/json", `{"a":1}`, `{` + member + `,"a":1}`},
		{"empty object", "application/json", `{}`, `{` + member + `}`},
		{"empty object with space", "application/json", "{ \n}", `{` + member + " \n}"},
		{"array", "application/json", `[1]`, `[1]`},
		{"no body", "application/json", ``, ``}, // which is no answer
		{"text that is an object", "text/plain", `{"a":1}`, `{` + member + `,"a":1}`},
		{"no content type", "", `{"a":1}`, `{` + member + `,"a":1}`},
		{"text", "text/plain", `hello`, `hello`},
		{"not quite JSON", "application/json", `{"a":`, ``},
		{"larger than limits.response", "application/json", long, `{` + member + `,` + long[1:]},
		{"large and not JSON", "audio/mpeg", strings.Repeat("\x00\xff", 100_000), strings.Repeat("\x00\xff", 100_000)},
	}
	for _, test := range tests {
		for _, framing := range []string{"length", "chunked", "close"} {
			t.Run(test.name+" "+framing, func(t *testing.T) {
				up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
					head := "HTTP/1.1 200 OK\r\nContent-Type: " + test.contentType + "\r\n"
					switch framing {
					case "length":
						head += fmt.Sprintf("Content-Length: %d\r\n\r\n", len(test.body)) + test.body
					case "chunked":
						head += "Transfer-Encoding: chunked\r\n\r\n"
						for rest := test.body; len(rest) > 0; {
							n := min(len(rest), 1000)
							head += fmt.Sprintf("%x\r\n%s\r\n", n, rest[:n])
							rest = rest[n:]
						}
						head += "0\r\n\r\n"
					case "close":
						head += "Connection: close\r\n\r\n" + test.body
					}
					_, _ = io.WriteString(conn, head)
					if framing == "close" {
						conn.Close()
					}
				})
				g := start(t, oneModel+"limits: {response: 2KiB}\n", up.Address())
				a := g.post("/v1/chat/completions", `{"model":"m"}`)
				switch {
				case test.name == "not quite JSON" && framing == "close":
					// Cut or not, nobody can tell; it must not look whole.
					errorRow{502, "upstream_error", "", "upstream_error", "broke off"}.check(t, a)
					return
				case test.name == "not quite JSON", test.name == "no body":
					errorRow{502, "upstream_error", "", "upstream_error", "no answer in it"}.check(t, a)
					return
				}
				if a.status != 200 || a.err != nil || a.body != test.want {
					t.Errorf("%d %v %.200q", a.status, a.err, a.body)
				}
			})
		}
	}
	brace := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
		_, _ = io.WriteString(conn, "1\r\n}\r\n0\r\n\r\n")
	})
	if a := start(t, oneModel, brace.Address()).post("/v1/chat/completions", `{"model":"m"}`); a.body != `{`+member+`}` {
		t.Errorf("braces that came apart: %s", a.body)
	}
	up := upstreamtest.NewRaw(t, upstreamtest.Reply("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: br\r\nContent-Length: 7\r\n\r\n{\"a\":1}"))
	g := start(t, oneModel, up.Address())
	if a := g.post("/v1/chat/completions", `{"model":"m"}`); a.body != `{"a":1}` {
		t.Errorf("an encoded body was touched: %s", a.body)
	}
}

func TestUpstreamStatuses(t *testing.T) {
	const body = `{"error":{"message":"theirs","type":"x"}}`
	const annotated = `{"gateway":{"model":"m","upstream":"up","attempts":1},"error":{"message":"theirs","type":"x"}}`
	for _, status := range []string{"400 Bad Request", "404 Not Found", "429 Too Many Requests", "500 Internal Server Error", "529 Overloaded"} {
		up := upstreamtest.NewRaw(t, upstreamtest.Reply(reply(status, "application/json", body)))
		g := start(t, oneModel, up.Address())
		a := g.post("/v1/chat/completions", `{"model":"m"}`)
		if got := fmt.Sprint(a.status); got != status[:3] || a.body != annotated {
			t.Errorf("%s: %d %s", status, a.status, a.body)
		}
		if trail := a.header.Get("X-Sluice-Trail"); !strings.HasPrefix(trail, "m@up;"+status[:3]+";") {
			t.Errorf("%s: trail %q", status, trail)
		}
	}
	created := upstreamtest.NewRaw(t, upstreamtest.Reply(reply("201 Created", "application/json", okBody)))
	if a := start(t, oneModel, created.Address()).post("/v1/chat/completions", `{"model":"m"}`); a.status != 201 || a.body != okAnnotated {
		t.Errorf("201: %d %s", a.status, a.body)
	}
	for status, says := range map[string]string{"401 Unauthorized": "credential", "402 Payment Required": "credential", "403 Forbidden": "credential",
		"301 Moved Permanently": "redirect", "307 Temporary Redirect": "redirect"} {
		up := upstreamtest.NewRaw(t, upstreamtest.Reply(strings.Replace(reply(status, "application/json", body), "\r\n", "\r\nLocation: http://127.0.0.1:1/\r\n", 1)))
		g := start(t, oneModel, up.Address())
		a := g.post("/v1/chat/completions", `{"model":"m"}`)
		errorRow{502, "upstream_error", "", "upstream_error", says}.check(t, a)
		if strings.Contains(a.body, "theirs") || a.header.Get("Location") != "" {
			t.Errorf("%s: %s %v", status, a.body, a.header)
		}
		if len(up.Requests()) != 1 {
			t.Errorf("%s: %d requests", status, len(up.Requests()))
		}
	}
}

func TestUpstreamFailures(t *testing.T) {
	short := oneModel + "timeouts: {response: 300ms, first_byte: 300ms}\n"
	hang := func(first string) func(net.Conn, *upstreamtest.Recorded) {
		return func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, first)
			_, _ = io.Copy(io.Discard, conn) // until the gateway closes it
			conn.Close()
		}
	}
	cut := func(first string) func(net.Conn, *upstreamtest.Recorded) {
		return func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, first)
			conn.Close()
		}
	}
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
	bad := errorRow{502, "upstream_error", "", "upstream_error", ""}
	late := errorRow{504, "upstream_error", "", "upstream_timeout", ""}
	tests := []struct {
		name   string
		answer func(net.Conn, *upstreamtest.Recorded)
		trail  string
		want   errorRow
	}{
		{"closes", cut(""), "connection_lost", bad},
		{"breaks off in the head", cut("HTTP/1.1 200 OK\r\nContent-"), "malformed_response", bad},
		{"breaks off in the body", cut(head + `{"a":`), "response_broken", bad},
		{"breaks off in a chunk", cut("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"a\":"), "response_broken", bad},
		{"is not HTTP", cut("SSH-2.0-secret-words\r\n\r\n"), "malformed_response", bad},
		{"switches protocols", cut("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "malformed_response", bad},
		{"has a head over 64 KiB", cut("HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 70_000) + "\r\n\r\n"), "malformed_response", bad},
		{"says nothing", hang(""), "response_timeout", late},
		{"has a head in LF", hang("HTTP/1.1 200 OK\nX-Key: secret-words\n\n"), "malformed_response", bad},
		{"stalls in the head", hang("HTTP/1.1 200 OK\r\nX-Key: secret-words\r\n"), "response_timeout", late},
		{"stalls in the body", hang(head + `{"a":`), "response_timeout", late},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, test.answer)
			config := oneModel
			if test.want == late {
				config = short
			}
			g := start(t, config, up.Address())
			a := g.post("/v1/chat/completions", `{"model":"m"}`)
			test.want.check(t, a)
			if trail := a.header.Get("X-Sluice-Trail"); !strings.HasPrefix(trail, "m@up;"+test.trail+";") {
				t.Errorf("trail %q, want %s", trail, test.trail)
			}
			kept := fmt.Sprintf("%s", g.lastErrors())
			if strings.Contains(a.body, "127.0.0.1") || strings.Contains(a.body+g.log.String()+kept, "secret-words") {
				t.Errorf("shown: %s\n%s\n%s", a.body, g.log, kept)
			}
			<-up.Closed()
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		g := start(t, short, ln.Addr().String())
		a := g.post("/v1/chat/completions", `{"model":"m"}`)
		bad.check(t, a)
		if !strings.HasPrefix(a.header.Get("X-Sluice-Trail"), "m@up;connect_failed;") {
			t.Errorf("trail %q", a.header.Get("X-Sluice-Trail"))
		}
	})
	t.Run("the client lowers the time", func(t *testing.T) {
		up := upstreamtest.NewRaw(t, hang(""))
		g := start(t, oneModel, up.Address())
		for _, field := range []string{"timeout", "first_byte_timeout"} {
			late.check(t, g.post("/v1/chat/completions", `{"model":"m","gateway":{"`+field+`":"50ms"}}`))
		}
	})
	t.Run("an answer that passes through breaks off", func(t *testing.T) {
		up := upstreamtest.NewRaw(t, cut("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))
		g := start(t, oneModel, up.Address())
		a := g.post("/v1/audio/speech", `{"model":"m"}`)
		if a.status != 200 || a.err == nil {
			t.Errorf("a cut answer looks whole: %d %v %q", a.status, a.err, a.body)
		}
	})
}

// TestUnaskedBytes: what an upstream says without being asked is nobody's answer.
func TestUnaskedBytes(t *testing.T) {
	answered, said := make(chan struct{}), make(chan struct{})
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, okReply)
		<-answered
		_, _ = io.WriteString(conn, reply("200 OK", "application/json", `{"stray":1}`))
		said <- struct{}{}
	})
	g := start(t, oneModel, up.Address())
	for range 5 {
		if a := g.post("/v1/chat/completions", `{"model":"m"}`); a.body != okAnnotated {
			t.Fatalf("got somebody else's answer: %s", a.body)
		}
		answered <- struct{}{}
		<-said
	}
}

// TestEarlyAnswer: an upstream that refuses a body before it has read it is heard.
func TestEarlyAnswer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			var b [1000]byte
			_, _ = conn.Read(b[:])
			_, _ = io.WriteString(conn, strings.Replace(reply("413 Payload Too Large", "application/json", `{"error":"theirs"}`), "\r\n", "\r\nConnection: close\r\n", 1))
			_ = conn.(*net.TCPConn).CloseWrite()
			conn.Close()
		}
	}()
	g := start(t, oneModel, ln.Addr().String())
	body := `{"model":"m","a":"` + strings.Repeat("x", 9<<20) + `"}`
	if a := g.post("/v1/chat/completions", body); a.status != 413 || !strings.Contains(a.body, "theirs") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestEarlyAnswerOnAnOpenConnection: an upstream that refuses a body, reads no more of it and keeps the
// connection open is heard at once. Its 429 sends the request to the fallback.
func TestEarlyAnswerOnAnOpenConnection(t *testing.T) {
	good := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	for status, want := range map[string]int{"413 Payload Too Large": 413, "429 Too Many Requests": 200} {
		t.Run(status, func(t *testing.T) {
			up := upstreamtest.NewEarly(t, nil, upstreamtest.Reply(reply(status, "application/json", `{"error":"theirs"}`)))
			g := start(t, `
admin: {token: 0123456789abcdef}
upstreams: {up: {base_url: "http://UP/v1"}, good: {base_url: "http://`+good.Address()+`/v1"}}
models:
  m: {targets: [{upstream: up}], max_retries: 0, fallbacks: [other]}
  other: {targets: [{upstream: good}]}
`, up.Address())
			body := `{"model":"m","a":"` + strings.Repeat("x", 12<<20) + `"}`
			if a := g.post("/v1/chat/completions", body); a.status != want || want != 200 && !strings.Contains(a.body, "theirs") {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}

// TestStaleConnections: a connection that the upstream closed while it was idle costs the
// client nothing.
func TestStaleConnections(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	for range 20 {
		if a := g.post("/v1/chat/completions", `{"model":"m"}`); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		up.CloseConnections()
		<-up.Closed()
	}
	if n := up.Accepted(); n != 20 {
		t.Errorf("%d connections for 20 requests, each of which was closed after", n)
	}
	if n := len(up.Requests()); n != 20 {
		t.Errorf("%d requests went upstream, want 20", n)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	for name, text := range map[string]string{"length": okReply,
		"chunked": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"} {
		up := upstreamtest.NewRaw(t, upstreamtest.Reply(text))
		g := start(t, oneModel, up.Address())
		for range 10 {
			if a := g.post("/v1/chat/completions", `{"model":"m"}`); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		if n := up.Accepted(); n != 1 {
			t.Errorf("%s: %d connections for ten requests in a row", name, n)
		}
	}
}

func TestRequestLimit(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	three, period := int64(3), keys.Period(time.Hour)
	_, secret := g.key(keys.Spec{Name: "three", Limits: keys.Limits{Requests: &three, Period: &period}})
	auth := []string{"Authorization", "Bearer " + secret}
	for left := 2; left >= 0; left-- {
		a := g.post("/v1/chat/completions", `{"model":"m"}`, auth...)
		if a.status != 200 || a.header.Get("X-Ratelimit-Limit-Requests") != "3" || a.header.Get("X-Ratelimit-Remaining-Requests") != fmt.Sprint(left) {
			t.Fatalf("%d %v", a.status, a.header)
		}
		// What is refused before an attempt costs nothing.
		if a := g.post("/v1/chat/completions", `{"model":"nope"}`, auth...); a.status != 404 || a.header.Get("X-Ratelimit-Remaining-Requests") != fmt.Sprint(left) {
			t.Errorf("%d %v", a.status, a.header)
		}
		g.send("GET", "/v1/models", "", auth...)
	}
	a := g.post("/v1/chat/completions", `{"model":"m"}`, auth...)
	errorRow{429, "rate_limit_error", "", "rate_limit_exceeded", "3 requests per 1h0m0s (limits.requests)"}.check(t, a)
	after, err := time.ParseDuration(a.header.Get("Retry-After") + "s")
	if reset, rerr := time.ParseDuration(a.header.Get("X-Ratelimit-Reset-Requests")); err != nil || rerr != nil ||
		after < 59*time.Minute || after > 61*time.Minute || reset < 59*time.Minute || reset > 61*time.Minute {
		t.Errorf("Retry-After %v, reset %v, %v %v", after, reset, err, rerr)
	}
	if n := len(up.Requests()); n != 3 {
		t.Errorf("%d requests went upstream, want 3", n)
	}
	if a := g.send("GET", "/v1/key", "", auth...); !strings.Contains(a.body, `"limits":{"requests":3,"period":"3600s"},"remaining":{"requests":0,`) {
		t.Errorf("/v1/key: %s", a.body)
	}
	if a := g.post("/v1/chat/completions", `{"model":"m"}`); a.header.Get("X-Ratelimit-Limit-Requests") != "" {
		t.Error("a key without a limit gets limit headers")
	}
}

func TestConcurrentLimits(t *testing.T) {
	arrived, proceed := make(chan struct{}, 10), make(chan struct{})
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		arrived <- struct{}{}
		<-proceed
		_, _ = io.WriteString(conn, okReply)
	})
	g := start(t, oneModel+"limits: {in_flight: 2}\n", up.Address())
	one := int64(1)
	_, secret := g.key(keys.Spec{Name: "one at a time", Limits: keys.Limits{Concurrent: &one}})
	done := make(chan response, 2)
	go func() { done <- g.post("/v1/chat/completions", `{"model":"m"}`, "Authorization", "Bearer "+secret) }()
	<-arrived
	a := g.post("/v1/chat/completions", `{"model":"m"}`, "Authorization", "Bearer "+secret)
	errorRow{429, "rate_limit_error", "", "rate_limit_exceeded", "1 concurrent"}.check(t, a)
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	go func() { done <- g.post("/v1/chat/completions", `{"model":"m"}`) }()
	<-arrived
	a = g.post("/v1/chat/completions", `{"model":"m"}`)
	errorRow{503, "overloaded_error", "", "overloaded", "limits.in_flight"}.check(t, a)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	close(proceed)
	for range 2 {
		if a := <-done; a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := g.post("/v1/chat/completions", `{"model":"m"}`, "Authorization", "Bearer "+secret); a.status != 200 {
		t.Errorf("a place was not given back: %d %s", a.status, a.body)
	}
}

func TestAnthropicErrors(t *testing.T) {
	g := start(t, oneModel, "127.0.0.1:1")
	for _, test := range []struct{ body, key, want string }{
		{`{"model":"m"}`, "x", `{"type":"error","error":{"type":"authentication_error","message":"the API key is unknown, revoked, disabled or expired"}}`},
		{`{"model":"nope"}`, g.secret, `{"type":"error","error":{"type":"not_found_error","message":"no model is called \"nope\"; GET /v1/models lists those of this key"}}`},
		{`{"model":"m"}`, g.secret, `{"type":"error","error":{"type":"api_error","message":"upstream up failed: no connection"}}`},
	} {
		if a := g.post("/v1/messages", test.body, "Authorization", "", "X-Api-Key", test.key); a.body != test.want {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := g.send("GET", "/v1/messages", ""); a.status != 405 || !strings.HasPrefix(a.body, `{"type":"error","error":{"type":"invalid_request_error"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestPanicBeforeTheVerdict: the stream's goroutine is not left behind.
func TestPanicBeforeTheVerdict(t *testing.T) {
	var broken atomic.Bool
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		broken.Store(true)
		_, _ = io.WriteString(conn, streamHead)
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	})
	g := start(t, oneModel+"timeouts: {stream_keepalive: 20ms}\n", up.Address())
	clock := g.p.clock
	g.p.clock = func() time.Duration {
		if broken.CompareAndSwap(true, false) { // first asked for to write the answer's head
			panic("no time")
		}
		return clock()
	}
	errorRow{500, "internal_error", "", "internal", "the gateway failed"}.check(t, g.post("/v1/chat/completions", request1))
	<-up.Closed()
}

func TestPanicIsOneRequests500(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	good := g.p.snapshot.Load()
	bad := *good
	bad.set = nil // the lookup of the model dereferences it
	g.p.snapshot.Store(&bad)
	errorRow{500, "internal_error", "", "internal", "the gateway failed"}.check(t, g.post("/v1/chat/completions", `{"model":"m"}`))
	g.p.snapshot.Store(good)
	if !strings.Contains(g.log.String(), "panic in a request") || !strings.Contains(g.log.String(), "findModels") {
		t.Errorf("no stack in the log: %s", g.log)
	}
	if a := g.post("/v1/chat/completions", `{"model":"m"}`); a.status != 200 {
		t.Errorf("after it: %d %s", a.status, a.body)
	}
}

func TestAppendDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0ms", 1: "1ms", 119*time.Millisecond + 1: "120ms", 7660 * time.Millisecond: "7.660s", time.Hour: "3600.000s"} {
		if got := string(appendDuration(nil, d)); got != want {
			t.Errorf("%v is %s", d, got)
		}
		if back, err := time.ParseDuration(want); err != nil || back < d {
			t.Errorf("%s is read as %v, %v", want, back, err)
		}
	}
}

func TestTrailIsBounded(t *testing.T) {
	r := &request{}
	g := start(t, oneModel, "127.0.0.1:1")
	target := g.p.Set().Models["m"].Targets[0]
	long := *target
	long.Model = strings.Repeat("x", 200)
	for range 31 {
		r.attempts = append(r.attempts, attempt{target: &long, status: 200})
	}
	r.attempts = append(r.attempts, attempt{target: target, status: 200})
	if trail := string(r.trail()); len(trail) > record.MaxTrail || !strings.HasSuffix(trail, ",m@up;200;0") || trail[0] != 'x' {
		t.Errorf("%d bytes: %s", len(trail), trail)
	}
}
