package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// old is a request of HTTP/1.0.
func (g *gateway) old(lines, body string) string {
	return fmt.Sprintf("POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer %s\r\n%sContent-Length: %d\r\n\r\n%s", g.secret, lines, len(body), body)
}

// TestOldClients: who speaks HTTP/1.0 gets no chunks. What has no length ends with the connection, and
// with an error if it is not whole.
func TestOldClients(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	passing := "HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
	events := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Long: " + strings.Repeat("h", 12<<10) + "\r\nTransfer-Encoding: chunked\r\n\r\n"
	manyEvents := strings.Repeat(chunkTwo, 2000)
	tests := []struct {
		name, upstream, want string
		cut                  bool
	}{
		{"a stream", events + chunked(chunkOne+chunkTwo+chunkStop+chunkDone) + "0\r\n\r\n", annotatedOne + chunkTwo + chunkStop + chunkDone, false},
		{"a long stream", events + chunked(chunkOne+manyEvents+chunkDone) + "0\r\n\r\n", annotatedOne + manyEvents + chunkDone, false},
		{"a stream that breaks off", events + chunked(chunkOne+chunkTwo), annotatedOne + chunkTwo, true},
		{"a passing body", passing + chunked(long) + "0\r\n\r\n", long, false},
		{"a passing body that looks like chunks", passing + chunked(long+"\n\n0\r\n\r\n") + "0\r\n\r\n", long + "\n\n0\r\n\r\n", false},
		{"a passing body that breaks off", passing + chunked(long), long, true},
	}
	certificate := upstreamtest.NewAuthority(t).Pair("gateway.test")
	for name, secure := range map[string]*tls.Config{"": nil, ", TLS": {Certificates: []tls.Certificate{certificate}}} {
		for _, test := range tests {
			t.Run(test.name+name, func(t *testing.T) {
				up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
					_, _ = io.WriteString(conn, test.upstream)
					if test.cut {
						conn.Close()
					}
				})
				g := startSecure(t, oneModel, up.Address(), secure)
				conn, err := g.dial(context.Background(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				if secure != nil {
					conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := io.WriteString(conn, g.old("Connection: keep-alive\r\n", request1)); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(conn)
				head, body, _ := bytes.Cut(got, []byte("\r\n\r\n"))
				if test.cut {
					if err == nil {
						t.Errorf("nothing says that this is not whole: %q", got)
					}
					return // of what was sent before the reset, some may be lost
				}
				if err != nil || string(body) != test.want {
					t.Errorf("%v, %d bytes: %.300q", err, len(body), body)
				}
				if h := string(head); strings.Contains(h, "Transfer-Encoding") || !strings.Contains(h+"\r\n", "\r\nConnection: close\r\n") || !strings.HasPrefix(h, "HTTP/1.1 200 OK\r\n") {
					t.Errorf("%q", h)
				}
			})
		}
	}
}

// TestOldClientKeepsItsConnection where the answer's length is known.
func TestOldClientKeepsItsConnection(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := startTCP(t, oneModel, up.Address())
	got := g.raw(g.old("Connection: keep-alive\r\n", plainM) + g.old("", plainM))
	if strings.Count(got, okAnnotated) != 2 || strings.Count(got, "Connection: keep-alive\r\n") != 1 || strings.Count(got, "Connection: close\r\n") != 1 {
		t.Errorf("%q", got)
	}
}
