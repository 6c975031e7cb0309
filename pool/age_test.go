package pool

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/upstreamtest"
	"sluice/metrics"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// replicas are the servers behind one name, by address. An answer takes as long as its request's
// path says.
type replicas map[string]*upstreamtest.Raw

func newReplicas(t *testing.T, at ...string) replicas {
	all := replicas{}
	for _, a := range at {
		all[a] = upstreamtest.NewPiped(t, func(conn net.Conn, r *upstreamtest.Recorded) {
			d, _ := time.ParseDuration(strings.TrimPrefix(r.Target, "/"))
			time.Sleep(d)
			_, _ = io.WriteString(conn, okAnswer)
		})
	}
	return all
}

func (r replicas) dial(ctx context.Context, network, at string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(at)
	return r[host].Dial(ctx, network, at)
}

// accepted is how many connections each has had.
func (r replicas) accepted() map[string]int {
	n := map[string]int{}
	for at, raw := range r {
		n[at] = raw.Accepted()
	}
	return n
}

// fleet is an upstream whose host has several addresses.
type fleet struct {
	replicas
	resolver
	pool   *Pool
	target *Target
}

func newFleet(t *testing.T, maxAge string, at ...string) *fleet {
	f := &fleet{replicas: newReplicas(t, at...), resolver: resolver{found: strings.Join(at, " ")}}
	f.pool = New(metrics.New(), slog.New(slog.DiscardHandler), func() time.Duration { return 0 }, f.dial)
	f.pool.lookup = f.lookup
	t.Cleanup(func() { f.pool.Close(); time.Sleep(2 * idleConnection) }) // the pool's cleaner looks once more
	f.configure(t, maxAge)
	f.target.Upstream.names.turn.Store(^uint32(0))
	return f
}

func (f *fleet) configure(t *testing.T, maxAge string) {
	f.target = targetOf(t, f.pool, "connections: {max_age: "+maxAge+"}\nupstreams: {up: {base_url: http://up.test/v1}}\nmodels: {m: {targets: [{upstream: up}]}}\n")
}

// ask sends a request whose answer takes d.
func (f *fleet) ask(t *testing.T, d time.Duration) {
	x := Acquire()
	defer Release(x)
	defer x.Finish()
	x.Head = fmt.Appendf(nil, "POST /%s%sContent-Length: 0\r\n\r\n", d, f.target.Head)
	if err := x.Send(f.target, time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
		return
	}
	if b, err := io.ReadAll(x); string(b) != "ok" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// askAll sends n requests at once, the answers of which take d.
func (f *fleet) askAll(t *testing.T, n int, d time.Duration) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() { f.ask(t, d) })
	}
	all.Wait()
}

// connections are how many are open to each address, as they are shown.
func (f *fleet) connections() string {
	s := f.target.Upstream.Status()
	var all []string
	for _, a := range s.Addresses {
		text := fmt.Sprintf("%s %d", a.Address, a.Connections)
		if a.Gone {
			text += " gone"
		}
		all = append(all, text)
	}
	return fmt.Sprintf("%s; %d of %d idle", strings.Join(all, ", "), s.Idle, s.Connections)
}

// TestConnectionsHaveAnAge: one that is always in use by turns is replaced when it is old, and a
// request that outlasts the age is not disturbed.
func TestConnectionsHaveAnAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "5m", "10.0.0.1")
		for range 60 * 6 { // an hour
			f.ask(t, time.Second)
			time.Sleep(9 * time.Second)
		}
		if n := f.accepted()["10.0.0.1"]; n < 60/5 || n > 60/4+1 {
			t.Errorf("%d connections in an hour", n)
		}
		before := f.accepted()["10.0.0.1"]
		f.ask(t, 20*time.Minute)
		f.ask(t, 0)
		if n := f.accepted()["10.0.0.1"] - before; n > 2 {
			t.Errorf("%d connections for two requests", n)
		}
	})
}

// TestConnectionsDoNotCloseAtOnce, though they were opened at once.
func TestConnectionsDoNotCloseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 50
		f := newFleet(t, "5m", "10.0.0.1")
		most, last := 0, 0
		for i := range 12 * 6 { // six minutes
			f.askAll(t, many, time.Second)
			time.Sleep(4 * time.Second)
			n := f.accepted()["10.0.0.1"]
			if i > 0 {
				most = max(most, n-last)
			}
			last = n
		}
		if last < 2*many || most > many/2 {
			t.Errorf("%d connections in all, up to %d of them in five seconds", last, most)
		}
	})
}

// TestAnAgeOfAReload holds for the connections that there are.
func TestAnAgeOfAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "1h", "10.0.0.1")
		f.ask(t, 0)
		before := f.target.Upstream
		f.configure(t, "10s")
		time.Sleep(11 * time.Second)
		f.ask(t, 0)
		if n := f.accepted()["10.0.0.1"]; n != 2 || f.target.Upstream != before {
			t.Errorf("%d connections, another upstream: %t", n, f.target.Upstream != before)
		}
	})
}

// TestReplicas behind one name: each gets its share, a new one too, and one that is gone from the
// name is left.
func TestReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "5m", "10.0.0.1", "10.0.0.2", "10.0.0.3")
		f.set("10.0.0.1 10.0.0.2")
		f.askAll(t, 20, time.Second)
		if got, want := f.connections(), "10.0.0.1:80 10, 10.0.0.2:80 10; 20 of 20 idle"; got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		f.set("") // a failed lookup closes nothing
		time.Sleep(lookupEvery)
		f.ask(t, 0)
		synctest.Wait()
		if n := f.lookups(); n != 2 || !strings.HasSuffix(f.connections(), "20 of 20 idle") {
			t.Fatalf("%d lookups, %s", n, f.connections())
		}
		f.set("10.0.0.2 10.0.0.3")
		var long sync.WaitGroup
		long.Go(func() { f.askAll(t, 20, time.Minute) })
		time.Sleep(40 * time.Second) // they began a second after the lookup
		f.ask(t, 0)                  // has the name looked up, and may not wait for it
		synctest.Wait()
		f.askAll(t, 4, time.Second) // of which three at least need a new connection
		if got := f.byAddress(); got["10.0.0.1:80 gone"] != 10 || got["10.0.0.2:80"] < 11 || got["10.0.0.3:80"] < 1 || len(got) != 3 {
			t.Errorf("%v", got)
		}
		long.Wait()
		if got := f.byAddress(); got["10.0.0.2:80"] < 11 || got["10.0.0.3:80"] < 1 || len(got) != 2 {
			t.Errorf("%v", got)
		}
		left := f.accepted()["10.0.0.1"]
		for range 60 { // ten minutes
			f.askAll(t, 20, 10*time.Second)
		}
		s := f.target.Upstream.Status()
		for _, a := range s.Addresses {
			if a.Connections < 5 {
				t.Errorf("%s after two lifetimes", f.connections())
			}
		}
		if n := f.accepted()["10.0.0.1"]; n != left {
			t.Errorf("%d connections to a replica that is gone", n-left)
		}
	})
}

// byAddress is how many connections there are to each address.
func (f *fleet) byAddress() map[string]int {
	n := map[string]int{}
	for _, a := range f.target.Upstream.Status().Addresses {
		name := a.Address
		if a.Gone {
			name += " gone"
		}
		n[name] = a.Connections
	}
	return n
}

// TestAnIdleConnectionToAGoneAddress is closed without a request that would take it.
func TestAnIdleConnectionToAGoneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "5m", "10.0.0.1", "10.0.0.2")
		f.askAll(t, 2, time.Second)
		time.Sleep(20 * time.Second)
		f.set("10.0.0.1")
		f.ask(t, 15*time.Second) // one of them; the other is idle for 35 s, and for less than it may be
		f.ask(t, 0)
		synctest.Wait()
		if got, want := f.connections(), "10.0.0.1:80 1; 1 of 1 idle"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		f.askAll(t, 3, time.Second) // the pool finds what was closed under it
		if got, want := f.connections(), "10.0.0.1:80 3; 3 of 3 idle"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestFreshConnections go round the addresses too, and are closed after their exchange.
func TestFreshConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "5m", "10.0.0.1", "10.0.0.2")
		f.ask(t, 0)
		for range 3 {
			x := Acquire()
			x.Fresh = true
			x.Head = fmt.Appendf(nil, "POST /%sContent-Length: 0\r\n\r\n", f.target.Head)
			if err := x.Send(f.target, time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
			_, _ = io.ReadAll(x)
			x.Finish()
			Release(x)
		}
		if diff := cmp.Diff(map[string]int{"10.0.0.1": 2, "10.0.0.2": 2}, f.accepted()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if got := f.connections(); !strings.HasSuffix(got, "; 1 of 1 idle") {
			t.Error(got)
		}
	})
}

// TestTheNameOfAProxy is what is looked up where there is one.
func TestTheNameOfAProxy(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okAnswer))
	f := &forwarder{t: t, to: up.Address()}
	proxy := strings.Replace(f.start("http", nil), "127.0.0.1", "proxy.test", 1)
	r := &resolver{found: "127.0.0.1"}
	p := empty()
	p.lookup = r.lookup
	defer p.Close()
	target := targetOf(t, p, fmt.Sprintf("upstreams: {up: {base_url: http://up.test/v1, proxy: %q}}\nmodels: {m: {targets: [{upstream: up}]}}\n", proxy))
	if got, err := exchange(t, target, "x"); err != nil || got != "ok" {
		t.Fatalf("%q, %v", got, err)
	}
	if diff := cmp.Diff([]string{"proxy.test"}, r.asked); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
