package proxy

import (
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

// TestNotModified: a 304 is the answer that a client with a condition has asked for. To any other it
// is an upstream's error.
func TestNotModified(t *testing.T) {
	for name, text := range map[string]string{
		"bare":        "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n",
		"with a head": "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Type: application/json\r\nContent-Length: 123456\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, upstreamtest.Reply(text))
			g := start(t, oneModel+"access_log: true\n", up.Address())
			for _, condition := range []string{"If-None-Match", "If-Modified-Since"} {
				a := g.post("/v1/chat/completions", plainM, condition, `"1"`)
				if a.status != 304 || a.body != "" || a.err != nil || a.header.Get("ETag") != `"1"` || a.header.Get("X-Sluice-Attempts") != "1" {
					t.Errorf("%s: %d %q %v %v", condition, a.status, a.body, a.header, a.err)
				}
			}
			if up.Accepted() != 1 {
				t.Errorf("%d connections", up.Accepted())
			}
			errorRow{502, "upstream_error", "", "upstream_error", ""}.check(t, g.post("/v1/chat/completions", plainM))
			eventually(t, "all are logged", func() bool { return strings.Count(g.log.String(), `"msg":"request"`) == 3 })
			for line := range strings.Lines(g.log.String()) {
				if strings.Contains(line, `"status":304`) && strings.Contains(line, `"error"`) {
					t.Errorf("it is taken for an error: %s", line)
				}
			}
		})
	}
}

// TestEncodedAnswerWithoutALength passes: what it holds cannot be looked at.
func TestEncodedAnswerWithoutALength(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, okBody)
	w.Close()
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"+b.String())
		conn.Close()
	})
	g := start(t, oneModel, up.Address())
	if a := g.post("/v1/chat/completions", plainM); a.status != 200 || a.body != b.String() || a.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%d %q %v", a.status, a.body, a.err)
	}
}
