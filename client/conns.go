// Package client is the client's side of the wire: a listener's connections with their deadlines, what a
// client sends before its request is read, how long a slow one is waited for, and whether it is still there.
package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/limiter"
	"sluice/pool"
)

// Conns are a listener's connections. fasthttp does not tell a handler that its client
// has left; the sweep asks the kernel, which costs requests that are answered at once
// nothing.
type Conns struct {
	net.Listener
	writeTimeout func() time.Duration
	left         func() // called for each client that left
	memory       *limiter.Gate
	each         int64 // bytes that a connection takes of it

	sweeps atomic.Uint64
	cut    atomic.Bool // the process ends: what still begins to wait is aborted
	stop   chan struct{}
	ended  sync.Once
	done   chan struct{}

	log      *slog.Logger
	stopped  sync.Once // accepting
	stopping chan struct{}
	accepted chan struct{} // closed when nobody else comes
	over     sync.Once
	empty    chan struct{} // closed when nobody else comes and everybody has gone

	mu       sync.Mutex
	set      map[*Conn]struct{}
	draining bool
}

// Settings are what Conns work with.
type Settings struct {
	Log          *slog.Logger
	WriteTimeout func() time.Duration // for each 256 KiB
	Left         func()               // is called for each client that has left while an upstream worked for it
	Memory       *limiter.Gate        // limits.memory
	Each         int64                // bytes that a connection takes of it
}

// Listen has ln's clients be Conns. Stop ends what it starts.
func Listen(ln net.Listener, with Settings) *Conns {
	s := &Conns{Listener: ln, log: with.Log, writeTimeout: with.WriteTimeout, left: with.Left, memory: with.Memory, each: with.Each,
		set: map[*Conn]struct{}{}, stopping: make(chan struct{}),
		stop: make(chan struct{}), done: make(chan struct{}), accepted: make(chan struct{}), empty: make(chan struct{})}
	go s.sweep()
	return s
}

// Close stops accepting.
func (s *Conns) Close() (err error) {
	s.stopped.Do(func() {
		close(s.stopping)
		err = s.Listener.Close()
	})
	return err
}

// Drain stops accepting and waits until every client has left or ctx ends. Those who keep a
// connection without a request have idle to send one more: a connection that is closed at once may
// be closed at the moment when its next request arrives.
func (s *Conns) Drain(ctx context.Context, idle time.Duration) {
	_ = s.Close()
	<-s.accepted
	s.mu.Lock()
	s.draining = true
	s.emptied()
	s.mu.Unlock()
	until := time.Now().Add(idle)
	for _, c := range s.list(nil) {
		c.endIdle(until)
	}
	select {
	case <-s.empty:
	case <-ctx.Done():
	}
}

// emptied is called with mu held.
func (s *Conns) emptied() {
	if !s.draining || len(s.set) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}

// Accept waits for a client.
func (s *Conns) Accept() (net.Conn, error) {
	conn, err := s.accept()
	if err != nil {
		s.over.Do(func() { close(s.accepted) }) // the server does not ask again
		return nil, err
	}
	// A client may take nothing for timeouts.client.write; one that has vanished is not waited for longer.
	pool.NoticeSilence(conn, max(s.writeTimeout(), pool.Silence))
	c := &Conn{Conn: conn, all: s, peer: addressOf(conn)}
	s.mu.Lock()
	s.set[c] = struct{}{}
	s.mu.Unlock()
	s.memory.Add(s.each)
	return c, nil
}

// accept waits for a client. That there are no file descriptors or no memory for one, or that it has left
// already, is no reason to end: the server would.
func (s *Conns) accept() (net.Conn, error) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		conn, err := s.Listener.Accept()
		if err == nil || !transient(err) {
			return conn, err
		}
		if pause >= time.Second/4 {
			s.log.Error("cannot accept connections; trying again", "error", err)
		}
		select {
		case <-s.stopping:
		case <-time.After(pause):
		}
	}
}

func transient(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Conns) remove(c *Conn) {
	s.mu.Lock()
	_, open := s.set[c]
	delete(s.set, c)
	s.emptied()
	s.mu.Unlock()
	if open {
		s.memory.Give(s.each)
	}
}

// Open is how many there are.
func (s *Conns) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.set)
}

// Memory is what the open connections themselves take of limits.memory.
func (s *Conns) Memory() int64 { return int64(s.Open()) * s.each }

// Waiting is how many clients wait for what can be aborted.
func (s *Conns) Waiting() (n int) {
	for _, c := range s.list(nil) {
		if c.waits() {
			n++
		}
	}
	return n
}

// list appends the connections to dst.
func (s *Conns) list(dst []*Conn) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.set {
		dst = append(dst, c)
	}
	return dst
}

func (s *Conns) sweep() {
	defer close(s.done)
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	var list []*Conn
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		now := time.Now()
		sweep := s.sweeps.Add(1)
		list = s.list(list[:0])
		for _, c := range list {
			if c.check(sweep, now) {
				s.left()
			}
		}
		clear(list)
	}
}

// CutAll ends everything that is waited for, now and from now on.
func (s *Conns) CutAll() {
	s.cut.Store(true)
	for _, c := range s.list(nil) {
		c.abort(Ending)
	}
}

// Stop ends the sweep.
func (s *Conns) Stop() {
	s.ended.Do(func() { close(s.stop) })
	<-s.done
}
