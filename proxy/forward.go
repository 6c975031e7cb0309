package proxy

import (
	"errors"
	"strconv"
	"time"

	"sluice/pool"
)

// forward finds a target that answers and makes its answer the client's.
func (r *request) forward() *failure {
	return r.try(r.models[0].Pick())
}

// try is one attempt. nil means that the answer is under way or complete.
func (r *request) try(target *pool.Target) *failure {
	r.attempts = append(r.attempts, attempt{target: target, began: time.Now()})
	a := &r.attempts[len(r.attempts)-1]
	if err := r.send(target, a.began); err != nil {
		return r.failed(a, err)
	}
	a.status = r.exchange.Response.StatusCode()
	switch {
	case a.status < 200: // 101 to a request that asked for no other protocol
		return r.failed(a, &pool.Error{Cause: pool.MalformedResponse, Err: errStatus(a.status)})
	case a.status == 401, a.status == 402, a.status == 403:
		// It is the gateway's credential that was refused, not the client's.
		return r.failed(a, &pool.Error{Cause: pool.StatusRefused, Err: errStatus(a.status)})
	case a.status/100 == 3:
		return r.failed(a, &pool.Error{Cause: pool.Redirected, Err: errStatus(a.status)})
	}
	h := &r.exchange.Response.Header
	if a.status/100 == 2 && isEventStream(h.ContentType()) && len(h.ContentEncoding()) == 0 {
		return r.replyStream(a)
	}
	return r.reply(a)
}

type errStatus int

func (e errStatus) Error() string { return "status " + strconv.Itoa(int(e)) }

// failed ends an attempt that failed. An err that is no *pool.Error is of an answer that
// broke off.
func (r *request) failed(a *attempt, err error) *failure {
	a.took, a.failed, a.cause = time.Since(a.began), true, pool.ResponseBroken
	var e *pool.Error
	if errors.As(err, &e) {
		a.cause = e.Cause
	}
	if a.cause == pool.FirstByteTimeout && !r.fields.stream {
		a.cause = pool.ResponseTimeout
	}
	if a.cause != pool.ClientLeft && a.cause != pool.ShuttingDown {
		a.target.Upstream.Failed(a.cause)
	}
	return upstreamFailure(a.cause, a.target.Upstream.Name, err)
}

// send writes the request to the target and reads the head of its answer.
func (r *request) send(target *pool.Target, now time.Time) error {
	r.exchange = pool.Acquire()
	r.upstream = r.rewrite(r.upstream[:0], target)
	r.writeHead(target)
	r.exchange.Request.SetBodyRaw(r.upstream)
	r.conn.await(r.exchange)
	return r.exchange.Send(target, r.headDeadline(target, now))
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
	d := earlier(r.began.Add(target.Timeouts.Total.Std()), now.Add(target.Timeouts.Response.Std()))
	if r.fields.timeout > 0 {
		d = earlier(d, r.began.Add(r.fields.timeout))
	}
	return d
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
