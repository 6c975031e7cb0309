package pool

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// secureTarget is a target at a TLS server that answers with what it was sent, and the
// count of its connections.
func secureTarget(t *testing.T) (*Target, *atomic.Int64) {
	t.Helper()
	var conns atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // before the answer, or the server would close
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	p := empty()
	t.Cleanup(p.Close)
	s := p.Build(load(t, `
upstreams: {up: {base_url: "`+server.URL+`/v1"}}
models: {m: {targets: [{upstream: up}]}}
`))
	p.Adopt(s)
	target := s.Models["m"].Targets[0]
	target.Upstream.tls.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return target, &conns
}

// exchange sends body and returns the answer.
func exchange(t *testing.T, target *Target, body string) (string, error) {
	t.Helper()
	x := Acquire()
	defer Release(x)
	defer x.Finish()
	x.Head = fmt.Appendf(nil, "POST /v1/completions%sContent-Length: %d\r\n\r\n", target.Head, len(body))
	x.Body = [][]byte{[]byte(body[:len(body)/2]), nil, []byte(body[len(body)/2:])}
	if err := x.Send(target, time.Now().Add(10*time.Second)); err != nil {
		return "", err
	}
	b, err := io.ReadAll(x)
	return string(b), err
}

func TestTLSConnectionsAreReused(t *testing.T) {
	target, conns := secureTarget(t)
	for _, body := range []string{"one", strings.Repeat("two", 100_000), "three", "four"} {
		got, err := exchange(t, target, body)
		if err != nil || got != body {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for four requests in a row", n)
	}
}

func TestUntrustedCertificate(t *testing.T) {
	target, _ := secureTarget(t)
	target.Upstream.tls.RootCAs = nil
	_, err := exchange(t, target, "x")
	var e *Error
	if !errors.As(err, &e) || e.Cause != TLSFailed {
		t.Errorf("%v", err)
	}
}

// TestAbortWakesWhoWaits, over TLS too, and whatever it waits for.
func TestAbortWakesWhoWaits(t *testing.T) {
	target, _ := secureTarget(t)
	body := make([]byte, 256<<20)
	for i := range 20 {
		x := Acquire()
		x.Head = fmt.Appendf(nil, "POST /%sContent-Length: %d\r\n\r\n", target.Head, len(body))
		x.Body = [][]byte{body}
		go func() {
			for target.Upstream.inFlight.Load() == 0 {
				runtime.Gosched()
			}
			time.Sleep(time.Duration(i) * time.Millisecond) // while it connects, or writes
			x.Abort(ClientLeft)
		}()
		err := x.Send(target, time.Now().Add(time.Minute))
		var e *Error
		if !errors.As(err, &e) || e.Cause != ClientLeft {
			t.Fatalf("%v", err)
		}
		x.Finish()
		Release(x)
	}
	if n := target.Upstream.inFlight.Load(); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

// TestUnread gives back what was read, to the end.
func TestUnread(t *testing.T) {
	target, _ := secureTarget(t)
	x := Acquire()
	defer Release(x)
	defer x.Finish()
	x.Head = fmt.Appendf(nil, "POST /v1/completions%sContent-Length: %d\r\n\r\n", target.Head, 5)
	x.Body = [][]byte{[]byte("hello")}
	if err := x.Send(target, time.Now().Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		all, err := io.ReadAll(x)
		if string(all) != "hello" || err != nil {
			t.Fatalf("%q, %v", all, err)
		}
		x.Unread(all)
		clear(all)
	}
	one := make([]byte, 2)
	for _, want := range []string{"he", "ll", "o"} {
		if n, err := x.Read(one); string(one[:n]) != want || err != nil || x.Ready() != (want != "o") {
			t.Fatalf("%q, %v, ready %v", one[:n], err, x.Ready())
		}
	}
}
