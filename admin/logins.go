package admin

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// loginBurst is how many failed logins an address may have at once, and loginEvery the time
	// after which it may have one more.
	loginBurst = 10
	loginEvery = 5 * time.Second
	// maxAddresses bounds the table. Addresses beyond it share one entry.
	maxAddresses = 4096
)

// logins slows down addresses that fail to log in: a token bucket for each, of failures alone. A
// right token is never refused, so that nobody can lock the admin out from a shared address.
type logins struct {
	log    *slog.Logger
	failed prometheus.Counter

	mu        sync.Mutex
	emptyAt   map[netip.Prefix]time.Time // when the bucket has forgotten all failures
	forgotten time.Time                  // when the table was last swept
}

func newLogins(log *slog.Logger, failed prometheus.Counter) *logins {
	return &logins{log: log, failed: failed, emptyAt: map[netip.Prefix]time.Time{}}
}

// fail notes a failed login, and returns how long the address must wait before its next one is
// looked at; 0 if it need not.
func (l *logins) fail(now time.Time, remote, path string) (wait time.Duration) {
	l.failed.Inc()
	address := loginAddress(remote)
	l.mu.Lock()
	l.forget(now)
	if _, known := l.emptyAt[address]; !known && len(l.emptyAt) >= maxAddresses {
		address = netip.Prefix{}
	}
	emptyAt := l.emptyAt[address]
	if emptyAt.Before(now) {
		emptyAt = now
	}
	if wait = emptyAt.Sub(now) - (loginBurst-1)*loginEvery; wait <= 0 {
		l.emptyAt[address] = emptyAt.Add(loginEvery)
	}
	l.mu.Unlock()
	if wait > 0 {
		return wait // counted, but not logged: the log is not to be filled from outside
	}
	l.log.Warn("admin login failed: no token or code, or a wrong one", "address", remote, "path", path[:min(len(path), maxFieldShown)])
	return 0
}

// forget drops addresses that have no failures left, at most once every loginEvery.
func (l *logins) forget(now time.Time) {
	if now.Sub(l.forgotten) < loginEvery {
		return
	}
	l.forgotten = now
	for address, emptyAt := range l.emptyAt {
		if !emptyAt.After(now) {
			delete(l.emptyAt, address)
		}
	}
}

// loginAddress is what a client is known by: its address, or the /64 that an IPv6 client has to
// itself. The zero prefix stands for a client without an address.
func loginAddress(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	address, bits := at.Addr().Unmap().WithZone(""), 32
	if address.Is6() {
		bits = 64
	}
	prefix, _ := address.Prefix(bits) // cannot fail: bits fit
	return prefix
}
