package admin

import "sync/atomic"

// limited counts what may be under way at once.
type limited struct {
	most int64
	now  atomic.Int64
}

// enter reports whether one more may begin. If so, leave is called at its end.
func (l *limited) enter() bool {
	if l.now.Add(1) > l.most {
		l.now.Add(-1)
		return false
	}
	return true
}

func (l *limited) leave() { l.now.Add(-1) }
