package pool

import (
	"cmp"
	"context"
	"net"
	"sync/atomic"
	"time"
)

// stagger is how long one address has for itself before the next is tried beside it (RFC 8305,
// section 5).
const stagger = 250 * time.Millisecond

// connect opens a TCP connection to one of the host's addresses.
func (n *names) connect(ctx context.Context) (*watched, error) {
	all, err := n.addresses(ctx)
	if err != nil {
		return nil, err
	}
	w, err := n.race(ctx, n.order(all))
	if err == nil {
		return w, nil
	}
	if others := n.newer(ctx, all); len(others) > 0 && ctx.Err() == nil {
		return n.race(ctx, n.order(others))
	}
	return nil, err
}

// dialled is how the attempt at one of the addresses ended.
type dialled struct {
	i    int
	conn net.Conn
	err  error
}

// race tries the addresses in order until one takes the connection. The next one is begun when one
// has failed, or after stagger.
func (n *names) race(ctx context.Context, order []*address) (*watched, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		won   atomic.Bool
		ends  = make(chan dialled, len(order)) // nobody waits for a reader
		ended = make([]bool, len(order))
		timer = time.NewTimer(stagger)
		err   error
	)
	defer timer.Stop()
	for begun, under := 0, 0; ; {
		switch over := ctx.Err(); {
		case begun < len(order) && over == nil:
			go n.try(ctx, begun, order[begun], &won, ends)
			begun, under = begun+1, under+1
			timer.Reset(stagger)
		case under == 0: // nothing is left to wait for
			return nil, cmp.Or(err, over)
		}
		select {
		case <-timer.C:
			continue
		case d := <-ends:
			ended[d.i], under = true, under-1
			if d.err == nil {
				n.passed(order[:d.i], ended)
				return watch(d.conn, order[d.i]), nil
			}
			order[d.i].failed.Store(max(1, n.now()))
			err = d.err
		}
	}
}

// try dials an address. Only the first connection of a race is used.
func (n *names) try(ctx context.Context, i int, a *address, won *atomic.Bool, ends chan<- dialled) {
	conn, err := n.dial(ctx, "tcp", a.at)
	if err == nil && !won.CompareAndSwap(false, true) {
		conn.Close()
		return
	}
	if err == nil && a.failed.Load() != 0 {
		a.failed.Store(0)
	}
	ends <- dialled{i, conn, err}
}

// passed notes that the addresses that began before the winner, and have not ended, failed: the next
// connection need not wait for them as well.
func (n *names) passed(before []*address, ended []bool) {
	for i, a := range before {
		if !ended[i] {
			a.failed.Store(max(1, n.now()))
		}
	}
}
