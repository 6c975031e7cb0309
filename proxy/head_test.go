package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"sluice/internal/upstreamtest"
)

// rawPost is a whole request with the test's key, and with lines among its headers.
func (g *gateway) rawPost(path, lines, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\n%sContent-Length: %d\r\n\r\n%s", path, g.secret, lines, len(body), body)
}

// TestBodyGoesUpAsWhatItWasReadAs: as JSON in UTF-8, whatever the client called it, or not at all.
func TestBodyGoesUpAsWhatItWasReadAs(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	for lines, refused := range map[string]string{
		"":                                   "",
		"Content-Type: application/json\r\n": "",
		"Content-Type: application/json; charset=utf-8\r\n":              "",
		"content-type: Application/JSON;x=y ; CHARSET = \"UTF-8\"\r\n":   "",
		"Content-Type: text/plain; charset=us-ascii\r\n":                 "",
		"Content-Type: application/x-www-form-urlencoded\r\n":            "", // what curl -d says
		"Content-Type: application/json\r\nContent-Type: text/plain\r\n": "",
		"Content-Type:\r\n":              "",
		"Content-Encoding: identity\r\n": "",
		"Content_Type: application/x-www-form-urlencoded\r\nContent_Encoding: gzip\r\n":       "",
		"Content-Type: application/json; charset=utf-7\r\n":                                   `charset \"utf-7\"`,
		"Content-Type: application/json; charset=UTF-16LE\r\n":                                "charset",
		"Content-Type: application/json; charset=iso-8859-1\r\n":                              "charset",
		"Content-Type: application/json; charset=\"utf-7\"\r\n":                               "charset",
		"Content-Type: application/json; charset*=utf-8''utf-7\r\n":                           "charset",
		"Content-Type: application/json; charset\r\n":                                         "charset",
		"Content-Type: application/json; a=b; charset=utf-8; charset=utf-7\r\n":               "charset",
		"Content-Type: application/json; charset=utf-7\r\nContent-Type: application/json\r\n": "charset",
		"Content-Type: application/json\r\ncontent-type: application/json; charset=utf-7\r\n": "charset",
		"Content-Type: multipart/form-data; boundary=x\r\n":                                   "must be a JSON object",
		"Content-Type: MULTIPART/mixed\r\n":                                                   "must be a JSON object",
		"Content-Type: multipart/form-data; boundary=x\r\nContent-Type: application/json\r\n": "must be a JSON object",
		"Content-Encoding: gzip\r\n":                                                          "Content-Encoding",
		"Content-Encoding: identity\r\nContent-Encoding: br\r\n":                              "Content-Encoding",
		"Content-Encoding: identity, gzip\r\n":                                                "Content-Encoding",
	} {
		before := len(up.Requests())
		got := g.raw(g.rawPost("/v1/chat/completions", lines, plainM))
		if refused != "" {
			if !strings.HasPrefix(got, "HTTP/1.1 415 ") || !strings.Contains(got, `"type":"invalid_request_error","param":null,"code":"unsupported_media_type"`) ||
				!strings.Contains(got, refused) || len(up.Requests()) != before {
				t.Errorf("%q: %s", lines, got)
			}
			continue
		}
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%q: %s", lines, got)
			continue
		}
		h := up.Requests()[before].Header
		if got := strings.Join(h.Values("Content-Type"), "|"); got != "application/json" || h["Content-Encoding"] != nil || h["Content_type"] != nil {
			t.Errorf("%q went up as %v", lines, h)
		}
	}
	configured := start(t, strings.Replace(oneModel, "api_key", "headers: {content-type: application/vnd.x+json}, api_key", 1), up.Address())
	configured.post("/v1/chat/completions", plainM)
	requests := up.Requests()
	if got := requests[len(requests)-1].Header.Values("Content-Type"); len(got) != 1 || got[0] != "application/vnd.x+json" {
		t.Errorf("the operator's type became %q", got)
	}
}

// TestWhatStaysHere: of the client's headers an upstream gets neither those that the gateway or a proxy
// in front of it answers for, nor other spellings of them.
func TestWhatStaysHere(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	const config = "headers: {x-team: edge, X_Org: ours}, headers_pass: [X-Real-IP, x-forwarded-for, cf_ray], api_key"
	g := start(t, strings.Replace(oneModel, "api_key", config, 1), up.Address())
	stays := []string{"CF-Connecting-IP", "CF-IPCountry", "CDN-Loop", "Via", "True-Client-IP", "X-Client-IP", "Fastly-Client-IP", "X-Cluster-Client-IP",
		"X-Envoy-Internal", "X-Amzn-Trace-Id", "X-Original-URL", "X-Original-For", "X-Rewrite-URL", "X-Auth-Request-User", "X-Forwarded-Host", "Forwarded",
		"Origin", "Referer", "Sec-Fetch-Mode", "Sec-CH-UA", "X-Portkey-Api-Key", "X-Goog-Api-Key", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
		"Content-Type", "X-Request-Id", "Cookie", "X-Api-Key", "Api-Key", "X-Team", "X-Org", "Keep-Alive", "TE", "Proxy-Authorization", "Accept-Encoding"}
	var lines strings.Builder
	for _, name := range stays {
		underscores := strings.ReplaceAll(name, "-", "_")
		for _, spelling := range []string{name, underscores, strings.ToLower(underscores), strings.Replace(name, "-", "_", 1)} {
			if strings.HasSuffix(strings.ToLower(spelling), "api-key") || spelling == "Content-Type" || spelling == "X-Request-Id" {
				continue // read here
			}
			lines.WriteString(spelling + ": evil\r\n")
		}
	}
	lines.WriteString("x_real_ip: evil\r\nX-Real-Ip: 1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\ncf_ray: 5\r\nX_Custom: kept\r\nContent-Language: de\r\nX-Stainless-Lang: go\r\n")
	if got := g.raw(g.rawPost("/v1/chat/completions", lines.String(), plainM)); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Fatal(got)
	}
	h := up.Requests()[0].Header
	if strings.Contains(fmt.Sprint(h), "evil") {
		t.Errorf("upstream: %v", h)
	}
	for name, want := range map[string]string{"X-Real-Ip": "1.2.3.4", "X-Forwarded-For": "1.2.3.4", "Cf_ray": "5", "X_custom": "kept", "Content-Language": "de",
		"X-Stainless-Lang": "go", "X-Team": "edge", "X_org": "ours"} {
		if got := h[http.CanonicalHeaderKey(name)]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q", name, got)
		}
	}
}

func TestParametersOfTheTarget(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, strings.Replace(oneModel, "api_key", "query: {api-version: p}, api_key", 1), up.Address())
	for query, want := range map[string]string{
		"":                                    "api-version=p",
		"?a=1&b":                              "a=1&b&api-version=p",
		"?API-Version=2&a=1":                  "a=1&api-version=p",
		"?a=1;api-version=2":                  "a=1&api-version=p",
		"?a=1;api%2Dversion=2;b=2&c=3":        "a=1;b=2&c=3&api-version=p",
		"?api-version=2;a=1":                  "a=1&api-version=p",
		"?%61pi-versio%6E=2&&;":               "api-version=p",
		"?a=api-version=2&b=%3Bapi-version=2": "a=api-version=2&b=%3Bapi-version=2&api-version=p",
	} {
		before := len(up.Requests())
		if a := g.post("/v1/chat/completions"+query, plainM); a.status != 200 {
			t.Fatalf("%s: %d %s", query, a.status, a.body)
		}
		if got := up.Requests()[before].Target; got != "/base/chat/completions?"+want {
			t.Errorf("%s became %s", query, got)
		}
	}
}

// TestConnectionNames: what Connection names goes no further, and names cost little however many.
func TestConnectionNames(t *testing.T) {
	up := upstreamtest.NewRaw(t, func(conn net.Conn, r *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, upstreamtest.Whole("200 OK", "application/json", r.Header.Get("X-Say"), okBody))
	})
	g := start(t, oneModel, up.Address())
	names := func(n int) string { return strings.Repeat("x-a, ", n-1) + "x-named" }
	for _, test := range []struct {
		connection string
		ok         bool
	}{
		{"Connection: X-Named\r\n", true},
		{"Connection: keep-alive,X-NAMED ,\r\n", true},
		{"Connection: " + names(maxHops) + "\r\n", true},
		{"Connection: " + names(maxHops+1) + "\r\n", false},
		{"Connection: " + strings.Repeat(",", 14000) + "x-named\r\n", false},
		{"Connection: " + names(maxHops) + "\r\nConnection: x-b\r\n", false},
		{strings.Repeat("Connection: x-named\r\n", maxHops+1), false},
	} {
		got := g.raw(g.rawPost("/v1/chat/completions", "X-Named: evil\r\nX-Other: 1\r\n"+test.connection, plainM))
		if !test.ok {
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "at most 32 names") {
				t.Errorf("%.50q: %s", test.connection, got)
			}
			continue
		}
		requests := up.Requests()
		if h := requests[len(requests)-1].Header; !strings.HasPrefix(got, "HTTP/1.1 200 ") || h["X-Named"] != nil || h["X-Other"] == nil {
			t.Errorf("%.50q: %s %v", test.connection, got, h)
		}
	}
}

func TestManyCookieHeaders(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	for n, want := range map[int]string{maxCookies: "HTTP/1.1 200 ", maxCookies + 1: "HTTP/1.1 400 "} {
		if got := g.raw(g.rawPost("/v1/chat/completions", strings.Repeat("cookie: a=b\r\n", n), plainM)); !strings.HasPrefix(got, want) {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestConnectionNamesOfAnAnswer(t *testing.T) {
	for names, want := range map[string]int{"X-Named": 200, strings.Repeat(",", 14000) + "X-Named": 502, strings.Repeat("x,", maxHops) + "X-Named": 502} {
		up := upstreamtest.NewRaw(t, upstreamtest.Reply(upstreamtest.Whole("200 OK", "application/json", "Connection: "+names+"\r\nX-Named: evil\r\nX-Other: 1\r\n", okBody)))
		g := start(t, oneModel, up.Address())
		a := g.post("/v1/chat/completions", plainM)
		if a.status != want || a.header["X-Named"] != nil || (a.header["X-Other"] != nil) != (want == 200) {
			t.Errorf("%.20q: %d %v %s", names, a.status, a.header, a.body)
		}
		if want == 502 && !strings.Contains(a.header.Get("X-Sluice-Trail"), "malformed_response") {
			t.Errorf("%v", a.header)
		}
	}
}

// BenchmarkWriteHead: many headers beside many names in Connection take a time that grows with
// neither's square.
func BenchmarkWriteHead(b *testing.B) {
	g := start(b, oneModel, "127.0.0.1:1")
	target := g.p.Set().Models["m"].Targets[0]
	for name, lines := range map[string]string{
		"sdk":     "User-Agent: sdk/1\r\nContent-Type: application/json\r\nAccept: */*\r\nX-Stainless-Lang: go\r\nConnection: keep-alive\r\n",
		"hostile": "Connection: " + strings.Repeat("x-a,", maxHops-1) + "x-b\r\n" + strings.Repeat("a:b\r\n", 2800),
	} {
		b.Run(name, func(b *testing.B) {
			r := g.p.acquireRequest()
			r.ctx, r.route = &fasthttp.RequestCtx{}, &builtin[0]
			text := bufio.NewReaderSize(strings.NewReader(g.rawPost("/v1/chat/completions", lines, plainM)), 64<<10)
			if err := r.ctx.Request.Header.Read(text); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				r.hops.clear()
				if f := r.checkHead(); f != nil {
					b.Fatal(f.message)
				}
				r.writeHead(target)
			}
		})
	}
}
