package pool

import (
	"net"
	"time"
)

// acquire takes a connection to the upstream: one of its own if it is to be fresh, else one of
// the pool.
func (u *Upstream) acquire(fresh bool, timeout time.Duration) (link, error) {
	if !fresh {
		return u.links.acquire(timeout)
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
