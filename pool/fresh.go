package pool

import (
	"net"
	"time"
)

// acquire takes a connection to the upstream: one of its own if it is to be fresh, else one of
// the pool that may still be used.
func (u *Upstream) acquire(fresh bool, now time.Time, timeout time.Duration) (link, error) {
	maxAge := time.Duration(u.maxAge.Load())
	u.names.freshen(now, min(lookupEvery, maxAge))
	for !fresh {
		l, err := u.links.acquire(timeout)
		if err != nil || !l.reused() || rawConn(l.Conn()).(*watched).take(now, maxAge) {
			return l, err
		}
		l.release(false)
	}
	conn, err := u.connect(u.client.Addr, timeout)
	if err != nil {
		return nil, err
	}
	return freshLink{conn}, nil
}

// freshLink is a connection for one exchange. It does not join the pool afterwards, which would
// otherwise grow with each of them while its own connections are idle.
type freshLink struct{ conn net.Conn }

func (l freshLink) Conn() net.Conn { return l.conn }

func (freshLink) reused() bool { return false }

func (l freshLink) release(bool) { _ = l.conn.Close() }
