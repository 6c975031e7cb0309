package proxy

import (
	"math"
	"slices"
	"strings"
	"time"

	"sluice/client"
	"sluice/limiter"
	"sluice/pool"
)

// choose takes a place for the first attempt: a request that can be sent nowhere costs its
// key nothing. A full upstream is passed over; if nothing else serves, the request waits for its
// turn at one.
func (r *request) choose() *failure {
	if r.takeAny() {
		return nil
	}
	for i, model := range r.models {
		if target := model.Crowded(r.proxy.clock()); target != nil {
			if f := r.wouldRefuse(); f != nil {
				return f // who is over its limits takes no turn from others
			}
			return r.queue(i, target)
		}
	}
	return r.takeResting()
}

// takeResting takes a place at a target that rests after a 429, if one may be asked all the same.
func (r *request) takeResting() *failure {
	for i, model := range r.models {
		now := r.proxy.clock()
		target := model.Resting(now)
		if target == nil {
			continue
		}
		if f := r.wouldRefuse(); f != nil {
			return f
		}
		if place, ok := target.EnterResting(now); ok {
			r.chosen = chosen{i, target, place}
			return nil
		}
	}
	return r.noneServes()
}

// takeAny takes a place at the first target that serves.
func (r *request) takeAny() bool {
	for i, model := range r.models {
		if target, place := r.place(model); target != nil {
			r.chosen = chosen{i, target, place}
			return true
		}
	}
	return false
}

// lookAround is how often a request that waits for its turn at one upstream looks at the others.
const lookAround = 50 * time.Millisecond

// queue waits for a place at target's upstream, which is for the model at place i, or for one
// anywhere else.
func (r *request) queue(i int, target *pool.Target) *failure {
	if r.waiter == nil {
		r.waiter = limiter.NewWaiter()
	}
	patience := min(target.QueueTimeout, time.Until(r.deadline(target)))
	until := time.Now().Add(patience)
	retryAfter, joined := target.Join(r.waiter, r.key, patience)
	if !joined {
		return crowded(target, retryAfter)
	}
	for {
		wait := time.Until(until)
		if len(r.models) > 1 || len(r.models[i].Targets) > 1 {
			wait = min(wait, lookAround)
		}
		how, why, inside := r.wait(wait, r.waiter.Turn)
		switch how {
		case client.ToTheEnd:
			if r.takeAny() {
				if target.Quit(r.waiter) {
					target.PassTurn()
				}
				return nil
			}
			if time.Now().Before(until) {
				continue
			}
			inside = target.Quit(r.waiter)
		case client.Aborted:
			if target.Quit(r.waiter) {
				target.PassTurn()
			}
			return upstreamFailure(causeOf(why), target.Upstream.Name, nil)
		}
		if !inside {
			return crowded(target, target.TurnIn())
		}
		if place, ok := target.EnterAtTurn(r.proxy.clock()); ok {
			r.chosen = chosen{i, target, place}
			return nil
		}
		if r.takeAny() { // it has failed for others meanwhile
			return nil
		}
		return r.takeResting()
	}
}

// noneServes is the failure of a request that can be sent nowhere.
func (r *request) noneServes() *failure {
	if !slices.ContainsFunc(r.models, func(m *pool.Model) bool { return len(m.Targets) > 0 }) {
		return refusal(noHealthyUpstream, "model", "%s", lacksCredential(r.models[0]))
	}
	if !slices.ContainsFunc(r.models, (*pool.Model).InService) {
		return refusal(noHealthyUpstream, "", "all targets of model %s are drained: an operator has taken them out of service", r.models[0].Name)
	}
	now, wait := r.proxy.clock(), time.Duration(math.MaxInt64)
	var why pool.Reasons
	for _, m := range r.models {
		wait = min(wait, m.ServesIn(now))
		why.Add(m.Reasons(now))
	}
	wait = max(wait, time.Second)
	drained := why.Drained
	why.Drained = false
	if why == (pool.Reasons{Resting: true}) {
		f := refusal(upstreamLimited, "", "all targets of model %s are rate-limited by their upstreams; try again in %s",
			r.models[0].Name, wait.Round(time.Second))
		f.retryAfter = wait
		return f
	}
	reasons := reasonTexts(why)
	if drained {
		reasons += ", drained"
	}
	f := refusal(noHealthyUpstream, "", "all targets of model %s are unavailable (%s); try again in %s",
		r.models[0].Name, reasons, wait.Round(time.Second))
	f.retryAfter = wait
	return f
}

// reasonTexts are for the client.
func reasonTexts(why pool.Reasons) string {
	var texts []string
	if why.Open || why == (pool.Reasons{}) { // else one serves again since a moment ago
		texts = append(texts, "circuit open")
	}
	if why.Resting {
		texts = append(texts, "rate-limited")
	}
	if why.CredentialRefused {
		texts = append(texts, "the gateway's credential was refused")
	}
	return strings.Join(texts, ", ")
}

// wait is the connection's, and noted.
func (r *request) wait(d time.Duration, turn <-chan bool) (how client.Waited, why client.Reason, inside bool) {
	began := time.Now()
	defer func() { r.waited += time.Since(began) }()
	return r.conn.Wait(d, turn)
}
