package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"time"

	"sluice/jsontext"
	"sluice/pool"
)

// answer is what an attempt yields: an upstream's answer of which the client has seen nothing yet. Its
// status is the attempt's, and its headers are the exchange's.
type answer struct {
	form   form
	body   []byte  // all of it, or its beginning, with the gateway's member in it
	added  int     // bytes of the gateway's
	told   bool    // it is an error that was told inside a 2xx
	stream *stream // which has the first event in hand
}

// form is how much of an answer there is.
type form uint8

const (
	noAnswer  form = iota
	complete       // body is all of it
	passing        // the rest of it passes as it comes
	streaming      // its events do
	unread         // an HTTP error, of which only the head has been read
)

// How long the body of an HTTP error may take to come, if it is the answer, and while
// something else is still to be tried.
const (
	errorTime = 10 * time.Second
	holdTime  = time.Second
)

// readPlain reads a plain answer: whole where it is JSON of a size that can be held, and up to where its
// beginning tells what it is where not. One that turns out to be a stream is read as that.
func (r *request) readPlain(a *attempt) (answer, error) {
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
		return r.readStream(a)
	case err != nil:
		return answer{}, err
	case !ended:
		return answer{form: passing, body: body, added: rd.added}, nil
	case a.failed || a.status/100 != 2:
		return answer{form: complete, body: body}, nil
	}
	if err := r.checkAnswer(a, body, &rd); err != nil {
		return r.toldAnswer(a, err)
	}
	return answer{form: complete, body: body}, nil
}

// keep keeps an HTTP error to answer with, should nothing else be tried. A long one, or one that does
// not come at once, is not kept.
func (r *request) keep(a *attempt, ans answer) {
	if ans.form == unread {
		r.exchange.SetReadDeadline(earlier(r.replyDeadline(a.target, a.began), time.Now().Add(holdTime)))
		rd := reading{limit: keepBuffer / 2, whole: true, json: r.isPlainJSON()}
		body, ended, err := r.annotatedAnswer(&rd)
		if err != nil || !ended {
			r.dropAnswer()
			return
		}
		ans = answer{form: complete, body: body}
	}
	if len(ans.body) > keepBuffer/2 {
		r.dropAnswer()
		return
	}
	r.kept = ans
	r.replied()
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
