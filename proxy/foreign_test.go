package proxy

import (
	"strconv"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

// TestForeignErrors: an HTTP error that no SDK can read keeps its status and becomes an error that says who
// answered what with which status. What it said goes nowhere. An error in JSON passes as it is.
func TestForeignErrors(t *testing.T) {
	const chat, messages, json = "/v1/chat/completions", "/v1/messages", "application/json"
	const page = "<html>sesame</html>"
	whole := func(status, contentType, header, body string) step {
		return upstreamtest.Say(upstreamtest.Whole(status, contentType, header, body))
	}
	chunks := func(contentType, body string) step {
		return upstreamtest.Say("HTTP/1.1 404 No\r\nContent-Type: " + contentType + "\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body) + "0\r\n\r\n")
	}
	for _, test := range []struct {
		name, path string
		step       step
		status     int
		passes     string // the body; "" for one that is replaced
	}{
		{"a page", chat, whole("404 No", "text/html", "", page), 404, ""},
		{"a page in chunks", chat, chunks("text/html", page), 404, ""},
		{"a line", chat, whole("404 No", "text/plain", "", "404 page not found: sesame\n"), 404, ""},
		{"a long page", chat, whole("404 No", "text/html", "", strings.Repeat(page, 20_000)), 404, ""},
		{"Anthropic's client", messages, whole("405 No", "text/html", "", page), 405, ""},
		{"not built", chat, whole("501 No", "text/plain", "", "sesame"), 501, ""},
		{"a load balancer's", chat, whole("503 Busy", "text/html", "", page), 503, ""},
		{"no type", chat, upstreamtest.Say("HTTP/1.1 404 No\r\nContent-Length: 6\r\n\r\nsesame"), 404, ""},
		{"nothing", chat, whole("404 No", json, "", ""), 404, ""},
		{"white space", chat, whole("404 No", json, "", " \r\n"), 404, ""},
		{"a page that is said to be JSON", chat, whole("404 No", json, "", page), 404, ""},
		{"compressed", chat, whole("404 No", "text/html", "Content-Encoding: gzip\r\nEtag: x\r\nContent-Language: de\r\n", page), 404, ""},
		{"the client's own fault", chat, whole("413 Large", "text/html", "", page), 413, ""},
		{"JSON", chat, whole("404 No", json, "", errorBody), 404, "{" + saidBy("m", "a", 1) + "," + errorBody[1:]},
		{"JSON as text", chat, whole("404 No", "text/plain", "", errorBody), 404, "{" + saidBy("m", "a", 1) + "," + errorBody[1:]},
		{"JSON of another shape", chat, whole("404 No", json, "", `["x"]`), 404, `["x"]`},
		{"a problem", chat, whole("404 No", "application/problem+json", "", `{"title":"x"}`), 404, "{" + saidBy("m", "a", 1) + `,"title":"x"}`},
		{"compressed JSON", chat, whole("404 No", json, "Content-Encoding: gzip\r\n", "zipped"), 404, "zipped"},
		{"JSON that is text in chunks", chat, chunks("text/plain", errorBody), 404, "{" + saidBy("m", "a", 1) + "," + errorBody[1:]},
	} {
		for _, held := range []bool{false, true} {
			t.Run(test.name, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					models := "  m: {targets: [{upstream: a}], max_retries: 0}\n"
					if held { // it is known only afterwards that nothing else can be tried
						models = "  m: {targets: [{upstream: a}], fallbacks: [n], max_retries: 0}\n  n: {targets: [{upstream: b}]}\n"
					}
					g, _ := startScripted(t, "breaker: {pause: 30s}\naccess_log: true"+threeUpstreams+models, map[string]steps{"a": {test.step}})
					if held {
						g.trip("n")
					}
					a := g.post(test.path, plainM)
					if held && test.name == "a long page" { // which is not kept
						a.want(t, 502, "m@a;404;0")
						return
					}
					want := `{"gateway":{"model":"m","upstream":"a","attempts":1},` + foreignError(test.path, test.status)
					if test.passes != "" {
						want = test.passes
					}
					if a.status != test.status || a.body != want || strings.Contains(a.body+g.log.String(), "sesame") {
						t.Errorf("%d %s, want %s", a.status, a.body, want)
					}
					if test.passes == "" && (a.header.Get("Content-Type") != json || a.header.Get("Content-Encoding")+a.header.Get("Etag")+a.header.Get("Content-Language") != "") {
						t.Errorf("%v", a.header)
					}
					line := g.lastLine()
					cause, _ := line["cause"].(string)
					if want := (test.status == 404 || test.status == 405 || test.status == 413); (line["error"] == faultRejected) != want ||
						strings.HasPrefix(cause, "POST /v1/") != (test.passes == "") {
						t.Errorf("%v", line)
					}
					g.wantNothingLeft()
				})
			})
		}
	}
}

// foreignError is the rest of the body that stands for a foreign error.
func foreignError(path string, status int) string {
	message := "upstream a answered POST " + strings.TrimPrefix(path, "/v1") + " with status " + strconv.Itoa(status) + " and without an error in JSON"
	switch status {
	case 404, 405, 501:
		message += "; it may have nothing at this path, or not speak this API"
	}
	if path == "/v1/messages" {
		return `"type":"error","error":{"type":"api_error","message":"` + message + `"}}`
	}
	return `"error":{"message":"` + message + `","type":"upstream_error","param":null,"code":"upstream_error"}}`
}
