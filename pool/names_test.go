package pool

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// network is what a test's addresses do, and which of them are tried.
type network struct {
	mu     sync.Mutex
	hosts  map[string]func(ctx context.Context) error // by address; nil takes the connection at once
	tried  []string
	opened int
	closed int
}

func (n *network) dial(ctx context.Context, _, at string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(at)
	n.mu.Lock()
	n.tried = append(n.tried, host)
	meet := n.hosts[host]
	n.mu.Unlock()
	if meet != nil {
		if err := meet(ctx); err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
	}
	client, server := net.Pipe()
	server.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opened++
	return &noted{Conn: client, net: n}, nil
}

// takeTried returns what was tried since the last call.
func (n *network) takeTried() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	tried := n.tried
	n.tried = nil
	return strings.Join(tried, " ")
}

type noted struct {
	net.Conn
	net *network
}

func (n *noted) Close() error {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.net.closed++
	return n.Conn.Close()
}

func refuses(context.Context) error { return syscall.ECONNREFUSED }

func swallows(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// takes takes the connection after d, whatever the caller has done meanwhile.
func takes(d time.Duration) func(context.Context) error {
	return func(context.Context) error { time.Sleep(d); return nil }
}

// resolver answers with addresses, or fails where there are none.
type resolver struct {
	mu    sync.Mutex
	found string
	takes time.Duration
	asked []string
}

func (r *resolver) lookup(ctx context.Context, host string) (all []netip.Addr, err error) {
	r.mu.Lock()
	r.asked = append(r.asked, host)
	found, takes := r.found, r.takes
	r.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for text := range strings.FieldsSeq(found) {
		all = append(all, netip.MustParseAddr(text))
	}
	if all == nil {
		err = errors.New("no such host")
	}
	return all, err
}

func (r *resolver) set(found string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = found
}

func (r *resolver) lookups() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

func testNames(r *resolver, n *network) *names {
	names := newNames("up.test:80", r.lookup, n.dial, slog.New(slog.DiscardHandler), func() {})
	names.turn.Store(^uint32(0)) // so that the first begins with the first
	return names
}

// TestRace: what is tried, in which order, and how long a connection takes.
func TestRace(t *testing.T) {
	type hosts = map[string]func(context.Context) error
	for name, test := range map[string]struct {
		found  string
		hosts  hosts
		tried  string
		took   time.Duration
		cause  Cause
		fails  bool
		opened int
	}{
		"the first":                     {"10.0.0.1 10.0.0.2", nil, "10.0.0.1", 0, 0, false, 1},
		"the first swallows":            {"10.0.0.1 10.0.0.2", hosts{"10.0.0.1": swallows}, "10.0.0.1 10.0.0.2", stagger, 0, false, 1},
		"the first refuses":             {"10.0.0.1 10.0.0.2", hosts{"10.0.0.1": refuses}, "10.0.0.1 10.0.0.2", 0, 0, false, 1},
		"the first is slow":             {"10.0.0.1 10.0.0.2", hosts{"10.0.0.1": takes(400 * time.Millisecond)}, "10.0.0.1 10.0.0.2", stagger, 0, false, 2},
		"both are, the first less":      {"10.0.0.1 10.0.0.2", hosts{"10.0.0.1": takes(400 * time.Millisecond), "10.0.0.2": takes(time.Second)}, "10.0.0.1 10.0.0.2", 400 * time.Millisecond, 0, false, 2},
		"families alternate":            {"fd00::1 fd00::2 10.0.0.1", hosts{"fd00::1": swallows, "10.0.0.1": refuses}, "fd00::1 10.0.0.1 fd00::2", stagger, 0, false, 1},
		"the resolver's family leads":   {"10.0.0.1 fd00::1 10.0.0.2", hosts{"10.0.0.1": swallows}, "10.0.0.1 fd00::1", stagger, 0, false, 1},
		"all swallow":                   {"10.0.0.1 fd00::1", hosts{"10.0.0.1": swallows, "fd00::1": swallows}, "10.0.0.1 fd00::1", 2 * time.Second, ConnectTimeout, true, 0},
		"all refuse":                    {"10.0.0.1 10.0.0.2", hosts{"10.0.0.1": refuses, "10.0.0.2": refuses}, "10.0.0.1 10.0.0.2", 0, ConnectFailed, true, 0},
		"one swallows, the rest refuse": {"10.0.0.1 10.0.0.2", hosts{"10.0.0.1": swallows, "10.0.0.2": refuses}, "10.0.0.1 10.0.0.2", 2 * time.Second, ConnectTimeout, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, net := &resolver{found: test.found}, &network{hosts: test.hosts}
				names := testNames(r, net)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				began := time.Now()
				w, err := names.connect(ctx)
				took := time.Since(began)
				time.Sleep(10 * time.Second) // for those that are not used
				if tried := net.takeTried(); tried != test.tried || took != test.took || (err != nil) != test.fails {
					t.Errorf("tried %s, took %v, %v; want %s, %v", tried, took, err, test.tried, test.took)
				}
				if test.fails && connectError(err).Cause != test.cause {
					t.Errorf("%v is %v, not %v", err, connectError(err).Cause, test.cause)
				}
				if w != nil {
					w.Close()
				}
				if net.opened != test.opened || net.closed != test.opened {
					t.Errorf("%d connections were opened and %d closed, want %d", net.opened, net.closed, test.opened)
				}
			})
		})
	}
}

// TestARaceWithoutTime ends, though there was no time to begin it, or to go on with it.
func TestARaceWithoutTime(t *testing.T) {
	for name, test := range map[string]struct {
		before bool // the time is over before it begins
		tried  string
	}{
		"over before it begins": {true, ""},
		"over between two":      {false, "10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				net := &network{hosts: map[string]func(context.Context) error{
					"10.0.0.1": func(context.Context) error { cancel(); return syscall.ECONNREFUSED },
				}}
				names := testNames(&resolver{found: "10.0.0.1 10.0.0.2"}, net)
				all, err := names.addresses(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if test.before {
					cancel()
				}
				ended := make(chan error, 1)
				go func() {
					_, err := names.race(ctx, all)
					ended <- err
				}()
				select {
				case err = <-ended:
				case <-time.After(time.Minute):
					t.Fatal("it waits for nobody")
				}
				if tried := net.takeTried(); err == nil || tried != test.tried {
					t.Errorf("tried %q, and it ended with %v; want %q and an error", tried, err, test.tried)
				}
			})
		})
	}
}

// TestAFailedAddressGoesLast for a while.
func TestAFailedAddressGoesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := &network{hosts: map[string]func(context.Context) error{"10.0.0.1": swallows}}
		names := testNames(&resolver{found: "10.0.0.1 10.0.0.2 10.0.0.3"}, net)
		connect := func() string {
			w, err := names.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			synctest.Wait()
			return net.takeTried()
		}
		got := []string{connect(), connect(), connect(), connect(), connect()}
		want := []string{"10.0.0.1 10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.2", "10.0.0.2"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		time.Sleep(failedFor)
		if got := connect() + ", " + connect(); got != "10.0.0.3, 10.0.0.1 10.0.0.2" {
			t.Errorf("later: %s", got)
		}
	})
}

// TestConnectionsSpread over the addresses of the preferred family.
func TestConnectionsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := &network{}
		names := testNames(&resolver{found: "10.0.0.3 fd00::1 10.0.0.1 10.0.0.4 10.0.0.2"}, net)
		for range 40 {
			if _, err := names.connect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		count := map[string]int{}
		for at := range strings.FieldsSeq(net.takeTried()) {
			count[at]++
		}
		if diff := cmp.Diff(map[string]int{"10.0.0.1": 10, "10.0.0.2": 10, "10.0.0.3": 10, "10.0.0.4": 10}, count); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// TestLookups: how often a host is looked up, and what becomes of failures.
func TestLookups(t *testing.T) {
	connect := func(t *testing.T, names *names) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := names.connect(ctx)
		return err
	}
	for name, test := range map[string]func(t *testing.T, r *resolver, net *network, names *names){
		"one for all that wait": func(t *testing.T, r *resolver, _ *network, names *names) {
			r.takes = time.Second
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if err := connect(t, names); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if n := r.lookups(); n != 1 {
				t.Errorf("%d lookups", n)
			}
		},
		"none within the period": func(t *testing.T, r *resolver, _ *network, names *names) {
			for range 60 * 10 { // ten minutes
				names.freshen(time.Now(), lookupEvery)
				time.Sleep(time.Second)
			}
			if n := r.lookups(); n < 20 || n > 26 {
				t.Errorf("%d lookups in ten minutes", n)
			}
		},
		"the first fails": func(t *testing.T, r *resolver, _ *network, names *names) {
			r.set("")
			if err := connect(t, names); err == nil || connectError(err).Cause != ConnectFailed || !strings.Contains(err.Error(), "no such host") {
				t.Error(err)
			}
			r.set("10.0.0.1")
			if err := connect(t, names); err != nil {
				t.Error(err)
			}
		},
		"the first hangs": func(t *testing.T, r *resolver, _ *network, names *names) {
			r.takes = time.Hour
			began := time.Now()
			err := connect(t, names)
			if took := time.Since(began); err == nil || connectError(err).Cause != ConnectTimeout || took != 2*time.Second {
				t.Errorf("%v after %v", err, took)
			}
			call := names.look()
			<-call.done
			if took := time.Since(began); took != lookupTimeout || call.err == nil {
				t.Errorf("the lookup ended after %v with %v", took, call.err)
			}
		},
		"a later one fails": func(t *testing.T, r *resolver, net *network, names *names) {
			for _, found := range []string{"10.0.0.7", ""} {
				r.set(found)
				<-names.look().done
				if err := connect(t, names); err != nil {
					t.Error(err)
				}
			}
			if tried := net.takeTried(); tried != "10.0.0.7 10.0.0.7" || (*names.known.Load())[0].gone.Load() {
				t.Errorf("tried %s", tried)
			}
		},
		"all have moved": func(t *testing.T, r *resolver, net *network, names *names) {
			_ = connect(t, names)
			net.hosts = map[string]func(context.Context) error{"10.0.0.1": refuses, "10.0.0.2": refuses}
			net.takeTried()
			r.set("10.0.0.2 10.0.0.3")
			if err := connect(t, names); err == nil || r.lookups() != 1 {
				t.Errorf("%v, %d lookups within a second", err, r.lookups())
			}
			net.takeTried()
			time.Sleep(lookupPause)
			if err := connect(t, names); err != nil || r.lookups() != 2 {
				t.Errorf("%v, %d lookups", err, r.lookups())
			}
			if tried := net.takeTried(); !strings.HasSuffix(tried, " 10.0.0.3") {
				t.Errorf("tried %s", tried)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, net := &resolver{found: "10.0.0.1 10.0.0.2"}, &network{}
				test(t, r, net, testNames(r, net))
			})
		})
	}
}

// TestAnswersAreAdopted: addresses that stay keep what is known of them, the others are gone.
func TestAnswersAreAdopted(t *testing.T) {
	names := testNames(&resolver{}, nil)
	adopt := func(text string) (all []*address) {
		var found []netip.Addr
		for at := range strings.FieldsSeq(text) {
			found = append(found, netip.MustParseAddr(at))
		}
		names.adopt(found)
		return *names.known.Load()
	}
	old := adopt("10.0.0.2 10.0.0.1 ::ffff:10.0.0.1 fd00::1")
	var at []string
	for _, a := range old {
		at = append(at, a.at)
	}
	if diff := cmp.Diff([]string{"10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"}, at); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	next := adopt("fd00::1 10.0.0.2")
	if len(next) != 2 || next[0] != old[2] || next[1] != old[1] || !old[0].gone.Load() || old[1].gone.Load() {
		t.Errorf("%v became %v", old, next)
	}
	many := make([]netip.Addr, 3*mostAddresses)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	if names.adopt(many); len(*names.known.Load()) != mostAddresses {
		t.Errorf("%d addresses are kept", len(*names.known.Load()))
	}
}
