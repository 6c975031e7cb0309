package upstreamtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Step is how an upstream meets one request: one of the fields is set.
type Step struct {
	Dial   func(ctx context.Context) error  // there is no connection
	Greet  string                           // said at once, in place of a TLS handshake
	Answer func(conn net.Conn, r *Recorded) // what the request gets
}

// Script is an upstream without a network that meets each request with the next of its steps,
// and all that follow with the last.
type Script struct {
	raw *Raw
	tls *tls.Config // nil for plain HTTP

	mu    sync.Mutex
	steps []Step
	asked int // refused connections among them
}

// NewScript makes a Script that lives until the test ends.
func NewScript(t TB, secure *tls.Config, steps ...Step) *Script {
	s := &Script{tls: secure, steps: steps}
	s.raw = NewPiped(t, func(conn net.Conn, r *Recorded) {
		if step, ok := s.next(true); ok {
			step.Answer(conn, r)
		} else {
			conn.Close() // nobody is to be reached; the next connection will find out
		}
	})
	return s
}

// Asked is how often the upstream was asked for an answer, or for a connection in vain.
func (s *Script) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Requests are those that came so far.
func (s *Script) Requests() []*Recorded { return s.raw.Requests() }

// next takes the next step if it is one that reads a request, or one that does not.
func (s *Script) next(reads bool) (Step, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	step := s.steps[0]
	if reads != (step.Answer != nil) {
		return Step{}, false
	}
	s.asked++
	if len(s.steps) > 1 {
		s.steps = s.steps[1:]
	}
	return step, true
}

// Dial connects to the upstream.
func (s *Script) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if step, ok := s.next(false); ok && step.Dial != nil {
		return nil, step.Dial(ctx)
	} else if ok {
		client, server := net.Pipe()
		s.raw.wg.Go(func() {
			defer server.Close()
			go io.Copy(io.Discard, server) // the client's greeting
			_, _ = io.WriteString(server, step.Greet)
		})
		return client, nil
	}
	if s.tls == nil {
		return s.raw.Dial(ctx, network, address)
	}
	client, server := net.Pipe()
	s.raw.add(tls.Server(server, s.tls))
	return client, nil
}

// Hosts are upstreams by host name. Its Dial is a gateway's way to them.
type Hosts map[string]*Script

// Dial connects to the upstream at address.
func (h Hosts) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	s := h[host]
	if s == nil {
		return nil, fmt.Errorf("no such host: %s", host)
	}
	return s.Dial(ctx, network, address)
}

// The steps: a good answer, and all ways to fail a request that tests know.

// Say writes text and keeps the connection.
func Say(text string) Step { return Step{Answer: Reply(text)} }

// Break writes text and closes the connection.
func Break(text string) Step {
	return Step{Answer: func(conn net.Conn, _ *Recorded) {
		_, _ = io.WriteString(conn, text)
		conn.Close()
	}}
}

// Stall writes text and then nothing more, until the other side closes.
func Stall(text string) Step {
	return Step{Answer: func(conn net.Conn, _ *Recorded) {
		_, _ = io.WriteString(conn, text)
		_, _ = io.Copy(io.Discard, conn)
	}}
}

// Refuse has nobody listen.
func Refuse() Step {
	return Step{Dial: func(context.Context) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}}
}

// Blackhole answers no attempt to connect.
func Blackhole() Step {
	return Step{Dial: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}
}

// NoTLS answers a TLS handshake with plain text.
func NoTLS() Step { return Step{Greet: "HTTP/1.1 400 Bad Request\r\n\r\n"} }

// Whole is an answer with its length; header lines, if any, end in CR LF.
func Whole(status, contentType, header, body string) string {
	return "HTTP/1.1 " + status + "\r\nContent-Type: " + contentType + "\r\n" + header +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// Events is the beginning of an event stream, its events in a chunk each and no end.
func Events(events ...string) string {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, e := range events {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(e), e)
	}
	return b.String()
}

// LastChunk ends what Events began.
const LastChunk = "0\r\n\r\n"
