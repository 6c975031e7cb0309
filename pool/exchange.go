package pool

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// resendWithin is how soon a reused connection must have been closed, without a byte of
// an answer, for the request to count as never read.
const resendWithin = time.Second

// answerAfterWrite is how long an answer is looked for on a connection that took only part
// of the request. It is there already, or will not come.
const answerAfterWrite = 100 * time.Millisecond

// Exchange is one request to an upstream and its answer. The caller fills Head and Body, calls
// Send, reads the answer's head from Response and its body from Read, and calls Finish.
// Acquire gives one, Release takes it back; nothing of it may be used after that.
type Exchange struct {
	// Head is the request's, to its empty line, and Body what follows, in pieces. They must
	// not change before Send returns.
	Head     []byte
	Body     [][]byte
	Response fasthttp.ResponseHeader
	// Fresh has Send open a connection of its own, in place of one from the pool.
	Fresh bool
	// Connected is what a new connection took, TLS included; 0 for one that was there.
	Connected time.Duration

	upstream *Upstream
	link     link
	reader   *bufio.Reader
	maxHead  int // limits.upstream_head
	write    func() error
	aside    func()     // writeAside
	written  chan error // what it ended with
	panicked any        // what it panicked with
	chunked  bool
	chunks   chunks
	left     int // of a body in one piece; UntilClose for one that the connection's end ends
	unread   []byte
	whole    bool // the body has been read to its end
	cut      bool // the request was not written to its end
	open     bool // between Send and Finish

	mu      sync.Mutex
	aborted bool
	cause   Cause
	live    link // what Abort closes
}

// UntilClose is the Content-Length of an answer whose body ends with its connection, so that
// a cut one looks whole.
const UntilClose = -2

var exchanges = sync.Pool{New: func() any {
	x := new(Exchange)
	x.write, x.aside = x.writeRequest, x.writeAside
	return x
}}

// Acquire returns an empty Exchange.
func Acquire() *Exchange { return exchanges.Get().(*Exchange) }

// Release takes x back.
func Release(x *Exchange) {
	if x.open {
		panic("BUG: releasing an exchange that is not finished")
	}
	x.Head, x.Body, x.Fresh, x.unread = nil, nil, false, nil
	x.Response.Reset()
	x.mu.Lock()
	x.aborted = false
	x.mu.Unlock()
	exchanges.Put(x)
}

// Send writes the request to the target's upstream and reads the head of the answer, all
// until deadline; a connection is waited for no longer than the target's connect timeout.
// A request is written a second time, on another connection, only if the upstream cannot
// have read the first: writing failed, or a reused connection was closed without a byte
// within a second. The error is an *Error with Cause FirstByteTimeout for a deadline that
// passed. Finish is called after it, whatever it returned.
func (x *Exchange) Send(t *Target, deadline time.Time) error {
	u := t.Upstream
	x.maxHead = t.maxHead
	x.upstream, x.open, x.whole, x.cut, x.chunked, x.left = u, true, false, false, false, 0
	x.Connected = 0
	u.inFlight.Add(1)
	u.requests.Add(1)
	u.budget.sent.add(u.clock(), tallyOne)
	for again := false; ; {
		if err := x.connect(t, deadline); err != nil {
			return err
		}
		unread, err := x.roundTrip(deadline)
		if err == nil {
			return nil
		}
		if err == errStirred {
			x.drop(false)
			continue
		}
		if cause, aborted := x.Aborted(); aborted {
			return failed(cause, err)
		}
		if again || !unread || !x.link.reused() {
			return x.sendError(err)
		}
		again = true
		x.drop(false)
	}
}

// connect gives x a connection.
func (x *Exchange) connect(t *Target, deadline time.Time) error {
	now := time.Now()
	timeout := min(t.Timeouts.Connect.Std(), deadline.Sub(now))
	if timeout <= 0 {
		return failed(ConnectTimeout, errors.New("no time left to connect"))
	}
	l, err := x.upstream.acquire(x.Fresh, now, timeout)
	if err != nil || !l.reused() {
		x.Connected += time.Since(now)
	}
	if err != nil {
		return connectError(err)
	}
	x.mu.Lock()
	x.link, x.live = l, l
	aborted, cause := x.aborted, x.cause
	x.mu.Unlock()
	if aborted {
		return failed(cause, errors.New("aborted while connecting"))
	}
	return nil
}

// roundTrip writes the request and reads the head. unread says that the upstream cannot
// have read the request. The error is errStirred, and nothing has been written, for a pooled
// connection on which something has come meanwhile: the upstream has closed it, or said
// something that nobody asked for, which must not become the answer to this request.
func (x *Exchange) roundTrip(deadline time.Time) (unread bool, err error) {
	conn := x.link.Conn()
	began := time.Now()
	if err := conn.SetDeadline(deadline); err != nil {
		return true, err
	}
	if !x.link.reused() && spoke(conn) {
		return true, unasked
	}
	w := rawConn(conn).(*watched)
	if x.large() {
		return x.writeAndListen(w, began)
	}
	written, err := w.ask(x.link.reused(), x.write)
	if err == errStirred {
		return false, err
	}
	x.reader = x.upstream.client.AcquireReader(conn)
	x.cut = !written
	if x.cut {
		err = fmt.Errorf("cannot write the request: %w", err)
		if isTimeout(err) {
			return false, err
		}
		// The upstream may have answered without reading all (413, say) and closed.
		x.SetReadDeadline(time.Now().Add(answerAfterWrite))
		if _, perr := x.reader.Peek(1); perr != nil {
			return true, err
		}
		err = nil
	}
	if err == nil {
		_, err = x.reader.Peek(1)
	}
	if err != nil {
		return closedByPeer(err) && time.Since(began) < resendWithin, noByte(err)
	}
	return false, x.readHead()
}

// mostInterim is how many heads of status 1xx may precede an answer's. Their bytes count as its.
const mostInterim = 100

// readHead reads the answer's head, and finds out how its body ends.
func (x *Exchange) readHead() error {
	x.Response.Reset()
	x.Response.SetNoDefaultContentType(true)
	limit := x.maxHead
	for count := 0; ; count++ {
		r, n, err := awaitHead(x.reader, x.link.Conn(), limit)
		if r != x.reader {
			x.releaseReader()
			x.reader = r
		}
		if err == nil {
			err = parseHead(&x.Response, r, n)
		}
		if err != nil {
			return err
		}
		if status := x.Response.StatusCode(); status/100 != 1 || status == fasthttp.StatusSwitchingProtocols {
			break
		}
		limit -= n
		if count == mostInterim {
			return manyHeads
		}
	}
	switch status := x.Response.StatusCode(); {
	case status < 200, status == fasthttp.StatusNoContent, status == fasthttp.StatusNotModified:
		x.left = 0
	case x.Response.ContentLength() == -1:
		x.chunked, x.chunks = true, chunks{}
	default:
		x.left = x.Response.ContentLength()
	}
	x.whole = !x.chunked && x.left == 0
	return nil
}

// writeRequest writes the head and the body's pieces. What is larger than the buffer is not
// copied into it.
func (x *Exchange) writeRequest() error {
	w := x.upstream.client.AcquireWriter(x.link.Conn())
	defer x.upstream.client.ReleaseWriter(w)
	if _, err := w.Write(x.Head); err != nil {
		return err
	}
	for _, b := range x.Body {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (x *Exchange) sendError(err error) *Error {
	var m malformed
	switch {
	case isTimeout(err):
		return failed(FirstByteTimeout, err)
	case errors.As(err, &m):
		return failed(MalformedResponse, err)
	}
	return failed(ConnectionLost, err)
}

// Read reads the answer's body. io.EOF is its whole end; an upstream that breaks off
// gives another error.
func (x *Exchange) Read(p []byte) (int, error) {
	if len(x.unread) > 0 {
		n := copy(p, x.unread)
		x.unread = x.unread[n:]
		return n, nil
	}
	n, err := x.readBody(p)
	if err == io.EOF {
		x.whole = true
	}
	if err != nil && err != io.EOF {
		if cause, aborted := x.Aborted(); aborted {
			err = failed(cause, err)
		}
	}
	return n, err
}

// Unread has the next Reads return a copy of p first, which is what Read has returned so far.
func (x *Exchange) Unread(p []byte) { x.unread = bytes.Clone(p) }

func (x *Exchange) readBody(p []byte) (n int, err error) {
	switch {
	case x.chunked:
		return x.readChunks(p)
	case x.left == 0:
		return 0, io.EOF
	case x.left == UntilClose:
		return x.receive(p)
	}
	n, err = x.receive(p[:min(len(p), x.left)])
	x.left -= n
	switch {
	case x.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (x *Exchange) readChunks(p []byte) (n int, err error) {
	for n == 0 && !x.chunks.ended {
		if n, err = x.receive(p); n == 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if n, err = x.chunks.decode(p[:n]); err != nil {
			return n, err
		}
	}
	if x.chunks.ended {
		return n, io.EOF
	}
	return n, nil
}

// receive reads what comes from the upstream: first what came with the answer's head. Then
// the buffer for that is given back, for the rest may take long.
func (x *Exchange) receive(p []byte) (int, error) {
	if x.reader != nil {
		if x.reader.Buffered() > 0 {
			return x.reader.Read(p)
		}
		x.releaseReader()
	}
	return x.link.Conn().Read(p)
}

func (x *Exchange) releaseReader() {
	if x.reader.Size() == readBuffer { // not one that a long head was read into
		x.upstream.client.ReleaseReader(x.reader)
	}
	x.reader = nil
}

// Ready reports whether the next Read returns without waiting for the upstream.
func (x *Exchange) Ready() bool {
	return len(x.unread) > 0 || !x.chunked && x.reader != nil && x.reader.Buffered() > 0
}

// SetReadDeadline bounds the reads that follow. They are bounded by Send's deadline before.
func (x *Exchange) SetReadDeadline(t time.Time) { _ = x.link.Conn().SetReadDeadline(t) }

// Abort ends x from another goroutine: what waits for the upstream returns an error with
// cause, and the upstream sees its connection closed. It may be called at any time between
// Acquire and Release; the first cause stays, and true is returned for it alone.
func (x *Exchange) Abort(c Cause) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted {
		return false
	}
	x.aborted, x.cause = true, c
	if x.live != nil {
		_ = rawConn(x.live.Conn()).Close() // TLS's own Close would wait to say goodbye
	}
	return true
}

// Aborted is the cause that Abort was called with.
func (x *Exchange) Aborted() (Cause, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cause, x.aborted
}

// Finish gives the connection back, or closes it where the answer was not read to its end.
func (x *Exchange) Finish() {
	if !x.open {
		return
	}
	x.open = false
	if x.link != nil {
		x.drop(x.whole && x.keep())
	}
	x.upstream.inFlight.Add(-1)
	x.upstream = nil
}

// keep reports whether the connection can serve another request: nothing is left on it, whatever
// the answer announced.
func (x *Exchange) keep() bool {
	if x.cut || x.Response.ConnectionClose() || x.left == UntilClose || x.Response.StatusCode() < 200 {
		return false
	}
	if x.chunked && !x.chunks.clean { // a trailer, or not all has come: neither is waited for
		return false
	}
	return (x.reader == nil || x.reader.Buffered() == 0) && drained(x.link.Conn())
}

// drop parts x from its connection.
func (x *Exchange) drop(keep bool) {
	x.mu.Lock()
	x.live = nil
	keep = keep && !x.aborted
	x.mu.Unlock()
	x.chunked, x.left = false, 0
	if x.reader != nil {
		x.releaseReader()
	}
	keep = keep && rawConn(x.link.Conn()).(*watched).rest()
	if x.cut { // TLS would wait until it can say goodbye
		_ = rawConn(x.link.Conn()).Close()
	}
	x.link.release(keep)
	x.link = nil
	if keep && x.upstream.retired.Load() {
		x.upstream.client.CloseIdleConnections()
	}
}
