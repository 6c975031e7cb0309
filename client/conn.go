package client

import (
	"bytes"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice/pool"
)

const (
	// A connection closed while its client still sends would be reset, and the reset
	// would overtake the answer. So the answer's side is closed first, and what still
	// comes is read and thrown away, within these bounds (nginx's lingering_timeout,
	// lingering_time, and an amount).
	lingerQuiet = 5 * time.Second
	lingerTotal = 30 * time.Second
	lingerBytes = 256 << 20

	// writePiece is how much a client must take within timeouts.client.write.
	writePiece = 256 << 10

	// sweepEvery is how often clients of waiting requests are asked whether they are
	// still there, and slow ones are looked for.
	sweepEvery = 250 * time.Millisecond

	// ServerBuffer is what the server gathers of an answer before it writes.
	ServerBuffer = 16 << 10

	// ConnMemory is what a connection has besides the buffer for a head: its goroutine, the
	// buffer for an answer's head.
	ConnMemory = 16 << 10
	// TLSMemory is what TLS adds: its state, and a record being read and one being written.
	TLSMemory = 48 << 10
)

// Conn is a client's connection.
type Conn struct {
	net.Conn
	all  *Conns
	peer netip.AddrPort
	// current is the request that the connection's goroutine works on; nil after it
	// was handed over to whoever writes the answer's body.
	current any
	// linger: the client may still be sending when the connection is closed. Atomic, for
	// the server closes idle connections from another goroutine.
	linger atomic.Bool
	armed  time.Time // until when the write deadline certainly is
	broken error     // of a write: what follows would begin in the middle of something
	// heir is a stream whose head has not been written yet.
	heir atomic.Pointer[Heir]
	// bare is not bareNot where the answer ends with the connection. Its head is gathered in head.
	bare atomic.Uint32
	head []byte

	// promised is how much of limits.memory is kept for what has not arrived yet of a body.
	promised atomic.Int64

	closed atomic.Bool
	// of the connection's goroutine
	watch  headWatch
	chunks chunkBudget

	since atomic.Uint64 // the sweep before the request began

	mu      sync.Mutex
	idle    bool      // no request has begun
	readBy  time.Time // until when a read may take; zero for any time
	expired bool      // a read would fail
	waiting Waiting   // aborted when the client leaves
}

// Peer is the address that the connection comes from; zero if that is none of TCP's.
func (c *Conn) Peer() netip.AddrPort { return c.peer }

func addressOf(conn net.Conn) netip.AddrPort {
	peer, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := peer.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// Read is the server's way to hear the client. A head that cannot become one is not waited for.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.watch.state != watchOff && !c.watch.look(b[:n]) && err == nil {
		err = ErrBareLF
	}
	if over := c.chunks.spend(n); over != nil && err == nil {
		err = over
	}
	return n, err
}

// Write is the server's way to the client. The head of a stream's answer is left to the stream,
// whose goroutine writes until it ends, and the server after that.
func (c *Conn) Write(b []byte) (n int, err error) {
	if c.bare.Load() != bareNot {
		return c.writeBare(b)
	}
	if c.heir.Load() == nil {
		return c.Send(b)
	}
	// Only a full buffer, or a head that does not fit into one, leaves without a flush. In the
	// first case the head's end is still to come.
	if len(b) >= ServerBuffer {
		n, err = c.Send(b)
		if err != nil || !bytes.HasSuffix(b, emptyLine) {
			return n, err
		}
		b = nil
	}
	if h := c.heir.Swap(nil); h != nil {
		h.Begin(b)
	}
	return n + len(b), nil
}

var emptyLine = []byte("\r\n\r\n")

// Send writes, and bounds how long the client may take nothing.
func (c *Conn) Send(b []byte) (n int, err error) {
	if c.broken != nil {
		return 0, c.broken
	}
	limit := c.all.writeTimeout()
	for {
		// The deadline is moved only when a good part of it is over: moving it takes
		// longer than finding that out.
		if now := time.Now(); c.armed.Sub(now) < limit-limit/8 {
			c.armed = now.Add(limit)
			if c.broken = c.Conn.SetWriteDeadline(c.armed); c.broken != nil {
				return n, c.broken
			}
		}
		piece := b[n:min(len(b), n+writePiece)]
		m, err := c.Conn.Write(piece)
		n += m
		if c.broken = err; err != nil || n == len(b) {
			return n, err
		}
	}
}

// SetReadDeadline bounds reads, the one under way too. The sweep enforces it, up to sweepEvery
// late: there are three for each request, and a timer's is moved at the cost of them all.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.setReadBy(t)
}

// setReadBy is called with mu held.
func (c *Conn) setReadBy(t time.Time) error {
	c.readBy = t
	if c.expired {
		c.expired = false
		return c.Conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// Close closes the connection, after the client has had the chance to read what was
// written.
func (c *Conn) Close() error {
	if h := c.heir.Swap(nil); h != nil { // maybe since another goroutine has closed it
		h.Lost()
	}
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	defer c.all.remove(c)
	_ = c.SetReadDeadline(time.Time{}) // discard has its own
	// A stream may still wait for its upstream: the server closes a connection that it
	// cannot write to without asking it.
	if c.abort(Left) {
		c.all.left()
	}
	if bare := c.bare.Load(); bare == bareHead || bare == bareBody {
		reset(c.Conn)
		return c.Conn.Close()
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.linger.Load() && half.CloseWrite() == nil {
		c.discard()
	}
	return c.Conn.Close()
}

func (c *Conn) discard() {
	var b [16 << 10]byte
	until := time.Now().Add(lingerTotal)
	for left := lingerBytes; left > 0; {
		deadline := time.Now().Add(lingerQuiet)
		if deadline.After(until) {
			deadline = until
		}
		if c.Conn.SetReadDeadline(deadline) != nil {
			return
		}
		n, err := c.Conn.Read(b[:])
		if err != nil {
			return
		}
		left -= n
		runtime.Gosched() // everybody else is more important
	}
}

// Begin is called when a request begins.
func (c *Conn) Begin(request any) {
	c.current = request
	c.since.Store(c.all.sweeps.Load())
}

// Current is what Begin was called with; nil once it was handed over.
func (c *Conn) Current() any { return c.current }

// HandOver takes the request off the connection: whoever writes the answer's body ends it.
func (c *Conn) HandOver() { c.current = nil }

// Linger has the connection read on for a while when it is closed: the client may still be sending.
func (c *Conn) Linger() { c.linger.Store(true) }

// Break has all writing fail from now on, with err.
func (c *Conn) Break(err error) { c.broken = err }

// Broken is the error of a write that has failed.
func (c *Conn) Broken() error { return c.broken }

// Heir is a stream that goes on with the connection where its answer's head has been written.
type Heir struct {
	// Begin gets the head, which it writes before all else; nil if it has gone out.
	Begin func(head []byte)
	// Lost is called instead when the connection has ended before its head was written.
	Lost func()
}

// Inherit leaves the rest of the answer, from its head on, to h.
func (c *Conn) Inherit(h *Heir) { c.heir.Store(h) }

// Opened, Active and Idle follow the server's states. limit is how long the next bytes may take: the
// first head's, the head's, or the next request's.

// Opened is called when the connection begins.
func (c *Conn) Opened(limit func() time.Duration) {
	c.watch = headWatch{state: watchIdle}
	c.setIdle(true, limit)
}

// Active is called when a request begins to arrive.
func (c *Conn) Active(limit func() time.Duration) {
	c.watch.begin()
	c.setIdle(false, limit)
}

// Idle is called when a request was read to its end and answered.
func (c *Conn) Idle(limit func() time.Duration) {
	c.watch = headWatch{state: watchIdle}
	c.linger.Store(false)
	c.setIdle(true, limit)
}

// check ends a read that has taken too long, and aborts what a client waits for that has
// left. A request that began since the sweep before this one is left alone: most are over by
// the next.
func (c *Conn) check(sweep uint64, now time.Time) (left bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.expired && !c.readBy.IsZero() && now.After(c.readBy) {
		c.expired = true
		_ = c.Conn.SetReadDeadline(now)
	}
	if c.promised.Load() > 0 && c.since.Load()+slowBody < sweep {
		c.Unpromise()
	}
	return c.waiting != nil && c.since.Load()+1 < sweep && pool.Gone(c.Conn) && c.waiting.Abort(Left)
}

// setIdle notes whether a request has begun, and how long the next bytes may take. (If drain comes in between, it
// sees the one with the other.)
func (c *Conn) setIdle(idle bool, limit func() time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
	_ = c.setReadBy(time.Now().Add(limit()))
}

// IsIdle reports whether no request has begun.
func (c *Conn) IsIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle
}

// endIdle has a connection on which no request has begun end at t, if not before.
func (c *Conn) endIdle(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle && (c.readBy.IsZero() || c.readBy.After(t)) {
		c.readBy = t
	}
}
