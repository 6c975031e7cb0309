package proxy

import (
	"bufio"
	"errors"
	"io"
	"time"

	"sluice/client"
	"sluice/pool"
	"sluice/sse"
)

const (
	// drainTime is how long the end of a body is waited for after the event that no
	// other can follow, so that the upstream's connection can be used again.
	drainTime = time.Second
	// maxHeld bounds the comments that are kept back until the first event.
	maxHeld = 64 << 10
)

// stream is an event stream on its way from an upstream to a client. The handler's goroutine reads
// its first event, while nothing has been sent and the attempt may still fail. Then it hands the
// request over to the stream's own goroutine, which finishes the request.
//
// That goroutine, which fasthttp starts at SetBodyStreamWriter, begins to write when the server has
// written the answer's head: the client's connection calls begin with it. From there on the goroutine
// writes to the connection itself, while the server waits at the other end of an empty pipe for the
// body's end. Through the pipe each event would wake another goroutine, and leave in pieces of 4 KiB.
type stream struct {
	proxy  *Proxy
	r      *request
	target *pool.Target
	handed chan struct{} // to the goroutine: the connection is its own, or has ended

	reader sse.Reader
	writer sse.Writer
	client client.Pace // what writer writes to
	event  sse.Event
	held   []byte // comments before the first event
	member []byte
	idle   func() error   // beforeRead,
	holds  func(int) bool // hold and
	heir   client.Heir    // begin and lost, made once

	silent time.Duration // how long there had been none when the head went out

	seen responseSeen // on /v1/responses

	annotated bool
	failed    pool.Cause // of an error that has passed as an event after the first; zero for none
	ended     bool       // a terminator has passed
	last      bool       // and it was one that nothing follows
	looked    bool       // at how it begins
	began     bool       // the first event has been read
	passing   bool       // it has been handed over
	until     time.Time  // stream_total; zero without
	fresh     bool       // an event has come since then:
	came      time.Time  // when the event before had been passed on
	drained   time.Time  // until when the end is waited for, once last
}

func (p *Proxy) acquireStream() *stream {
	s, _ := p.streams.Get().(*stream)
	if s == nil {
		s = &stream{proxy: p, handed: make(chan struct{}, 1)}
		s.idle, s.holds = s.beforeRead, s.hold
		s.heir = client.Heir{Begin: s.begin, Lost: s.lost}
	}
	return s
}

// readStream reads an event stream up to its first event.
func (r *request) readStream(a *attempt) (answer, error) {
	s := r.proxy.acquireStream()
	s.r, s.target = r, a.target
	if total := a.target.Timeouts.StreamTotal.Std(); total > 0 {
		s.until = a.began.Add(total)
	}
	err := s.awaitFirst(r.firstEventDeadline(a), r.last)
	if err == nil {
		return answer{form: streaming, stream: s}, nil
	}
	r.holdEvent(0)
	s.release()
	if err == errObject {
		r.exchange.Response.SetContentTypeBytes(typeJSON)
		return r.readPlain(a)
	}
	return r.noStream(a, err)
}

// replyStream hands the request over to a stream.
func (r *request) replyStream(a *attempt, s *stream) {
	s.member = r.appendMember(s.member[:0])
	r.stream = true
	r.copyHead(a)
	h := &r.ctx.Response.Header
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	r.markEnd()
	r.ctx.Response.ImmediateHeaderFlush = true
	r.ctx.Response.SetBodyStreamWriter(s.run)
	r.conn.Inherit(&s.heir)
	r.handOver()
}

// awaitFirst reads up to the first event, which must be there at a time. If nothing else can be
// tried (last), it gives up after a silence of stream_keepalive, without an error: the stream goes on
// to wait, with its client.
func (s *stream) awaitFirst(until time.Time, last bool) error {
	x, keepalive := s.r.exchange, s.target.Timeouts.StreamKeepalive.Std()
	silence := time.Now().Add(keepalive)
	last = last && silence.Before(until)
	if last {
		x.SetReadDeadline(silence)
	} else {
		x.SetReadDeadline(until)
	}
	s.reader.Reset(x, int(s.r.snapshot.config.Limits.Response), s.idle, s.holds)
	err := s.readFirst()
	if last && isSilence(err) {
		x.SetReadDeadline(until)
		s.silent = keepalive
		return nil
	}
	return err
}

// isSilence reports whether err says that nothing came in time, and nothing else.
func isSilence(err error) bool {
	var e *pool.Error
	return err != nil && isTimeout(err) && !errors.As(err, &e)
}

// begin is called when the connection is the stream's. head is the answer's, which the server has
// written; nil if it has gone out, or never will.
func (s *stream) begin(head []byte) {
	s.client.Conn = s.r.conn
	s.writer.Bare = s.r.conn.Bare()
	s.writer.Start(&s.client, head, s.target.Timeouts.StreamKeepalive.Std(), s.silent)
	s.handed <- struct{}{}
}

// lost is called instead where there is no client any more: what is written fails, for there was no
// head.
func (s *stream) lost() { s.handed <- struct{}{} }

// firstEventDeadline is until when the first event must be there, whatever the request
// asked for: the upstream decides whether an answer is a stream.
func (r *request) firstEventDeadline(a *attempt) time.Time {
	d := r.headDeadline(a.target, a.began)
	return earlier(d, a.began.Add(a.target.Timeouts.FirstByte.Std()))
}

// noStream is what an error of reading a stream up to its first event says of the attempt. An error event with
// a status is an answer.
func (r *request) noStream(a *attempt, err error) (answer, error) {
	if errors.Is(err, errPanic) {
		return answer{}, &ownError{refusal(internal, "", "the gateway failed while it waited for the upstream")}
	}
	if errors.Is(err, sse.ErrNoRoom) {
		return answer{}, &ownError{r.outOfMemory()}
	}
	var e *toldError
	if errors.As(err, &e) {
		if len(e.object) > 0 && e.object[0] == '{' {
			e.object = r.annotated(e.object)
			r.exchange.Response.SetContentTypeBytes(typeJSON)
		} else {
			e.status = 0
		}
		return r.toldAnswer(a, e)
	}
	cause := streamCause(err, false)
	if cause == pool.StreamBroken {
		cause = pool.ResponseBroken // before its first event
	}
	return answer{}, &pool.Error{Cause: cause, Err: err}
}

// streamCause is what an error of the reading says of the attempt.
func streamCause(err error, began bool) pool.Cause {
	var e *pool.Error
	switch {
	case errors.As(err, &e):
		return e.Cause
	case isTimeout(err) && !began:
		return pool.FirstByteTimeout
	}
	return pool.StreamBroken
}

// run is the stream's goroutine.
func (s *stream) run(*bufio.Writer) {
	<-s.handed
	s.passing = true
	// From here on the request is the stream's.
	p, conn, cut := s.proxy, s.r.conn, false
	defer func() {
		if cut {
			p.pauseBeforeCut(conn) // all is given back, and the server still waits for the body's end
		}
	}()
	defer s.finish()
	defer func() {
		if v := recover(); v != nil {
			_ = s.panicked(v)
			s.r.failure = refusal(internal, "", "the gateway failed; the answer is incomplete")
			conn.CutShort()
		}
	}()
	var err error
	if !s.began {
		err = s.readFirst()
	}
	if err == nil {
		s.r.tokens.answered = true
		s.r.answered()
		err = s.pump()
	}
	if err == nil {
		s.r.tokens.whole = s.failed == 0
		err = s.flush()
	}
	switch {
	case err != nil:
		s.breakOff(err)
		cut = !s.r.left // else nobody reads the event
	case s.failed != 0:
		cut = !s.ended
		s.endFailed()
	}
}

// readFirst reads up to the first event. A panic in it is an error like any other.
func (s *stream) readFirst() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.panicked(v)
		}
	}()
	if err := s.lookAtBeginning(); err != nil {
		return err
	}
	for {
		if err := s.reader.Next(&s.event); err != nil {
			if err == io.EOF {
				err = errNoEvent
			}
			return err
		}
		if s.isEvent() {
			if !s.event.Whole && s.r.route.terminated && !look(&s.event).ends {
				return errNoEvent // half of one
			}
			s.began = true
			return s.refusal()
		}
		if len(s.held)+len(s.event.Raw) <= maxHeld {
			s.held = append(s.held, s.event.Raw...)
		}
		if err := s.passHeld(); err != nil {
			return err
		}
	}
}

// lookAtBeginning gives errObject for what is no stream, which can be read again.
func (s *stream) lookAtBeginning() error {
	if s.looked {
		return nil
	}
	begin, err := s.reader.Peek()
	if err != nil {
		return err
	}
	s.looked = true
	if beginningOf(begin) == anObject {
		s.r.exchange.Unread(begin)
		return errObject
	}
	return nil
}

// passHeld passes comments on if the first event is awaited with the client.
func (s *stream) passHeld() error {
	if !s.passing {
		return nil
	}
	err := s.writer.Write(s.held)
	s.held = s.held[:0]
	if err != nil {
		return &clientError{err}
	}
	return nil
}

func (s *stream) flush() error {
	if err := s.writer.Flush(); err != nil {
		return &clientError{err}
	}
	return nil
}

var (
	errNoEvent    = &pool.Error{Cause: pool.StreamBroken, Err: errors.New("the stream ended before its first event")}
	errObject     = &pool.Error{Cause: pool.StreamBroken, Err: errors.New("it is a JSON object under the type of streams")}
	errLaterError = errors.New("an event after the first is an error")
	errPanic      = errors.New("panic in a stream")
	errTotal      = errors.New("timeouts.stream_total is over")
)

// hold has the reader's buffers count.
func (s *stream) hold(n int) bool { return s.r.holdEvent(n) }

// beforeRead runs before each read that may wait: what has come leaves, and the next bytes
// get their time.
func (s *stream) beforeRead() error {
	if !s.began && !s.passing {
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	if !s.began {
		return nil // the first event's deadline is set
	}
	now := time.Now()
	if s.fresh {
		if !s.came.IsZero() {
			s.target.Metrics.Between(now.Sub(s.came))
		}
		s.fresh, s.came = false, now
	}
	deadline := now.Add(s.target.Timeouts.StreamIdle.Std())
	if s.last {
		if s.drained.IsZero() {
			s.drained = now.Add(drainTime)
		}
		if !now.Before(s.drained) {
			return io.EOF
		}
		deadline = earlier(deadline, s.drained)
	}
	if !s.until.IsZero() {
		if !now.Before(s.until) {
			return errTotal
		}
		deadline = earlier(deadline, s.until)
	}
	s.r.exchange.SetReadDeadline(deadline)
	return nil
}

// clientError is a failed write: the client has gone, or does not read.
type clientError struct{ err error }

func (e *clientError) Error() string { return "cannot write to the client: " + e.err.Error() }

// pump passes events on until the stream ends. nil is a clean end.
func (s *stream) pump() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.panicked(v)
		}
	}()
	if err := s.writer.Write(s.held); err != nil {
		return &clientError{err}
	}
	for {
		if err := s.writeEvent(); err != nil {
			return &clientError{err}
		}
		s.fresh = s.fresh || s.isEvent()
		err := s.reader.Next(&s.event)
		switch {
		case err == nil:
		case s.ended && !s.aborted():
			return nil // whatever follows a terminator, the answer is whole
		case err == io.EOF && (!s.r.route.terminated || s.failed != 0): // an error is an end, too
			return nil
		case err == io.EOF:
			return errors.New("the stream ended without a terminator")
		default:
			return err
		}
	}
}

func (s *stream) aborted() bool {
	_, aborted := s.r.exchange.Aborted()
	return aborted
}

// endFailed ends a stream in which the upstream itself has told the client of an error.
func (s *stream) endFailed() {
	r := s.r
	r.failure = r.fail(&r.attempts[len(r.attempts)-1], &pool.Error{Cause: s.failed, Err: errLaterError})
	r.failure.kind = upstreamStreamBroken
	r.failure.message = "upstream " + s.target.Upstream.Name + " sent an error in its stream"
	r.proxy.metrics.BrokenStreams.Inc()
	if !s.ended {
		r.conn.CutShort()
	}
}

// breakOff ends a stream that cannot be completed, with an error event where the client can
// still read one, and never with a terminator or a last chunk.
func (s *stream) breakOff(err error) {
	r := s.r
	a := &r.attempts[len(r.attempts)-1]
	var gone *clientError
	cause := streamCause(err, s.began)
	if errors.As(err, &gone) {
		r.left = true
		if r.exchange.Abort(pool.ClientLeft) { // else it was noticed elsewhere, and counted
			r.proxy.metrics.CancelledUpstreams.Inc()
		}
		r.conn.CutShort()
		return
	}
	switch {
	case errors.Is(err, errPanic):
		r.failure = refusal(internal, "", "the gateway failed; the answer is incomplete")
	case errors.Is(err, errTotal) || !s.until.IsZero() && isTimeout(err) && !time.Now().Before(s.until):
		r.failure = refusal(upstreamTimeout, "", "the stream took longer than timeouts.stream_total; the answer is incomplete")
	case errors.Is(err, sse.ErrNoRoom):
		r.failure = refusal(overloaded, "", "the gateway has no memory left (limits.memory) for an event of this length; the answer is incomplete")
		r.giveUp()
	default:
		r.failure = r.fail(a, &pool.Error{Cause: cause, Err: err})
	}
	if !r.failure.left {
		r.proxy.metrics.BrokenStreams.Inc()
	} // else, half-closed, it may still read
	r.scratch = s.appendErrorEvent(r.scratch[:0], r.failure)
	if s.writer.Write(r.scratch) == nil {
		_ = s.writer.Flush()
	}
	r.conn.CutShort()
}

func (s *stream) panicked(v any) error {
	s.r.proxy.panicked("panic in a stream", v)
	return errPanic
}

// finish gives everything back.
func (s *stream) finish() {
	s.writer.Stop()
	s.r.finish()
	s.release()
}

func (s *stream) release() {
	s.reader.Reset(nil, 0, nil, nil)
	s.r, s.target, s.event, s.client.Conn = nil, nil, sse.Event{}, nil
	s.held, s.member = s.held[:0], s.member[:0]
	s.failed = 0
	s.seen.clear()
	s.annotated, s.ended, s.last, s.looked, s.began, s.passing, s.fresh = false, false, false, false, false, false, false
	s.silent, s.until, s.came, s.drained = 0, time.Time{}, time.Time{}, time.Time{}
	s.proxy.streams.Put(s)
}
