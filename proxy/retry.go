package proxy

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/client"
	"sluice/config"
	"sluice/pool"
)

// verdict is what an attempt that failed means for the request (docs/resilience.md has the
// table).
func (r *request) verdict(a *attempt) verdict {
	v := r.meaning(a)
	if v != otherTarget {
		return v
	}
	a.abandoned = true
	if len(r.attempts) == maxAttempts {
		return onward
	}
	switch target := r.pick(r.asked, r.proxy.clock()); {
	case target == nil:
		return onward
	case r.tries(target) == 0:
		return otherTarget
	}
	return again // one that has failed this request, but may do better the next time
}

// meaning is the verdict, if other targets of the model could be asked without end.
func (r *request) meaning(a *attempt) verdict {
	next := causeRules[a.cause].next
	switch {
	case a.cause == pool.StatusRefused:
		next, _ = statusRule(a.status)
		if next == over && r.sequence() {
			return onward // the client wants to know of each model
		}
	case a.empty && r.empties(a.target.Model) > 1: // twice
		return onward
	}
	return next
}

// empties is how many answers of model had no choices. They have been paid for, and most models that
// answer so once more would again.
func (r *request) empties(model string) (n int) {
	for i := range r.attempts {
		if a := &r.attempts[i]; a.empty && a.target.Model == model {
			n++
		}
	}
	return n
}

// sequence reports whether the client named the models to try.
func (r *request) sequence() bool { return len(r.fields.models) > 0 }

// outcome is what an attempt says of its target.
func (r *request) outcome(a *attempt) pool.Outcome {
	rule := &causeRules[a.cause]
	_, ofStatus := statusRule(a.status)
	switch {
	case !a.failed:
		return pool.Served
	case a.cause.Ended():
		return pool.Unknown
	case a.cause == pool.StatusRefused, a.status >= 500: // whatever became of its body
		return ofStatus
	case a.status == 402:
		return pool.Unclear // the account's money is at an end, or does for smaller requests
	case a.empty:
		return pool.Refused // a filter's word about this request, most often
	case rule.timeout != nil && !a.hadTime(rule.timeout(&a.target.Timeouts)):
		return pool.Unknown
	}
	return rule.target
}

// hadTime reports whether the attempt had its full time, give or take what the request took
// before it.
func (a *attempt) hadTime(timeout config.Duration) bool {
	full := min(timeout, a.target.Timeouts.Total).Std()
	return a.took >= full-full/8
}

// answered tells the target that its answer has begun, for whoever waits for a probe.
func (r *request) answered() {
	a := &r.attempts[len(r.attempts)-1]
	a.place = a.target.Answered(r.proxy.clock(), a.place)
}

// leave gives the newest attempt's place at its target back.
func (r *request) leave() {
	if len(r.attempts) == 0 {
		return
	}
	if a := &r.attempts[len(r.attempts)-1]; a.entered {
		a.entered = false
		a.target.Leave(r.proxy.clock(), a.place, r.outcome(a))
	}
}

// pick chooses the target to ask next: another than those that have failed this request if
// there is one, and not the last one again if there is none. One that was left for others is not
// asked again.
func (r *request) pick(model *pool.Model, now time.Duration) *pool.Target {
	if len(r.attempts) == 0 {
		return model.Pick(now, nil)
	}
	last := r.attempts[len(r.attempts)-1].target
	return model.Pick(now, func(t *pool.Target) int {
		if r.abandoned(t) {
			return pool.Never
		}
		// Targets of one upstream share its credential and its address, and often their trouble.
		rank := 4 * r.tries(t)
		if t == last {
			rank += 2
		}
		if t.Upstream == last.Upstream {
			rank++
		}
		return rank
	})
}

// abandoned reports whether target was left for others.
func (r *request) abandoned(target *pool.Target) bool {
	for i := range r.attempts {
		if a := &r.attempts[i]; a.abandoned && a.target == target {
			return true
		}
	}
	return false
}

// tries is how often target has been asked.
func (r *request) tries(target *pool.Target) (n int) {
	for i := range r.attempts {
		if r.attempts[i].target == target {
			n++
		}
	}
	return n
}

// drains reports whether upstream has answered this request with 503. One of its servers may be about to
// end; a pooled connection would lead to that again, a new one leads to whichever takes connections.
func (r *request) drains(upstream *pool.Upstream) bool {
	for i := range r.attempts {
		if a := &r.attempts[i]; a.status == 503 && a.target.Upstream == upstream {
			return true
		}
	}
	return false
}

// pause waits before a further try of model. onward: the model is given up, for another try
// is not possible in time or not allowed.
func (r *request) pause(model *pool.Model, try int) verdict {
	now := r.proxy.clock()
	target := r.pick(model, now)
	if target == nil {
		if target = model.Rested(now, func(t *pool.Target) bool { return !r.abandoned(t) }); target == nil {
			return onward
		}
	}
	wait := max(r.backoff(try), r.askedToWait(target), target.Rests(now))
	if !time.Now().Add(wait).Before(r.deadline(target)) {
		return onward
	}
	if r.tries(target) > 0 && !target.Upstream.MayRetry(now) {
		return onward
	}
	if how, why, _ := r.wait(wait, nil); how == client.Aborted {
		r.drop()
		r.failed = upstreamFailure(causeOf(why), r.attempts[len(r.attempts)-1].target.Upstream.Name, nil)
		return over
	}
	return again
}

// askedToWait is what is left of the time that target told this request to wait.
func (r *request) askedToWait(target *pool.Target) (wait time.Duration) {
	for i := range r.attempts {
		if a := &r.attempts[i]; a.target == target && a.retryAfter > 0 {
			wait = max(wait, time.Until(a.began.Add(a.took+a.retryAfter)))
		}
	}
	return wait
}

// backoff is how long to wait before the try: exponential, with full jitter (M. Brooker,
// "Exponential Backoff And Jitter", 2015).
func (r *request) backoff(try int) time.Duration {
	retry := &r.snapshot.config.Retry
	ceiling := retry.Max.Std()
	if n := retry.Base.Std() << (try - 1); n>>(try-1) == retry.Base.Std() {
		ceiling = min(ceiling, n)
	}
	return rand.N(ceiling + 1)
}

// retryAfter is what the upstream asks to wait, 0 if it does not: retry-after-ms, or Retry-After
// in seconds or as a date. What is no time to wait, or longer than any rest, is as good as absent.
func retryAfter(h *fasthttp.ResponseHeader, now time.Time) time.Duration {
	if d, ok := waitOf(h.Peek("Retry-After-Ms"), time.Millisecond); ok {
		return d
	}
	text := h.Peek("Retry-After")
	if d, ok := waitOf(text, time.Second); ok {
		return d
	}
	if at, err := fasthttp.ParseHTTPDate(text); err == nil {
		if d := at.Sub(now); d > 0 && d <= pool.LongestRest {
			return d
		}
	}
	return 0
}

// waitOf reads a number of units.
func waitOf(text []byte, unit time.Duration) (d time.Duration, ok bool) {
	n, err := strconv.ParseFloat(borrowString(text), 64)
	if n *= float64(unit); err != nil || !(n >= 0 && n <= float64(pool.LongestRest)) { // NaN is neither
		return 0, false
	}
	return time.Duration(n), true
}
