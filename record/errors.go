package record

import (
	"slices"
	"sync/atomic"
	"time"
)

const (
	// keptEach is how many errors are kept of each kind, so that a flood of one does not push out the
	// others, and keepEvery how far apart they are at least, so that it costs little.
	keptEach  = 10
	keepEvery = 100 * time.Millisecond
)

// keptErrors are the newest errors of one kind.
type keptErrors struct {
	last atomic.Int64 // when one was kept, on the process's clock; 0 for never
	next atomic.Uint32
	kept [keptEach]atomic.Pointer[Entry]
}

// wants reports whether the one that happens now is to be kept.
func (k *keptErrors) wants(now time.Duration) bool {
	last := k.last.Load()
	return (last == 0 || now-time.Duration(last) >= keepEvery) && k.last.CompareAndSwap(last, int64(max(now, 1)))
}

func (k *keptErrors) keep(e *Entry) { k.kept[(k.next.Add(1)-1)%keptEach].Store(e) }

// LastErrors are requests that did not end in a complete answer with a status of success, the newest
// first, the last of each kind.
func (rec *Recorder) LastErrors() []*Entry {
	all := []*Entry{}
	for _, k := range rec.errors {
		for i := range k.kept {
			if e := k.kept[i].Load(); e != nil {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b *Entry) int { return b.Began.Compare(a.Began) })
	return all
}

// Kinds are the kinds of errors, in order.
func (rec *Recorder) Kinds() []string {
	kinds := make([]string, 0, len(rec.errors))
	for kind := range rec.errors {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return kinds
}
