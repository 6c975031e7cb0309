package pool

import (
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A connection is used no more once it is older than connections.max_age, or its address is no
// longer one of the host's. A request that would take it from the pool closes it and takes another.
// While it is idle, the sweep that follows each lookup closes it. One in use is left alone.

// use is what a connection is doing.
type use int32

const (
	inUse use = iota
	isIdle
	isOver // the sweep has closed it; the pool finds out when it would take it
)

// life is a connection's part in this.
type life struct {
	address *address
	born    time.Time
	part    float64 // of connections.max_age that it lives
	use     atomic.Int32
	roster  *roster // nil before the connection can be used
	closed  atomic.Bool
}

func newLife(a *address) life {
	const whole = 1 << 20
	return life{address: a, born: time.Now(), part: float64(jittered(whole)) / whole}
}

// spent reports whether w may not be used any more.
func (w *watched) spent(now time.Time, maxAge time.Duration) bool {
	return w.address.gone.Load() || now.Sub(w.born) > time.Duration(float64(maxAge)*w.part)
}

// take has a request use w, an idle connection. False: it must not, and closes it.
func (w *watched) take(now time.Time, maxAge time.Duration) bool {
	return !w.spent(now, maxAge) && w.use.CompareAndSwap(int32(isIdle), int32(inUse))
}

// rest has w be idle. False: it must not be used again, and is closed.
func (w *watched) rest() bool {
	if w.address.gone.Load() {
		return false
	}
	w.use.Store(int32(isIdle))
	return true
}

// Close may be called by several goroutines, and more than once.
func (w *watched) Close() error {
	if !w.closed.Swap(true) && w.roster != nil {
		w.roster.remove(w)
	}
	return w.Conn.Close()
}

// roster has an upstream's open connections, each with the TLS over it.
type roster struct {
	mu   sync.Mutex
	open map[*watched]net.Conn
}

func (r *roster) add(w *watched, conn net.Conn) {
	w.roster = r
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[*watched]net.Conn{}
	}
	r.open[w] = conn
}

func (r *roster) remove(w *watched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, w)
}

// sweep closes the idle connections that are spent.
func (r *roster) sweep(maxAge time.Duration) {
	now := time.Now()
	for _, conn := range r.over(now, maxAge) {
		conn.Close()
	}
}

func (r *roster) over(now time.Time, maxAge time.Duration) (over []net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w, conn := range r.open {
		if w.spent(now, maxAge) && w.use.CompareAndSwap(int32(isIdle), int32(isOver)) {
			over = append(over, conn)
		}
	}
	return over
}

// AddressStatus is what is shown of one of an upstream's addresses.
type AddressStatus struct {
	Address     string `json:"address"`
	Connections int    `json:"connections"`
	// Gone: it is no longer one of the host's; its connections end with their requests.
	Gone bool `json:"gone"`
}

// status is of the known addresses, and of others that still have connections.
func (r *roster) status(known []*address) (all []AddressStatus, open, idle int) {
	count := make(map[*address]int, len(known))
	for _, a := range known {
		count[a] = 0
	}
	r.mu.Lock()
	for w := range r.open {
		count[w.address]++
		if use(w.use.Load()) == isIdle {
			idle++
		}
	}
	open = len(r.open)
	r.mu.Unlock()
	for a, n := range count {
		all = append(all, AddressStatus{a.at, n, a.gone.Load()})
	}
	slices.SortFunc(all, func(a, b AddressStatus) int { return strings.Compare(a.Address, b.Address) })
	return all, open, idle
}

func (r *roster) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}
