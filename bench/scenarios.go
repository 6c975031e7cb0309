package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// scenario is a kind of load.
type scenario struct {
	name  string
	about string
	conns int // at once
	body  int // bytes of a request's body
	rate  int // requests a second; 0 is as many as the connections can

	events int           // of a stream's answer; 0 is a plain one
	every  time.Duration // between them
	hold   bool          // streams are opened once and stay open; the turn is a look at them

	keys int // that the requests are spread over; sluice alone is measured with more than one
}

// unit is what the scenario's costs are divided by.
func (s *scenario) unit() string {
	if s.events > 0 {
		return "chunk"
	}
	return "request"
}

var scenarios = []scenario{
	{name: "chat-300", about: "300 B, 64 connections", conns: 64, body: 300},
	{name: "chat-10k", about: "10 KB, 64 connections", conns: 64, body: 10_000},
	{name: "chat-1m", about: "1 MB, 64 connections", conns: 64, body: 1_000_000},
	{name: "one-connection", about: "300 B, one connection", conns: 1, body: 300},
	{name: "rate-1000", about: "300 B, 1,000 requests a second", conns: 64, body: 300, rate: 1000},
	{name: "stream-full", about: "streams of 1,000 events at full speed, 16 connections", conns: 16, body: 300, events: 1000},
	{name: "stream-10ms", about: "streams with 10 ms between events, 64 connections", conns: 64, body: 300, events: 100, every: 10 * time.Millisecond},
	{name: "open-2000", about: "2,000 open streams, an event a second each", conns: 2000, body: 300, events: 1 << 30, every: time.Second, hold: true},
	{name: "keys-500", about: "300 B, 64 connections, 500 keys with limits", conns: 64, body: 300, keys: 500},
}

// turn is what one subject did in one round.
type turn struct {
	units    int // requests, or events
	took     time.Duration
	cpu      time.Duration // of the subject's processes
	p50, p99 time.Duration // of a request; 0 for streams
	rss      int64         // bytes, at the end
	perOpen  int64         // bytes for each open stream
}

func (t *turn) perUnit() float64 { return float64(t.cpu.Nanoseconds()) / 1e3 / float64(t.units) }

// result is all turns of a scenario: by subject, then by round.
type result struct {
	scenario
	subjects []string
	turns    map[string][]turn
}

// measure starts the subjects anew, and lets them take turns.
func measure(ctx context.Context, s *settings, sc *scenario, up *upstream, stdout io.Writer) (r *result, err error) {
	names := strings.Split(s.subjects, ",")
	if sc.keys > 1 {
		names = slices.DeleteFunc(names, func(n string) bool { return n != "direct" && n != "sluice" })
	}
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r = &result{scenario: *sc, turns: map[string][]turn{}}
	subjects := map[string]*subject{}
	defer func() {
		for _, sub := range subjects {
			err = errors.Join(err, sub.stop())
		}
	}()
	for _, name := range names {
		sub, err := start(ctx, name, dir, s, sc, up)
		if errors.Is(err, errNotInstalled) {
			fmt.Fprintf(stdout, "%-15s %v\n", sc.name, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		sub.base = sub.rss()
		subjects[name] = sub
		r.subjects = append(r.subjects, name)
	}
	for round := range s.rounds {
		for _, name := range r.subjects {
			t, err := subjects[name].turn(ctx, s, sc, up)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", name, round+1, err)
			}
			r.turns[name] = append(r.turns[name], t)
			fmt.Fprintf(stdout, "%-15s %-8s round %d: %8.0f %ss/s  %8.2f µs CPU each  p50 %-9v p99 %-9v RSS %d MB\n", sc.name, name, round+1,
				float64(t.units)/t.took.Seconds(), sc.unit(), t.perUnit(), t.p50.Round(time.Microsecond), t.p99.Round(time.Microsecond), t.rss>>20)
		}
	}
	return r, nil
}

// turn puts the scenario's load on the subject: a moment to warm up, then what is measured.
func (sub *subject) turn(ctx context.Context, s *settings, sc *scenario, up *upstream) (turn, error) {
	if sc.hold {
		return sub.lookAtOpen(ctx, s, sc, up)
	}
	load := func(d time.Duration) (loaded, error) { return sub.atRate(ctx, sc, d) }
	if sc.rate == 0 {
		clients, err := sub.connect(ctx, sc.conns)
		defer closeAll(clients)
		if err != nil {
			return turn{}, err
		}
		load = func(d time.Duration) (loaded, error) { return sub.closedLoop(ctx, sc, clients, d) }
	}
	if _, err := load(s.duration / 4); err != nil {
		return turn{}, err
	}
	cpu := sub.cpu()
	began := time.Now()
	l, err := load(s.duration)
	if err != nil {
		return turn{}, err
	}
	if l.units == 0 {
		return turn{}, errors.New("nothing was answered")
	}
	return turn{units: l.units, took: time.Since(began), cpu: sub.cpu() - cpu, p50: l.percentile(50), p99: l.percentile(99), rss: sub.rss()}, nil
}

// lookAtOpen opens all streams, waits until each has had an event, and looks at what events
// and open streams cost from then on.
func (sub *subject) lookAtOpen(ctx context.Context, s *settings, sc *scenario, up *upstream) (turn, error) {
	open, err := sub.open(ctx, sc)
	defer open.close()
	if err != nil {
		return turn{}, err
	}
	cpu, events := sub.cpu(), open.events()
	began := time.Now()
	if err := open.watch(ctx, max(s.duration, 2*sc.every)); err != nil {
		return turn{}, err
	}
	t := turn{units: open.events() - events, took: time.Since(began), cpu: sub.cpu() - cpu, rss: sub.rss()}
	t.perOpen = (t.rss - sub.base) / int64(sc.conns)
	return t, nil
}
