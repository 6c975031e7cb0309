package client

import (
	"errors"
	"sync/atomic"
	"time"
)

// slowest is how much of what is held for it a client must take within each timeouts.client.write
// while memory is short.
const slowest = 1 << 20

var errTooSlow = errors.New("the client takes what is held for it too slowly, and memory is short (limits.memory)")

// Pace writes to a client what the gateway holds in memory for it, and bounds how long that may
// take: bytes in memory cost as much as the time they stay there. The client's connection alone
// would wait timeouts.client.write for every few bytes.
type Pace struct {
	Conn *Conn
	// Atomic, for a stream's keep-alive is written from another goroutine.
	began atomic.Int64 // when something large began to be written; 0 while nothing is
	taken atomic.Int64 // bytes since then
}

// Start is called when something large begins to be written.
func (p *Pace) Start() {
	p.taken.Store(0)
	p.began.Store(time.Now().UnixNano())
}

// Stop is called when it has been.
func (p *Pace) Stop() { p.began.Store(0) }

// Write writes b.
func (p *Pace) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if p.late() {
			return n, errTooSlow
		}
		var m int
		m, err = p.Conn.Send(b[n:min(len(b), n+writePiece)])
		n += m
		p.taken.Add(int64(m))
	}
	return n, err
}

// late reports whether the client has taken too long. It may take what it likes while half of
// limits.memory is free.
func (p *Pace) late() bool {
	began := p.began.Load()
	memory := p.Conn.all.memory
	if began == 0 || memory.Limit() == 0 || memory.InFlight() <= memory.Limit()/2 {
		return false
	}
	may := p.Conn.all.writeTimeout()
	may += time.Duration(float64(may) * float64(p.taken.Load()) / slowest)
	return time.Since(time.Unix(0, began)) > may
}
