package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/client"
	"sluice/jsontext"
	"sluice/pool"
)

// copyHead makes the upstream's status and headers the client's and adds the gateway's own.
// The attempt is over as far as the trail goes.
func (r *request) copyHead(a *attempt) {
	now := time.Now()
	if !a.failed { // an HTTP error has been noted before
		a.took = now.Sub(a.began)
	}
	r.headAfter = max(1, now.Sub(r.began)) // 0 is "none"
	from, resp := &r.exchange.Response, &r.ctx.Response
	r.status = a.status
	resp.SetStatusCode(a.status)
	for name, value := range from.All() {
		if !responseDrops.has(name) && !r.answerHops.have(name) {
			resp.Header.AddBytesKV(name, value)
		}
	}
	r.setOwnHeaders()
}

// appendMember appends the member that says who answered, without braces around it:
// "gateway":{…}.
func (r *request) appendMember(dst []byte) []byte {
	dst = append(dst, r.attempts[len(r.attempts)-1].target.Member...)
	dst = strconv.AppendInt(dst, int64(len(r.attempts)), 10)
	if len(r.attempts) > 1 {
		dst = r.appendFailed(append(dst, `,"failed":`...))
	}
	return append(dst, '}')
}

// appendFailed lists the attempts before the newest.
func (r *request) appendFailed(dst []byte) []byte {
	dst = append(dst, '[')
	for i := range r.attempts[:len(r.attempts)-1] {
		f := &r.attempts[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		dst = jsontext.AppendString(jsontext.AppendName(dst, "model"), f.target.Model)
		dst = jsontext.AppendString(jsontext.AppendName(dst, "upstream"), f.target.Upstream.Name)
		dst = jsontext.AppendName(dst, "status")
		if f.status == 0 {
			dst = append(dst, "null"...)
		} else {
			dst = strconv.AppendInt(dst, int64(f.status), 10)
		}
		dst = jsontext.AppendString(jsontext.AppendName(dst, "error"), f.cause.String())
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// reply makes a plain answer the client's: whole where it is JSON of a size that can be
// held, as it comes where not.
func (r *request) reply(a *attempt) verdict {
	x := r.exchange
	until := r.replyDeadline(a.target, a.began)
	if a.failed {
		until = earlier(until, time.Now().Add(errorTime))
	}
	rd := r.readingOf(a)
	x.SetReadDeadline(until)
	if waits := r.firstEventDeadline(a); rd.mayStream() && waits.Before(until) {
		x.SetReadDeadline(waits) // for its first bytes
		rd.until = until
	}
	body, ended, err := r.annotatedAnswer(&rd)
	switch {
	case err == errStream:
		x.Response.SetContentTypeBytes(typeEvents) // what clients and proxies do with it they decide by that
		return r.replyStream(a)
	case err != nil:
		return r.lost(a, err)
	}
	if a.failed && r.isForeign(body, ended) {
		return r.replyForeign(a)
	}
	if !ended {
		return r.replyAsItComes(a, body, rd.added)
	}
	if !a.failed && a.status/100 == 2 {
		if v, is := r.checkAnswer(a, body, &rd); !is {
			return v
		}
		r.tokens.answered, r.tokens.whole = true, true
	}
	r.copyHead(a)
	r.replied()
	r.answerWith(body)
	return answered
}

// answerWith has body be the client's. From a shared buffer it is handed over, so that the request
// keeps its places, and the memory counts, until the client has taken it.
func (r *request) answerWith(body []byte) {
	if r.answer == nil {
		r.ctx.Response.SwapBody(body)
		return
	}
	r.passOver(&passage{r: r, end: io.EOF}, body, len(body))
}

// annotatedAnswer is the body as far as readAnswer reads it, with the gateway's member in it,
// and ended true if that is all. Room for the member is left in front, so that a body is never moved for it.
// The error is errStream for one that is to be read as a stream.
func (r *request) annotatedAnswer(rd *reading) (body []byte, ended bool, err error) {
	r.scratch = append(r.appendMember(r.scratch[:0]), ',')
	room := len(r.scratch)
	buf, ended, err := r.readAnswer(room, rd)
	if err == errStream {
		r.exchange.Unread(buf[room:])
		r.dropAnswer()
	}
	if err != nil {
		return nil, false, err
	}
	may := !r.isEncoded()
	before := len(buf) - room
	if may {
		var rest []byte
		rest, may = withoutGateway(buf[room:], ended && !rd.walked())
		buf = buf[len(buf)-len(rest)-room:] // what was taken out is room, too
	}
	body = annotate(buf, room, r.scratch, may)
	rd.added = len(body) - before
	return body, ended, nil
}

// readAnswer reads the body behind room bytes left free: to its end, or until it has more than
// it may or there is no memory for more, or, where it is not wanted whole, until its beginning
// tells what it is. Its buffer follows the bytes that arrive, not the length that was announced.
func (r *request) readAnswer(room int, rd *reading) (buf []byte, ended bool, err error) {
	length := r.exchange.Response.ContentLength()
	buf = r.firstBuffer(room, rd.most(room, length), rd.whole && length >= 0)
	looked := 0 // how far a beginning has been looked at
	for !ended {
		if len(buf) == cap(buf) {
			var grown bool
			if buf, grown = r.growAnswer(buf, nextSize(cap(buf), rd.most(room, length), length >= 0)); !grown {
				return buf, false, nil
			}
		}
		n, err := r.exchange.Read(buf[len(buf):min(cap(buf), room+rd.held()+1)])
		buf = buf[:len(buf)+n]
		if ended = err == io.EOF; !ended && err != nil {
			return nil, false, rd.readError(err)
		}
		if rd.begin(buf[room:]) {
			return buf, ended, errStream
		}
		if !rd.until.IsZero() {
			r.exchange.SetReadDeadline(rd.until)
			rd.until = time.Time{}
		}
		if !rd.whole && settled(buf[room:], &looked) || len(buf) > room+rd.held() {
			return buf, ended, nil
		}
	}
	// What is encoded can only be believed.
	if length == pool.UntilClose && rd.isJSON() && len(buf) > room && !json.Valid(buf[room:]) {
		return nil, false, errCutShort
	}
	return buf, true, nil
}

// firstAnswer is how much room an answer of a known length gets before any of it has arrived.
const firstAnswer = 64 << 10

// firstBuffer is what the answer's first bytes are read into, behind room bytes.
func (r *request) firstBuffer(room, most int, known bool) []byte {
	size := room + firstRead
	if known {
		size = min(most, room+firstAnswer)
	}
	buf := r.ctx.Response.SwapBody(nil)[:0]
	if cap(buf) < size {
		var grown bool
		if buf, grown = r.growAnswer(buf, size); !grown {
			buf = make([]byte, 0, room+firstRead)
		}
	}
	return buf[:room]
}

// nextSize is how large a full buffer of size bytes becomes: up to most in steps of four where so much
// was announced, so that little is moved twice.
func nextSize(size, most int, announced bool) int {
	if announced {
		size *= 2
	}
	return max(min(2*size, most), size+1)
}

// How long the body of an HTTP error may take to come, if it is the answer, and while
// something else is still to be tried.
const (
	errorTime = 10 * time.Second
	holdTime  = time.Second
)

// hold keeps an HTTP error to answer with, should nothing else be tried. A long one, or one
// that does not come at once, is not kept.
func (r *request) hold(a *attempt) {
	r.exchange.SetReadDeadline(earlier(r.replyDeadline(a.target, a.began), time.Now().Add(holdTime)))
	rd := reading{limit: keepBuffer / 2, whole: true, json: r.isPlainJSON()}
	body, ended, err := r.annotatedAnswer(&rd)
	if err != nil || !ended {
		r.dropAnswer()
		return
	}
	r.holding, r.held = true, body
	r.replied()
}

// replyHeld answers with the HTTP error that was kept.
func (r *request) replyHeld() {
	a := &r.attempts[len(r.attempts)-1]
	if r.isForeign(r.held, true) {
		r.replyForeign(a)
		return
	}
	r.copyHead(a)
	r.answerWith(r.held)
}

// errStream is the error of readAnswer for a body that begins like a stream, under whatever type.
var errStream = errors.New("the answer is a stream")

var errCutShort = errors.New("the answer ended with its connection and is not whole JSON")

// mostBeginning is how much of a body that passes through is kept back to find out what it is.
const mostBeginning = 64 << 10

// settled reports whether a body's beginning tells if it is an object, and an empty one. What is
// before looked are its brace and white space.
func settled(body []byte, looked *int) bool {
	if len(body) == 0 || body[0] != '{' {
		return len(body) > 0
	}
	*looked = jsontext.SkipSpace(body, max(1, *looked))
	return *looked < len(body)
}

// readError is what an error of reading an answer's body says of the attempt.
func readError(err error) error {
	var e *pool.Error
	if !errors.As(err, &e) && isTimeout(err) {
		return &pool.Error{Cause: pool.ResponseTimeout, Err: err}
	}
	return err
}

// annotate puts the member, with its comma, behind the brace that the body in buf[room:]
// begins with, and returns the whole. buf[:room] is free and len(member) long. A body that
// does not begin with a brace, or must not be touched, comes back as it is.
func annotate(buf []byte, room int, member []byte, may bool) []byte {
	body := buf[room:]
	if !may || len(body) == 0 || body[0] != '{' {
		return buf[:copy(buf, body)]
	}
	next := jsontext.SkipSpace(body, 1)
	if next == len(body) { // nobody knows whether a comma is needed
		return buf[:copy(buf, body)]
	}
	if body[next] == '}' {
		n := copy(buf[1:], member[:len(member)-1]) // an empty object gets no comma
		buf[0] = '{'
		return buf[:1+n+copy(buf[1+n:], body[1:])]
	}
	buf[0] = '{'
	copy(buf[1:], member)
	return buf
}

// replyAsItComes hands the answer over to a body that is read while it is sent. It begins with prefix, of
// which added bytes are the gateway's.
func (r *request) replyAsItComes(a *attempt, prefix []byte, added int) verdict {
	size := -1
	if length := r.exchange.Response.ContentLength(); length >= 0 {
		size = length + added
	}
	p := &passage{r: r, came: int64(len(prefix) - added)}
	if !a.failed && a.status/100 == 2 {
		r.tokens.answered = true
		if p.inspection = r.inspect(prefix); p.inspection != nil {
			p.inspection.see(prefix)
		}
	}
	r.copyHead(a)
	r.answered()
	r.passOver(p, prefix, size)
	return answered
}

// passOver hands r over to p, which begins with prefix and goes on with what is left of
// the exchange, unless that has ended.
func (r *request) passOver(p *passage, prefix []byte, size int) {
	if size < 0 {
		r.markEnd()
	}
	p.prefix, p.straight, p.client = prefix, size >= 0 || r.conn.Bare(), client.Pace{Conn: r.conn}
	r.ctx.Response.ImmediateHeaderFlush = true
	r.ctx.Response.SetBodyStream(p, size)
	r.handOver()
}

// markEnd has the connection end with an answer of unknown length where the client does not know
// chunks, and would find no other end.
func (r *request) markEnd() {
	if !r.ctx.Request.Header.IsHTTP11() {
		r.ctx.SetConnectionClose()
		r.conn.MakeBare()
	}
}

// handOver ends the handler's ownership of r: whoever writes the body finishes it. What
// the request's body took is given back, for that may be long after.
func (r *request) handOver() {
	r.conn.HandOver()
	r.ctx = nil
	r.exchange.Head, r.exchange.Body, r.fields.model = nil, nil, nil
	clear(r.upstream[:cap(r.upstream)])
	if cap(r.body) > keepWhileAnswering {
		r.proxy.giveBack(r.body)
		r.body = nil
		r.giveMemory(&r.bodyMemory)
	}
}

// keepWhileAnswering is how much of a request may stay in memory while its answer is under
// way.
const keepWhileAnswering = 4 << 10

// passage is the body of an answer that passes through. When the upstream breaks off, the
// server gets the error and closes the client's connection without ending the body.
type passage struct {
	r        *request
	prefix   []byte // in r's buffer
	straight bool   // goes out as it is: its length is announced, or its end is the connection's
	end      error  // what a read from the upstream returns when nothing more comes; nil before
	left     bool   // the client has not taken what was written
	client   client.Pace
	// of an answer that comes while it is sent
	came       int64 // bytes
	inspection *inspection
}

func (p *passage) Read(b []byte) (n int, err error) {
	defer p.recovered(&err)
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.r.bytesOut += int64(n)
		if p.prefix = p.prefix[n:]; len(p.prefix) == 0 {
			p.r.dropAnswer()
		}
		return n, nil
	}
	n, err = p.read(b)
	p.r.bytesOut += int64(n)
	return n, err
}

// recovered makes of a panic the end of the body. The server would do that, without a word.
func (p *passage) recovered(err *error) {
	v := recover()
	if v == nil {
		return
	}
	r := p.r
	r.proxy.panicked("panic in an answer", v)
	r.failure = refusal(internal, "", "the gateway failed; the answer is incomplete")
	r.giveUp()
	r.exchange.Abort(pool.GatewayFailed)
	p.end, *err = errPanic, errPanic
}

// read reads what the upstream still sends.
func (p *passage) read(b []byte) (int, error) {
	if p.end != nil {
		return 0, p.end
	}
	n, err := p.r.exchange.Read(b)
	p.came += int64(n)
	err = p.look(b[:n], err)
	p.end = err // the server asks again after an error that came with bytes
	if err != nil && err != io.EOF && p.r.failure == nil {
		p.r.brokeOff(err)
	}
	return n, err
}

// look inspects what has been read, and returns the error of the reading, or that of an end which is none.
func (p *passage) look(b []byte, err error) error {
	i := p.inspection
	if i != nil {
		i.see(b)
	}
	if err != io.EOF {
		return err
	}
	if i != nil {
		if unended := i.end(); unended != nil {
			return unended
		}
	}
	p.r.tokens.whole = i == nil || i.whole()
	return err
}

// SupportsBodyWriteTo has the server call WriteTo for a body without chunks: its own way would
// gather such a body in a buffer until that is full.
func (p *passage) SupportsBodyWriteTo() bool { return p.straight }

// WriteTo writes the body to the client's connection as it comes. The server's writer for
// it is passed over: the head has been flushed, so that it is empty.
func (p *passage) WriteTo(io.Writer) (total int64, err error) {
	defer p.recovered(&err)
	defer func() { p.r.bytesOut += total }()
	p.client.Start()
	n, err := p.client.Write(p.prefix)
	p.client.Stop()
	total, p.prefix = int64(n), nil
	p.r.dropAnswer()
	if err != nil || p.end == io.EOF {
		p.left = err != nil
		return total, err
	}
	buf := passageBuffers.Get().(*[16 << 10]byte)
	defer passageBuffers.Put(buf)
	for {
		n, rerr := p.read(buf[:])
		if n > 0 {
			n, err = p.client.Write(buf[:n])
			total += int64(n)
		}
		switch {
		case err != nil:
			p.left = true
			return total, err
		case rerr == io.EOF:
			return total, nil
		case rerr != nil:
			return total, rerr
		}
	}
}

var passageBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// Close is called by the server when the body is sent, or cannot be.
func (p *passage) Close() error {
	r := p.r
	if r == nil {
		return nil
	}
	p.r = nil
	if p.end == nil && r.exchange.Abort(pool.ClientLeft) { // else it was noticed elsewhere, and counted
		r.proxy.metrics.CancelledUpstreams.Inc()
		r.left = true
	}
	r.left = r.left || p.left || r.conn.Broken() != nil
	r.guess(p.inspection, p.came)
	if p.inspection != nil {
		p.inspection.close()
	}
	r.finish()
	return nil
}

// brokeOff notes that an answer broke off after its head had gone out.
func (r *request) brokeOff(err error) {
	r.failure = r.fail(&r.attempts[len(r.attempts)-1], readError(err))
}

var (
	_ io.ReadCloser         = (*passage)(nil)
	_ fasthttp.BodyWriterTo = (*passage)(nil)
)
