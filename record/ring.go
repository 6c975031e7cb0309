package record

import (
	"sync"
	"sync/atomic"
)

const (
	// Kept is how many requests a Ring has, if its Recorder's Parts do not say.
	Kept = 4096
	// keptAttempts is how many attempts it keeps of each: the last ones.
	keptAttempts = 8
	// keptText is how many bytes of text it keeps of each request.
	keptText = 1024
)

// textParts are the most of each text: two ids, the method, the path, and what the client and the log
// were told.
var textParts = [...]int{128, 128, 24, 200, 288, 256}

// Ring has the newest requests, in memory whose size does not change. A request takes a number, which
// is one atomic addition, and then the lock of a slot, for which it waits only if the Ring has turned
// once meanwhile or somebody reads that slot.
type Ring struct {
	last  atomic.Uint64 // the number of the newest; the first is 1
	slots []slot
}

// slot is one request's place.
type slot struct {
	mu       sync.Mutex
	seq      uint64 // 0 while it is empty
	request  Request
	attempts [keptAttempts]Attempt
	ends     [len(textParts)]uint16 // of the texts, in text
	text     [keptText]byte
}

func newRing(kept int) *Ring { return &Ring{slots: make([]slot, kept)} }

func (g *Ring) at(seq uint64) *slot { return &g.slots[seq%uint64(len(g.slots))] }

// Last is the number of the newest request, 0 for none.
func (g *Ring) Last() uint64 { return g.last.Load() }

func (g *Ring) put(r *Request) {
	seq := g.last.Add(1)
	s := g.at(seq)
	s.mu.Lock()
	if s.seq < seq { // else this is late, and a newer one is there
		s.fill(r, seq)
	}
	s.mu.Unlock()
}

// texts are those that a slot copies.
func (r *Request) texts() [len(textParts)]*string {
	return [...]*string{&r.ID, &r.UpstreamID, &r.Method, &r.Path, &r.Message, &r.Cause}
}

func (s *slot) fill(r *Request, seq uint64) {
	s.seq, s.request = seq, *r
	n := copy(s.attempts[:], r.Attempts[max(0, len(r.Attempts)-keptAttempts):])
	s.request.Attempts = s.attempts[:n]
	end := 0
	for i, t := range s.request.texts() {
		end += copy(s.text[end:end+textParts[i]], *t)
		s.ends[i] = uint16(end)
		*t = "" // it is the teller's
	}
}

// entry copies what the slot has.
func (s *slot) entry() *Entry {
	e := &Entry{Seq: s.seq, Request: s.request}
	e.Attempts = append([]Attempt(nil), e.Attempts...)
	begin := uint16(0)
	for i, t := range e.texts() {
		*t = string(s.text[begin:s.ends[i]])
		begin = s.ends[i]
	}
	return e
}

// id is the request's, to be compared.
func (s *slot) id() []byte { return s.text[:s.ends[0]] }

// Newest returns up to limit requests that f lets through, the newest first, with numbers below before,
// and whether there may be more. 0 stands for after the newest.
func (g *Ring) Newest(before uint64, limit int, f *Filter) (list []*Entry, more bool) {
	if before == 0 || before > g.last.Load() {
		before = g.last.Load() + 1
	}
	list = []*Entry{}
	for seq := before - 1; seq > 0 && seq+Kept > g.last.Load(); seq-- {
		s := g.at(seq)
		s.mu.Lock()
		if s.seq == seq && f.Matches(&s.request) {
			if more = len(list) == limit; !more {
				list = append(list, s.entry())
			}
		}
		s.mu.Unlock()
		if more {
			break
		}
	}
	return list, more
}

// ByID returns the newest request with that id, nil without one.
func (g *Ring) ByID(id string) *Entry {
	last := g.last.Load()
	for seq := last; seq > 0 && seq+Kept > last; seq-- {
		s := g.at(seq)
		s.mu.Lock()
		var e *Entry
		if s.seq == seq && string(s.id()) == id {
			e = s.entry()
		}
		s.mu.Unlock()
		if e != nil {
			return e
		}
	}
	return nil
}

// BySeq returns the request with that number, nil if it is not there any more.
func (g *Ring) BySeq(seq uint64) *Entry {
	s := g.at(seq)
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq == 0 || s.seq != seq {
		return nil
	}
	return s.entry()
}

// View is a request in the Ring, for as long as the call that got it.
type View struct{ slot *slot }

// Request has all but the request's texts. It must not be changed or kept.
func (v View) Request() *Request { return &v.slot.request }

// Entry copies the request.
func (v View) Entry() *Entry { return v.slot.entry() }

// Since calls visit for each request with a number above from, in the order of their ends. It returns
// the number of the last, and how many were overwritten before they could be seen.
func (g *Ring) Since(from uint64, visit func(View)) (last, lost uint64) {
	newest := g.last.Load()
	for seq := from + 1; seq <= newest; seq++ {
		if oldest := g.last.Load(); oldest >= Kept && seq <= oldest-Kept {
			lost += oldest - Kept + 1 - seq
			seq = oldest - Kept + 1
		}
		s := g.at(seq)
		s.mu.Lock()
		have := s.seq
		if have == seq {
			visit(View{s})
		}
		s.mu.Unlock()
		switch {
		case have < seq: // it is being written
			return seq - 1, lost
		case have > seq:
			lost++
		}
		from = seq
	}
	return from, lost
}
