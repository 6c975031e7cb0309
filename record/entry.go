package record

import (
	"strconv"
	"strings"
)

// Entry is a copy of a request that is nobody else's.
type Entry struct {
	Seq uint64 // its number in the Ring; 0 for one of the last errors
	Request
}

// owned copies a request for itself.
func owned(r *Request) *Entry {
	e := &Entry{Request: *r}
	e.Attempts = append([]Attempt(nil), r.Attempts[max(0, len(r.Attempts)-keptAttempts):]...)
	for _, t := range e.texts() {
		*t = strings.Clone((*t)[:min(len(*t), keptText)])
	}
	return e
}

// Ref names the request in the Ring: "@" and its number.
func (e *Entry) Ref() string { return "@" + strconv.FormatUint(e.Seq, 10) }

// ParseRef reads what Ref writes.
func ParseRef(text string) (seq uint64, ok bool) {
	digits, ok := strings.CutPrefix(text, "@")
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, err == nil && seq > 0
}

// MarshalJSON writes what the access log says of the request, and its key's name, what the client and
// the log were told, and where it is in the Ring.
func (e *Entry) MarshalJSON() ([]byte, error) {
	l := line{'{'}
	l.begin(e)
	return append(l, '}'), nil
}

func (l *line) begin(e *Entry) {
	if e.Seq > 0 {
		l.text("ref", e.Ref())
	}
	l.text("time", e.Began.Format(timeFormat))
	l.members(&e.Request)
	l.known("key_name", e.KeyName)
	l.known("message", e.Message)
	l.known("cause", e.Cause)
	l.whole("attempts", int64(e.Tried))
}

// Detail is an Entry with its attempts, as JSON.
type Detail struct{ *Entry }

// MarshalJSON writes the Entry with the times of its attempts, in seconds since the request began.
func (d Detail) MarshalJSON() ([]byte, error) {
	l := line{'{'}
	l.begin(d.Entry)
	l = append(l, `,"steps":[`...)
	for i := range d.Attempts {
		if i > 0 {
			l = append(l, ',')
		}
		l = append(l, '{')
		l.step(d.Entry, i)
		l = append(l, '}')
	}
	return append(l, "]}"...), nil
}

// step writes an attempt: the wait before it, the connection, the wait for the answer's head, and the
// answer itself.
func (l *line) step(e *Entry, i int) {
	a := &e.Attempts[i]
	l.text("model", a.Model)
	l.text("upstream", a.Upstream)
	l.text("target", a.Target)
	if a.Status != 0 {
		l.whole("status", int64(a.Status))
	}
	l.known("cause", a.Cause)
	ended := a.After + a.Took
	before := a.After
	if i > 0 {
		before -= e.Attempts[i-1].After + e.Attempts[i-1].Took
	}
	l.seconds("begins", a.After)
	l.seconds("wait", max(0, before))
	l.seconds("connect", min(a.Connect, a.Took))
	l.seconds("first_byte", max(0, a.Took-a.Connect))
	if i == len(e.Attempts)-1 && e.FirstByte > 0 {
		l.seconds("answer", max(0, e.Took-ended))
	}
}
