package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// opened are streams that stay open.
type opened struct {
	conns []*client
	count atomic.Int64
	wg    sync.WaitGroup

	mu  sync.Mutex
	err error
}

// open opens the scenario's streams and waits until each has had its first event.
func (sub *subject) open(ctx context.Context, sc *scenario) (*opened, error) {
	o := new(opened)
	request := sub.request(sc, sub.keys[0])
	for range sc.conns {
		c, err := sub.dial(ctx)
		if err != nil {
			return o, err
		}
		o.conns = append(o.conns, c)
		if _, err := c.Write(request); err != nil {
			return o, err
		}
		first := make(chan struct{})
		o.wg.Go(func() { o.read(c, first) })
		// So many at once that the listener's queue is not what is measured.
		if len(o.conns)%100 == 0 {
			select {
			case <-first:
			case <-time.After(10 * time.Second):
				return o, errors.New("no first event within 10 s")
			}
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for o.count.Load() < int64(len(o.conns)) {
		if err := o.failed(); err != nil {
			return o, err
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return o, fmt.Errorf("%d events on %d streams after 20 s", o.count.Load(), len(o.conns))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return o, nil
}

func (o *opened) read(c *client, first chan struct{}) {
	fail := func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil && !errors.Is(err, net.ErrClosed) {
			o.err = err
		}
	}
	if _, err := c.head(); err != nil {
		fail(err)
		return
	}
	body, buf := newChunks(c.br), make([]byte, 1024)
	for n := 0; ; n++ {
		// An event of this size, alone, comes in one piece.
		m, err := body.Read(buf)
		if err != nil {
			fail(err)
			return
		}
		if bytes.HasSuffix(buf[:m], []byte("\n\n")) {
			o.count.Add(1)
		}
		if n == 0 {
			close(first)
		}
	}
}

func (o *opened) events() int { return int(o.count.Load()) }

func (o *opened) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// watch lets the streams run for d.
func (o *opened) watch(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
	}
	return o.failed()
}

func (o *opened) close() {
	for _, c := range o.conns {
		c.Close()
	}
	o.wg.Wait()
}
