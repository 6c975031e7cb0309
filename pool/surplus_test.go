package pool

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/metrics"
)

// surplus is how an upstream sends more than one answer to a request.
type surplus struct {
	name   string
	status string // of the answer, with no body of its own; empty for a 200 with one
	how    delivery
}

// delivery is when the bytes behind an answer are sent.
type delivery uint8

const (
	together  delivery = iota // in one write, and so in one TLS record, with the answer's body
	separate                  // in a record of their own, in the same packet
	alternate                 // now the one, now the other
	halved                    // separate, the second half only once the next request has come
	late                      // once the answer has been read, before the next request
)

var surpluses = []surplus{
	{"longer than announced", "", together},
	{"204 with a body", "204 No Content", alternate},
	{"304 with a body", "304 Not Modified", alternate},
	{"two at once", "", alternate},
	{"early", "", separate},
	{"early by half a record", "", halved},
	{"late", "", late},
}

// talker is an upstream that sends more than it was asked for with every third answer. It serves
// one client at a time.
type talker struct {
	surplus
	chunked bool
	secure  *tls.Config // nil for plain TCP
	conns   atomic.Int64
	goOn    chan struct{} // the client has read its answer
	gone    chan struct{} // what comes late is on its way
	stop    chan struct{} // the test ends
	wg      sync.WaitGroup
}

func (u *talker) start(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.goOn, u.gone, u.stop = make(chan struct{}), make(chan struct{}), make(chan struct{})
	t.Cleanup(u.wg.Wait)
	t.Cleanup(func() { ln.Close(); close(u.stop) })
	u.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			u.conns.Add(1)
			u.wg.Go(func() { defer conn.Close(); u.serve(conn) })
		}
	})
	return ln.Addr().String()
}

// packet gathers what is written until it is sent.
type packet struct {
	net.Conn
	open  bool
	bytes []byte
}

func (p *packet) Write(b []byte) (int, error) {
	if !p.open {
		return p.Conn.Write(b)
	}
	p.bytes = append(p.bytes, b...)
	return len(b), nil
}

// send sends the first n bytes.
func (p *packet) send(n int) {
	_, _ = p.Conn.Write(p.bytes[:n])
	p.bytes = append(p.bytes[:0], p.bytes[n:]...)
}

func (u *talker) serve(conn net.Conn) {
	p := &packet{Conn: conn}
	conn = p
	if u.secure != nil {
		secure := tls.Server(p, u.secure)
		if secure.Handshake() != nil {
			return
		}
		conn = secure
	}
	p.open = true
	for r := bufio.NewReader(conn); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		p.send(len(p.bytes)) // what was kept of half a record
		u.answer(conn, p, req.Header.Get("X-Id"))
	}
}

func (u *talker) answer(conn net.Conn, p *packet, id string) {
	n, _ := strconv.Atoi(id)
	if n%3 != 0 {
		head, body := answer(id, "", u.chunked)
		_, _ = io.WriteString(conn, head+body)
		p.send(len(p.bytes))
		return
	}
	head, body := answer(id, u.status, u.chunked)
	moreHead, moreBody := answer("more of "+id, "", u.chunked)
	more := moreHead + moreBody
	how := u.how
	if how == alternate {
		how = delivery(n / 3 % 2) // together or separate
	}
	if how == together {
		body += more
	}
	_, _ = io.WriteString(conn, head)
	_, _ = io.WriteString(conn, body)
	asked := len(p.bytes)
	if how == separate || how == halved {
		_, _ = io.WriteString(conn, more)
	}
	if how == halved {
		p.send((asked + len(p.bytes)) / 2)
		return
	}
	p.send(len(p.bytes))
	if how == late {
		select {
		case <-u.goOn:
		case <-u.stop:
			return
		}
		_, _ = io.WriteString(conn, more)
		p.send(len(p.bytes))
		u.gone <- struct{}{}
	}
}

// answer names the request that it belongs to in its head and, if it has one, in its body.
func answer(id, status string, chunked bool) (head, body string) {
	switch {
	case status != "":
		return "HTTP/1.1 " + status + "\r\nX-Id: " + id + "\r\n\r\n", ""
	case chunked:
		return "HTTP/1.1 200 OK\r\nX-Id: " + id + "\r\nTransfer-Encoding: chunked\r\n\r\n",
			fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(id), id)
	}
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Id: %s\r\nContent-Length: %d\r\n\r\n", id, len(id)), id
}

// crossed sends requests to target one after the other and counts those that got what was not
// theirs.
func (u *talker) crossed(target *Target, requests int) (wrong int, err error) {
	for n := range requests {
		id := strconv.Itoa(n)
		x := Acquire()
		x.Head = []byte("POST /" + string(target.Head) + "X-Id: " + id + "\r\nContent-Length: 0\r\n\r\n")
		var body []byte
		if err = x.Send(target, time.Now().Add(20*time.Second)); err == nil {
			body, err = io.ReadAll(x)
		}
		if got := string(x.Response.Peek("X-Id")); err == nil && (got != id || len(body) > 0 && string(body) != id) {
			wrong++
		}
		comesLate := err == nil && u.how == late && n%3 == 0
		if comesLate && n%2 == 0 {
			u.more()
		}
		x.Finish()
		if comesLate && n%2 != 0 {
			u.more()
		}
		Release(x)
		if err != nil {
			return wrong, fmt.Errorf("request %d: %w", n, err)
		}
	}
	return wrong, nil
}

func (u *talker) more() {
	u.goOn <- struct{}{}
	<-u.gone
}

// TestSurplusIsNobodysAnswer: bytes that an upstream sends behind an answer never become, or
// begin, the answer to the next request on that connection.
func TestSurplusIsNobodysAnswer(t *testing.T) {
	const workers = 8
	requests := 2_000
	if upstreamtest.RaceDetector || testing.Short() {
		requests = 80 // under the race detector each takes several times as long
	}
	ca := upstreamtest.NewAuthority(t)
	secure := &tls.Config{Certificates: []tls.Certificate{ca.Pair("up.test")}, CurvePreferences: []tls.CurveID{tls.X25519}}
	for _, s := range surpluses {
		for _, c := range []struct {
			name    string
			secure  *tls.Config
			chunked bool
		}{{"plain", nil, false}, {"plain, chunked", nil, true}, {"TLS", secure, false}, {"TLS, chunked", secure, true}} {
			if s.status != "" && c.chunked {
				continue // it has no body to frame
			}
			t.Run(s.name+", "+c.name, func(t *testing.T) {
				var wg sync.WaitGroup
				for w := range workers {
					u := &talker{surplus: s, chunked: c.chunked, secure: c.secure}
					target := u.target(t, ca, "")
					if c.secure != nil && w%2 == 0 {
						target.Upstream.tls.MaxVersion = tls.VersionTLS12
					}
					wg.Go(func() {
						if wrong, err := u.crossed(target, requests/workers); wrong > 0 || err != nil {
							t.Errorf("%d answers crossed, %v", wrong, err)
						}
						if conns := u.conns.Load(); conns > int64(requests/workers/3+2) {
							t.Errorf("%d connections: good ones were not used again", conns)
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// target starts u and is its target, by way of a forward proxy of that scheme if there is one.
func (u *talker) target(t *testing.T, ca *upstreamtest.Authority, by string) *Target {
	t.Helper()
	scheme, more := "http", ""
	if u.secure != nil {
		scheme = "https"
	}
	address := u.start(t)
	host := address
	if by != "" {
		f := &forwarder{t: t, to: address}
		host, more = "up.test:77", ", proxy: "+strconv.Quote(f.start(by, ca))
	}
	p := empty()
	t.Cleanup(p.Close) // first, so that the upstream's connections end
	return targetOf(t, p, fmt.Sprintf("upstreams: {up: {base_url: %s://%s/v1, ca: %s%s}}\nmodels: {m: {targets: [{upstream: up}]}}\n",
		scheme, host, ca.File, more))
}

// TestSurplusThroughAProxy: with TLS to the proxy nothing is left in that either.
func TestSurplusThroughAProxy(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	secure := &tls.Config{Certificates: []tls.Certificate{ca.Pair("up.test")}}
	for _, s := range surpluses {
		if s.how == late {
			continue // the proxy decides when it comes
		}
		for name, over := range map[string]*tls.Config{"plain": nil, "TLS": secure} {
			t.Run(s.name+", "+name, func(t *testing.T) {
				u := &talker{surplus: s, secure: over}
				requests := 300
				if upstreamtest.RaceDetector || testing.Short() {
					requests = 30
				}
				if wrong, err := u.crossed(u.target(t, ca, "https"), requests); wrong > 0 || err != nil {
					t.Errorf("%d answers crossed, %v", wrong, err)
				}
				if conns := u.conns.Load(); conns > int64(requests/3+2) {
					t.Errorf("%d connections: good ones were not used again", conns)
				}
			})
		}
	}
}

// greeted is a connection on which the client's side does not go on before the upstream has said
// what it has to say: after the last write of a handshake, if there is one.
type greeted struct {
	*net.TCPConn
	writes int
	said   <-chan struct{}
}

func (g *greeted) Write(b []byte) (int, error) {
	n, err := g.TCPConn.Write(b)
	if g.writes++; g.writes == 2 {
		<-g.said
	}
	return n, err
}

// TestAnAnswerBeforeAnyRequest: what an upstream says on a new connection before it is asked answers
// nothing.
func TestAnAnswerBeforeAnyRequest(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	for name, version := range map[string]uint16{"plain": 0, "TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			said, done, scheme := make(chan struct{}, 1), make(chan struct{}), "http"
			if version != 0 {
				scheme = "https"
			}
			go func() {
				defer close(done)
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if version != 0 {
					conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{ca.Pair("up.test")}, MaxVersion: version})
				}
				head, body := answer("wrong", "", false)
				_, _ = io.WriteString(conn, head+body)
				said <- struct{}{}
				_, _ = io.Copy(io.Discard, conn)
			}()
			defer func() { ln.Close(); <-done }()
			dial := func(context.Context, string, string) (net.Conn, error) {
				conn, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					return nil, err
				}
				if version == 0 {
					<-said
				}
				return &greeted{TCPConn: conn.(*net.TCPConn), said: said}, nil
			}
			p := New(metrics.New(), slog.New(slog.DiscardHandler), func() time.Duration { return 0 }, dial)
			defer p.Close()
			target := targetOf(t, p, fmt.Sprintf("upstreams: {up: {base_url: %s://up.test/v1, ca: %s}}\nmodels: {m: {targets: [{upstream: up}]}}\n",
				scheme, ca.File))
			got, err := exchange(t, target, "x")
			var e *Error
			if !errors.As(err, &e) || e.Cause != MalformedResponse || !strings.Contains(err.Error(), "before a request was sent") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
