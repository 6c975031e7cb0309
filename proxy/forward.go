package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/client"
	"sluice/pool"
)

// maxAttempts bounds what one request may ask of upstreams.
const maxAttempts = 32

// verdict is what an attempt means for the request.
type verdict uint8

const (
	answered    verdict = iota // the client's answer is under way or complete
	otherTarget                // another target of the same model is tried at once, which is no retry
	again                      // the same model may be tried again
	onward                     // another model may do better
	over                       // nothing may: it is the client's own fault, or nobody waits any more
)

// forward asks the models, one after the other, until one answers.
func (r *request) forward() *failure {
	v := onward
	for i := r.chosen.model; v == onward && i < len(r.models); i++ {
		v = r.ask(i)
	}
	switch {
	case v == answered:
		return nil
	case r.kept.form != noAnswer:
		r.reply(&r.attempts[len(r.attempts)-1], &r.kept)
		return nil
	}
	if n := len(r.attempts); n > 1 && v == onward {
		r.failed.message = fmt.Sprintf("all %d attempts failed, the last so: %s", n, r.failed.message)
	}
	return r.failed
}

// ask tries the model at place i at one target after the other, until one answers or a further try would
// be of no use.
func (r *request) ask(i int) verdict {
	model := r.models[i]
	r.asked, r.lastModel = model, i == len(r.models)-1
	retries := model.MaxRetries
	if most := r.fields.maxRetries; most >= 0 {
		retries = min(retries, most)
	}
	before, try := len(r.attempts), 0
	for len(r.attempts) < maxAttempts {
		a := r.take(model)
		if a == nil {
			return onward
		}
		if i > 0 && len(r.attempts) == before+1 {
			model.Fallback.Inc()
		}
		r.last = r.lastModel && try == retries || len(r.attempts) == maxAttempts
		switch v := r.try(a); v {
		case otherTarget:
		case again:
			if try == retries || len(r.attempts) == maxAttempts {
				return onward
			}
			try++
			if v := r.pause(model, try); v != again {
				return v
			}
		default:
			return v
		}
	}
	return onward
}

// take begins an attempt at one of the model's targets; nil if none may be asked.
func (r *request) take(model *pool.Model) *attempt {
	target, place := r.chosen.target, r.chosen.place
	r.chosen.target = nil
	if target == nil {
		if target, place = r.place(model); target == nil {
			return nil
		}
	}
	r.drop() // the HTTP error of the attempt before, which is not the answer
	r.upstreamID = r.upstreamID[:0]
	target.Metrics.Attempts.Inc()
	r.attempts = append(r.attempts, attempt{target: target, began: time.Now(), entered: true, place: place})
	return &r.attempts[len(r.attempts)-1]
}

// place takes a place at one of the model's targets; nil if none may be asked.
func (r *request) place(model *pool.Model) (target *pool.Target, place pool.Place) {
	for {
		now := r.proxy.clock()
		target = r.pick(model, now)
		if target == nil || r.late(target) {
			return nil, place
		}
		place, ok := target.Enter(now)
		if !ok {
			continue // its breaker has opened, or its probe has gone, since it was picked
		}
		if r.tries(target) > 0 && !target.Upstream.Retry(now) {
			target.Back(now, place)
			return nil, place
		}
		return target, place
	}
}

// late reports whether there is no time left for another attempt. The first is always made.
func (r *request) late(target *pool.Target) bool {
	return len(r.attempts) > 0 && !time.Now().Before(r.deadline(target))
}

// try makes one attempt and answers with what it yields, if that is to be the answer.
func (r *request) try(a *attempt) verdict {
	v := r.conclude(a)
	if v != answered && r.kept.form == noAnswer {
		r.drop()
	}
	return v
}

// conclude runs the attempt and decides what becomes of what it yields.
func (r *request) conclude(a *attempt) verdict {
	ans, err := r.run(a)
	switch {
	case err != nil:
		return r.lost(a, err)
	case a.status/100 == 2, a.status == fasthttp.StatusNotModified:
		r.reply(a, &ans)
		return answered
	}
	return r.refused(a, ans)
}

// drop parts the request from the exchange of an attempt that is of no use any more.
func (r *request) drop() {
	r.kept = answer{}
	r.dropAnswer()
	if r.exchange != nil {
		r.replied()
		pool.Release(r.exchange)
		r.exchange = nil
	}
}

// run asks the attempt's target. The answer's head is in the exchange, and nothing of it has been sent to the
// client. An HTTP error comes with its body unread. The error is of an attempt that has yielded no answer.
func (r *request) run(a *attempt) (answer, error) {
	err := r.send(a.target, a.began)
	a.connect = r.exchange.Connected
	if err != nil {
		return answer{}, err
	}
	a.status = r.exchange.Response.StatusCode()
	r.readUpstreamID()
	if !r.readAnswerHops() {
		return answer{}, &pool.Error{Cause: pool.MalformedResponse, Err: errTooManyHops}
	}
	switch {
	case a.status < 200: // 101 to a request that asked for no other protocol
		return answer{}, &pool.Error{Cause: pool.MalformedResponse, Err: errStatus(a.status)}
	case a.status == 403 && isHTML(r.exchange.Response.ContentType()):
		// A page of what protects the upstream, which has not looked at the credential.
		return answer{}, &pool.Error{Cause: pool.StatusRefused, Err: errStatus(a.status)}
	case a.status == 401, a.status == 402, a.status == 403:
		// It is the gateway's credential that was refused, not the client's.
		return answer{}, &pool.Error{Cause: pool.CredentialRefused, Err: errStatus(a.status)}
	case a.status == fasthttp.StatusNotModified && r.conditional():
	case a.status/100 == 3:
		return answer{}, &pool.Error{Cause: pool.Redirected, Err: errStatus(a.status)}
	case a.status/100 != 2:
		return answer{form: unread}, nil
	case isEventStream(r.exchange.Response.ContentType()) && !r.isEncoded():
		return r.readStream(a)
	}
	return r.readPlain(a)
}

// conditional reports whether the client has asked for an answer only if it is another than one that
// it has.
func (r *request) conditional() bool {
	h := &r.ctx.Request.Header
	return len(h.Peek(fasthttp.HeaderIfNoneMatch)) > 0 || len(h.Peek(fasthttp.HeaderIfModifiedSince)) > 0
}

func isHTML(contentType []byte) bool {
	return bytes.EqualFold(mediaType(contentType), []byte("text/html"))
}

// readAnswerHops reads the answer's Connection headers. False if they name too much.
func (r *request) readAnswerHops() bool {
	r.answerHops.clear()
	for name, value := range r.exchange.Response.All() {
		if string(name) == fasthttp.HeaderConnection && !r.answerHops.add(value) {
			return false
		}
	}
	return true
}

var errTooManyHops = fmt.Errorf("its Connection headers have more than %d names", maxHops)

// refused ends an attempt that got an HTTP error: it is the client's answer if nothing else can be,
// and kept for that while something else still may.
func (r *request) refused(a *attempt, ans answer) verdict {
	v := r.noteRefused(a)
	if r.endsWith(v) {
		if ans.form == unread {
			var err error
			if ans, err = r.readPlain(a); err != nil {
				return r.lost(a, err)
			}
		}
		r.reply(a, &ans)
		return answered
	}
	r.failed = upstreamFailure(a.cause, a.target.Upstream.Name, errStatus(a.status))
	r.keep(a, ans)
	if cause, ended := r.exchange.Aborted(); ended {
		return r.lost(a, &pool.Error{Cause: cause, Err: errStatus(a.status)})
	}
	return v
}

// endsWith reports whether nothing else can be tried after an attempt with this verdict.
func (r *request) endsWith(v verdict) bool {
	return v == over || r.last && v != otherTarget || r.lastModel && v == onward
}

// noteRefused notes an HTTP error and says what it means.
func (r *request) noteRefused(a *attempt) verdict {
	a.took, a.failed, a.cause = time.Since(a.began), true, pool.StatusRefused
	a.retryAfter = retryAfter(&r.exchange.Response, time.Now())
	if a.status == 429 && a.retryAfter > 0 {
		a.target.Rest(r.proxy.clock(), a.retryAfter)
	}
	if !ownFault(a.status) {
		a.target.Upstream.Failed(a.cause)
	}
	return r.verdict(a)
}

type errStatus int

func (e errStatus) Error() string { return "status " + strconv.Itoa(int(e)) }

// lost ends an attempt without an answer that the client could have.
func (r *request) lost(a *attempt, err error) verdict {
	var own *ownError
	if errors.As(err, &own) {
		r.giveUp()
		r.failed = own.failure
		return over
	}
	r.failed = r.fail(a, err)
	return r.verdict(a)
}

// ownError is of an attempt that the gateway gives up for a reason of its own.
type ownError struct{ failure *failure }

func (e *ownError) Error() string { return e.failure.message }

// fail notes that an attempt failed. An err that is no *pool.Error is of an answer that
// broke off.
func (r *request) fail(a *attempt, err error) *failure {
	counted := a.failed // an HTTP error, whose body now broke off
	a.took, a.failed, a.cause = time.Since(a.began), true, pool.ResponseBroken
	var e *pool.Error
	if errors.As(err, &e) {
		a.cause = e.Cause
	}
	if !counted && !a.cause.Ended() {
		a.target.Upstream.Failed(a.cause)
	}
	return upstreamFailure(a.cause, a.target.Upstream.Name, err)
}

// send writes the request to the target and reads the head of its answer.
func (r *request) send(target *pool.Target, now time.Time) error {
	r.exchange = pool.Acquire()
	r.upstream = r.rewrite(r.upstream[:0], target)
	r.writeHead(target)
	r.exchange.Head, r.exchange.Body = r.head, r.upstream
	r.exchange.Fresh = r.drains(target.Upstream)
	r.conn.Await(asked{r.exchange})
	err := r.exchange.Send(target, r.headDeadline(target, now))
	if err != nil && !r.fields.stream {
		var e *pool.Error
		if errors.As(err, &e) && e.Cause == pool.FirstByteTimeout {
			e.Cause = pool.ResponseTimeout // nobody waits for a first byte here
		}
	}
	return err
}

// asked is an exchange that a client waits for.
type asked struct{ *pool.Exchange }

func (a asked) Abort(why client.Reason) bool { return a.Exchange.Abort(causeOf(why)) }

// causeOf is what ends an attempt for that reason.
func causeOf(why client.Reason) pool.Cause {
	if why == client.Left {
		return pool.ClientLeft
	}
	return pool.ShuttingDown
}

// headDeadline is until when the head of an answer must be there. An answer to a plain
// request may take until the whole of it must be there.
func (r *request) headDeadline(target *pool.Target, now time.Time) time.Time {
	d := r.replyDeadline(target, now)
	if r.fields.stream {
		d = earlier(d, now.Add(target.Timeouts.FirstByte.Std()))
	}
	if r.fields.firstByteTimeout > 0 {
		d = earlier(d, now.Add(r.fields.firstByteTimeout))
	}
	return d
}

// replyDeadline is until when a plain answer must be whole.
func (r *request) replyDeadline(target *pool.Target, now time.Time) time.Time {
	return earlier(r.deadline(target), now.Add(target.Timeouts.Response.Std()))
}

// deadline is the request's own, for all attempts and waits: the one that holds at target,
// or the client's.
func (r *request) deadline(target *pool.Target) time.Time {
	total := target.Timeouts.Total.Std()
	if r.fields.timeout > 0 {
		total = min(total, r.fields.timeout)
	}
	return r.began.Add(total)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
