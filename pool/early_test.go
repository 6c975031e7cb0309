package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/upstreamtest"
	"sluice/metrics"
)

// swallowed is a body that the buffers of two kernels do not hold.
var swallowed = make([]byte, 16<<20)

// earlyTarget is a target at an upstream that is asked once a request's head has come.
func earlyTarget(t *testing.T, ca *upstreamtest.Authority, secure bool, answer func(net.Conn, *upstreamtest.Recorded)) *Target {
	t.Helper()
	var c *tls.Config
	scheme := "http"
	if secure {
		c, scheme = &tls.Config{Certificates: []tls.Certificate{ca.Pair("up.test")}}, "https"
	}
	up := upstreamtest.NewEarly(t, c, answer)
	p := empty()
	t.Cleanup(p.Close)
	return targetOf(t, p, fmt.Sprintf("upstreams: {up: {base_url: %s://%s/v1, ca: %s}}\nmodels: {m: {targets: [{upstream: up}]}}\n",
		scheme, up.Address(), ca.File))
}

// TestAnAnswerBeforeTheRequestIsWritten: what an upstream says while it is written to is heard then,
// whether it reads on or not.
func TestAnAnswerBeforeTheRequestIsWritten(t *testing.T) {
	const refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge"
	say := func(text string) func(net.Conn, *upstreamtest.Recorded) { return upstreamtest.Reply(text) }
	ca := upstreamtest.NewAuthority(t)
	for name, test := range map[string]struct {
		answer func(net.Conn, *upstreamtest.Recorded)
		status int
		cause  Cause
		whole  bool // the upstream gets all of it
	}{
		"413":               {say(refusal), 413, 0, false},
		"429":               {say("HTTP/1.1 429 Slow\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"), 429, 0, false},
		"a redirect":        {say("HTTP/1.1 307 There\r\nContent-Length: 0\r\n\r\n"), 307, 0, false},
		"503, chunked":      {say("HTTP/1.1 503 Down\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlarge\r\n0\r\n\r\n"), 503, 0, false},
		"interim, then 401": {say("HTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"), 401, 0, false},
		"413 and the end":   {func(c net.Conn, _ *upstreamtest.Recorded) { _, _ = io.WriteString(c, refusal); c.Close() }, 413, 0, false},
		"no HTTP":           {say("SMTP/1.1 200 OK\r\n\r\n"), 0, MalformedResponse, false},
		"the end":           {func(c net.Conn, _ *upstreamtest.Recorded) { c.Close() }, 0, ConnectionLost, false},
		"413 once it is read": {func(c net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.Copy(io.Discard, c)
			_, _ = io.WriteString(c, refusal)
		}, 413, 0, true},
		"200, and it reads on": {func(c net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
			_, _ = io.WriteString(c, "5\r\nlarge\r\n0\r\n\r\n")
		}, 200, 0, true},
	} {
		for _, over := range []string{"plain", "TLS"} {
			t.Run(name+", "+over, func(t *testing.T) {
				read := make(chan int64, 4)
				target := earlyTarget(t, ca, over == "TLS", func(conn net.Conn, r *upstreamtest.Recorded) {
					counted := &counter{Conn: conn}
					test.answer(counted, r)
					read <- counted.n
				})
				x := Acquire()
				defer Release(x)
				defer x.Finish()
				x.Head = fmt.Appendf(nil, "POST /%sContent-Length: %d\r\n\r\n", target.Head, len(swallowed))
				x.Body = [][]byte{swallowed[:1<<20], swallowed[1<<20:]}
				err := x.Send(target, time.Now().Add(time.Minute))
				var e *Error
				if test.status == 0 {
					if !errors.As(err, &e) || e.Cause != test.cause {
						t.Fatalf("%v, want %v", err, test.cause)
					}
					return
				}
				if err != nil || x.Response.StatusCode() != test.status {
					t.Fatalf("%d, %v; want %d", x.Response.StatusCode(), err, test.status)
				}
				if _, err := io.ReadAll(x); err != nil {
					t.Errorf("the answer's body: %v", err)
				}
				if n := <-read; (n == int64(len(swallowed))) != test.whole || x.keep() != test.whole {
					t.Errorf("the upstream has read %d of %d bytes; the connection is kept: %t", n, len(swallowed), x.keep())
				}
			})
		}
	}
}

// counter counts what is read.
type counter struct {
	net.Conn
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n += int64(n)
	return n, err
}

// TestAnUpstreamThatReadsNothing and says nothing: the deadline and Abort hold while the request is
// written, and nothing of it goes on afterwards.
func TestAnUpstreamThatReadsNothing(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	for _, over := range []string{"plain", "TLS"} {
		for name, test := range map[string]struct {
			deadline time.Duration
			cause    Cause
		}{"deadline": {100 * time.Millisecond, FirstByteTimeout}, "abort": {time.Minute, ClientLeft}} {
			t.Run(name+", "+over, func(t *testing.T) {
				came := make(chan struct{}, 4)
				target := earlyTarget(t, ca, over == "TLS", func(net.Conn, *upstreamtest.Recorded) { came <- struct{}{} })
				before := goleak.IgnoreCurrent()
				x := Acquire()
				defer Release(x)
				x.Head = fmt.Appendf(nil, "POST /%sContent-Length: %d\r\n\r\n", target.Head, len(swallowed))
				x.Body = [][]byte{swallowed}
				if test.cause == ClientLeft {
					go func() { <-came; x.Abort(ClientLeft) }()
				}
				var e *Error
				if err := x.Send(target, time.Now().Add(test.deadline)); !errors.As(err, &e) || e.Cause != test.cause {
					t.Errorf("%v, want %v", err, test.cause)
				}
				x.Finish()
				target.Upstream.retire()
				goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("sluice/internal/upstreamtest.(*Raw).serve"),
					goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"))
			})
		}
	}
}

// unreadable is a connection that panics when it is read from, while a write waits.
type unreadable struct {
	net.Conn
	writing, wrote chan struct{}
}

func (c *unreadable) Read([]byte) (int, error) {
	<-c.writing
	panic("no bytes")
}

func (c *unreadable) Write(b []byte) (int, error) {
	defer close(c.wrote)
	close(c.writing)
	return c.Conn.Write(b)
}

// TestAPanicWhileALargeRequestIsWritten goes on only when nobody writes the request any more.
func TestAPanicWhileALargeRequestIsWritten(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	conn := &unreadable{near, make(chan struct{}), make(chan struct{})}
	p := New(metrics.New(), slog.New(slog.DiscardHandler), func() time.Duration { return 0 },
		func(context.Context, string, string) (net.Conn, error) { return conn, nil })
	defer p.Close()
	target := targetOf(t, p, "upstreams: {up: {base_url: http://up.test/v1}}\nmodels: {m: {targets: [{upstream: up}]}}\n")
	x := Acquire()
	x.Head, x.Body = []byte("POST / HTTP/1.1\r\n\r\n"), [][]byte{swallowed}
	func() {
		defer func() {
			if v := recover(); v != "no bytes" {
				t.Errorf("it panicked with %v", v)
			}
		}()
		t.Errorf("no panic, but %v", x.Send(target, time.Now().Add(time.Minute)))
	}()
	select {
	case <-conn.wrote:
		x.Finish()
		Release(x)
	default:
		t.Error("the request is still being written")
	}
}
