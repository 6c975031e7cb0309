// Package upstreamtest is a provider whose every byte a test decides, and what else tests have around
// them: a Redis, an authority for certificates, a buffer.
package upstreamtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
)

// Recorded is a request as it came.
type Recorded struct {
	Method string
	Target string // path and query
	Host   string
	Header http.Header
	Body   []byte
}

// Raw is an upstream whose answers a test writes to the connection byte by byte.
type Raw struct {
	ln     net.Listener // nil where connections are made by Dial alone
	answer func(conn net.Conn, r *Recorded)
	wg     sync.WaitGroup

	mu       sync.Mutex
	requests []*Recorded
	conns    map[net.Conn]struct{}
	accepted int
	closed   chan struct{} // gets one for each connection that ended
}

// TB is what NewRaw needs of a *testing.T, so that the program that holds the Provider does
// not hold the testing package too.
type TB interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Skip(...any)
	Cleanup(func())
	TempDir() string
}

// NewRaw serves on a loopback port until the test ends. answer is called for each request,
// on its connection's goroutine; the connection serves further requests when it returns,
// unless it closed it.
func NewRaw(t TB, answer func(conn net.Conn, r *Recorded)) *Raw {
	t.Helper()
	return NewRawTLS(t, nil, answer)
}

// NewRawTLS is NewRaw over TLS, unless secure is nil.
func NewRawTLS(t TB, secure *tls.Config, answer func(conn net.Conn, r *Recorded)) *Raw {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	u := newRaw(t, answer)
	u.ln = ln
	u.wg.Go(u.accept)
	return u
}

// NewPiped is NewRaw without a network: Dial makes its connections, of memory without a
// buffer.
func NewPiped(t TB, answer func(conn net.Conn, r *Recorded)) *Raw { return newRaw(t, answer) }

func newRaw(t TB, answer func(conn net.Conn, r *Recorded)) *Raw {
	u := &Raw{answer: answer, conns: map[net.Conn]struct{}{}, closed: make(chan struct{}, 10_000)}
	t.Cleanup(u.Close)
	return u
}

// Dial connects to the upstream without a network.
func (u *Raw) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	u.add(server)
	return client, nil
}

// Reply is an answer function that writes text and goes on.
func Reply(text string) func(net.Conn, *Recorded) {
	return func(conn net.Conn, _ *Recorded) { _, _ = io.WriteString(conn, text) }
}

// Address is host:port.
func (u *Raw) Address() string { return u.ln.Addr().String() }

// Close ends everything.
func (u *Raw) Close() {
	if u.ln != nil {
		u.ln.Close()
	}
	u.CloseConnections()
	u.wg.Wait()
}

// CloseConnections closes those that are open.
func (u *Raw) CloseConnections() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.conns {
		c.Close()
	}
}

// Requests are those that came so far.
func (u *Raw) Requests() []*Recorded {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*Recorded(nil), u.requests...)
}

// Accepted is how many connections came so far.
func (u *Raw) Accepted() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.accepted
}

// Closed gets one for each connection that ended.
func (u *Raw) Closed() <-chan struct{} { return u.closed }

func (u *Raw) accept() {
	for {
		conn, err := u.ln.Accept()
		if err != nil {
			return
		}
		u.add(conn)
	}
}

// add serves a connection.
func (u *Raw) add(conn net.Conn) {
	u.mu.Lock()
	u.conns[conn] = struct{}{}
	u.accepted++
	u.mu.Unlock()
	u.wg.Go(func() { u.serve(conn) })
}

func (u *Raw) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		u.mu.Lock()
		delete(u.conns, conn)
		u.mu.Unlock()
		u.closed <- struct{}{}
	}()
	br := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r := &Recorded{Method: req.Method, Target: req.RequestURI, Host: req.Host, Header: req.Header, Body: body}
		u.mu.Lock()
		u.requests = append(u.requests, r)
		u.mu.Unlock()
		u.answer(conn, r)
	}
}
