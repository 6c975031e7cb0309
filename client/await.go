package client

import "time"

// Reason is why what a client waits for is ended.
type Reason uint8

const (
	Left   Reason = iota // the client has left
	Ending               // the process ends
)

// Waiting is what a client may wait for: an upstream's answer, or time. Abort ends it, and is true
// if it was an upstream's request, and not ended before.
type Waiting interface{ Abort(Reason) bool }

// Await has w aborted should the client leave, or the process end. Release ends that.
func (c *Conn) Await(w Waiting) {
	c.mu.Lock()
	c.waiting = w
	c.mu.Unlock()
	if c.all.cut.Load() || c.closed.Load() { // closed as idle, at the moment when it was not any more
		w.Abort(Ending)
	}
}

// Release ends what Await began.
func (c *Conn) Release() {
	c.mu.Lock()
	c.waiting = nil
	c.mu.Unlock()
}

// waits reports whether the client waits for anything that can be aborted.
func (c *Conn) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting != nil
}

// abort ends what the client waits for. False if there is nothing, or it was ended before.
func (c *Conn) abort(why Reason) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting != nil && c.waiting.Abort(why)
}

// pause is a wait for time.
type pause chan Reason

func (p pause) Abort(why Reason) bool {
	select {
	case p <- why:
	default: // aborted before
	}
	return false
}

// Waited is how a wait has ended.
type Waited uint8

const (
	ToTheEnd Waited = iota
	Aborted         // for a Reason
	HadTurn         // or was turned away
)

// Wait waits for d, unless the client leaves, the process ends, or, where there is one to be
// had, the turn comes first.
func (c *Conn) Wait(d time.Duration, turn <-chan bool) (how Waited, why Reason, inside bool) {
	p := make(pause, 1)
	c.Await(p)
	defer c.Release()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case why = <-p:
		return Aborted, why, false
	case inside = <-turn:
		return HadTurn, 0, inside
	case <-timer.C:
		return ToTheEnd, 0, false
	}
}
