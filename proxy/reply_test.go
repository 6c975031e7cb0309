package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// TestClientLeavesAHeldAnswer: that it did is recorded, though the upstream has said all.
func TestClientLeavesAHeldAnswer(t *testing.T) {
	text := []byte(reply("200 OK", "application/json", `{"x":"`+strings.Repeat("y", 20<<20)+`"}`))
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { _, _ = conn.Write(text) })
	g := startTCP(t, oneModel+"access_log: true\n", up.Address())
	conn := g.begin(plainM)
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	eventually(t, "it is logged", func() bool { return strings.Contains(g.log.String(), `"msg":"request"`) })
	if log := g.log.String(); !strings.Contains(log, `"error":"caller_left"`) || strings.Contains(log, `"bytes_out":20`) {
		t.Errorf("%s", log)
	}
}

// panicking is a connection that panics when it is read from, once it is told to.
type panicking struct {
	net.Conn
	now *atomic.Bool
}

func (c panicking) Read(b []byte) (int, error) {
	if c.now.Load() {
		panic("no bytes")
	}
	return c.Conn.Read(b)
}

// TestPanicWhileABodyPasses is a panic: it is logged and counted, and no client is said to have left.
func TestPanicWhileABodyPasses(t *testing.T) {
	for name, head := range map[string]string{"length": "Content-Length: 100", "chunks": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			var now atomic.Bool
			up := upstreamtest.NewPiped(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n"+head+"\r\n\r\n4\r\nabcd\r\n")
				now.Store(true)
				_, _ = io.WriteString(conn, "4\r\nabcd\r\n")
			})
			dial := func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := up.Dial(ctx, network, address)
				return panicking{conn, &now}, err
			}
			g := startInMemory(t, oneModel+"access_log: true\n", "127.0.0.1:1", dial)
			if a := g.post("/v1/audio/speech", plainM); a.status != 200 || a.err == nil {
				t.Errorf("%d %q %v", a.status, a.body, a.err)
			}
			eventually(t, "it is logged", func() bool { return strings.Contains(g.log.String(), `"msg":"request"`) })
			log := g.log.String()
			if !strings.Contains(log, `"panic":"no bytes"`) || !strings.Contains(log, `"error":"gateway_internal"`) || strings.Contains(log, "caller_left") {
				t.Errorf("%s", log)
			}
		})
	}
}

// TestPanicAtTheEnd: a panic in the telling of a request costs neither the process nor a place.
func TestPanicAtTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		kind   string
		answer func(net.Conn, *upstreamtest.Recorded)
	}{
		"plain":  {faultStatus, upstreamtest.Reply(reply("500 Oh", "application/json", okBody))},
		"passes": {faultStatus, upstreamtest.Reply(reply("500 Oh", "audio/mpeg", strings.Repeat("x", 100_000)))},
		"stream": {"upstream_stream_broken", func(conn net.Conn, _ *upstreamtest.Recorded) { chunks(conn, chunkOne) }},
	} {
		t.Run(name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, c.answer)
			g := start(t, oneModel, up.Address())
			delete(g.p.faults, c.kind) // nil, so that counting it panics
			for range 3 {
				if a := g.post("/v1/chat/completions", request1); a.status == 0 || (a.err != nil) != (name == "stream") {
					t.Errorf("%d %v", a.status, a.err)
				}
			}
			eventually(t, "it is told", func() bool { return strings.Count(g.log.String(), "panic at the end of a request") == 3 })
			eventually(t, "all is given back", func() bool { return g.p.gate.InFlight() == 0 && g.held() == 0 })
		})
	}
}

// TestPanicBeforeABodyPasses: what reads along with the answer gives back its memory.
func TestPanicBeforeABodyPasses(t *testing.T) {
	var came atomic.Bool
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		came.Store(true)
		_, _ = io.WriteString(conn, typed("application/octet-stream", "Content-Encoding: gzip\r\n", "\x1f\x8b"))
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	})
	g := start(t, oneModel, up.Address())
	clock := g.p.clock
	g.p.clock = func() time.Duration {
		if came.CompareAndSwap(true, false) { // first asked for when the answer has begun
			panic("no time")
		}
		return clock()
	}
	errorRow{500, "internal_error", "", "internal", "the gateway failed"}.check(t, g.post("/v1/chat/completions", request1))
	<-up.Closed()
	eventually(t, "all is given back", func() bool { return g.p.gate.InFlight() == 0 && g.held() == 0 })
}

// TestErrorBehindBytesIsSeen: an answer that goes wrong in the same piece as its last bytes does not end
// as if it were whole.
func TestErrorBehindBytesIsSeen(t *testing.T) {
	proceed := make(chan struct{})
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, typed("audio/mpeg", "", "hello"))
		<-proceed
		_, _ = io.WriteString(conn, "5\r\nworld\r\nno size\r\n")
	})
	s := startTCP(t, oneModel, up.Address()).stream("/v1/audio/speech")
	s.expect(t, "hello")
	close(proceed)
	if rest, err := io.ReadAll(s); string(rest) != "world" || err == nil {
		t.Errorf("%q, %v", rest, err)
	}
}
