package pool

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookupEvery is how often the addresses of an upstream's host are looked up while requests
	// are sent to it.
	lookupEvery = 30 * time.Second
	// lookupTimeout bounds one lookup. Who needs its answer waits no longer than for a connection.
	lookupTimeout = 5 * time.Second
	// lookupPause is the least time between a lookup and one that is made because no address
	// could be connected to.
	lookupPause = time.Second
	// failedFor is how long an address that could not be connected to is tried after all others.
	failedFor = 30 * time.Second
	// mostAddresses bounds what is kept of an answer.
	mostAddresses = 1024
)

// Lookup finds the addresses of a host; tests put their own in. The first one's family is preferred.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

func lookupNetIP(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// address is one of those that a host has, or had.
type address struct {
	at     string // what is dialled
	ip     netip.Addr
	gone   atomic.Bool  // it is not in the host's newest answer
	failed atomic.Int64 // when it could not be connected to, on the clock of names; 0: it could
}

// names knows the addresses of the host that an upstream's connections go to: its own, or its
// proxy's. They are looked up by one goroutine at a time, and never by one that has a connection.
type names struct {
	host, port string
	lookup     Lookup // nil for a host that is an address itself, or that dial looks up
	dial       Dial
	log        *slog.Logger
	began      time.Time
	swept      func() // called after each lookup

	known atomic.Pointer[[]*address] // never empty; nil before the first answer
	due   atomic.Int64               // when the next lookup is, since began
	ended atomic.Int64               // when the newest ended
	turn  atomic.Uint32              // of the addresses

	mu      sync.Mutex
	current *lookupCall
}

// lookupCall is a lookup that is under way.
type lookupCall struct {
	done chan struct{}
	err  error
}

func newNames(hostPort string, lookup Lookup, dial Dial, log *slog.Logger, swept func()) *names {
	n := &names{lookup: lookup, dial: dial, log: log, began: time.Now(), swept: swept}
	n.host, n.port, _ = net.SplitHostPort(hostPort)
	n.turn.Store(rand.Uint32()) // gateways that start together begin with different addresses
	if _, err := netip.ParseAddr(n.host); err == nil || lookup == nil {
		n.lookup = nil
		n.known.Store(&[]*address{{at: hostPort}})
	}
	return n
}

func (n *names) now() int64 { return int64(time.Since(n.began)) }

// freshen begins a lookup if the time for one has come, and does not wait for it.
func (n *names) freshen(now time.Time, every time.Duration) {
	since, due := int64(now.Sub(n.began)), n.due.Load()
	if since >= due && n.due.CompareAndSwap(due, since+int64(jittered(every))) {
		n.look()
	}
}

// jittered is from four fifths of d up to d.
func jittered(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// look begins a lookup, or finds the one under way.
func (n *names) look() *lookupCall {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lookLocked()
}

// first is look, but nil if the first answer has come meanwhile.
func (n *names) first() *lookupCall {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known.Load() != nil {
		return nil
	}
	return n.lookLocked()
}

// lookLocked is called with mu held.
func (n *names) lookLocked() *lookupCall {
	if n.current == nil {
		n.current = &lookupCall{done: make(chan struct{})}
		go n.run(n.current)
	}
	return n.current
}

func (n *names) run(c *lookupCall) {
	if n.lookup != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
		defer cancel()
		found, err := n.lookup(ctx, n.host)
		if err == nil && len(found) == 0 {
			err = errors.New("the host has no address")
		}
		if err == nil {
			n.adopt(found)
		} else if c.err = err; n.known.Load() != nil {
			n.log.Warn("cannot look up an upstream's host; its last known addresses stay in use", "host", n.host, "error", err)
		}
		n.ended.Store(n.now())
	}
	n.mu.Lock()
	n.current = nil
	n.mu.Unlock()
	close(c.done)
	n.swept()
}

// adopt makes found the host's addresses. What is known of those that stay is kept.
func (n *names) adopt(found []netip.Addr) {
	old := map[netip.Addr]*address{}
	if known := n.known.Load(); known != nil {
		for _, a := range *known {
			old[a.ip] = a
		}
	}
	preferred := found[0].Unmap().Is4()
	sorted := make([]netip.Addr, len(found))
	for i, ip := range found {
		sorted[i] = ip.Unmap()
	}
	slices.SortFunc(sorted, func(a, b netip.Addr) int {
		if a.Is4() != b.Is4() {
			return map[bool]int{true: -1, false: 1}[a.Is4() == preferred]
		}
		return a.Compare(b)
	})
	sorted = slices.Compact(sorted)
	all := make([]*address, 0, len(sorted))
	for _, ip := range sorted[:min(len(sorted), mostAddresses)] {
		a := old[ip]
		if a == nil {
			a = &address{at: net.JoinHostPort(ip.String(), n.port), ip: ip}
		}
		delete(old, ip)
		all = append(all, a)
	}
	n.known.Store(&all)
	for _, a := range old {
		a.gone.Store(true)
	}
}

// addresses are the known ones, or those of the first answer, which is waited for.
func (n *names) addresses(ctx context.Context) ([]*address, error) {
	if known := n.known.Load(); known != nil {
		return *known, nil
	}
	c := n.first()
	if c == nil {
		return *n.known.Load(), nil
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if known := n.known.Load(); known != nil {
		return *known, nil
	}
	return nil, c.err
}

// newer looks the addresses up again, since none of those that were tried could be connected to, and
// returns the others.
func (n *names) newer(ctx context.Context, tried []*address) (others []*address) {
	if n.lookup == nil || n.now() < n.ended.Load()+int64(lookupPause) {
		return nil
	}
	select {
	case <-n.look().done:
	case <-ctx.Done(): // the next request finds the answer
	}
	for _, a := range *n.known.Load() {
		if !slices.Contains(tried, a) {
			others = append(others, a)
		}
	}
	return others
}

// order is the order in which addresses are tried: each connection begins with another one of the
// preferred family, the families alternate, and those that have failed of late are last.
func (n *names) order(all []*address) []*address {
	if len(all) == 1 {
		return all
	}
	i := 0
	for i < len(all) && all[i].ip.Is4() == all[0].ip.Is4() {
		i++
	}
	turn := n.turn.Add(1)
	preferred, others := rotated(all[:i], turn), rotated(all[i:], turn)
	ordered := make([]*address, 0, len(all))
	for i := range max(len(preferred), len(others)) {
		ordered = append(ordered, preferred[min(i, len(preferred)):min(i+1, len(preferred))]...)
		ordered = append(ordered, others[min(i, len(others)):min(i+1, len(others))]...)
	}
	now := n.now()
	slices.SortStableFunc(ordered, func(a, b *address) int {
		return cmp.Compare(a.penalty(now), b.penalty(now))
	})
	return ordered
}

func rotated(all []*address, turn uint32) []*address {
	if len(all) == 0 {
		return nil
	}
	at := int(turn % uint32(len(all))) // an int may be too small for turn
	return append(slices.Clone(all[at:]), all[:at]...)
}

// penalty is 1 for an address that has failed of late.
func (a *address) penalty(now int64) int {
	if failed := a.failed.Load(); failed > 0 && now < failed+int64(failedFor) {
		return 1
	}
	return 0
}
