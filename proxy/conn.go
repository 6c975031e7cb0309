package proxy

import (
	"bytes"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

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

	// slowBody is after how many sweeps a body that has not arrived gets memory only as it does:
	// to announce much and to send nothing must not keep others out.
	slowBody = 4

	// connMemory is what a connection has besides the buffer for a head: its goroutine, the
	// buffer for an answer's head.
	connMemory = 16 << 10
	// tlsMemory is what TLS adds: its state, and a record being read and one being written.
	tlsMemory = 48 << 10
)

// clientConn is a client's connection.
type clientConn struct {
	net.Conn
	all *conns
	// current is the request that the connection's goroutine works on; nil after it
	// was handed over to a stream.
	current *request
	// linger: the client may still be sending when the connection is closed. Atomic, for
	// the server closes idle connections from another goroutine.
	linger atomic.Bool
	armed  time.Time // until when the write deadline certainly is
	broken error     // of a write: what follows would begin in the middle of something
	// streamed is a stream whose head has not been written yet.
	streamed atomic.Pointer[stream]
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
	waiting aborter   // aborted when the client leaves
}

// Read is the server's way to hear the client. A head that cannot become one is not waited for.
func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.watch.state != watchOff && !c.watch.look(b[:n]) && err == nil {
		err = errBareLF
	}
	if c.chunks.left -= int64(n); c.chunks.counted && c.chunks.left < 0 && err == nil {
		err = errFraming
	}
	return n, err
}

// chunkBudget is how many bytes a client may still send of a body in chunks. Their extensions, and what
// else frames them, could otherwise go on for ever without the body growing.
type chunkBudget struct {
	counted bool
	left    int64
}

const (
	// framingFree is how much may arrive before any data does: what the server's buffer and one read
	// hold is not yet seen as data.
	framingFree = 128 << 10
	// framingFactor is how much may arrive for each byte of data. A chunk of one byte takes six.
	framingFactor = 16
)

var errFraming = errors.New("the chunks of a body have far more framing than data")

// over reports whether it was used up.
func (b *chunkBudget) over() bool { return b.counted && b.left < 0 }

// earn gives the budget what n bytes of data are worth.
func (b *chunkBudget) earn(n int) { b.left += int64(n) * framingFactor }

// Write is the server's way to the client. The head of a stream's answer is left to the stream,
// whose goroutine writes until it ends, and the server after that.
func (c *clientConn) Write(b []byte) (n int, err error) {
	if c.bare.Load() != bareNot {
		return c.writeBare(b)
	}
	if c.streamed.Load() == nil {
		return c.send(b)
	}
	// Only a full buffer, or a head that does not fit into one, leaves without a flush. In the
	// first case the head's end is still to come.
	if len(b) >= serverBuffer {
		n, err = c.send(b)
		if err != nil || !bytes.HasSuffix(b, emptyLine) {
			return n, err
		}
		b = nil
	}
	if s := c.streamed.Swap(nil); s != nil {
		s.begin(b)
	}
	return n + len(b), nil
}

var emptyLine = []byte("\r\n\r\n")

// send bounds how long the client may take nothing.
func (c *clientConn) send(b []byte) (n int, err error) {
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
func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.setReadBy(t)
}

// setReadBy is called with mu held.
func (c *clientConn) setReadBy(t time.Time) error {
	c.readBy = t
	if c.expired {
		c.expired = false
		return c.Conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// Close closes the connection, after the client has had the chance to read what was
// written.
func (c *clientConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	defer c.all.remove(c)
	_ = c.SetReadDeadline(time.Time{}) // discard has its own
	if s := c.streamed.Swap(nil); s != nil {
		s.verdict <- true // what it writes fails: there is no head
	}
	// A stream may still wait for its upstream: the server closes a connection that it
	// cannot write to without asking it.
	if c.abort(pool.ClientLeft) {
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

func (c *clientConn) discard() {
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

// takePromised takes up to n of what was promised.
func (c *clientConn) takePromised(n int64) int64 {
	for {
		promised := c.promised.Load()
		if taken := min(n, promised); c.promised.CompareAndSwap(promised, promised-taken) {
			return taken
		}
	}
}

// unpromise gives back what is left of it.
func (c *clientConn) unpromise() { c.all.memory.Give(c.promised.Swap(0)) }

// begin is called when a request begins.
func (c *clientConn) begin(r *request) {
	c.current = r
	c.since.Store(c.all.sweeps.Load())
}

// await has x aborted should the client leave, or the process end; release ends that.
func (c *clientConn) await(x aborter) {
	c.mu.Lock()
	c.waiting = x
	c.mu.Unlock()
	if c.all.cut.Load() || c.closed.Load() { // closed as idle, at the moment when it was not any more
		x.Abort(pool.ShuttingDown)
	}
}

// aborter is what a request may wait for: an exchange, or time. Abort ends it, and is true for
// the upstream's request that was ended.
type aborter interface{ Abort(pool.Cause) bool }

// pause is a wait between two attempts.
type pause chan pool.Cause

func (p pause) Abort(c pool.Cause) bool {
	select {
	case p <- c:
	default: // aborted before
	}
	return false
}

// waited is how a wait has ended.
type waited uint8

const (
	toTheEnd waited = iota
	ended           // for a cause: the client has left, or the process ends
	hadTurn         // or was turned away
)

// wait waits for d, unless the client leaves, the process ends, or, where there is one to be
// had, the turn comes first.
func (c *clientConn) wait(d time.Duration, turn <-chan bool) (how waited, cause pool.Cause, inside bool) {
	p := make(pause, 1)
	c.await(p)
	defer c.release()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case cause = <-p:
		return ended, cause, false
	case inside = <-turn:
		return hadTurn, 0, inside
	case <-timer.C:
		return toTheEnd, 0, false
	}
}

func (c *clientConn) release() {
	c.mu.Lock()
	c.waiting = nil
	c.mu.Unlock()
}

// abort ends what the connection waits for. False if there is nothing, or it was ended
// before.
func (c *clientConn) abort(cause pool.Cause) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting != nil && c.waiting.Abort(cause)
}

// check ends a read that has taken too long, and aborts what a client waits for that has
// left. A request that began since the sweep before this one is left alone: most are over by
// the next.
func (c *clientConn) check(sweep uint64, now time.Time) (left bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.expired && !c.readBy.IsZero() && now.After(c.readBy) {
		c.expired = true
		_ = c.Conn.SetReadDeadline(now)
	}
	if c.promised.Load() > 0 && c.since.Load()+slowBody < sweep {
		c.unpromise()
	}
	return c.waiting != nil && c.since.Load()+1 < sweep && pool.Gone(c.Conn) && c.waiting.Abort(pool.ClientLeft)
}

// connState keeps a connection's read deadline: fasthttp's own settings cannot change
// while it serves, these follow the configuration.
func (p *Proxy) connState(c net.Conn, state fasthttp.ConnState) {
	t := &p.snapshot.Load().config.Timeouts.Client
	conn := c.(*clientConn)
	switch state {
	case fasthttp.StateNew:
		conn.watch = headWatch{state: watchIdle}
		conn.setIdle(true, t.Header.Std)
	case fasthttp.StateActive:
		conn.watch.begin()
		conn.setIdle(false, t.Header.Std)
	case fasthttp.StateIdle:
		conn.watch = headWatch{state: watchIdle}
		conn.linger.Store(false) // the request was read to its end
		conn.setIdle(true, func() time.Duration { return min(t.Idle.Std(), time.Duration(p.lastIdle.Load())) })
	}
}

// setIdle notes whether a request has begun, and how long the next bytes may take. (If drain comes in between, it
// sees the one with the other.)
func (c *clientConn) setIdle(idle bool, limit func() time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
	_ = c.setReadBy(time.Now().Add(limit()))
}

func (c *clientConn) isIdle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle
}

// endIdle has a connection on which no request has begun end at t, if not before.
func (c *clientConn) endIdle(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle && (c.readBy.IsZero() || c.readBy.After(t)) {
		c.readBy = t
	}
}

// headReceived gives the body its own time.
func (p *Proxy) headReceived(*fasthttp.RequestHeader) fasthttp.RequestConfig {
	return fasthttp.RequestConfig{ReadTimeout: p.snapshot.Load().config.Timeouts.Client.Body.Std()}
}
