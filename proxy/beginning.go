package proxy

import (
	"bytes"
	"time"

	"sluice/jsontext"
	"sluice/pool"
)

// Some upstreams give an answer a type that it is not of, or none: a stream as text/plain, an error in
// JSON as text/event-stream. How a body begins tells what it is, where its type does not.

// beginning is what the first bytes of a body say that it is.
type beginning uint8

const (
	notBegun beginning = iota // nothing but white space so far
	anObject                  // of JSON
	anEvent                   // or a comment, of an event stream
	somethingElse
)

// beginningOf looks at a body as far as it has come. No more is waited for: what is cut inside a field's
// name is something else.
func beginningOf(body []byte) beginning {
	at := jsontext.SkipSpace(body, 0)
	if at == len(body) {
		return notBegun
	}
	if body[at] == '{' {
		return anObject
	}
	if at > 0 && (body[at-1] == ' ' || body[at-1] == '\t') {
		return somethingElse // no line of an event stream begins so
	}
	rest, marked := bytes.CutPrefix(body[at:], byteOrderMark)
	if marked && len(rest) == 0 {
		return anEvent // JSON must not have it (RFC 8259, section 8.1)
	}
	for _, field := range eventFields {
		if bytes.HasPrefix(rest, field) {
			return anEvent
		}
	}
	return somethingElse
}

var (
	byteOrderMark = []byte("\xEF\xBB\xBF")
	eventFields   = [...][]byte{[]byte("data:"), []byte(":"), []byte("event:"), []byte("id:"), []byte("retry:")}
)

// reading is how an answer's body is read, and what it has turned out to be.
type reading struct {
	limit int  // as many bytes are held
	whole bool // it is read to its end, if limit and memory have room for it
	json  bool // its type says that it is JSON, and nothing has been done to that
	// events: it may turn out to be a stream, and objects: to be JSON, which is read to its end.
	events, objects bool
	answer          bool // it is a 2xx's, and not encoded
	beginning       beginning
	added           int       // bytes of the gateway's
	looked          int       // what is before is white space
	until           time.Time // the deadline behind its first bytes; zero if it is set
}

// readingOf is how the attempt's answer is read. Only where nothing else is expected than JSON or a
// stream is a body taken for what it begins like: a text may begin with "data:".
func (r *request) readingOf(a *attempt) reading {
	h := &r.exchange.Response
	rd := reading{limit: int(r.snapshot.config.Limits.Response), json: r.isPlainJSON()}
	fits := h.ContentLength() <= rd.limit
	rd.whole = fits && isJSON(h.ContentType())
	if !r.isEncoded() && !a.failed && a.status/100 == 2 {
		rd.answer = true
		rd.events = r.route.terminated || r.fields.stream
		rd.objects = fits && r.route.json && !r.fields.stream // it might be lines of JSON that come one by one
	}
	return rd
}

// isPlainJSON reports whether the answer must be JSON.
func (r *request) isPlainJSON() bool {
	return isJSON(r.exchange.Response.ContentType()) && !r.isEncoded()
}

// mayStream reports whether a stream was asked for, and may come under another type.
func (rd *reading) mayStream() bool { return rd.events && !rd.objects && !rd.json }

// begin looks at what has been read of a body and reports whether it is a stream.
func (rd *reading) begin(body []byte) (stream bool) {
	if rd.beginning != notBegun || !rd.events && !rd.objects {
		return false
	}
	rd.beginning = beginningOf(body[max(0, rd.looked-1):]) // the byte before what begins matters, too
	rd.looked = len(body)
	rd.whole = rd.whole || rd.objects && rd.beginning == anObject
	return rd.events && rd.beginning == anEvent
}

// isJSON reports whether the body, read to its end, is to be JSON.
func (rd *reading) isJSON() bool { return rd.json || rd.objects && rd.beginning == anObject }

// walked reports whether the body, once it has been read to its end, is walked through by checkAnswer, which then
// finds the upstream's gateway members.
func (rd *reading) walked() bool { return rd.answer && rd.isJSON() }

// held is how many bytes are held before the body passes as it comes.
func (rd *reading) held() int {
	if rd.whole {
		return rd.limit
	}
	return min(rd.limit, mostBeginning)
}

// most is the largest buffer that the body may need, behind room bytes.
func (rd *reading) most(room, length int) int {
	if length >= 0 {
		return room + min(length, rd.held()) + 1
	}
	return room + rd.held() + 1
}

// readError is what an error of reading the body says of the attempt.
func (rd *reading) readError(err error) error {
	if !rd.until.IsZero() && isTimeout(err) {
		return &pool.Error{Cause: pool.FirstByteTimeout, Err: err}
	}
	return readError(err)
}
