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
	early  bool // answer is called before the body is read
	wg     sync.WaitGroup
	end    sync.Once

	mu       sync.Mutex
	requests []*Recorded
	conns    map[net.Conn]struct{}
	accepted int
	closed   chan struct{} // gets one for each connection that ended
	ended    chan struct{} // closed by Close
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

// NewEarly is NewRawTLS for an upstream whose answer is called when a request's head has come: it
// may read the body from conn, or not. When it returns, nothing more is read, and the connection
// stays open until the test ends.
func NewEarly(t TB, secure *tls.Config, answer func(conn net.Conn, r *Recorded)) *Raw {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln = shallow{ln}
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	u := newRaw(t, answer)
	u.ln, u.early = ln, true
	u.wg.Go(u.accept)
	return u
}

// shallow is a listener whose connections take little that is not read.
type shallow struct{ net.Listener }

func (s shallow) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err == nil {
		_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	}
	return conn, err
}

// NewPiped is NewRaw without a network: Dial makes its connections, of memory without a
// buffer.
func NewPiped(t TB, answer func(conn net.Conn, r *Recorded)) *Raw { return newRaw(t, answer) }

func newRaw(t TB, answer func(conn net.Conn, r *Recorded)) *Raw {
	u := &Raw{answer: answer, conns: map[net.Conn]struct{}{}, closed: make(chan struct{}, 10_000), ended: make(chan struct{})}
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
	u.end.Do(func() { close(u.ended) })
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

// unread is the connection of a request whose body is read from it.
type unread struct {
	net.Conn
	body io.Reader
}

func (u *unread) Read(p []byte) (int, error) { return u.body.Read(p) }

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
		r := &Recorded{Method: req.Method, Target: req.RequestURI, Host: req.Host, Header: req.Header}
		if !u.early {
			if r.Body, err = io.ReadAll(req.Body); err != nil {
				return
			}
		}
		u.mu.Lock()
		u.requests = append(u.requests, r)
		u.mu.Unlock()
		if u.early {
			u.answer(&unread{conn, req.Body}, r)
			<-u.ended
			return
		}
		u.answer(conn, r)
	}
}
