package proxy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// keptErrors is how many are kept of each kind, so that a flood of one does not push out the
	// others, and keepEvery how far apart they are at least, so that it costs little.
	keptErrors = 10
	keepEvery  = 100 * time.Millisecond
)

// faultKind is a kind of error: its counter, and its newest requests.
type faultKind struct {
	count interface{ Inc() }
	last  atomic.Int64 // when one was kept, on the process's clock; 0 for never
	next  atomic.Uint32
	kept  [keptErrors]atomic.Pointer[[]byte]
}

// wants reports whether the one that happens now is to be kept.
func (f *faultKind) wants(now time.Duration) bool {
	last := f.last.Load()
	return (last == 0 || now-time.Duration(last) >= keepEvery) && f.last.CompareAndSwap(last, int64(max(now, 1)))
}

// keep keeps a request's line, with what the client and the log were told.
func (f *faultKind) keep(line []byte, why *failure) {
	add := func(name, text string) {
		value, _ := json.Marshal(text) // a string is always JSON
		line = fmt.Appendf(line[:len(line)-1], `,%q:%s}`, name, value)
	}
	if why != nil {
		add("message", why.message)
		if why.cause != nil {
			add("cause", why.cause.Error())
		}
	}
	f.kept[(f.next.Add(1)-1)%keptErrors].Store(&line)
}

// LastErrors are requests without a whole answer with a status of success, the newest first and the
// last of each kind: what the access log says of them, and why.
func (p *Proxy) LastErrors() []json.RawMessage {
	type dated struct {
		Time time.Time
		line json.RawMessage
	}
	var all []dated
	for _, f := range p.faults {
		for i := range f.kept {
			if line := f.kept[i].Load(); line != nil {
				d := dated{line: *line}
				if err := json.Unmarshal(*line, &d); err != nil {
					panic("BUG: an error that was kept is not JSON: " + err.Error())
				}
				all = append(all, d)
			}
		}
	}
	slices.SortFunc(all, func(a, b dated) int { return cmp.Compare(b.Time.UnixNano(), a.Time.UnixNano()) })
	lines := make([]json.RawMessage, len(all))
	for i := range all {
		lines[i] = all[i].line
	}
	return lines
}
